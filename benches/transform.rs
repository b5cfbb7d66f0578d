//! What one event costs the transform: order (parse, find the row) and decide (build the enriched event).
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on must stop")]

mod common;
#[path = "common/delivery.rs"]
mod delivery;

use std::hint::black_box;

use cdc_actors::message::Verdict;
use cdc_actors::ports::Transform;
use common::Size;
use criterion::{Criterion, Throughput};
use daisi_cdc_consumer::domain::{CdcTransform, TransformConfig};
use delivery::delivery;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let transform = CdcTransform::new(TransformConfig::default());
    let mut group = criterion.benchmark_group("messages insert");
    for (name, size) in
        [("small", Size::Small), ("medium", Size::Medium), ("large", Size::Large), ("64 KB", Size::Bytes(64 * 1024))]
    {
        let delivery = delivery(size);
        group.throughput(Throughput::Bytes(delivery.payload.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (row, parsed) = transform.order(black_box(&delivery));
                let decision = transform.decide(&delivery, parsed);
                // A benchmark of dead letters would be a fast one.
                assert!(matches!(decision.verdict, Verdict::Publish(_)), "{:?}", decision.verdict);
                (row, decision)
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
