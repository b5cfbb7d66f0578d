//! The scenarios can fail: naive services without one of their defences do, and with all of them do not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::path::PathBuf;
use std::time::Duration;

use cdc_proof::runner::{self, Plan};
use cdc_proof::servers::NatsVersion;

/// Some that take seconds, with a control for each kind of symptom; `make controls` runs them all.
const NAMES: &[&str] = &["quiet", "kill-after-check", "kill-after-send", "kill-after-confirm"];

#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_fails_without_the_defence_that_it_is_about() {
    let plan = Plan {
        names: NAMES.iter().map(|name| (*name).to_owned()).collect(),
        binary: PathBuf::new(),
        seed: 1,
        runs: 1,
        nats: vec![NatsVersion::Newest],
        fast: false,
        controls: true,
        proof: Some(PathBuf::from(env!("CARGO_BIN_EXE_proof"))),
        jobs: 2,
        backlog: 10_000,
        duration: Duration::from_secs(10),
        explained: 0,
        report: None,
    };
    assert!(runner::run(&plan).await, "a control kept the promise, or the naive service did not: see above");
}
