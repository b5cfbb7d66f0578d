//! Faults drawn by seed.

use std::time::{Duration, Instant};

use super::Scenario;
use crate::proxy::{Direction, frames};
use crate::world::World;

/// The scenarios of this file: none of its own yet beside what [`anything`] lends to others.
pub(super) fn all() -> Vec<Scenario> {
    Vec::new()
}

/// Faults of every kind in random order, each healed before the next, until the time of the options is over.
pub(super) async fn anything(w: &mut World) {
    let end = Instant::now() + w.options().duration;
    while Instant::now() < end {
        w.until_flowing().await;
        let replica = w.rng.usize(0..2);
        let moment = Duration::from_millis(w.rng.u64(50..2_500));
        let fault = w.rng.usize(0..14);
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
            _ => w.delete_consumer().await,
        }
        w.wait(moment).await;
        match fault {
            0 | 1 => w.start(replica).await,
            2 => w.signal(replica, "CONT"),
            11 => w.restart_nats().await,
            12 => w.restart_redis().await,
            _ => {}
        }
        w.nats_link(replica).heal();
        w.redis_link(replica).heal();
    }
}
