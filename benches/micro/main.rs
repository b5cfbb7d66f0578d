//! What one event costs inside the process, without a server: the whole path, the transform by table and shape, and each step.
//!
//! `cargo bench --bench micro -- path` runs one group.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on must stop")]

use std::hint::black_box;
use std::time::Duration;

use actix_rt::System;
use cdc_actors::message::{Delivery, Verdict};
use cdc_actors::ports::Transform;
use cdc_bench::Size;
use cdc_bench::path::Path;
use cdc_bench::shapes::{CASES, PathCase, stream, tables};
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use daisi_cdc_consumer::domain::scan::Scanner;
use daisi_cdc_consumer::domain::{CdcTransform, TransformConfig, encode_token};

/// As in the service.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    whole_path(&mut criterion);
    by_table(&mut criterion);
    by_step(&mut criterion);
    criterion.final_summary();
}

/// Time for an event, in batches of 500 through all actors.
fn whole_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path");
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(4));
    for PathCase { name, size, ports, is_poison } in CASES {
        let system = System::new();
        let path = system.block_on(async { Path::start(ports) });
        let mut sequence = 0;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|events| system.block_on(path.pass(stream(&mut sequence, events, size, is_poison))));
        });
        system.block_on(path.stop());
    }
    group.finish();
}

fn by_table(criterion: &mut Criterion) {
    let transform = CdcTransform::new(TransformConfig::default());
    let mut group = criterion.benchmark_group("transform");
    for (name, delivery) in tables() {
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
}

/// The steps of one medium event: a bare check that it is JSON, what finds its row, what builds its event, and a token.
fn by_step(criterion: &mut Criterion) {
    let transform = CdcTransform::new(TransformConfig::default());
    let delivery = cdc_bench::delivery(Size::Medium);
    let mut group = criterion.benchmark_group("step");
    group.bench_function("structure alone", |bencher| structure(bencher, &delivery));
    group.bench_function("parse and type", |bencher| bencher.iter(|| transform.order(black_box(&delivery))));
    enrich_and_serialise(&mut group, &transform, &delivery);
    group.bench_function("token", |bencher| {
        bencher.iter(|| encode_token(black_box("6281200000001@s.whatsapp.net")).len());
    });
    group.finish();
}

fn structure(bencher: &mut criterion::Bencher<'_>, delivery: &Delivery) {
    bencher.iter(|| {
        let text = std::str::from_utf8(black_box(&delivery.payload)).unwrap();
        Scanner::new(text).value().unwrap().len()
    });
}

fn enrich_and_serialise(group: &mut BenchmarkGroup<'_, WallTime>, transform: &CdcTransform, delivery: &Delivery) {
    group.bench_function("enrich and serialise", |bencher| {
        bencher.iter_batched(
            || transform.order(delivery).1,
            |parsed| transform.decide(delivery, parsed),
            BatchSize::SmallInput,
        );
    });
}
