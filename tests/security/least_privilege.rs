//! The service under the rights that deploy/least-privilege gives it: with all of them it works, without any one of them it says what it lacks.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions};
use cdc_actors::message::{DeliveryId, EventKey, Record};
use cdc_actors::ports::{DedupStore, Failure, FailureClass, Target};
use daisi_cdc_consumer::adapters::redis::{RedisSettings, RedisStore};
use nkeys::KeyPair;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::bench::event;
use crate::support::nats::{NatsServer, nats_servers};
use crate::support::redis::RedisServer;
use crate::support::service::{Service, Settings};

/// How long anything may take that should happen soon.
const PATIENCE: Duration = Duration::from_secs(30);
/// The password of the user of Redis.
const PASSWORD: &str = "a-password";

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/least-privilege").join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(shipped(file)).unwrap()
}

/// The accounts as shipped, with keys of the test's own in place of variables of the environment.
struct Accounts {
    keys: [(&'static str, KeyPair); 4],
}

impl Accounts {
    fn new() -> Self {
        let names = ["CONSUMER_NKEY", "SEQUIN_NKEY", "OPERATOR_NKEY", "SYSTEM_NKEY"];
        Self { keys: names.map(|name| (name, KeyPair::new_user())) }
    }

    /// What the consumer may do, in the order of the file.
    fn rights() -> Vec<String> {
        let text = read("nats-accounts.conf");
        let consumer = text.split("$CONSUMER_NKEY").nth(1).unwrap().split("$SEQUIN_NKEY").next().unwrap();
        let lines = consumer.lines().filter(|line| !line.trim_start().starts_with('#'));
        lines.flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// The server's configuration, without one right of the consumer.
    fn config(&self, without: Option<&str>) -> String {
        let mut text = read("nats-accounts.conf");
        if let Some(right) = without {
            // An allow list must not become empty, or it allows everything.
            text = text.replacen(&format!("\"{right}\""), "\"nothing.at.all\"", 1);
        }
        let keys = self.keys.iter().map(|(name, key)| format!("{name}: {}\n", key.public_key()));
        format!("{}{text}", keys.collect::<String>())
    }

    fn key(&self, name: &str) -> &KeyPair {
        &self.keys.iter().find(|(known, _)| *known == name).unwrap().1
    }

    async fn client(&self, name: &str, url: &str) -> Client {
        ConnectOptions::with_nkey(self.key(name).seed().unwrap()).connect(url).await.unwrap()
    }
}

/// Servers with nothing but the rights as shipped, streams that the operator has created, and the settings as shipped.
struct World {
    accounts: Accounts,
    nats: NatsServer,
    redis: RedisServer,
    operator: Client,
    directory: TempDir,
    fed: std::cell::Cell<u64>,
}

impl World {
    async fn new(binary: &Path) -> Self {
        let (accounts, directory) = (Accounts::new(), TempDir::new().unwrap());
        let nats = NatsServer::start_with(binary, &accounts.config(None));
        let operator = accounts.client("OPERATOR_NKEY", &nats.url()).await;
        std::fs::write(directory.path().join("nats.nk"), accounts.key("CONSUMER_NKEY").seed().unwrap()).unwrap();
        std::fs::write(directory.path().join("redis"), PASSWORD).unwrap();
        let redis = redis_server(&directory);
        let world = Self { accounts, nats, redis, operator, directory, fed: 0.into() };
        for stream in ["cdc_events_stream", "wa_stream", "cdc_dead_letters"] {
            let config = serde_json::from_str(&read(&format!("streams/{stream}.json"))).unwrap();
            world.create(&format!("STREAM.CREATE.{stream}"), config).await;
        }
        let consumer: Value = serde_json::from_str(&read("streams/cdc_consumers.json")).unwrap();
        let request = json!({ "stream_name": "cdc_events_stream", "config": consumer });
        world.create("CONSUMER.DURABLE.CREATE.cdc_events_stream.cdc_consumers", request).await;
        world
    }

    async fn create(&self, operation: &str, request: Value) {
        let answer = self.operator.request(format!("$JS.API.{operation}"), request.to_string().into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert!(answer.get("error").is_none(), "{operation}: {answer}");
    }

    /// What differs from the settings as shipped: where things are.
    fn settings(&self) -> Settings {
        let secret = |name: &str| self.directory.path().join(name).display().to_string();
        [
            ("nats.url", self.nats.url()),
            ("nats.tls.ca_file", String::new()),
            ("nats.nkey_seed_file", secret("nats.nk")),
            ("dedup.url", self.redis.url()),
            ("dedup.tls.ca_file", String::new()),
            ("dedup.password_file", secret("redis")),
            ("http.listen", "127.0.0.1:0".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn service(&self) -> Service {
        Service::spawn(&self.settings(), &["run", "--config", shipped("config.yaml").to_str().unwrap()])
    }

    /// Feeds one event that is published and one that becomes a dead letter, as Sequin does.
    async fn feed(&self) {
        let number = self.fed.replace(self.fed.get() + 1);
        let sequin = self.accounts.client("SEQUIN_NKEY", &self.nats.url()).await;
        let (subject, payload) = event(number, "CID1");
        sequin.publish(subject.clone(), payload.into()).await.unwrap();
        sequin.publish(subject, "no JSON".into()).await.unwrap();
        sequin.flush().await.unwrap();
    }

    async fn count(&self, stream: &str) -> u64 {
        let answer = self.operator.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await.unwrap();
        serde_json::from_slice::<Value>(&answer.payload).unwrap()["state"]["messages"].as_u64().unwrap()
    }
}

fn redis_server(directory: &TempDir) -> RedisServer {
    let acl = directory.path().join("users.acl");
    let hash: String = Sha256::digest(PASSWORD).iter().map(|byte| format!("{byte:02x}")).collect();
    let admin = "user admin on >admin ~* &* +@all\n";
    std::fs::write(&acl, read("redis-users.acl").replace(&"0".repeat(64), &hash) + admin).unwrap();
    RedisServer::start_with(&["--aclfile", acl.to_str().unwrap()])
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn with_the_rights_that_it_is_given_it_works() {
    for binary in nats_servers() {
        let world = World::new(&binary).await;
        let service = world.service().started();
        world.feed().await;
        until("the event and the dead letter are stored", async || {
            (world.count("wa_stream").await, world.count("cdc_dead_letters").await) == (1, 1)
        })
        .await;
        until("everything is settled and the lag is known", async || {
            service.metric("cdc_consumer_in_flight", &[]) == 0.0
                && service.get("/metrics").1.contains("cdc_consumer_lag_seconds 0")
        })
        .await;
        let log = service.stop().text();
        for line in log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            let message = line["msg"].as_str().unwrap();
            let expected =
                ["dead letter", "field that this version does not know"].iter().any(|part| message.contains(part));
            assert!(line["level"] == "info" || expected, "something is refused or warned of: {line}");
        }
    }
}

#[tokio::test]
async fn without_any_one_right_on_nats_it_says_which() {
    let rights = Accounts::rights();
    assert_eq!(rights.len(), 10, "{rights:?}");
    for binary in nats_servers() {
        let mut world = World::new(&binary).await;
        for right in &rights {
            let config = world.accounts.config(Some(right));
            world.nats.reload(&config);
            world.nats.restart();
            let service = world.service();
            world.feed().await;
            let stem = right.trim_end_matches('>');
            until(&format!("{right} is missed"), async || {
                let log = service.log().text();
                log.lines().any(|line| line.contains("Permissions Violation") && line.contains(stem))
            })
            .await;
        }
    }
}

#[tokio::test]
async fn what_it_does_not_need_is_refused_by_nats() {
    let (stream, consumer) = ("cdc_events_stream", "cdc_events_stream.cdc_consumers");
    let consumer_may_not = [
        format!("$JS.API.STREAM.DELETE.{stream}"),
        format!("$JS.API.STREAM.UPDATE.{stream}"),
        format!("$JS.API.STREAM.PURGE.{stream}"),
        format!("$JS.API.STREAM.MSG.DELETE.{stream}"),
        format!("$JS.API.CONSUMER.DELETE.{consumer}"),
        format!("$JS.API.CONSUMER.DURABLE.CREATE.{consumer}"),
        "$JS.API.STREAM.CREATE.another".to_owned(),
        "$JS.API.STREAM.LIST".to_owned(),
        "$JS.API.STREAM.MSG.GET.wa_stream".to_owned(),
        "$JS.API.STREAM.MSG.GET.cdc_dead_letters".to_owned(),
        "sequin.db.s.messages.insert".to_owned(),
        "$SYS.REQ.SERVER.PING".to_owned(),
    ];
    let sequin_may_not =
        ["wa.CID1.a.chats", "cdc.dead_letters.messages.panic", "$JS.API.STREAM.LIST", "$JS.ACK.x"].map(str::to_owned);
    let nobody_may_hear = ["wa.>", "sequin.>", "cdc.dead_letters.>", ">"];
    for binary in nats_servers() {
        let world = World::new(&binary).await;
        for (user, subjects) in [("CONSUMER_NKEY", &consumer_may_not[..]), ("SEQUIN_NKEY", &sequin_may_not)] {
            let refusals = Arc::new(Mutex::new(String::new()));
            let seen = refusals.clone();
            let options = ConnectOptions::with_nkey(world.accounts.key(user).seed().unwrap());
            let options = options.event_callback(move |event| {
                seen.lock().unwrap().push_str(&event.to_string());
                std::future::ready(())
            });
            let client = options.connect(world.nats.url()).await.unwrap();
            for subject in subjects {
                client.publish(subject.clone(), "{}".into()).await.unwrap();
            }
            let mut heard = Vec::new();
            for subject in nobody_may_hear {
                heard.push(client.subscribe(subject).await.unwrap());
            }
            let all = subjects.iter().map(String::as_str).chain(nobody_may_hear);
            for subject in all {
                let refused = async || refusals.lock().unwrap().contains(&format!("\"{subject}\""));
                until(&format!("{user} is refused {subject}"), refused).await;
            }
        }
    }
}

/// Every call that the store knows.
async fn everything(store: &RedisStore) -> Vec<Failure> {
    let key = EventKey::new("k").unwrap();
    let record = Record { stream_created: 5, generation: 1, sequence: 9 };
    let suspect = DeliveryId { stream_created: 5, sequence: 9, timestamp: 7 };
    let recorded = match store.record(vec![(key.clone(), record)]).await {
        Ok(mut results) => results.remove(0),
        Err(failure) => Err(failure),
    };
    let behind = Target { created: 5, last_sequence: 8 };
    let asked = store.warnings().await.and_then(|warnings| match warnings.first() {
        Some(warning) => Err(Failure::new("ask for INFO", FailureClass::Denied, warning.clone())),
        None => Ok(()),
    });
    let results = [
        recorded,
        store.check(vec![key]).await.map(drop),
        store.highest(5).await.map(drop),
        store.reconcile(behind).await.map(drop),
        store.markers(vec![suspect]).await.map(drop),
        store.set_markers(vec![(suspect, 1)]).await,
        store.set_markers(vec![(suspect, 0)]).await,
        asked,
    ];
    results.into_iter().filter_map(Result::err).collect()
}

#[tokio::test]
async fn without_any_one_right_on_redis_it_says_which() {
    let directory = TempDir::new().unwrap();
    let server = redis_server(&directory);
    let admin =
        deadpool_redis::redis::Client::open(format!("redis://admin:admin@127.0.0.1:{}", server.port())).unwrap();
    let mut admin = admin.get_multiplexed_async_connection().await.unwrap();
    let mut change = async |rule: &str| {
        let mut command = deadpool_redis::redis::cmd("ACL");
        command.arg("SETUSER").arg("cdc").arg(rule).exec_async(&mut admin).await.unwrap();
    };
    let settings = RedisSettings {
        user: Some("cdc".to_owned()),
        password: Some(PASSWORD.into()),
        ..RedisSettings::new(server.url())
    };
    let store = RedisStore::new(&settings).unwrap();
    assert!(everything(&store).await.is_empty(), "all of them are enough");
    let acl = read("redis-users.acl");
    let commands: Vec<&str> = acl.split_whitespace().filter_map(|rule| rule.strip_prefix('+')).collect();
    assert_eq!(commands.len(), 8, "{commands:?}");
    for command in commands {
        change(&format!("-{command}")).await;
        let failures = everything(&store).await;
        let named = |failure: &Failure| {
            // What a script may not do, Redis 7.0 says without an error code of its own.
            let refused = matches!(failure.class, FailureClass::Denied | FailureClass::Protocol);
            refused && failure.cause.to_string().to_lowercase().contains(command)
        };
        assert!(failures.iter().any(named), "{command} is not missed: {failures:?}");
        change(&format!("+{command}")).await;
    }
    change("resetkeys").await;
    let failures = everything(&store).await;
    assert!(
        failures.iter().any(|failure| failure.class == FailureClass::Denied),
        "the keys are not missed: {failures:?}"
    );
    change("~dedup:*").await;
    assert!(everything(&store).await.is_empty(), "all of them are enough again");
}

#[tokio::test]
async fn what_it_does_not_need_is_refused_by_redis() {
    let directory = TempDir::new().unwrap();
    let server = redis_server(&directory);
    let url = server.url().replace("://", &format!("://cdc:{PASSWORD}@"));
    let user = deadpool_redis::redis::Client::open(url).unwrap();
    let mut user = user.get_multiplexed_async_connection().await.unwrap();
    for command in [
        &["KEYS", "*"][..],
        &["SCAN", "0"],
        &["FLUSHALL"],
        &["CONFIG", "GET", "*"],
        &["ACL", "LIST"],
        &["SUBSCRIBE", "x"],
        &["GET", "another:key"],
        &["SET", "another:key", "x"],
        &["EVAL", "return redis.call('FLUSHALL')", "0"],
        &["EVAL", "return redis.call('GET', KEYS[1])", "1", "another:key"],
    ] {
        let mut sent = deadpool_redis::redis::cmd(command[0]);
        let answer = sent.arg(&command[1..]).exec_async(&mut user).await;
        assert!(answer.is_err(), "{command:?} is not refused");
    }
    let stranger = deadpool_redis::redis::Client::open(server.url()).unwrap();
    let mut stranger = stranger.get_multiplexed_async_connection().await.unwrap();
    assert!(deadpool_redis::redis::cmd("PING").exec_async(&mut stranger).await.is_err(), "nobody is let in");
}
