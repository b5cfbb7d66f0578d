//! What deploy/least-privilege ships, on real servers: accounts, users, streams and settings as they are there.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions};
use nkeys::KeyPair;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::bench::event;
use crate::support::nats::NatsServer;
use crate::support::redis::RedisServer;
use crate::support::service::{Service, Settings};

/// How long anything may take that should happen soon.
const PATIENCE: Duration = Duration::from_secs(30);
/// The password of the user of Redis.
pub const PASSWORD: &str = "a-password";

pub fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/least-privilege").join(file)
}

pub fn read(file: &str) -> String {
    std::fs::read_to_string(shipped(file)).unwrap()
}

/// The accounts as shipped, with keys of the test's own in place of variables of the environment.
pub struct Accounts {
    keys: [(&'static str, KeyPair); 5],
}

impl Accounts {
    pub fn new() -> Self {
        let names = ["CONSUMER_NKEY", "SEQUIN_NKEY", "DEAD_LETTERS_NKEY", "OPERATOR_NKEY", "SYSTEM_NKEY"];
        Self { keys: names.map(|name| (name, KeyPair::new_user())) }
    }

    /// What a user may do, in the order of the file.
    pub fn rights(user: &str) -> Vec<String> {
        let text = read("nats-accounts.conf");
        let (_, from) = text.split_once(&format!("${user}")).unwrap();
        let lines = from.split("nkey:").next().unwrap().lines().filter(|line| !line.trim_start().starts_with('#'));
        lines.flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// The server's configuration, without one right of one user.
    pub fn config(&self, without: Option<(&str, &str)>) -> String {
        let mut text = read("nats-accounts.conf");
        if let Some((user, right)) = without {
            let (before, from) = text.split_once(&format!("${user}")).unwrap();
            // An allow list must not become empty, or it allows everything.
            let from = from.replacen(&format!("\"{right}\""), "\"nothing.at.all\"", 1);
            text = format!("{before}${user}{from}");
        }
        let keys = self.keys.iter().map(|(name, key)| format!("{name}: {}\n", key.public_key()));
        format!("{}{text}", keys.collect::<String>())
    }

    pub fn key(&self, name: &str) -> &KeyPair {
        &self.keys.iter().find(|(known, _)| *known == name).unwrap().1
    }

    pub async fn client(&self, name: &str, url: &str) -> Client {
        ConnectOptions::with_nkey(self.key(name).seed().unwrap()).connect(url).await.unwrap()
    }
}

/// Servers with nothing but the rights as shipped, streams that the operator has created, and the settings as shipped.
pub struct World {
    pub accounts: Accounts,
    pub nats: NatsServer,
    redis: RedisServer,
    pub operator: Client,
    directory: TempDir,
    fed: std::cell::Cell<u64>,
}

impl World {
    pub async fn new(binary: &Path) -> Self {
        let (accounts, directory) = (Accounts::new(), TempDir::new().unwrap());
        let nats = NatsServer::start_with(binary, &accounts.config(None));
        let operator = accounts.client("OPERATOR_NKEY", &nats.url()).await;
        for (file, user) in [("nats.nk", "CONSUMER_NKEY"), ("letters.nk", "DEAD_LETTERS_NKEY")] {
            std::fs::write(directory.path().join(file), accounts.key(user).seed().unwrap()).unwrap();
        }
        std::fs::write(directory.path().join("redis"), PASSWORD).unwrap();
        let redis = redis_server(&directory);
        let world = Self { accounts, nats, redis, operator, directory, fed: 0.into() };
        for stream in ["cdc_events_stream", "wa_stream", "cdc_dead_letters", "cdc_dead_letters_replays"] {
            let config = serde_json::from_str(&read(&format!("streams/{stream}.json"))).unwrap();
            world.create(&format!("STREAM.CREATE.{stream}"), config).await;
        }
        let consumer: Value = serde_json::from_str(&read("streams/cdc_consumers.json")).unwrap();
        let request = json!({ "stream_name": "cdc_events_stream", "config": consumer });
        world.create("CONSUMER.DURABLE.CREATE.cdc_events_stream.cdc_consumers", request).await;
        world
    }

    pub async fn create(&self, operation: &str, request: Value) {
        let answer = self.operator.request(format!("$JS.API.{operation}"), request.to_string().into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert!(answer.get("error").is_none(), "{operation}: {answer}");
    }

    /// What differs from the settings as shipped: where things are.
    pub fn settings(&self) -> Settings {
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

    /// The service with the settings as shipped.
    pub fn service(&self) -> Service {
        self.service_with(&shipped("config.yaml"), &[])
    }

    /// The service with a file of settings, and more of them.
    pub fn service_with(&self, config: &Path, more: &[(&str, &str)]) -> Service {
        let mut settings = self.settings();
        settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Service::spawn(&settings, &["run", "--config", config.to_str().unwrap()])
    }

    /// Where things are for whoever looks after dead letters, who needs nothing of Redis.
    pub fn letters_settings(&self) -> Settings {
        let seed = self.directory.path().join("letters.nk").display().to_string();
        let more = [
            ("nats.tls.required", "false".to_owned()),
            ("nats.nkey_seed_file", seed),
            ("nats.inbox_prefix", "_INBOX_letters".to_owned()),
            ("dedup.user", String::new()),
            ("dedup.password_file", String::new()),
        ];
        let mut settings = self.settings();
        settings.extend(more.map(|(name, value)| (name.to_owned(), value)));
        settings
    }

    /// Feeds one event that is published and one that becomes a dead letter, as Sequin does.
    pub async fn feed(&self) {
        let number = self.fed.replace(self.fed.get() + 1);
        let sequin = self.accounts.client("SEQUIN_NKEY", &self.nats.url()).await;
        let (subject, payload) = event(number, "CID1");
        sequin.publish(subject.clone(), payload.into()).await.unwrap();
        sequin.publish(subject, "no JSON".into()).await.unwrap();
        sequin.flush().await.unwrap();
    }

    pub async fn count(&self, stream: &str) -> u64 {
        let answer = self.operator.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await.unwrap();
        serde_json::from_slice::<Value>(&answer.payload).unwrap()["state"]["messages"].as_u64().unwrap()
    }
}

pub fn redis_server(directory: &TempDir) -> RedisServer {
    let acl = directory.path().join("users.acl");
    let hash: String = Sha256::digest(PASSWORD).iter().map(|byte| format!("{byte:02x}")).collect();
    let admin = "user admin on >admin ~* &* +@all\n";
    std::fs::write(&acl, read("redis-users.acl").replace(&"0".repeat(64), &hash) + admin).unwrap();
    RedisServer::start_with(&["--aclfile", acl.to_str().unwrap()])
}

pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
