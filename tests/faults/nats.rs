//! The NATS server, or what it holds, fails.

use async_nats::jetstream::{consumer, stream};
use futures::StreamExt;

use super::support::bench::{Bench, assert_once_each, event, eventually};

#[tokio::test]
async fn nats_killed_and_restarted_under_load() {
    let mut bench = Bench::start().await;
    let consumer = bench.consumer(&[]).await;
    let load = bench.load();
    bench.until_target(200).await;
    bench.nats.kill();
    consumer.until_metric(r#"cdc_consumer_dependency_up{dependency="source"}"#, |value| value == 0.0).await;
    assert_eq!(consumer.readiness().0, 503);
    assert_eq!(consumer.get("/healthz").0, 200);
    bench.nats.restart();
    // Intake and outlet have a connection each. On a slow machine one may have been given up and made once more.
    consumer.until_metric("cdc_consumer_nats_reconnects_total", |value| value >= 2.0).await;
    let before = bench.count("wa_stream").await;
    bench.until_target(before + 200).await;
    load.stop().await;
    bench.assert_once_each().await;
    consumer.until_idle().await;
    let metrics = consumer.metrics();
    for dependency in ["source", "target", "dedup", "dead_letter"] {
        let up = format!(r#"cdc_consumer_dependency_up{{dependency="{dependency}"}}"#);
        assert_eq!(metrics.value(&up), 1.0, "{dependency}");
    }
    assert_eq!(metrics.value("cdc_consumer_target_regressions_total"), 0.0);
}

#[tokio::test]
async fn a_target_deleted_and_created_again_gets_what_comes_afterwards() {
    let bench = Bench::start().await;
    let consumer = bench.consumer(&[]).await;
    bench.feed(100).await;
    bench.until_target(100).await;
    consumer.until_idle().await;
    bench.js.delete_stream("wa_stream").await.unwrap();
    bench.feed(50).await;
    consumer.until_metric(r#"cdc_consumer_dependency_up{dependency="target"}"#, |value| value == 0.0).await;
    consumer.assert_unready("target");
    assert!(consumer.metrics().value("cdc_consumer_publish_errors_total") > 0.0);
    bench.create_stream("wa_stream", &["wa.>"]).await;
    bench.until_target(50).await;
    // The record of an event names the stream that it was stored in: this one says nothing about the new stream.
    bench.feed_one(event(7, "CID1"), "again-7").await;
    bench.until_target(51).await;
    eventually("ready again", async || (consumer.readiness().0 == 200).then_some(())).await;
    consumer.until_idle().await;
    let outputs = bench.read("wa_stream").await;
    let (again, fresh): (Vec<_>, Vec<_>) =
        outputs.into_iter().partition(|output| output.body["row_data"]["number"] == 7);
    assert_eq!(again.len(), 1);
    assert_once_each(&fresh, 100..150);
}

#[tokio::test]
async fn a_consumer_deleted_while_running_is_created_again_and_doubles_nothing() {
    let bench = Bench::start().await;
    let consumer = bench.consumer(&[]).await;
    let load = bench.load();
    bench.until_target(100).await;
    let stream = bench.js.get_stream("cdc_events_stream").await.unwrap();
    stream.delete_consumer("cdc_consumers").await.unwrap();
    let before = bench.count("wa_stream").await;
    bench.until_target(before + 100).await;
    load.stop().await;
    bench.assert_once_each().await;
    consumer.until_idle().await;
}

#[tokio::test]
async fn a_source_deleted_while_running_is_created_again() {
    let bench = Bench::start().await;
    let consumer = bench.consumer(&[]).await;
    bench.feed(100).await;
    bench.until_target(100).await;
    consumer.until_idle().await;
    bench.js.delete_stream("cdc_events_stream").await.unwrap();
    // The sequences of the new stream are those of the old one; nothing must be taken for what was finished before.
    bench.feed(100).await;
    bench.assert_once_each().await;
    consumer.until_idle().await;
}

#[tokio::test]
async fn a_target_that_lost_data_gets_what_is_redelivered() {
    let mut bench = Bench::start().await;
    let first = bench.consumer(&[]).await;
    bench.feed(100).await;
    bench.until_target(100).await;
    first.until_idle().await;
    first.signal("TERM");
    let mut first = first;
    assert_eq!(first.ended().await, Some(0));
    bench.feed(100).await;
    bench.nats.kill();
    let copy = bench.nats.copy_store();
    bench.nats.restart();

    let consumer = bench.consumer(&[]).await;
    bench.until_target(200).await;
    consumer.until_idle().await;
    assert_eq!(consumer.metrics().value("cdc_consumer_target_regressions_total"), 0.0);
    bench.nats.kill();
    bench.nats.restore_store(&copy);
    bench.nats.restart();
    // Source and target are back at the first hundred; the other hundred are delivered again, although they were
    // finished here and are on record.
    consumer.until_metric("cdc_consumer_target_regressions_total", |value| value == 1.0).await;
    bench.assert_once_each().await;
    consumer.until_idle().await;
    assert_eq!(bench.count("wa_stream").await, 200);
    assert!(consumer.log().contains("the target has lost data"));
    bench.feed(20).await;
    bench.assert_once_each().await;
    consumer.until_idle().await;
    assert_eq!(consumer.metrics().value("cdc_consumer_target_regressions_total"), 1.0, "one loss counts once");
}

#[tokio::test]
async fn a_consumer_that_passed_messages_of_a_work_queue_is_made_anew_and_told_of() {
    let bench = Bench::start().await;
    let (source, name) = ("cdc_events_stream", "cdc_consumers");
    let queue = stream::Config {
        name: source.to_owned(),
        subjects: vec!["sequin.>".to_owned()],
        retention: stream::RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    bench.js.create_stream(queue).await.unwrap();
    // A consumer that looks for the second message alone, and has it behind it, will never give the first.
    bench.feed(1).await;
    let second = "sequin.changes.daisi_db.daisi.others.update";
    bench.feed_one((second.to_owned(), event(1, "CID1").1), "second").await;
    let narrow = consumer::pull::Config {
        durable_name: Some(name.to_owned()),
        filter_subject: second.to_owned(),
        ..Default::default()
    };
    let mut narrow = bench.js.create_consumer_on_stream(narrow, source).await.unwrap();
    narrow.fetch().max_messages(1).messages().await.unwrap().next().await.unwrap().unwrap().ack().await.unwrap();
    eventually("acknowledged", async || (narrow.info().await.unwrap().ack_floor.stream_sequence == 2).then_some(()))
        .await;
    let consumer = bench.consumer(&[("SOURCE__STALLED_AFTER", "5s")]).await;
    consumer.until_metric(r#"cdc_consumer_source_stalls_total{kind="passed"}"#, |value| value == 1.0).await;
    bench.until_target(1).await;
    consumer.until_idle().await;
    assert!(consumer.log().contains("the consumer stands still"), "{}", consumer.log());
    assert!(consumer.get("/status.json").1.contains("the consumer stands still"));
}
