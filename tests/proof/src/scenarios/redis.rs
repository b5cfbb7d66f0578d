//! Faults of Redis.

use std::time::Duration;

use super::{Scenario, Setup, unmet};
use crate::proxy::frames;
use crate::world::World;

/// How often Redis is frozen in `redis-frozen-briefly`.
const FREEZES: u64 = 3;
/// What a pull request there asks for: one that is on its way when intake is paused brings as many, which wait for its end.
const REQUEST: u64 = 50;

/// The scenarios of this file.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "redis-killed",
            "kill -9 of redis-server at a check, at a record and at rest, 6 times; it forgets everything",
            "intake pauses and resumes; the target's window catches what Redis forgot",
            |w| {
                Box::pin(async move {
                    for turn in 0..6 {
                        w.until_flowing().await;
                        let command = ["MGET", "SET", "PING"][turn % 3];
                        if command != "PING" {
                            let tripwire = w.redis_link(0).trip(frames::redis_request(command), 1);
                            w.within("Redis is asked", tripwire).await;
                        }
                        w.kill_redis().await;
                        w.redis_link(0).heal();
                        w.until_not_ready(0, "dedup").await;
                        w.restart_redis().await;
                    }
                })
            },
        ),
        Scenario::new(
            "redis-killed-once",
            "kill -9 of redis-server under load; it forgets everything",
            "intake pauses and resumes; the target's window catches what Redis forgot",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.kill_redis().await;
                    w.until_not_ready(0, "dedup").await;
                    w.restart_redis().await;
                })
            },
        )
        .fast(),
        Scenario::new(
            "cut-off-from-redis",
            "one of two replicas is cut off from Redis for 15 s",
            "it hands its messages over after twice ack_wait; the other publishes them",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.redis_link(0).cut();
                    w.wait_not_ready(0, "dedup", Duration::from_secs(15)).await;
                    w.expect(
                        w.metric(0, "cdc_consumer_in_flight").await == Some(0.0),
                        "the replica that is cut off holds nothing after twice ack_wait".to_owned(),
                    );
                })
            },
        )
        .on(Setup { replicas: 2, ..Setup::default() }),
        Scenario::new(
            "redis-frozen-briefly",
            "SIGSTOP of redis-server for one and a half times ack_wait, several times",
            "what is in hand is kept alive by in-progress acks: hardly anything is delivered again",
            |w| {
                Box::pin(async move {
                    for _ in 0..FREEZES {
                        w.until_flowing().await;
                        w.freeze_redis();
                        w.wait(Duration::from_secs(3)).await;
                        w.thaw_redis();
                        w.until_flowing().await;
                    }
                    let again = w.delivered_again().await;
                    let few = again.is_some_and(|again| again <= FREEZES * REQUEST);
                    w.expect(few, format!("hardly anything is delivered again, not {again:?}"));
                })
            },
        )
        .on(Setup { settings: &[("source.batch", "50")], ..Setup::default() })
        .controls([unmet("no-progress", "hardly anything is delivered again")]),
        Scenario::new(
            "redis-frozen",
            "SIGSTOP of redis-server for 10 s",
            "intake pauses and resumes; lag and pending tell what waits",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.freeze_redis();
                    w.wait_not_ready(0, "dedup", Duration::from_secs(10)).await;
                    w.until_metric(0, "cdc_consumer_lag_seconds", |lag| (5.0..60.0).contains(&lag)).await;
                    w.until_metric(0, "cdc_consumer_pending", |pending| pending >= 1_000.0).await;
                    w.thaw_redis();
                })
            },
        ),
        Scenario::new(
            "redis-flushed",
            "FLUSHALL under load, 10 times, with the link to NATS reset each time",
            "the target's window catches what Redis forgot",
            |w| {
                Box::pin(async move {
                    for _ in 0..10 {
                        w.until_flowing().await;
                        w.nats_link(0).reset();
                        w.redis_command(&["FLUSHALL"]).await;
                    }
                })
            },
        )
        .fast(),
        Scenario::new(
            "redis-full",
            "out of memory under noeviction for 8 s: reads work, writes fail",
            "events are stored, stay unrecorded, are acknowledged and counted; nothing lost or doubled",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.redis_command(&["CONFIG", "SET", "maxmemory", "1"]).await;
                    w.wait(Duration::from_secs(8)).await;
                    let unrecorded = w.metric(0, "cdc_consumer_dedup_unrecorded_total").await.unwrap_or_default();
                    w.expect(unrecorded > 0.0, "what stays unrecorded is counted".to_owned());
                    w.redis_command(&["CONFIG", "SET", "maxmemory", "0"]).await;
                })
            },
        )
        .on(Setup { settings: &[("dedup.record_patience", "1s")], ..Setup::default() }),
        Scenario::new(
            "redis-evicting",
            "allkeys-lru with memory for a fraction of the records, consumer acks lost meanwhile",
            "what Redis evicted, the target's window catches",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.redis_command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
                    w.redis_command(&["CONFIG", "SET", "maxmemory", "1300000"]).await;
                    for _ in 0..4 {
                        w.until_flowing().await;
                        w.nats_link(0).drop_frames(frames::source_ack(), 100);
                        w.wait(Duration::from_secs(3)).await;
                    }
                    let evicted = w.redis_evicted().await;
                    w.expect(evicted > 0, "Redis evicts records".to_owned());
                    w.count("evicted", evicted);
                })
            },
        ),
        Scenario::new(
            "redis-failover",
            "the primary becomes a replica of its replica: it answers READONLY until it is promoted again",
            "reads work, writes fail: events wait or stay unrecorded, nothing lost or doubled",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.demote_redis().await;
                    w.wait(Duration::from_secs(8)).await;
                    let errors = w.metric(0, "cdc_consumer_dedup_errors_total").await.unwrap_or_default();
                    w.expect(
                        errors > 0.0 && w.has_said(0, "read only replica"),
                        format!("writes fail as READONLY: {errors} errors"),
                    );
                    w.promote_redis().await;
                })
            },
        )
        .on(Setup { redis_replica: true, ..Setup::default() }),
        Scenario::new(
            "redis-wrong-password",
            "Redis comes back with another password for 8 s",
            "said by /readyz, without the password; made good once it is right again",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.change_redis_password(true).await;
                    w.wait_not_ready(0, "dedup", Duration::from_secs(8)).await;
                    w.change_redis_password(false).await;
                })
            },
        ),
        Scenario::new(
            "redis-bypassed",
            "Redis away for 10 s with when_unavailable: bypass, publish acks lost meanwhile",
            "events flow, nothing lost or doubled, and cdc_consumer_dedup_bypassed_total counts them",
            |w| Box::pin(bypassed(w)),
        )
        .fast()
        .on(Setup { settings: &[("dedup.when_unavailable", "bypass")], ..Setup::default() }),
    ]
}

async fn bypassed(w: &mut World) {
    w.until_flowing().await;
    w.redis_link(0).cut();
    let before = w.target_count().await;
    w.nats_link(0).drop_frames(frames::publish_ack(), 20);
    w.wait(Duration::from_secs(10)).await;
    let after = w.target_count().await;
    w.expect(after > before, format!("events flow without Redis: {before} before, {after} after"));
    let counted = w.metric(0, "cdc_consumer_dedup_bypassed_total").await.unwrap_or_default();
    w.expect(counted > 0.0, "what bypassed the check is counted".to_owned());
    w.redis_link(0).heal();
}
