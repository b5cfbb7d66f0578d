//! How often an event asks for memory between the ports: a budget, since every allocation is paid for each event.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

#[path = "../benches/common/mod.rs"]
mod common;
#[path = "../benches/common/delivery.rs"]
mod delivery;

use std::hint::black_box;

use cdc_actors::message::Verdict;
use cdc_actors::ports::Transform;
use common::Size;
use daisi_cdc_consumer::bootstrap::settings;
use daisi_cdc_consumer::config::Config;
use daisi_cdc_consumer::domain::{CdcTransform, TransformConfig};
use delivery::delivery;

/// Allocations of the transform for an insert into `messages`, of whatever size: parsing, typing, enrichment, serialising.
/// Fewer is welcome; more needs a reason.
const BUDGET: u64 = 3;

#[test]
fn the_transform_keeps_within_its_budget_of_allocations() {
    let declared = Config::load(Some("examples/tables/typed.yaml".as_ref()), []).unwrap();
    for config in [TransformConfig::default(), settings::transform(&declared)] {
        budget(&CdcTransform::new(config));
    }
}

fn budget(transform: &CdcTransform) {
    for size in [Size::Small, Size::Medium, Size::Large, Size::Bytes(64 * 1024)] {
        let delivery = delivery(size);
        let measured = allocation_counter::measure(|| {
            let (row, parsed) = transform.order(&delivery);
            let decision = transform.decide(&delivery, parsed);
            assert!(matches!(decision.verdict, Verdict::Publish(_)));
            black_box((row, decision));
        });
        let count = measured.count_total;
        assert!(count <= BUDGET, "{size:?}: {count} allocations, {BUDGET} are allowed");
    }
}
