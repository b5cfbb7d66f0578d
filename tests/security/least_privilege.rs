//! The service under the rights that deploy/least-privilege gives it: with all of them it works, without any one of them it says what it lacks.

use std::sync::{Arc, Mutex};

use async_nats::ConnectOptions;
use cdc_actors::message::{DeliveryId, EventKey, Record};
use cdc_actors::ports::{DedupStore, Failure, FailureClass, Target};
use daisi_cdc_consumer::adapters::redis::{RedisSettings, RedisStore};
use serde_json::Value;
use tempfile::TempDir;

use crate::shipped::{Accounts, PASSWORD, World, read, redis_server, shipped, until};
use crate::support::nats::nats_servers;
use crate::support::service::Service;

/// Feeds one event and one dead letter, sees both stored and settled, and finds nothing else in the log than that and `warned`.
async fn works(world: &World, service: Service, warned: &[&str]) {
    let before = (world.count("wa_stream").await, world.count("cdc_dead_letters").await);
    world.feed().await;
    until("the event and the dead letter are stored", async || {
        (world.count("wa_stream").await, world.count("cdc_dead_letters").await) == (before.0 + 1, before.1 + 1)
    })
    .await;
    until("everything is settled and the lag is known", async || {
        service.metric("cdc_consumer_in_flight", &[]) == 0.0
            && service.get("/metrics").1.contains("cdc_consumer_lag_seconds 0")
    })
    .await;
    let log = service.stop().text();
    for said in warned {
        assert!(log.contains(said), "{said} is not warned of: {log}");
    }
    for line in log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let message = line["msg"].as_str().unwrap();
        let known = ["dead letter", "field that this version does not know"];
        let expected = known.iter().chain(warned).any(|part| message.contains(part));
        assert!(line["level"] == "info" || expected, "something is refused or warned of: {line}");
    }
}

#[tokio::test]
async fn with_the_rights_that_it_is_given_it_works() {
    for binary in nats_servers() {
        let world = World::new(&binary).await;
        works(&world, world.service().started(), &[]).await;
    }
}

#[tokio::test]
async fn production_works_with_these_rights() {
    let config = shipped("../../k8s/overlays/production/config.yaml");
    for binary in nats_servers() {
        let world = World::new(&binary).await;
        // Servers elsewhere, and without TLS, as with the settings that are shipped beside the rights.
        let service = world.service_with(&config, &[("nats.tls.required", "false")]);
        works(&world, service.started(), &[]).await;
    }
}

#[tokio::test]
async fn a_bound_that_it_may_not_change_is_warned_of_and_kept() {
    for binary in nats_servers() {
        let world = World::new(&binary).await;
        let service = world.service_with(&shipped("config.yaml"), &[("source.max_ack_pending", "20000")]);
        works(
            &world,
            service.started(),
            &["keeps max_ack_pending 16384, 20000 is configured", "the NATS server complained"],
        )
        .await;
    }
}

#[tokio::test]
async fn what_decides_about_deliveries_must_be_as_configured() {
    let cases: [&[(&str, &str)]; 4] = [
        &[("source.ack_wait", "20s")],
        &[("source.max_deliver", "9")],
        &[("source.subjects", "sequin.db.>")],
        &[("source.ack_wait", "20s"), ("source.max_ack_pending", "20000")],
    ];
    for binary in nats_servers() {
        let world = World::new(&binary).await;
        let start = |case: &[(&str, &str)]| {
            // Time enough to come to the consumer.
            world.service_with(&shipped("config.yaml"), &[case, &[("start_timeout", "5s")]].concat())
        };
        let services: Vec<_> = cases.map(start).into();
        for (case, mut service) in cases.iter().zip(services) {
            assert_eq!(service.wait(), Some(69), "{case:?}: {}", service.log().text());
            let log = service.log().text();
            let right = "CONSUMER.DURABLE.CREATE.cdc_events_stream.cdc_consumers";
            assert!(log.contains("Permissions Violation") && log.contains(right), "{case:?}: {log}");
        }
    }
}

#[tokio::test]
async fn without_any_one_right_on_nats_it_says_which() {
    let rights = Accounts::rights("CONSUMER_NKEY");
    assert_eq!(rights.len(), 10, "{rights:?}");
    for binary in nats_servers() {
        let mut world = World::new(&binary).await;
        for right in &rights {
            let config = world.accounts.config(Some(("CONSUMER_NKEY", right)));
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
    let letters_may_not = [
        "$JS.API.STREAM.DELETE.cdc_dead_letters",
        "$JS.API.STREAM.PURGE.cdc_dead_letters",
        "$JS.API.STREAM.UPDATE.cdc_dead_letters",
        "$JS.API.STREAM.CREATE.another",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.MSG.GET.wa_stream",
        "$JS.API.STREAM.MSG.DELETE.cdc_events_stream",
        "$JS.API.STREAM.MSG.DELETE.wa_stream",
        "$JS.API.CONSUMER.DURABLE.CREATE.cdc_dead_letters.x",
        "$JS.API.CONSUMER.MSG.NEXT.cdc_events_stream.cdc_consumers",
        "$JS.ACK.x",
        "wa.CID1.a.chats",
        "cdc.dead_letters.messages.panic",
    ]
    .map(str::to_owned);
    let nobody_may_hear = ["wa.>", "sequin.>", "cdc.dead_letters.>", ">"];
    for binary in nats_servers() {
        let world = World::new(&binary).await;
        let users = [
            ("CONSUMER_NKEY", &consumer_may_not[..]),
            ("SEQUIN_NKEY", &sequin_may_not),
            ("DEAD_LETTERS_NKEY", &letters_may_not),
        ];
        for (user, subjects) in users {
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
