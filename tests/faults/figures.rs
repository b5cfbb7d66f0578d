//! What the service tells about itself.

use super::support::bench::{Bench, Nats, event, eventually};
use super::support::redis::RedisServer;

const OTHER: &str = "sequin.changes.daisi_db.daisi.invoices.insert";

#[tokio::test]
async fn every_metric_has_the_right_value_after_a_known_mix() {
    let bench = Bench::start().await;
    // Nothing comes a second time by itself, however slow the machine is.
    let consumer = bench.consumer(&[("SOURCE__ACK_WAIT", "60s")]).await;
    bench.feed(50).await;
    bench.until_target(50).await;
    consumer.until_idle().await;
    // Five come a second time under another id: their records drop them.
    for number in 0..5 {
        bench.feed_one(event(number, "CID1"), &format!("again-{number}")).await;
    }
    // Two come a third time after Redis has forgotten them: the target drops them.
    eventually("the five are settled", async || {
        (consumer.metrics().value(r#"cdc_consumer_events_total{table="messages",result="duplicate"}"#) == 5.0)
            .then_some(())
    })
    .await;
    let forget = "for _, key in ipairs(redis.call('KEYS', 'dedup:daisi_db:*')) do redis.call('DEL', key) end return 1";
    bench.redis.command(&["EVAL", forget, "0"]);
    for number in 10..12 {
        bench.feed_one(event(number, "CID1"), &format!("third-{number}")).await;
    }
    for number in 0..4 {
        bench.feed_one((OTHER.to_owned(), b"{}".to_vec()), &format!("other-{number}")).await;
    }
    let messages = "sequin.changes.daisi_db.daisi.messages.update".to_owned();
    for number in 0..3 {
        bench.feed_one((messages.clone(), b"{not json".to_vec()), &format!("poison-{number}")).await;
    }
    // A field that nobody knows, and a subject that contradicts the metadata.
    let (_, payload) = event(900, "CID1");
    let payload =
        String::from_utf8(payload).unwrap().replace(r#""status":"pending""#, r#""colour":"red","status":"x""#);
    let chats = "sequin.changes.daisi_db.daisi.chats.update".to_owned();
    bench.feed_one((chats, payload.into_bytes()), "mismatch").await;
    // One that comes after a newer one of its row.
    bench.feed_one(event(60, "CID1"), "late").await;
    bench.until_target(52).await;
    consumer.until_idle().await;
    eventually("all is settled", async || {
        let metrics = consumer.metrics();
        let settled = ["processed", "duplicate", "skipped", "dead_lettered"].map(|result| {
            ["messages", "chats", "agents", "other"]
                .map(|table| {
                    metrics.value(&format!(r#"cdc_consumer_events_total{{table="{table}",result="{result}"}}"#))
                })
                .iter()
                .sum::<f64>()
        });
        (settled == [52.0, 7.0, 4.0, 3.0]).then_some(())
    })
    .await;

    let metrics = consumer.metrics();
    let expected = [
        (r#"cdc_consumer_events_total{table="messages",result="processed"}"#, 52.0),
        (r#"cdc_consumer_events_total{table="messages",result="duplicate"}"#, 7.0),
        (r#"cdc_consumer_events_total{table="other",result="skipped"}"#, 4.0),
        (r#"cdc_consumer_events_total{table="chats",result="processed"}"#, 0.0),
        (r#"cdc_consumer_events_total{table="agents",result="processed"}"#, 0.0),
        (r#"cdc_consumer_processing_seconds_count{table="messages"}"#, 62.0),
        (r#"cdc_consumer_commit_to_publish_seconds_count{table="messages"}"#, 52.0),
        (r#"cdc_consumer_processing_seconds_bucket{table="messages",le="+Inf"}"#, 62.0),
        ("cdc_consumer_lag_seconds", 0.0),
        ("cdc_consumer_pending", 0.0),
        ("cdc_consumer_in_flight", 0.0),
        ("cdc_consumer_in_flight_bytes", 0.0),
        (r#"cdc_consumer_redis_hit_total{status="hit"}"#, 5.0),
        (r#"cdc_consumer_redis_hit_total{status="miss"}"#, 54.0),
        ("cdc_consumer_publish_errors_total", 0.0),
        ("cdc_consumer_dedup_errors_total", 0.0),
        ("cdc_consumer_dedup_bypassed_total", 0.0),
        ("cdc_consumer_dedup_unrecorded_total", 0.0),
        (r#"cdc_consumer_redelivered_total{table="messages"}"#, 0.0),
        (r#"cdc_consumer_target_duplicates_total{table="messages"}"#, 2.0),
        // The two that Redis had forgotten came after newer ones of their rows, too, and were not stored again.
        (r#"cdc_consumer_late_total{table="messages",certainty="true"}"#, 1.0),
        (r#"cdc_consumer_late_total{table="messages",certainty="unknown"}"#, 0.0),
        (r#"cdc_consumer_dead_letters_total{table="messages",reason="not_json"}"#, 3.0),
        (r#"cdc_consumer_unhandled_fields_total{table="messages",field_name="colour"}"#, 1.0),
        ("cdc_consumer_subject_mismatch_total", 1.0),
        ("cdc_consumer_target_regressions_total", 0.0),
        (r#"cdc_consumer_source_stalls_total{kind="silent"}"#, 0.0),
        (r#"cdc_consumer_source_stalls_total{kind="passed"}"#, 0.0),
        (r#"cdc_consumer_consecutive_failures{dependency="source"}"#, 0.0),
        (r#"cdc_consumer_consecutive_failures{dependency="target"}"#, 0.0),
        (r#"cdc_consumer_consecutive_failures{dependency="dedup"}"#, 0.0),
        (r#"cdc_consumer_dependency_up{dependency="source"}"#, 1.0),
        (r#"cdc_consumer_dependency_up{dependency="target"}"#, 1.0),
        (r#"cdc_consumer_dependency_up{dependency="dedup"}"#, 1.0),
        (r#"cdc_consumer_dependency_up{dependency="dead_letter"}"#, 1.0),
        ("cdc_consumer_nats_reconnects_total", 0.0),
        (r#"cdc_consumer_paused{reason="dedup"}"#, 0.0),
        (r#"cdc_consumer_paused{reason="target"}"#, 0.0),
        (r#"cdc_consumer_paused{reason="reconcile"}"#, 0.0),
        (r#"cdc_consumer_paused{reason="suspect"}"#, 0.0),
        (r#"cdc_consumer_paused{reason="shutdown"}"#, 0.0),
    ];
    for (sample, value) in expected {
        assert_eq!(metrics.find(sample), Some(value), "{sample}\n{}", metrics.0);
    }
    assert_eq!(bench.count("cdc_dead_letters").await, 3);
    for (dependency, operation) in
        [("source", "pull"), ("source", "settle"), ("dedup", "check"), ("dedup", "record"), ("target", "publish")]
    {
        let sample =
            format!(r#"cdc_consumer_dependency_call_seconds_count{{dependency="{dependency}",op="{operation}"}}"#);
        assert!(metrics.value(&sample) >= 1.0, "{sample}");
    }
    // Every metric has a type for the scraper, the counters of what has not happened yet among them.
    assert!(metrics.0.contains("# TYPE cdc_consumer_events_total counter"));
    assert!(metrics.0.contains("# TYPE cdc_consumer_processing_seconds histogram"));
    for actor in ["ingest", "transform", "dedup", "publish"] {
        let sample = format!(r#"cdc_consumer_actor_restarts_total{{actor="{actor}"}}"#);
        assert_eq!(metrics.find(&sample), Some(0.0), "{sample}");
    }
}

#[tokio::test]
async fn pages_answer_and_no_secret_shows_anywhere() {
    let (nats, mut redis) = (
        Nats::start_with_password("service", "s3cretNats"),
        RedisServer::start_with(&["--requirepass", "s3cretRedis"]),
    );
    let url = format!("redis://:s3cretRedis@127.0.0.1:{}", redis.port());
    let bench = Bench::with(nats, RedisServer::start()).await;
    let consumer = bench.consumer(&[("DEDUP__URL", &url), ("LOG__LEVEL", "trace")]).await;
    bench.feed(20).await;
    bench.until_target(20).await;
    consumer.until_idle().await;
    redis.kill();
    bench.feed(20).await;
    consumer.until_metric(r#"cdc_consumer_dependency_up{dependency="dedup"}"#, |value| value == 0.0).await;
    let mut bench = bench;
    bench.nats.kill();
    consumer.until_metric(r#"cdc_consumer_dependency_up{dependency="source"}"#, |value| value == 0.0).await;
    let bodies = ["/", "/metrics", "/healthz", "/readyz", "/status.json"].map(|path| consumer.get(path));
    assert_eq!(bodies[0].0, 200);
    assert!(bodies[0].1.to_lowercase().contains("<!doctype html>"));
    assert_eq!(bodies[2].0, 200);
    assert_eq!(bodies[3].0, 503);
    assert_eq!(consumer.get("/nothing").0, 404);
    let told = bodies.map(|(_, body)| body).join("\n") + &consumer.log();
    assert!(!told.contains("s3cret"), "a secret shows:\n{told}");
    assert!(!told.contains("\"colour\"") && !told.contains("chat-1"), "a payload shows");
    redis.restart();
    bench.nats.restart();
    bench.assert_once_each().await;
}
