//! How often an event asks for memory: a budget, since every allocation is paid for each event. `-- --nocapture` shows all figures.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::hint::black_box;

use actix_rt::System;
use cdc_actors::message::Verdict;
use cdc_actors::ports::Transform;
use cdc_bench::path::{BATCH, Path};
use cdc_bench::shapes::{CASES, PathCase, stream, tables};
use daisi_cdc_consumer::bootstrap::settings;
use daisi_cdc_consumer::config::Config;
use daisi_cdc_consumer::domain::{CdcTransform, TransformConfig};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// Counts for all threads of the process, which is why everything here is one test.
#[global_allocator]
static COUNTED: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Allocations of the transform for an event of whatever table and size: parsing, typing, enrichment, serialising.
/// Fewer is welcome; more needs a reason.
const TRANSFORM: f64 = 3.0;
/// Allocations for a medium event from delivery to outgoing message and acknowledgement, actors and metrics included.
const PATH: f64 = 6.0;
/// Events that a case of the path is measured over, after as many that warm it up.
const EVENTS: u64 = 40 * BATCH as u64;

/// Allocations and bytes per event.
fn measured(events: u64, work: impl FnOnce()) -> (f64, f64) {
    let region = Region::new(COUNTED);
    work();
    let counted = region.change();
    let per_event = |count: usize| count as f64 / events as f64;
    (per_event(counted.allocations + counted.reallocations), per_event(counted.bytes_allocated))
}

fn transform_keeps_within_its_budget(transform: &CdcTransform) {
    for (name, delivery) in tables() {
        let decide = || {
            let (row, parsed) = transform.order(&delivery);
            let decision = transform.decide(&delivery, parsed);
            assert!(matches!(decision.verdict, Verdict::Publish(_)));
            black_box((row, decision));
        };
        decide();
        let (allocations, bytes) = measured(1, decide);
        println!("transform, {name}: {allocations} allocations, {bytes:.0} bytes");
        // Names of fields that the table does not know are kept one by one.
        let is_within = allocations <= TRANSFORM || name == "200 columns";
        assert!(is_within, "{name}: {allocations} allocations, {TRANSFORM} are allowed");
    }
}

fn path_keeps_within_its_budget() {
    for PathCase { name, size, ports, is_poison } in CASES {
        let system = System::new();
        let path = system.block_on(async { Path::start(ports) });
        let mut sequence = 0;
        system.block_on(path.pass(stream(&mut sequence, EVENTS, size, is_poison)));
        let deliveries = stream(&mut sequence, EVENTS, size, is_poison);
        let (allocations, bytes) = measured(EVENTS, || {
            system.block_on(path.pass(deliveries));
        });
        println!("path, {name}: {allocations:.2} allocations, {bytes:.0} bytes per event");
        let is_within = allocations <= PATH || name != "HappyPath_MediumPayload";
        assert!(is_within, "{name}: {allocations:.2} allocations per event, {PATH} are allowed");
        system.block_on(path.stop());
    }
}

#[test]
fn an_event_keeps_within_its_budget_of_allocations() {
    let declared = Config::load(Some("examples/tables/typed.yaml".as_ref()), []).unwrap();
    for config in [TransformConfig::default(), settings::transform(&declared)] {
        transform_keeps_within_its_budget(&CdcTransform::new(config));
    }
    path_keeps_within_its_budget();
}
