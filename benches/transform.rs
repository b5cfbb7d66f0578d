//! What one event costs the transform: order (parse, find the row) and decide (build the enriched event).
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on must stop")]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use cdc_actors::message::{Delivery, DeliveryId, Receipt, Verdict};
use cdc_actors::ports::Transform;
use criterion::{Criterion, Throughput};
use daisi_cdc_consumer::domain::{CdcTransform, TransformConfig};
use serde_json::json;

/// An insert into messages whose text has `text` bytes.
fn message(text: usize) -> Delivery {
    let event = json!({
        "record": {
            "id": 9_007_199_254_740_993_u64, "message_id": "3EB0F00D5A1700000001", "chat_id": "chat_628120000042@s.whatsapp.net",
            "agent_id": "agent-7", "company_id": "CID1001", "from": "628120000042@s.whatsapp.net", "to": "6281100000@s.whatsapp.net",
            "jid": "628120000042@s.whatsapp.net", "flow": "IN", "status": "pending", "is_deleted": false,
            "message_obj": {"conversation": "x".repeat(text), "messageContextInfo": {"deviceListMetadataVersion": 2}},
            "key": {"id": "3EB0F00D5A1700000001", "fromMe": false, "remoteJid": "628120000042@s.whatsapp.net"},
            "message_timestamp": 1_767_600_000, "message_date": "2026-01-05",
            "created_at": "2026-01-05T08:00:00.123456", "updated_at": "2026-01-05T08:00:00.123456",
        },
        "changes": null,
        "action": "insert",
        "metadata": {
            "table_schema": "daisi_CID1001", "table_name": "messages", "commit_timestamp": "2026-01-05T08:00:00.123456Z",
            "commit_lsn": 26_000_000_040_u64, "commit_idx": 1, "database_name": "daisi_db",
            "idempotency_key": "MjYwMDAwMDAwNDA6MQ==", "transaction_annotations": null,
            "consumer": {"id": "f6d6d0c1", "name": "wa_sink", "annotations": {}},
        },
    });
    let id = DeliveryId { stream_created: 1, sequence: 1, timestamp: 1 };
    Delivery {
        receipt: Receipt { id, reply: "reply".into() },
        subject: "sequin.changes.daisi_db.daisi_CID1001.messages.insert".to_owned(),
        headers: vec![("Nats-Msg-Id".to_owned(), "MjYwMDAwMDAwNDA6MQ==".to_owned())],
        payload: Bytes::from(event.to_string()),
        deliveries: 1,
        received: Instant::now(),
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let transform = CdcTransform::new(TransformConfig::default());
    let mut group = criterion.benchmark_group("messages insert");
    for (name, text) in [("small", 40), ("medium", 4_000), ("large", 100_000)] {
        let delivery = message(text);
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
