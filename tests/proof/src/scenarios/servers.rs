//! Faults of nats-server itself.

use std::time::Duration;

use super::{Scenario, Setup, without};
use crate::judge::Symptom::{Doubled, Lost};
use crate::servers::NatsVersion;
use crate::world::World;

/// The scenarios of this file.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "nats-killed",
            "kill -9 of nats-server in the middle of a burst of 3 000 acks, 5 times",
            "acks that the server forgot come again and are recognised",
            |w| Box::pin(killed_in_burst(w, 5)),
        )
        .controls([without("no-msg-id,no-records", Doubled)]),
        Scenario::new(
            "nats-killed-once",
            "kill -9 of nats-server in the middle of a burst of 3 000 acks",
            "acks that the server forgot come again and are recognised",
            |w| Box::pin(killed_in_burst(w, 1)),
        )
        .fast(),
        Scenario::new("nats-frozen-5s", "SIGSTOP of nats-server for 5 s in the middle of a burst of 3 000 acks", "goes on where it was", |w| {
            Box::pin(frozen(w, 5))
        }),
        Scenario::new(
            "nats-frozen-60s",
            "SIGSTOP of nats-server for 60 s in the middle of a burst of 3 000 acks",
            "noticed, said by /readyz, and made good afterwards",
            |w| Box::pin(frozen(w, 60)),
        ),
        Scenario::new(
            "nats-older-data",
            "nats-server comes back with a target of an earlier moment: its sequence goes backwards; acks were lost meanwhile",
            "alarm and count; what the source delivers again is published again in spite of its record",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.pause_load().await;
                    w.until_idle().await;
                    w.kill_nats().await;
                    let copy = w.copy_target();
                    w.restart_nats().await;
                    w.excuse_missing_so_far();
                    // Published and recorded, but the source never hears of it: all of it will be delivered again.
                    w.swallow_acks(0);
                    w.resume_load();
                    w.until_flowing().await;
                    w.pause_load().await;
                    w.until_acks_are_gone(0).await;
                    w.kill_nats().await;
                    w.restore_target(&copy);
                    w.restart_nats().await;
                    w.until_metric(0, "cdc_consumer_target_regressions_total", |value| value == 1.0).await;
                    // Not before: an ack that was handed to the connection as it broke goes out over the next one, and
                    // counts as one that the source had heard before.
                    w.nats_link(0).heal();
                    w.resume_load();
                    w.until_flowing().await;
                })
            },
        )
        .fast()
        .controls([without("plain-records", Lost), without("no-look", Lost)]),
        Scenario::new(
            "permission-withdrawn",
            "a reload takes the permission to publish to the target away for 10 s",
            "intake pauses, /readyz says why, nothing is dead-lettered, all is made good once it is given back",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    w.deny_publish(&["wa.>"]).await;
                    w.wait_not_ready(0, "target", Duration::from_secs(10)).await;
                    w.deny_publish(&[]).await;
                })
            },
        ),
        Scenario::new(
            "one-tenant-refused",
            "publishing one tenant's subjects is forbidden for ten minutes, while others flow",
            "the others are not held up; refused events wait as long as there is room, then they are dead letters",
            |w| {
                Box::pin(async move {
                    w.allow_letters("refused", ".daisi_tenant1.");
                    refused(w, 20, Duration::from_secs(30)).await;
                })
            },
        )
        .on(Setup { rate: 100, settings: &[("retry.refused_for", "1h")], ..Setup::default() }),
        Scenario::new(
            "one-tenant-refused-briefly",
            "publishing one tenant's subjects is forbidden for 10 s, while others flow",
            "the others are not held up; the refused rows wait and come once they may",
            |w| Box::pin(refused(w, 2, Duration::from_secs(5))),
        )
        .on(Setup {
            settings: &[("retry.refused_for", "1h"), ("source.max_ack_pending", "50000")],
            ..Setup::default()
        }),
        Scenario::new(
            "max-payload-lowered",
            "a reload lowers max_payload to 4 KiB below events of 6 KiB, then raises it again",
            "what no longer fits is a dead letter, whole, compressed or in parts, or waits; nothing is lost",
            |w| {
                Box::pin(async move {
                    w.until_flowing().await;
                    // Large events are on their way, and nobody sends new ones while they do not fit.
                    w.nats_link(0).delay(Duration::from_millis(300));
                    w.wait(Duration::from_millis(700)).await;
                    w.pause_load().await;
                    w.allow_letters("too_large", "");
                    w.set_max_payload("4KB").await;
                    w.reset_links();
                    w.wait(Duration::from_secs(8)).await;
                    w.set_max_payload("1MB").await;
                    w.reset_links();
                    w.nats_link(0).heal();
                    w.resume_load();
                    w.until_flowing().await;
                })
            },
        )
        .on(Setup { mix: super::load::of_six_kib(), rate: 100, ..Setup::default() }),
        Scenario::new(
            "disk-full",
            "with a backlog of 5 000 waiting, the file system under nats-server is full for 8 s, then has room again",
            "failed publishes are counted and /readyz says all the while that the target is away; nothing is acknowledged that is not stored; it goes on once there is room (the server restarted)",
            |w| Box::pin(disk_full(w)),
        )
        .on(Setup { disk_mib: Some(128), ..Setup::default() }),
        Scenario::new(
            "leader-killed",
            "kill -9 of the leader of the target, then of the source's, in a cluster of three, each started again",
            "the next leader goes on; nothing lost, nothing doubled",
            |w| {
                Box::pin(async move {
                    for stream in ["wa_stream", "cdc_events_stream"] {
                        w.until_flowing().await;
                        let node = w.kill_leader(stream).await;
                        w.until_flowing().await;
                        w.restart_node(node).await;
                    }
                })
            },
        )
        .on(Setup {
            cluster: true,
            only: Some(NatsVersion::Newest),
            settings: &[("source.replicas", "3"), ("target.replicas", "3"), ("dead_letter.replicas", "3")],
            ..Setup::default()
        }),
    ]
}

/// Source and target stand on one file system: only what waits in the source before that is full can meet a target without room.
async fn disk_full(w: &mut World) {
    w.until_flowing().await;
    w.pause_load().await;
    w.until_idle().await;
    w.freeze_redis();
    w.feed(5_000).await;
    let before = w.target_count().await;
    w.fill_disk();
    w.thaw_redis();
    w.wait_not_ready(0, "target", Duration::from_secs(8)).await;
    let failed = w.metric(0, "cdc_consumer_publish_errors_total").await.unwrap_or_default();
    w.expect(failed > 0.0, "failed publishes are counted");
    w.count("failed publishes", failed as u64);
    // A server that has switched JetStream off tells of no event at all.
    let stored = w.target_count().await.saturating_sub(before);
    w.expect(stored < 100, format!("the backlog meets a target without room, which stores {stored} events"));
    w.free_disk();
    w.kill_nats().await;
    w.restart_nats().await;
    w.resume_load();
    w.until_flowing().await;
}

/// Ends in the middle of the acks of many messages, with more of them in hand.
async fn begin_burst(w: &mut World) {
    w.until_flowing().await;
    w.pause_load().await;
    w.until_idle().await;
    // Round trips that take their time: it has to last until it is met.
    w.redis_link(0).delay(Duration::from_millis(20));
    w.freeze_redis();
    w.feed(3_000).await;
    w.thaw_redis();
    w.until_flowing().await;
    let held = w.metric(0, "cdc_consumer_in_flight").await.unwrap_or_default();
    w.expect(held > 0.0, "the burst is met in its middle, with messages in hand");
    w.count("in hand", held as u64);
}

async fn killed_in_burst(w: &mut World, times: usize) {
    for _ in 0..times {
        begin_burst(w).await;
        w.kill_nats().await;
        w.until_not_ready(0, "source").await;
        w.restart_nats().await;
        w.resume_load();
    }
}

async fn frozen(w: &mut World, seconds: u64) {
    begin_burst(w).await;
    w.freeze_nats();
    let length = Duration::from_secs(seconds);
    if seconds > 30 {
        w.wait_not_ready(0, "source", length).await;
    } else {
        w.wait(length).await;
    }
    w.thaw_nats();
    w.resume_load();
}

/// Refuses one tenant's events for so many spells, in each of which others must flow and none of the tenant's may be stored.
async fn refused(w: &mut World, spells: u32, spell: Duration) {
    const TENANT: &str = "wa.tenant1.>";
    w.until_flowing().await;
    w.deny_publish(&[TENANT]).await;
    w.until_metric(0, "cdc_consumer_publish_errors_total", |errors| errors > 0.0).await;
    let last = w.target_last_under(TENANT).await;
    for number in 1..=spells {
        let before = w.target_count().await;
        w.wait(spell).await;
        let after = w.target_count().await;
        w.expect(
            after > before + 500,
            format!("the others flow: {before} events before spell {number}, {after} after"),
        );
    }
    let refused = w.target_last_under(TENANT).await == last;
    w.expect(refused, "nothing of the tenant is stored while it is refused");
    w.expect(w.readiness(0).await == Some(200), "readiness stays true while others flow".to_owned());
    w.deny_publish(&[]).await;
}
