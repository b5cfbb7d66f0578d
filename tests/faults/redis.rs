//! The dedup store fails.

use std::time::{Duration, Instant};

use super::support::bench::{Bench, Consumer, eventually};

#[tokio::test]
async fn whoever_is_away_at_the_start_is_told_until_it_is_there() {
    let mut bench = Bench::start().await;
    bench.redis.kill();
    let consumer = Consumer::starting(&bench.settings(&[])).await;
    let up = r#"cdc_consumer_dependency_up{dependency="dedup"}"#;
    consumer.until_metric(up, |value| value == 0.0).await;
    assert_eq!(consumer.readiness(), (503, vec!["service".to_owned(), "dedup".to_owned()]));
    assert_eq!(consumer.get("/healthz").0, 200, "a new process would fare no better");
    bench.redis.restart();
    eventually("ready", async || (consumer.readiness() == (200, vec![])).then_some(())).await;
    assert_eq!(consumer.metrics().value(up), 1.0);
    // With bypass nobody waits for it in the end, and it is found to be away by use.
    bench.redis.kill();
    let more = [("DEDUP__WHEN_UNAVAILABLE", "bypass"), ("START_TIMEOUT", "1s"), ("SOURCE__CONSUMER", "second")];
    let consumer = bench.consumer(&more).await;
    assert_eq!((consumer.readiness(), consumer.metrics().value(up)), ((200, vec![]), 1.0));
}

#[tokio::test]
async fn what_waits_is_told_while_the_service_waits_itself() {
    let mut bench = Bench::start().await;
    bench.consumer(&[]).await.kill();
    // Its last request must not be answered any more.
    let source = bench.js.get_stream("cdc_events_stream").await.unwrap();
    let asked = async || source.consumer_info("cdc_consumers").await.unwrap().num_waiting == 0;
    eventually("nobody asks", async || asked().await.then_some(())).await;
    bench.feed(5).await;
    bench.redis.kill();
    let consumer = Consumer::starting(&bench.settings(&[])).await;
    let waiting = async || consumer.metrics().find("cdc_consumer_pending").filter(|waiting| *waiting == 5.0);
    eventually("what waits is told", waiting).await;
    assert!(consumer.metrics().value("cdc_consumer_lag_seconds") > 0.0);
}

#[tokio::test]
async fn redis_away_for_ten_seconds_under_load() {
    let mut bench = Bench::start().await;
    let consumer = bench.consumer(&[]).await;
    let load = bench.load();
    bench.until_target(200).await;
    eventually("ready", async || (consumer.readiness() == (200, vec![])).then_some(())).await;
    assert_eq!(consumer.metrics().value(r#"cdc_consumer_dependency_up{dependency="dedup"}"#), 1.0);

    bench.redis.kill();
    let away = Instant::now();
    consumer.until_metric(r#"cdc_consumer_paused{reason="dedup"}"#, |value| value == 1.0).await;
    eventually("the feed goes on for ten seconds", async || {
        consumer.assert_unready("dedup");
        let metrics = consumer.metrics();
        assert_eq!(metrics.value(r#"cdc_consumer_paused{reason="dedup"}"#), 1.0);
        assert_eq!(metrics.value(r#"cdc_consumer_dependency_up{dependency="dedup"}"#), 0.0);
        assert!(metrics.value(r#"cdc_consumer_consecutive_failures{dependency="dedup"}"#) >= 1.0);
        assert_eq!(consumer.get("/healthz").0, 200, "retrying is progress");
        tokio::time::sleep(Duration::from_millis(200)).await;
        (away.elapsed() >= Duration::from_secs(10)).then_some(())
    })
    .await;
    bench.redis.restart();

    eventually("ready again", async || (consumer.readiness().0 == 200).then_some(())).await;
    let while_away = bench.count("wa_stream").await;
    bench.until_target(while_away + 100).await;
    load.stop().await;
    bench.assert_once_each().await;
    consumer.until_idle().await;
    // What is acknowledged is told of a moment later.
    eventually("all are told of", async || {
        let of = |result| format!(r#"cdc_consumer_events_total{{table="messages",result="{result}"}}"#);
        let metrics = consumer.metrics();
        let told = ["processed", "duplicate"].map(|result| metrics.value(&of(result)));
        (told.iter().sum::<f64>() >= bench.fed() as f64).then_some(())
    })
    .await;
    let metrics = consumer.metrics();
    assert_eq!(metrics.value(r#"cdc_consumer_paused{reason="dedup"}"#), 0.0);
    assert_eq!(metrics.value(r#"cdc_consumer_dependency_up{dependency="dedup"}"#), 1.0);
    assert_eq!(metrics.value(r#"cdc_consumer_consecutive_failures{dependency="dedup"}"#), 0.0);
    assert!(metrics.value("cdc_consumer_dedup_errors_total") >= 2.0);
    assert_eq!(metrics.value("cdc_consumer_in_flight_bytes"), 0.0);
    assert_eq!(metrics.value("cdc_consumer_dedup_bypassed_total"), 0.0);
}

#[tokio::test]
async fn a_frozen_redis_is_noticed_and_survived() {
    let bench = Bench::start().await;
    let consumer = bench.consumer(&[]).await;
    let load = bench.load();
    bench.until_target(100).await;
    bench.redis.stop();
    consumer.until_metric(r#"cdc_consumer_dependency_up{dependency="dedup"}"#, |value| value == 0.0).await;
    consumer.assert_unready("dedup");
    bench.redis.cont();
    eventually("ready again", async || (consumer.readiness().0 == 200).then_some(())).await;
    load.stop().await;
    bench.assert_once_each().await;
    consumer.until_idle().await;
}

#[tokio::test]
async fn bypassing_a_redis_that_is_away_loses_nothing() {
    let mut bench = Bench::start().await;
    // Nothing comes a second time, which would be one more check.
    let more =
        [("DEDUP__WHEN_UNAVAILABLE", "bypass"), ("DEDUP__RECORD_PATIENCE", "200ms"), ("SOURCE__ACK_WAIT", "60s")];
    let consumer = bench.consumer(&more).await;
    bench.feed(100).await;
    bench.until_target(100).await;
    bench.redis.kill();
    bench.feed(300).await;
    bench.until_target(400).await;
    consumer.until_metric("cdc_consumer_dedup_bypassed_total", |value| value >= 300.0).await;
    consumer.until_metric("cdc_consumer_dedup_unrecorded_total", |value| value >= 300.0).await;
    let metrics = consumer.metrics();
    assert_eq!(metrics.value(r#"cdc_consumer_paused{reason="dedup"}"#), 0.0);
    assert_eq!(metrics.value(r#"cdc_consumer_dependency_up{dependency="dedup"}"#), 0.0);
    bench.redis.restart();
    consumer.until_metric(r#"cdc_consumer_dependency_up{dependency="dedup"}"#, |value| value == 1.0).await;
    let bypassed = consumer.metrics().value("cdc_consumer_dedup_bypassed_total");
    bench.feed(100).await;
    bench.assert_once_each().await;
    consumer.until_idle().await;
    let metrics = consumer.metrics();
    assert_eq!(metrics.value("cdc_consumer_dedup_bypassed_total"), bypassed, "checks are made again");
    assert_eq!(metrics.value(r#"cdc_consumer_redis_hit_total{status="miss"}"#), 200.0);
}
