//! What a declaration costs against the typed row of the same table: events of `messages` of every size, decided on by both.
//!
//! `cargo bench --bench declared`
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on must stop")]

use std::hint::black_box;
use std::path::Path;

use cdc_actors::message::{Delivery, Verdict};
use cdc_actors::ports::Transform;
use cdc_bench::Size;
use criterion::{Criterion, Throughput};
use daisi_cdc_consumer::bootstrap::settings;
use daisi_cdc_consumer::config::Config;
use daisi_cdc_consumer::domain::CdcTransform;

/// As in the service.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SIZES: [(&str, Size); 4] = [
    ("small", Size::Small),
    ("medium", Size::Medium),
    ("large", Size::Large),
    ("text of 64 KB", Size::Bytes(64 * 1024)),
];

fn transform(file: Option<&str>) -> CdcTransform {
    let path = file.map(|file| Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
    CdcTransform::new(settings::transform(&Config::load(path.as_deref(), []).unwrap()))
}

fn decide(transform: &CdcTransform, delivery: &Delivery) -> Verdict {
    let (_, parsed) = transform.order(black_box(delivery));
    let verdict = transform.decide(delivery, parsed).verdict;
    // A benchmark of dead letters would be a fast one.
    assert!(matches!(verdict, Verdict::Publish(_)), "{verdict:?}");
    verdict
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let tables = [("typed", transform(None)), ("declared", transform(Some("examples/tables/typed.yaml")))];
    let mut group = criterion.benchmark_group("declared");
    for (size_name, size) in SIZES {
        let delivery = cdc_bench::delivery(size);
        group.throughput(Throughput::Bytes(delivery.payload.len() as u64));
        for (name, transform) in &tables {
            group.bench_function(format!("{size_name}, {name}"), |bencher| {
                bencher.iter(|| decide(transform, &delivery))
            });
        }
    }
    group.finish();
    criterion.final_summary();
}
