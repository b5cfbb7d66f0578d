//! Faults of the streams and the consumer.

use std::time::Duration;

use super::{Scenario, Setup, unmet, without};
use crate::judge::Symptom::{AckedEarly, Lost};
use crate::servers::NatsVersion;
use crate::world::World;

/// A consumer that stands still is noticed soon, and may be made anew.
const STALLING: &[(&str, &str)] = &[("source.retention", "workqueue"), ("source.stalled_after", "5s")];

/// The scenarios of this file.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "consumer-deleted",
            "the durable consumer is deleted while the service runs, 3 times",
            "created again; what is delivered again is recognised",
            |w| {
                Box::pin(async move {
                    for _ in 0..3 {
                        w.until_flowing().await;
                        w.delete_consumer().await;
                    }
                })
            },
        )
        .fast(),
        Scenario::new(
            "consumer-deleted-while-away",
            "the durable consumer is deleted while the service has no connection",
            "created again on reconnecting; what is delivered again is recognised",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.nats_link(0).cut();
                    w.delete_consumer().await;
                    w.wait(Duration::from_secs(2)).await;
                    w.nats_link(0).heal();
                })
            },
        ),
        Scenario::new(
            "consumer-deleted-under-acks",
            "the durable consumer is deleted while acks wait for their records, and is there again before they go, 3 times",
            "no ack of a delivery of the one before settles anything for the next",
            |w| {
                Box::pin(async move {
                    for _ in 0..3 {
                        w.until_flowing().await;
                        w.redis_link(0).delay(Duration::from_millis(1_500));
                        w.wait(Duration::from_millis(700)).await;
                        w.delete_consumer().await;
                        w.wait(Duration::from_secs(4)).await;
                        w.redis_link(0).heal();
                    }
                })
            },
        ),
        Scenario::new(
            "target-recreated",
            "the target is deleted, with events whose acks were lost, and created again",
            "every event that was not yet acknowledged is in the new one",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.pause_load().await;
                    w.until_idle().await;
                    w.excuse_missing_so_far();
                    // Published and recorded, but the source never hears of it: all of it will be delivered again.
                    w.swallow_acks(0);
                    w.resume_load();
                    w.until_flowing().await;
                    w.pause_load().await;
                    w.until_acks_are_gone(0).await;
                    w.delete_target().await;
                    w.resume_load();
                    w.until_not_ready(0, "target").await;
                    w.nats_link(0).heal();
                    w.wait(Duration::from_secs(2)).await;
                    w.create_target().await;
                    w.until_flowing().await;
                })
            },
        )
        .fast()
        .controls([without("plain-records", Lost)]),
        Scenario::new(
            "source-recreated",
            "the source is deleted and created again with events of other rows under the same sequences, 3 times, while acks wait for a connection",
            "no new event is mistaken for one finished before; no ack of before settles a new one",
            |w| {
                Box::pin(async move {
                    for _ in 0..3 {
                        w.until_flowing().await;
                        // What is confirmed waits for its record, and is acknowledged while there is no connection.
                        w.redis_link(0).delay(Duration::from_millis(1_500));
                        w.wait(Duration::from_millis(700)).await;
                        w.nats_link(0).cut();
                        w.pause_load().await;
                        let length = w.recreate_source().await;
                        w.feed(length + 100).await;
                        w.wait(Duration::from_secs(3)).await;
                        w.redis_link(0).heal();
                        w.nats_link(0).heal();
                        w.resume_load();
                    }
                })
            },
        )
        .controls([without("any-life", Lost)]),
        Scenario::new(
            "target-full",
            "the target (discard new) is full for 8 s",
            "publishing pauses, /readyz says so, and goes on once there is room",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.limit_target(true).await;
                    w.wait_not_ready(0, "target", Duration::from_secs(8)).await;
                    w.limit_target(false).await;
                })
            },
        )
        .fast()
        .on(Setup { settings: &[("target.discard", "new")], ..Setup::default() }),
        Scenario::new(
            "consumer-passed",
            "the consumer of a work queue has passed messages that it never gave, as nats-server 2.9.10 may restore one",
            "noticed by one of two replicas; the consumer is made anew and gives them",
            |w| Box::pin(passed(w)),
        )
        .on(Setup { replicas: 2, settings: STALLING, ..Setup::default() })
        .controls([without("source.stalled_after=1d", Lost)]),
        Scenario::new(
            "consumer-passed-in-cluster",
            "the same in a cluster of three, with source, target and consumer replicated",
            "noticed by one of two replicas; the consumer is made anew and gives them",
            |w| Box::pin(passed(w)),
        )
        .on(Setup {
            replicas: 2,
            cluster: true,
            only: Some(NatsVersion::Newest),
            settings: &[
                ("source.retention", "workqueue"),
                ("source.stalled_after", "5s"),
                ("source.replicas", "3"),
                ("target.replicas", "3"),
                ("dead_letter.replicas", "3"),
            ],
            ..Setup::default()
        })
        .controls([without("source.stalled_after=1d", Lost)]),
        Scenario::new(
            "consumer-silent",
            "the consumer of a work queue gives nothing, although messages and requests wait, as nats-server 2.9.10 may restore one",
            "noticed; the consumer is made anew and gives them",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.silence_consumer(0);
                    w.until_metric(0, r#"cdc_consumer_source_stalls_total{kind="silent"}"#, |value| value >= 1.0).await;
                    w.until_flowing().await;
                })
            },
        )
        .on(Setup { settings: STALLING, ..Setup::default() })
        .controls([unmet("source.stalled_after=1d", r#"cdc_consumer_source_stalls_total{kind="silent"}"#)]),
        Scenario::new(
            "workqueue-source",
            "a source that removes what is acknowledged; kill -9 at random 5 times",
            "nothing is removed before it is stored",
            |w| {
                Box::pin(async move {
                    // A round trip that takes its time, so that there is always a batch in hand.
                    w.redis_link(0).delay(Duration::from_millis(10));
                    for _ in 0..5 {
                        w.until_flowing().await;
                        w.kill(0);
                        w.start(0).await;
                    }
                })
            },
        )
        .on(Setup { settings: &[("source.retention", "workqueue")], ..Setup::default() })
        .controls([without("ack-first", AckedEarly)]),
    ]
}

/// Both replicas come back to a consumer that has passed what they were to be given.
async fn passed(w: &mut World) {
    w.until_flowing().await;
    w.kill(0);
    w.kill(1);
    w.wait(Duration::from_millis(500)).await;
    // What comes while there is only a consumer for others a replicated work queue may let go of.
    w.pause_load().await;
    w.pass_everything().await;
    w.start(0).await;
    w.start(1).await;
    w.resume_load();
    w.until_metric_of_any(0..=1, r#"cdc_consumer_source_stalls_total{kind="passed"}"#, |value| value >= 1.0).await;
}
