//! What the settings do to streams, consumer and connections.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use crate::support::change::Change;
use crate::support::nats::{NatsServer, nats_servers};
use crate::support::redis::RedisServer;
use crate::support::service::command;
use crate::support::world::{CONSUMER, DEAD_LETTERS, PATIENCE, SOURCE, TARGET, World};

async fn stream(world: &World, name: &str) -> Config {
    world.jetstream().get_stream(name).await.unwrap().cached_info().config.clone()
}

async fn consumer(world: &World) -> pull::Config {
    let stream = world.jetstream().get_stream(SOURCE).await.unwrap();
    let consumer: PullConsumer = stream.get_consumer(CONSUMER).await.unwrap();
    let config = &consumer.cached_info().config;
    pull::Config {
        ack_policy: config.ack_policy,
        ack_wait: config.ack_wait,
        max_deliver: config.max_deliver,
        max_ack_pending: config.max_ack_pending,
        filter_subject: config.filter_subject.clone(),
        ..Default::default()
    }
}

#[tokio::test]
async fn streams_and_consumer_are_created_as_configured_and_the_consumer_is_kept_up_to_date() {
    const DAY: Duration = Duration::from_secs(86_400);
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        world.start().stop();
        let source = stream(&world, SOURCE).await;
        assert_eq!((source.subjects, source.max_age), (vec!["sequin.>".to_owned()], 7 * DAY));
        assert_eq!((source.retention, source.storage), (RetentionPolicy::Limits, StorageType::File));
        let target = stream(&world, TARGET).await;
        assert_eq!((target.subjects, target.max_age), (vec!["wa.>".to_owned()], 7 * DAY));
        assert_eq!((target.duplicate_window, target.discard), (Duration::from_secs(120), DiscardPolicy::Old));
        let letters = stream(&world, DEAD_LETTERS).await;
        assert_eq!((letters.subjects, letters.max_age), (vec!["cdc.dead_letters.>".to_owned()], 30 * DAY));
        let found = consumer(&world).await;
        assert_eq!((found.ack_policy, found.ack_wait), (AckPolicy::Explicit, Duration::from_secs(30)));
        assert_eq!((found.max_deliver, found.max_ack_pending), (-1, 5_000));
        assert_eq!(found.filter_subject, "sequin.>");

        // The streams stay as they are, the consumer follows.
        let changed = [("source.ack_wait", "45s"), ("source.max_ack_pending", "77"), ("target.max_age", "1d")];
        world.set_all(&changed).start().stop();
        assert_eq!(stream(&world, TARGET).await.max_age, 7 * DAY);
        let found = consumer(&world).await;
        assert_eq!((found.ack_wait, found.max_ack_pending), (Duration::from_secs(45), 77));

        // Nothing can be promised with a target that forgets within twice ack_wait.
        world.set_all(&[("source.ack_wait", "90s"), ("target.duplicate_window", "5m")]);
        let refused = command(&world.settings, &["run"], b"");
        assert_eq!(refused.status.code(), Some(78), "{}", String::from_utf8_lossy(&refused.stderr));
        assert_eq!(consumer(&world).await.ack_wait, Duration::from_secs(45));
    }
}

#[tokio::test]
async fn a_workqueue_of_several_subjects_is_empty_in_the_end() {
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        world.set("source.retention", "workqueue").set("source.subjects", "sequin.daisi_db.>,sequin.changes.>");
        let service = world.start();
        let change = |i: u64| Change::message(&format!("m-{i}")).at(i, 0);
        let inputs = (0..200).map(|i| {
            let mut input = change(i).input();
            if i % 2 == 0 {
                input.subject = change(i).old_subject();
            }
            input
        });
        world.feed(&inputs.collect::<Vec<_>>()).await;
        world.adds_up(200, 0).await;
        let source = world.jetstream().get_stream(SOURCE).await.unwrap();
        assert_eq!(source.cached_info().state.messages, 0);
        assert_eq!(source.cached_info().config.subjects.len(), 2);
        service.stop();
    }
}

#[tokio::test]
async fn two_replicas_share_the_work_and_publish_everything_once() {
    let mut world = World::new().await;
    world.set("source.batch", "50").create_source().await;
    let inputs: Vec<_> = (0..4_000).map(|i| Change::message(&format!("m-{}", i % 500)).at(i, 0).input()).collect();
    let (one, two) = (world.start(), world.start_in_process());
    // Whoever came later might find nothing left to do.
    let deadline = Instant::now() + PATIENCE;
    let source = world.jetstream().get_stream(SOURCE).await.unwrap();
    let mut shared: PullConsumer = source.get_consumer(CONSUMER).await.unwrap();
    while shared.info().await.unwrap().num_waiting < 2 {
        assert!(Instant::now() < deadline, "only one of them asks for messages");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Every event comes twice, so that both meet what the other has published.
    world.feed(inputs.iter().chain(&inputs)).await;
    let (published, _) = world.adds_up(inputs.len(), 0).await;
    let keys: BTreeSet<_> = published.iter().map(|event| event.header("Nats-Msg-Id")).collect();
    assert_eq!(keys.len(), inputs.len());
    let labels = [r#"result="processed""#];
    let shares = [&one, &two].map(|service| service.metric("cdc_consumer_events_total", &labels));
    assert!(shares.iter().all(|share| *share > 0.0), "{shares:?}");
    one.stop();
    two.stop();
}

#[tokio::test]
async fn secrets_open_doors_and_are_never_logged() {
    const SECRETS: [&str; 2] = ["nats-s3cret", "redis-s3cret"];
    let server = &nats_servers()[0];
    let nats = NatsServer::start_with(server, &format!("authorization {{ user: cdc, password: {:?} }}", SECRETS[0]));
    let redis = RedisServer::start_with(&["--requirepass", SECRETS[1]]);
    let mut world = World::new().await;
    let directory = tempfile::TempDir::new().unwrap();
    let [nats_file, redis_file] = SECRETS.map(|secret| {
        let file = directory.path().join(secret);
        std::fs::write(&file, format!("{secret}\n")).unwrap();
        file.to_str().unwrap().to_owned()
    });
    let in_url = |url: String, user: &str, secret: &str| url.replace("://", &format!("://{user}:{secret}@"));
    let plain = world.settings.clone();
    world.set("log.level", "trace");
    world
        .set("nats.url", &in_url(nats.url(), "cdc", SECRETS[0]))
        .set("dedup.url", &in_url(redis.url(), "", SECRETS[1]));
    let urls = world.settings.clone();
    world.settings = plain;
    world.set("log.level", "trace").set("nats.url", &nats.url()).set("dedup.url", &redis.url());
    world.set("nats.user", "cdc").set("nats.password_file", &nats_file).set("dedup.password_file", &redis_file);
    let files = world.settings.clone();
    for settings in [urls, files] {
        world.settings = settings;
        let log = world.start().stop();
        assert!(!log.text().contains("s3cret"), "{}", log.text());
        let said = command(&world.settings, &["check"], b"");
        assert_eq!(said.status.code(), Some(0));
        assert!(!String::from_utf8_lossy(&said.stdout).contains("s3cret"));
    }
    // A wrong one is a reason not to start, and is not shown either.
    let (nats_url, redis_url) = (nats.url(), redis.url());
    for (name, wrong) in
        [("nats.url", in_url(nats_url, "cdc", "wrong-s3cret")), ("dedup.url", in_url(redis_url, "", "wrong-s3cret"))]
    {
        let mut settings = world.settings.clone();
        for other in ["nats.user", "nats.password_file", "dedup.password_file"] {
            let belongs = other.split('.').next() == name.split('.').next();
            settings.retain(|own, _| own != other || !belongs);
        }
        settings.insert(name.to_owned(), wrong);
        settings.insert("start_timeout".to_owned(), "1s".to_owned());
        let refused = command(&settings, &["run"], b"");
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(matches!(refused.status.code(), Some(69 | 78)), "{name}: {:?} {said}", refused.status);
        assert!(said.contains("could not start") && !said.contains("s3cret"), "{said}");
    }
}
