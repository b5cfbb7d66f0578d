//! What it takes to see that the bytes of an event are JSON: crates side by side, and the scanner of the service.
//!
//! `cargo bench --manifest-path benches/json/Cargo.toml`. Crates differ in what they look at: each is told to reject what is not
//! UTF-8, except where it cannot.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use json_bench::{Scanner, Size, message};
use serde::de::IgnoredAny;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let sizes = [("small", Size::Small), ("medium", Size::Medium), ("large", Size::Large), ("64 KB", Size::Bytes(64 << 10))];
    for (name, size) in sizes {
        let payload = message(size, 1, 1).into_bytes();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function("UTF-8 alone (std)", |bencher| {
            bencher.iter(|| std::str::from_utf8(black_box(&payload)).unwrap().len());
        });
        group.bench_function("scanner", |bencher| {
            bencher.iter(|| {
                let text = std::str::from_utf8(black_box(&payload)).unwrap();
                let mut scanner = Scanner::new(text);
                let length = scanner.value().unwrap().len();
                scanner.end().unwrap();
                length
            });
        });
        group.bench_function("serde_json", |bencher| {
            bencher.iter(|| {
                let text = std::str::from_utf8(black_box(&payload)).unwrap();
                serde_json::from_str::<IgnoredAny>(text).unwrap()
            });
        });
        group.bench_function("sonic-rs", |bencher| {
            bencher.iter(|| sonic_rs::from_slice::<IgnoredAny>(black_box(&payload)).unwrap());
        });
        group.bench_function("sonic-rs, lazy value", |bencher| {
            bencher.iter(|| sonic_rs::from_slice::<sonic_rs::LazyValue<'_>>(black_box(&payload)).unwrap());
        });
        group.bench_function("simd-json, tape", |bencher| {
            // It writes into its input, so each round needs a copy, which is not counted.
            let mut buffers = simd_json::Buffers::default();
            bencher.iter_batched_ref(
                || payload.clone(),
                |copy| simd_json::to_tape_with_buffers(copy, &mut buffers).unwrap().0.len(),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
    criterion.final_summary();
}
