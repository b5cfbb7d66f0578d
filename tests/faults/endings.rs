//! The process ends: asked to, killed, or because it gave up.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull;

use super::support::bench::{Bench, Consumer, eventually};

#[tokio::test]
async fn sigterm_under_load_drains_and_the_next_run_finishes_the_rest() {
    let bench = Bench::start().await;
    let mut first = bench.consumer(&[]).await;
    let load = bench.load();
    bench.until_target(300).await;
    first.signal("TERM");
    assert_eq!(first.ended().await, Some(0));
    let log = first.log();
    assert!(log.contains("drained: everything in flight is settled"), "{log}");
    // What was drained is settled: every event that came out has been acknowledged. The server has the acks by now; when it
    // counts them is its own affair.
    let stream = bench.js.get_stream("cdc_events_stream").await.unwrap();
    let pulls = stream.get_consumer::<pull::Config>("cdc_consumers").await.unwrap();
    let stored = bench.count("wa_stream").await;
    eventually("every event that came out is acknowledged", async || {
        (pulls.get_info().await.unwrap().ack_floor.stream_sequence == stored).then_some(())
    })
    .await;

    let second = bench.consumer(&[]).await;
    bench.until_target(stored + 100).await;
    load.stop().await;
    bench.assert_once_each().await;
    second.until_idle().await;
}

#[tokio::test]
async fn sigkill_under_load_loses_nothing_and_doubles_nothing() {
    let bench = Bench::start().await;
    let load = bench.load();
    for round in 1..=3 {
        let consumer = bench.consumer(&[]).await;
        let before = bench.count("wa_stream").await;
        bench.until_target(before + 100).await;
        if round < 3 {
            consumer.kill();
            continue;
        }
        load.stop().await;
        bench.assert_once_each().await;
        consumer.until_idle().await;
        break;
    }
}

#[tokio::test]
async fn the_guard_ends_a_service_whose_redis_is_gone_for_good() {
    let mut bench = Bench::start().await;
    let mut consumer = bench
        .consumer(&[("GUARD__MAX_CONSECUTIVE_FAILURES", "3"), ("GUARD__MIN_DURATION", "1s"), ("SHUTDOWN__GRACE", "2s")])
        .await;
    bench.feed(50).await;
    bench.until_target(50).await;
    // Before anything can have failed: it does while the rest is fed.
    let started = Instant::now();
    bench.redis.kill();
    bench.feed(50).await;
    assert_eq!(consumer.ended().await, Some(70));
    assert!(started.elapsed() >= Duration::from_secs(1), "not before min_duration");
    assert!(consumer.log().contains("guard tripped"));
    assert_eq!(bench.count("wa_stream").await, 50);

    bench.redis.restart();
    let consumer = bench.consumer(&[]).await;
    bench.assert_once_each().await;
    consumer.until_idle().await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (signal, status) in [("TERM", 143), ("INT", 130)] {
        let mut bench = Bench::start().await;
        let mut consumer: Consumer = bench.consumer(&[("SHUTDOWN__GRACE", "10m")]).await;
        bench.feed(10).await;
        bench.until_target(10).await;
        bench.redis.kill();
        bench.feed(10).await;
        consumer.until_metric(r#"cdc_consumer_paused{reason="dedup"}"#, |value| value == 1.0).await;
        consumer.signal(signal);
        eventually("it is shutting down", async || {
            let (status, reasons) = consumer.readiness();
            (status == 503 && reasons.iter().any(|reason| reason == "service")).then_some(())
        })
        .await;
        consumer.signal(signal);
        // Its end is waited for, and for less long than the grace that it has.
        assert_eq!(consumer.ended().await, Some(status));
    }
}
