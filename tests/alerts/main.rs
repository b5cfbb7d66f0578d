//! Alert rules and dashboard against the real service: what they ask for exists, and a real Prometheus says the right things.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

#[path = "../support/mod.rs"]
mod support;

mod files;
mod outage;

use std::time::Duration;

use support::change::{Change, Input};
use support::world::World;
use tokio::task::JoinHandle;

/// An event that becomes a dead letter for want of a routing column.
fn poison() -> Input {
    Change::message("poison").column("company_id", serde_json::Value::Null).input()
}

/// An event with a column that the program does not know.
fn with_unknown_column() -> Input {
    Change::message("unknown").column("added", 1).input()
}

/// Fifty events a second, until it is aborted.
fn traffic(world: &World) -> JoinHandle<()> {
    let client = world.client.clone();
    tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        for lsn in 1.. {
            pace.tick().await;
            let input = Change::message(&format!("m-{lsn}")).at(lsn, 0).input();
            client.publish(input.subject, input.payload.into()).await.unwrap();
        }
    })
}
