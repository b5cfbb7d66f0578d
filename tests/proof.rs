//! The scenarios that take seconds, against the program of this build; `make faults` runs all of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::path::PathBuf;
use std::time::Duration;

use cdc_proof::runner::{self, Plan};
use cdc_proof::servers::NatsVersion;

fn plan() -> Plan {
    Plan {
        names: Vec::new(),
        binary: PathBuf::from(env!("CARGO_BIN_EXE_daisi-cdc-consumer")),
        seed: 2,
        runs: 1,
        nats: vec![NatsVersion::Oldest, NatsVersion::Newest],
        fast: true,
        controls: false,
        // Package cdc-saboteur has its own.
        saboteur: None,
        jobs: 2,
        backlog: 10_000,
        duration: Duration::from_secs(10),
        explained: 3,
        report: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_promise_holds_in_every_fast_scenario() {
    assert!(runner::run(&plan()).await, "an invariant is broken: see above; `proof run --seed` replays it");
}
