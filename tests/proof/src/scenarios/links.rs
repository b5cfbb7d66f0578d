//! Faults of the connection to NATS.

use std::time::Duration;

use super::{Scenario, Setup, without};
use crate::judge::Symptom::Doubled;
use crate::proxy::{Direction, frames};

/// The scenarios of this file.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "publish-acks-dropped",
            "200 publish acks of the target are swallowed on their way",
            "sent again under the same id; the target's `duplicate: true` is taken for success",
            |w| {
                Box::pin(async move {
                    for _ in 0..4 {
                        w.until_flowing().await;
                        w.nats_link(0).drop_frames(frames::publish_ack(), 50);
                    }
                    w.until_flowing().await;
                })
            },
        )
        .fast()
        .controls([without("no-msg-id", Doubled)]),
        Scenario::new(
            "consumer-acks-dropped",
            "300 acks to the source are swallowed on their way",
            "delivered again after ack_wait, recognised, acknowledged again, published once",
            |w| {
                Box::pin(async move {
                    for _ in 0..3 {
                        w.until_flowing().await;
                        w.nats_link(0).drop_frames(frames::source_ack(), 100);
                    }
                    w.until_flowing().await;
                })
            },
        )
        .fast()
        .controls([without("no-msg-id,no-records", Doubled)]),
        Scenario::new(
            "half-open-to-server",
            "nothing reaches NATS any more for 8 s while the connection stays open",
            "noticed, said by /readyz, and made good after it heals",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.nats_link(0).block(Direction::ToServer);
                    w.wait_not_ready(0, "source", Duration::from_secs(8)).await;
                })
            },
        ),
        Scenario::new(
            "half-open-to-client",
            "nothing comes from NATS any more for 8 s while the connection stays open",
            "noticed, said by /readyz; what was stored meanwhile is not stored again",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.nats_link(0).block(Direction::ToClient);
                    w.wait_not_ready(0, "source", Duration::from_secs(8)).await;
                })
            },
        ),
        Scenario::new(
            "reset-in-mid-publish",
            "the connection is reset right after an event was sent and before its ack, 10 times",
            "the outcome is unknown: sent again under the same id, in order",
            |w| {
                Box::pin(async move {
                    for _ in 0..10 {
                        w.until_flowing().await;
                        let nth = w.rng.usize(1..60);
                        let tripwire = w.nats_link(0).trip(frames::publish("wa."), nth);
                        if w.within("an event is sent", tripwire).await.is_some() {
                            w.count("resets", 1);
                        }
                        w.nats_link(0).reset();
                        w.nats_link(0).heal();
                    }
                })
            },
        )
        .fast()
        .controls([without("no-msg-id", Doubled)]),
        Scenario::new(
            "link-bounced",
            "the link to NATS goes down and up 20 times within 10 s",
            "nothing lost, nothing doubled, rows in order",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    for _ in 0..20 {
                        w.nats_link(0).cut();
                        let down = Duration::from_millis(w.rng.u64(20..400));
                        w.wait(down).await;
                        w.nats_link(0).heal();
                        let up = Duration::from_millis(w.rng.u64(20..300));
                        w.wait(up).await;
                    }
                })
            },
        ),
        Scenario::new(
            "slow-target",
            "everything from and to NATS takes 200 ms for 20 s",
            "slower, within the bounds of what may be in flight; nothing lost",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.nats_link(0).delay(Duration::from_millis(200));
                    w.wait(Duration::from_secs(20)).await;
                    // A thousand come every second, and each takes two round trips.
                    for (gauge, least) in [("cdc_consumer_in_flight", 100.0), ("cdc_consumer_in_flight_bytes", 10_000.0)] {
                        w.until_metric(0, gauge, |value| value >= least).await;
                    }
                })
            },
        )
        .on(Setup { rate: 1_000, ..Setup::default() }),
        Scenario::new(
            "cut-off-from-nats",
            "one of two replicas is cut off from NATS for 15 s",
            "the other carries on; what the first one held goes to it",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.nats_link(0).cut();
                    let before = w.target_count().await;
                    w.wait_not_ready(0, "source", Duration::from_secs(15)).await;
                    let after = w.target_count().await;
                    w.expect(after > before + 5_000, format!("the other carries on: {before} before, {after} after"));
                })
            },
        )
        .on(Setup { replicas: 2, ..Setup::default() }),
        Scenario::new(
            "acks-lost-beyond-window",
            "acks to the source are swallowed and the process is dead for longer than the duplicate window of 4 s, while Redis stays",
            "delivered again after the window has closed, and known by their records all the same",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.pause_load().await;
                    w.until_idle().await;
                    w.swallow_acks(0);
                    w.feed(500).await;
                    w.until_acks_are_gone(0).await;
                    w.kill(0);
                    w.wait(Duration::from_secs(6)).await;
                    w.nats_link(0).heal();
                    w.start(0).await;
                    w.resume_load();
                    w.until_flowing().await;
                })
            },
        )
        .fast()
        .on(Setup { settings: &[("target.duplicate_window", "4s")], ..Setup::default() })
        .controls([without("no-records", Doubled)]),
        Scenario::new(
            "outage-beyond-window",
            "publish acks lost and the process dead for longer than the duplicate window of 4 s, Redis emptied meanwhile",
            "nothing lost; doubles are possible, and counted here",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.nats_link(0).block(Direction::ToClient);
                    w.wait(Duration::from_secs(1)).await;
                    w.kill(0);
                    w.redis_command(&["FLUSHALL"]).await;
                    w.wait(Duration::from_secs(6)).await;
                    w.nats_link(0).heal();
                    w.start(0).await;
                })
            },
        )
        .on(Setup {
            settings: &[("target.duplicate_window", "4s"), ("source.ack_wait", "2s")],
            ..Setup::default()
        })
        .allowing(super::Allowed { doubled: true, ..super::Allowed::default() }),
    ]
}
