//! Events that cannot be published, and events that look as if they could kill the process.

use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy};
use async_nats::jetstream::{AckKind, stream};
use futures::StreamExt;

use super::support::bench::{Bench, event, eventually, pause};

#[tokio::test]
async fn refused_subjects_hold_nobody_up_and_become_dead_letters() {
    let bench = Bench::start().await;
    bench.create_stream("wa_stream", &["wa.CID1.>"]).await;
    let consumer = bench.consumer(&[("RETRY__REFUSED_FOR", "2s")]).await;
    // Two subjects that no stream listens on, and at first nothing else.
    for (number, tenant) in [(5_000, "CID2"), (5_001, "CID3"), (5_002, "CID2")] {
        bench.feed_one(event(number, tenant), &format!("refused-{number}")).await;
    }
    consumer.until_metric("cdc_consumer_publish_errors_total", |value| value >= 6.0).await;
    let letter = r#"cdc_consumer_dead_letters_total{table="messages",reason="refused"}"#;
    let mut unready = Vec::new();
    eventually("refused events are dead letters", async || {
        bench.feed(10).await;
        unready.extend(consumer.readiness().1);
        pause().await;
        (consumer.metrics().value(letter) == 3.0).then_some(())
    })
    .await;
    let refused = unready.iter().any(|reason| reason == "target" || reason == "dead_letter");
    assert!(!refused, "refused subjects make nobody unready; the log says:\n{}", consumer.log());
    bench.assert_once_each().await;
    consumer.until_idle().await;
    let letters = bench.read("cdc_dead_letters").await;
    assert_eq!(letters.len(), 3);
    for letter in &letters {
        assert_eq!(letter.subject, "cdc.dead_letters.messages.refused");
        assert_eq!(letter.headers.get("Cdc-Reason").unwrap().as_str(), "refused");
        assert!(letter.headers.get("Cdc-Detail").unwrap().as_str().contains("was refused"));
        assert_eq!(
            letter.headers.get("Cdc-Subject").unwrap().as_str(),
            "sequin.changes.daisi_db.daisi.messages.update"
        );
        assert!(letter.body["record"]["number"].as_u64().unwrap() >= 5_000);
    }
}

#[tokio::test]
async fn a_suspect_runs_alone_and_is_published() {
    let bench = Bench::start().await;
    let source = stream::Config {
        name: "cdc_events_stream".to_owned(),
        subjects: vec!["sequin.>".to_owned()],
        ..Default::default()
    };
    let source = bench.js.create_stream(source).await.unwrap();
    let settings = consumer::pull::Config {
        durable_name: Some("cdc_consumers".to_owned()),
        ack_policy: AckPolicy::Explicit,
        // Nothing but the first comes again.
        ack_wait: Duration::from_secs(60),
        max_ack_pending: 5000,
        filter_subject: "sequin.>".to_owned(),
        ..Default::default()
    };
    let pulls = source.create_consumer(settings).await.unwrap();
    bench.feed(1).await;
    for _ in 0..3 {
        let mut messages = pulls.batch().max_messages(1).expires(Duration::from_secs(5)).messages().await.unwrap();
        let message = messages.next().await.unwrap().unwrap();
        message.ack_with(AckKind::Nak(None)).await.unwrap();
    }
    eventually("the server has heard of the last one", async || {
        let info = pulls.get_info().await.unwrap();
        (info.num_ack_pending == 1 && info.delivered.consumer_sequence == 3).then_some(())
    })
    .await;
    bench.feed(200).await;
    let consumer = bench.consumer(&[("DEAD_LETTER__SUSPECT_AFTER", "4"), ("SOURCE__ACK_WAIT", "60s")]).await;
    bench.assert_once_each().await;
    consumer.until_idle().await;
    let metrics = consumer.metrics();
    assert_eq!(metrics.value(r#"cdc_consumer_redelivered_total{table="messages"}"#), 1.0);
    assert_eq!(metrics.value(r#"cdc_consumer_paused{reason="suspect"}"#), 0.0);
    let marks = metrics.value(r#"cdc_consumer_dependency_call_seconds_count{dependency="dedup",op="mark"}"#);
    assert_eq!(marks, 1.0, "its marker was counted up");
    consumer
        .until_metric(r#"cdc_consumer_dependency_call_seconds_count{dependency="dedup",op="unmark"}"#, |n| n == 1.0)
        .await;
    assert_eq!(bench.count("cdc_dead_letters").await, 0);
}
