//! Tests of the domain as a whole.

mod decisions;
mod declared;
mod poison;
mod properties;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cdc_actors::message::{Decision, Delivery, DeliveryId, Event, Headers, OrderKey, Reason, Receipt, Verdict};
use cdc_actors::ports::Transform;
use serde_json::{Value, json};

use super::{CdcTransform, TransformConfig};

/// The subject of an insert into messages.
const SUBJECT: &str = "sequin.changes.daisi.daisi_acme.messages.insert";

fn delivery(subject: &str, headers: Headers, payload: impl Into<Bytes>) -> Delivery {
    Delivery {
        receipt: Receipt {
            id: DeliveryId { stream_created: 1, sequence: 9, timestamp: 2 },
            consumer: 0,
            reply: "reply".into(),
        },
        subject: subject.into(),
        headers,
        payload: payload.into(),
        deliveries: 1,
        received: Instant::now(),
    }
}

fn run(config: &TransformConfig, delivery: &Delivery) -> (OrderKey, Decision) {
    let transform = CdcTransform::new(config.clone());
    let (order, parsed) = transform.order(delivery);
    (order, transform.decide(delivery, parsed))
}

fn decide_with(config: &TransformConfig, event: &Value) -> Decision {
    // A subject of neither form, so that only the event decides.
    run(config, &delivery("any", Vec::new(), event.to_string())).1
}

fn decide(event: &Value) -> Decision {
    decide_with(&TransformConfig::default(), event)
}

#[track_caller]
fn published(decision: Decision) -> Event {
    match decision.verdict {
        Verdict::Publish(event) => Arc::unwrap_or_clone(event),
        other => panic!("not published: {other:?}"),
    }
}

#[track_caller]
fn dead(decision: Decision) -> (Option<&'static str>, Reason, String) {
    match decision.verdict {
        Verdict::DeadLetter { table, reason, detail } => (table, reason, detail),
        other => panic!("not dead-lettered: {other:?}"),
    }
}

fn metadata(table: &str) -> Value {
    json!({
        "table_schema": "daisi_acme",
        "table_name": table,
        "commit_timestamp": "2025-03-04T05:06:07.123456Z",
        "commit_lsn": 26_824_376_u64,
        "commit_idx": 3,
        "database_name": "daisi",
        "idempotency_key": "MjY4MjQzNzY6Mw==",
        "transaction_annotations": null,
        "consumer": {"id": "c-1", "name": "cdc", "annotations": {}},
        "database": {"id": "db-1", "name": "daisi-main", "annotations": {}, "database": "daisi", "hostname": "pg"},
        "record_pks": ["7"],
    })
}

fn message(action: &str) -> Value {
    json!({
        "record": {
            "id": 7, "message_id": "M1", "chat_id": "6281@s.whatsapp.net", "agent_id": "agent-1", "company_id": "acme",
            "from": "a", "to": "b", "type": "text", "message_obj": {"k": [1, null]}, "is_deleted": false,
            "message_timestamp": 1_741_064_767, "message_date": "2025-03-04", "created_at": "2025-03-04T05:06:07Z",
        },
        "changes": if action == "update" { json!({"status": "sent"}) } else { Value::Null },
        "action": action,
        "metadata": metadata("messages"),
    })
}
