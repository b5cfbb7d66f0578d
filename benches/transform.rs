//! What one event costs the transform: order (parse, find the row) and decide (build the enriched event).
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on must stop")]

mod common;

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use cdc_actors::message::{Delivery, DeliveryId, Receipt, Verdict};
use cdc_actors::ports::Transform;
use common::{Size, message};
use criterion::{Criterion, Throughput};
use daisi_cdc_consumer::domain::{CdcTransform, TransformConfig};

/// A delivery of an insert into `messages`.
fn delivery(size: Size) -> Delivery {
    let id = DeliveryId { stream_created: 1, sequence: 1, timestamp: 1 };
    Delivery {
        receipt: Receipt { id, reply: "reply".into() },
        subject: "sequin.changes.daisi_db.daisi_CID1001.messages.insert".to_owned(),
        headers: vec![("Nats-Msg-Id".to_owned(), "MjYwMDAwMDAwNDA6MQ==".to_owned())],
        payload: Bytes::from(message(size, 1, 1)),
        deliveries: 1,
        received: Instant::now(),
    }
}

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
