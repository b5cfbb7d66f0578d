//! Real change data, and faults drawn by seed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Scenario, Setup, without};
use crate::judge::Symptom::AckedEarly;
use crate::postgres::{self, Bridge, Workload};
use crate::proxy::{Direction, frames};
use crate::servers::PostgresServer;
use crate::world::World;

/// Transactions of each of the four sessions.
const TRANSACTIONS: u64 = 1_500;
/// The process is killed, in the middle of a batch, whenever so many more changes have been fed.
const KILL_EVERY: u64 = 1_500;

/// The scenarios of this file.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "postgres-tables",
            "PostgreSQL under concurrent transactions in two tenants' schemas, replicated logically; kill -9 now and then",
            "the rows rebuilt from the target equal the tables",
            |w| Box::pin(rebuilt_tables(w)),
        )
        .on(Setup { rate: 0, ..Setup::default() })
        .controls([without("ack-first", AckedEarly)]),
    ]
}

async fn rebuilt_tables(w: &mut World) {
    let server = Arc::new(PostgresServer::start());
    postgres::prepare(&server);
    let mut bridge = Bridge::open(Arc::clone(&server));
    let mut workload = Workload::start(&server, w.options().seed, TRANSACTIONS);
    let mut since_kill = 0;
    loop {
        // Asked before the look: what was committed until then is seen by it.
        let over = workload.is_over();
        let changes = bridge.read();
        if changes.is_empty() && over {
            break;
        }
        since_kill += changes.len() as u64;
        w.count("changes", changes.len() as u64);
        if since_kill <= KILL_EVERY {
            w.feed_these(changes).await;
            continue;
        }
        since_kill = 0;
        w.count("kills", 1);
        let moment = Duration::from_millis(w.rng.u64(2..12));
        let killed = async {
            w.wait(moment).await;
            w.signal(0, "KILL");
        };
        tokio::join!(w.feed_these(changes), killed);
        w.kill(0);
        w.start(0).await;
    }
    if w.until_idle().await {
        for difference in w.differences(&server).await {
            w.expect(false, format!("no difference: {difference}"));
        }
    }
}

/// The kinds of fault that [`anything`] knows.
pub(super) const EVERY_KIND: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
/// Those that leave the consumer and what Redis remembers.
pub(super) const FORGETTING_NOTHING: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 15, 16];

/// Faults of these kinds in random order, each healed before the next, until the time of the options is over.
pub(super) async fn anything(w: &mut World, kinds: &[usize]) {
    let end = Instant::now() + w.options().duration;
    while Instant::now() < end {
        w.until_flowing().await;
        let replica = w.rng.usize(0..2);
        let moment = Duration::from_millis(w.rng.u64(50..2_500));
        let fault = kinds[w.rng.usize(0..kinds.len())];
        w.tell(format!("fault {fault} for {moment:?} on replica {replica}"));
        w.count("faults", 1);
        match fault {
            0 => w.kill(replica),
            1 => drop(w.terminate(replica).await),
            2 => w.signal(replica, "STOP"),
            3 => w.nats_link(replica).cut(),
            4 => w.nats_link(replica).stall(),
            5 => w.nats_link(replica).block(Direction::ToClient),
            6 => w.nats_link(replica).block(Direction::ToServer),
            7 => w.nats_link(replica).drop_frames(frames::publish_ack(), 30),
            8 => w.nats_link(replica).drop_frames(frames::source_ack(), 30),
            9 => w.redis_link(replica).cut(),
            10 => w.redis_command(&["FLUSHALL"]).await,
            11 => w.kill_nats().await,
            12 => w.kill_redis().await,
            13 => w.delete_consumer().await,
            14 => w.freeze_nats(),
            15 => w.freeze_redis(),
            _ => w.deny_publish(&["wa.>"]).await,
        }
        w.wait(moment).await;
        match fault {
            0 | 1 => w.start(replica).await,
            2 => w.signal(replica, "CONT"),
            11 => w.restart_nats().await,
            12 => w.restart_redis().await,
            14 => w.thaw_nats(),
            15 => w.thaw_redis(),
            16 => w.deny_publish(&[]).await,
            _ => {}
        }
        w.nats_link(replica).heal();
        w.redis_link(replica).heal();
    }
}
