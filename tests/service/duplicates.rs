//! Events that come more than once.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::support::change::{Change, Input};
use crate::support::nats::nats_servers;
use crate::support::service::Service;
use crate::support::world::{PATIENCE, SOURCE, Stored, World};

const EVENTS: usize = 40;

fn inputs() -> Vec<Input> {
    (0..EVENTS).map(|i| Change::message(&format!("m-{i}")).at(100 + i as u64, 0).input()).collect()
}

fn keys(stored: &[Stored]) -> BTreeSet<&str> {
    stored.iter().map(|event| event.header("Nats-Msg-Id").unwrap()).collect()
}

fn duplicates(service: &Service) -> f64 {
    service.metric("cdc_consumer_events_total", &[r#"result="duplicate""#])
}

fn recognised_by_target(service: &Service) -> f64 {
    service.metric("cdc_consumer_target_duplicates_total", &[])
}

#[tokio::test]
async fn in_one_batch() {
    for server in nats_servers() {
        let world = World::on(&server).await;
        world.create_source().await;
        // Every event three times in a row, then all of them again, there before the service is.
        let once = inputs();
        let thrice: Vec<_> = once.iter().flat_map(|input| [input, input, input]).chain(&once).collect();
        world.feed(thrice.iter().copied()).await;
        let service = world.start();
        let (published, _) = world.adds_up(EVENTS, 0).await;
        assert_eq!(keys(&published).len(), EVENTS);
        service.until_told(4 * EVENTS);
        assert_eq!(duplicates(&service), (3 * EVENTS) as f64);
        service.stop();
    }
}

#[tokio::test]
async fn across_batches_by_the_records_in_redis() {
    let world = World::new().await;
    let service = world.start();
    let inputs = inputs();
    for round in 1..=3 {
        world.feed(&inputs).await;
        let (published, _) = world.adds_up(EVENTS, 0).await;
        assert_eq!(keys(&published).len(), EVENTS);
        service.until_told(round * EVENTS);
        assert_eq!(duplicates(&service), ((round - 1) * EVENTS) as f64);
    }
    // Redis knew, so the target was not asked.
    assert_eq!(recognised_by_target(&service), 0.0);
    assert_eq!(service.metric("cdc_consumer_redis_hit_total", &[r#"status="hit""#]), (2 * EVENTS) as f64);
    assert_eq!(service.metric("cdc_consumer_redis_hit_total", &[r#"status="miss""#]), EVENTS as f64);
    service.stop();
}

#[tokio::test]
async fn across_restarts_by_the_records_in_redis_then_by_the_targets_window() {
    for server in nats_servers() {
        let world = World::on(&server).await;
        let inputs = inputs();
        let service = world.start();
        world.feed(&inputs).await;
        let (first, _) = world.adds_up(EVENTS, 0).await;
        service.stop();

        world.feed(&inputs).await;
        let service = world.start();
        assert_eq!(world.adds_up(EVENTS, 0).await.0, first);
        service.until_told(EVENTS);
        assert_eq!((duplicates(&service), recognised_by_target(&service)), (EVENTS as f64, 0.0));
        service.stop();

        world.redis.command(&["FLUSHALL"]);
        world.feed(&inputs).await;
        let service = world.start();
        assert_eq!(world.adds_up(EVENTS, 0).await.0, first);
        service.until_told(EVENTS);
        assert_eq!((duplicates(&service), recognised_by_target(&service)), (EVENTS as f64, EVENTS as f64));
        service.stop();

        // What the target's window recognised is on record again.
        world.feed(&inputs).await;
        let service = world.start();
        assert_eq!(world.adds_up(EVENTS, 0).await.0, first);
        service.until_told(EVENTS);
        assert_eq!((duplicates(&service), recognised_by_target(&service)), (EVENTS as f64, 0.0));
        service.stop();
    }
}

#[tokio::test]
async fn across_a_crash_nothing_is_lost_or_doubled() {
    let mut world = World::new().await;
    world.set("source.ack_wait", "2s").create_source().await;
    // Nothing beyond these is taken in, nor any of them given up, while Redis takes no records.
    world.set("in_flight.messages", "1000").set("dedup.record_patience", "1m");
    let inputs: Vec<_> =
        (0..3_000).map(|i| Change::message(&format!("m-{}", i % 300)).at(100 + i, 0).input()).collect();
    let mut service = world.start();
    world.feed(&inputs[..300]).await;
    world.adds_up(300, 0).await;
    assert_eq!(world.redis.command(&["CLIENT", "PAUSE", "600000", "WRITE"]), "+OK");
    world.feed(&inputs[300..]).await;
    // In mid flight: something more is out, which nobody knows of but the target, and not everything.
    let deadline = Instant::now() + PATIENCE;
    while world.published().await.len() == 300 {
        assert!(Instant::now() < deadline, "nothing more is published");
    }
    service.kill();
    let out = world.published().await.len();
    assert!((301..=1_300).contains(&out), "{out} of {}", inputs.len());
    assert_eq!(world.redis.command(&["CLIENT", "UNPAUSE"]), "+OK");
    let service = world.start();
    let (published, _) = world.adds_up(inputs.len(), 0).await;
    assert_eq!(keys(&published).len(), inputs.len());
    service.stop();
}

#[tokio::test]
async fn by_the_memory_store() {
    let mut world = World::new().await;
    world.set("dedup.store", "memory");
    let service = world.start_in_process();
    let inputs = inputs();
    world.feed(inputs.iter().chain(&inputs)).await;
    let (published, _) = world.adds_up(EVENTS, 0).await;
    assert_eq!(keys(&published).len(), EVENTS);
    service.until_told(2 * EVENTS);
    assert_eq!(duplicates(&service), EVENTS as f64);
    service.stop();
    assert_eq!(world.redis.command(&["DBSIZE"]), ":0");
}

#[tokio::test]
async fn a_stream_created_anew_is_another_stream() {
    let world = World::new().await;
    let inputs = inputs();
    let service = world.start();
    world.feed(&inputs).await;
    world.adds_up(EVENTS, 0).await;
    service.stop();
    // Its records point into a target that is gone: they mean nothing for the new one.
    world.jetstream().delete_stream(crate::support::world::TARGET).await.unwrap();
    world.jetstream().delete_stream(SOURCE).await.unwrap();
    world.create_source().await;
    world.feed(&inputs).await;
    let service = world.start();
    let (published, _) = world.adds_up(EVENTS, 0).await;
    assert_eq!(keys(&published).len(), EVENTS);
    service.stop();
}
