//! The scenarios can fail: the service without one of its defences does. And what only a saboteur can do, the service survives.

use std::path::PathBuf;
use std::time::Duration;

use cdc_proof::runner::{self, Plan};
use cdc_proof::servers::NatsVersion;

fn plan(names: &[&str], controls: bool) -> Plan {
    let saboteur = PathBuf::from(env!("CARGO_BIN_EXE_saboteur"));
    Plan {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        // Nothing here is run by the program itself: its own package does that.
        binary: saboteur.clone(),
        saboteur: Some(saboteur),
        seed: 1,
        runs: 1,
        nats: vec![NatsVersion::Newest],
        fast: false,
        controls,
        jobs: 2,
        backlog: 10_000,
        duration: Duration::from_secs(10),
        explained: 0,
        report: None,
    }
}

/// Some that take seconds, with a control for each kind of symptom; `make controls` runs them all.
const CONTROLS: &[&str] = &[
    "quiet",
    "kill-after-check",
    "kill-after-send",
    "kill-after-confirm",
    "rolling-restart",
    "acks-lost-beyond-window",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_fails_without_the_defence_that_it_is_about() {
    assert!(runner::run(&plan(CONTROLS, true)).await, "the promise was kept without a defence: see above");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transform_that_panics_and_actors_that_die_cost_nothing() {
    let held = runner::run(&plan(&["transform-panics", "actors-killed"], false)).await;
    assert!(held, "an invariant is broken: see above; `proof run --seed` replays it");
}
