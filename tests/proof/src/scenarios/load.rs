//! Loads that want to hurt.

use super::{Scenario, Setup, without};
use crate::judge::Symptom::{Inverted, Lost};
use crate::traffic::Mix;
use crate::world::World;

/// Every row known to the service, and nothing else: each step of the protocol is taken for each event.
pub(super) fn plain() -> Mix {
    Mix { poison: 0.0, other_tables: 0.0, ..Mix::default() }
}

/// Half of all changes are of one row.
pub(super) fn hot() -> Mix {
    Mix { hot_share: 0.5, ..plain() }
}

/// Payloads of 6 KiB.
pub(super) fn of_six_kib() -> Mix {
    Mix { payload_bytes: 6 * 1024, ..plain() }
}

fn large() -> Mix {
    Mix { payload_bytes: 900 * 1024, ..plain() }
}

/// The scenarios of this file.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new("quiet", "no fault at all", "every invariant holds, no inversion at all", |w| {
            Box::pin(async move { w.feed(3_000).await })
        })
        .fast()
        .calm()
        .on(Setup { rate: 0, ..Setup::default() })
        .controls([without("spread", Inverted), without("no-letters", Lost)]),
        Scenario::new("hot-row", "20 000 changes of one row as fast as it goes", "in order, once each", |w| {
            Box::pin(async move { w.feed(20_000).await })
        })
        .calm()
        .on(Setup { rate: 0, mix: Mix { hot_share: 1.0, ..plain() }, ..Setup::default() })
        .controls([without("spread", Inverted)]),
        Scenario::new("many-rows", "100 000 rows at once", "once each; memory within bounds", |w| {
            Box::pin(async move { w.feed(100_000).await })
        })
        .calm()
        .on(Setup { rate: 0, mix: Mix { rows: 100_000, ..plain() }, ..Setup::default() }),
        Scenario::new(
            "backlog",
            "a backlog that was there before the service started, as long as the option says",
            "memory is flat: at most 96 MiB, whatever the backlog",
            |w| {
                Box::pin(async move {
                    w.kill(0);
                    w.bound_resident(96 << 20);
                    let length = w.options().backlog;
                    w.feed(length).await;
                    w.start(0).await;
                })
            },
        )
        .on(Setup { rate: 0, ..Setup::default() }),
        Scenario::new(
            "one-mebibyte-events",
            "300 events of nearly 1 MiB, with in_flight.bytes 16MiB",
            "never more bytes in flight than allowed",
            |w| {
                Box::pin(async move {
                    w.feed(300).await;
                    w.bound_in_flight_bytes(16 << 20);
                })
            },
        )
        .on(Setup { rate: 0, mix: large(), settings: &[("in_flight.bytes", "16MiB")], ..Setup::default() }),
        Scenario::new(
            "clocks-jump",
            "the service's wall clock jumps by an hour, forwards and back, and so does Redis's as far as expiry goes; kill -9 after each",
            "records that expire too early or too late lose nothing and double nothing",
            |w| Box::pin(clocks_jump(w)),
        )
        .on(Setup { clock: true, mix: plain(), ..Setup::default() }),
        Scenario::new(
            "everything-at-once",
            "random faults of 17 kinds, one after the other, as long as the option says",
            "every invariant holds",
            |w| Box::pin(super::data::anything(w, super::data::EVERY_KIND)),
        )
        // A consumer that is deleted after hours would be given all that is older than any record once more.
        // After kill -9 nats-server 2.9.10 restores consumers that stand still, which would otherwise last longer than a fault may.
        .on(Setup {
            replicas: 2,
            settings: &[("source.retention", "workqueue"), ("source.stalled_after", "5s")],
            ..Setup::default()
        }),
        Scenario::new(
            "everything-remembered",
            "random faults of the 14 kinds that leave the consumer and Redis' memory, in a source with limits, as long as the option says",
            "every invariant holds",
            |w| Box::pin(super::data::anything(w, super::data::FORGETTING_NOTHING)),
        )
        // After kill -9 nats-server 2.9.10 restores consumers that begin anew: records tell what was stored before. Dead letters have none.
        .on(Setup { replicas: 2, mix: plain(), settings: &[("dedup.ttl", "1d")], ..Setup::default() }),
    ]
}

/// Redis does not run under libfaketime. What a jump does to it is done to its records: an hour forwards all of them expire,
/// an hour back all of them live an hour longer.
async fn clocks_jump(w: &mut World) {
    let longer = "for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('PEXPIRE', key, 3900000) end return 1";
    let (forwards, back): (&[&str], &[&str]) = (&["FLUSHALL"], &["EVAL", longer, "0"]);
    for (minutes, redis) in
        [(60, None), (60, Some(forwards)), (-60, None), (-60, Some(back)), (0, Some(forwards)), (0, None)]
    {
        w.until_flowing().await;
        w.set_clock(minutes);
        if let Some(command) = redis {
            w.redis_command(command).await;
        }
        w.count("jumps", 1);
        w.until_flowing().await;
        w.kill(0);
        w.start(0).await;
    }
}
