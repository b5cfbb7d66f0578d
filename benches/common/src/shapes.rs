//! Events of every table and shape that is measured, and the cases of the whole path.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use cdc_actors::message::{Delivery, DeliveryId, Receipt};
use serde_json::{Map, Value, json};

use crate::delivery::delivery;
use crate::path::Case;
use crate::payload::{Size, envelope, message};

/// Rows that the deliveries of [`stream`] are of.
const ROWS: u64 = 500;

/// One case of the whole path, named as in the benchmarks of the service that this one replaces.
#[derive(Debug, Clone, Copy)]
pub struct PathCase {
    /// Its name.
    pub name: &'static str,
    /// The payload.
    pub size: Size,
    /// What the ports do.
    pub ports: Case,
    /// The record lacks its key, and the event becomes a dead letter.
    pub is_poison: bool,
}

const fn case(name: &'static str, size: Size, ports: Case) -> PathCase {
    PathCase { name, size, ports, is_poison: false }
}

/// All cases.
pub const CASES: [PathCase; 7] = [
    case("HappyPath_MediumPayload", Size::Medium, Case::Happy),
    case("DuplicateEvent_MediumPayload", Size::Medium, Case::Duplicate),
    case("DedupStoreError_MediumPayload", Size::Medium, Case::DedupStoreError),
    case("PublishError_MediumPayload", Size::Medium, Case::PublishError),
    PathCase { is_poison: true, ..case("TransformError_MediumPayload", Size::Medium, Case::Happy) },
    case("PayloadSize_Small", Size::Small, Case::Happy),
    case("PayloadSize_Large", Size::Large, Case::Happy),
];

/// So many deliveries, their sequences following `sequence`, of [`ROWS`] rows in turn.
pub fn stream(sequence: &mut u64, count: u64, size: Size, is_poison: bool) -> VecDeque<Delivery> {
    let body = |row| {
        let text = message(size, 1, row);
        let keyless = text.replacen(r#""message_id":"#, r#""message_idem":"#, 1);
        Bytes::from(if is_poison { keyless } else { text })
    };
    let like = Delivery { headers: Vec::new(), ..delivery(size) };
    let bodies: Vec<Bytes> = (0..ROWS.min(count)).map(body).collect();
    let deliveries = bodies.iter().cycle().take(usize::try_from(count).unwrap()).map(|body| {
        *sequence += 1;
        let id = DeliveryId { stream_created: 1, sequence: *sequence, timestamp: 1 };
        let receipt = Receipt { id, ..like.receipt.clone() };
        Delivery { receipt, payload: body.clone(), received: Instant::now(), ..like.clone() }
    });
    deliveries.collect()
}

fn of(table: &str, action: &str, record: &Value, changes: &Value) -> Delivery {
    Delivery {
        subject: format!("sequin.daisi_db.daisi_CID1001.{table}.{action}").into(),
        payload: Bytes::from(envelope(table, action, record, changes, 1)),
        ..delivery(Size::Small)
    }
}

fn record_of(size: Size) -> Value {
    let event: Value = serde_json::from_str(&message(size, 1, 1)).unwrap();
    event["record"].clone()
}

fn chat() -> Value {
    json!({
        "id": 7001, "chat_id": "6281200000001@s.whatsapp.net", "agent_id": "agent-1", "company_id": "CID1001",
        "jid": "6281200000001@s.whatsapp.net", "custom_name": null, "push_name": "Siti", "is_group": false,
        "group_name": null, "unread_count": 2, "assigned_to": "support-1",
        "last_message": {"conversation": "hello", "fromMe": false}, "conversation_timestamp": 1_767_600_000,
        "not_spam": true, "phone_number": "6281200000001", "last_metadata": null,
        "created_at": "2026-01-05T08:00:00.123456", "updated_at": "2026-01-05T08:00:00.123456",
    })
}

fn agent() -> Value {
    json!({
        "id": 12, "agent_id": "agent-1", "company_id": "CID1001", "qr_code": null, "status": "connected",
        "agent_name": "Front desk", "host_name": "host-3", "version": "2.24.1",
        "created_at": "2026-01-05T08:00:00.123456", "updated_at": "2026-01-05T08:00:00.123456", "last_metadata": {"k": 1},
    })
}

/// A row with 200 columns, most of which the table does not know.
fn wide() -> Value {
    let mut record: Map<String, Value> = record_of(Size::Medium).as_object().unwrap().clone();
    for number in record.len()..200 {
        record.insert(format!("custom_{number:03}"), json!(format!("value {number}")));
    }
    Value::Object(record)
}

/// A row whose `message_obj` holds about 64 KB of nested objects and lists.
fn nested() -> Value {
    let mut record = record_of(Size::Medium);
    let entry = |number: u32| json!({"id": number, "tags": ["a", "b", {"deep": [1, 2.5, null, true]}], "text": "x\"y"});
    record["message_obj"] = json!({"entries": (0..900).map(entry).collect::<Vec<_>>()});
    record
}

/// Events by table and shape.
pub fn tables() -> Vec<(&'static str, Delivery)> {
    let none = Value::Null;
    let before = json!({"status": "pending", "updated_at": "2026-01-05T07:59:59.000001", "is_deleted": false});
    vec![
        ("messages insert, small", delivery(Size::Small)),
        ("messages insert, medium", delivery(Size::Medium)),
        ("messages insert, large", delivery(Size::Large)),
        ("messages update with changes", of("messages", "update", &record_of(Size::Medium), &before)),
        ("chats insert", of("chats", "insert", &chat(), &none)),
        ("agents insert", of("agents", "insert", &agent(), &none)),
        ("200 columns", of("messages", "insert", &wide(), &none)),
        ("text of 64 KB", delivery(Size::Bytes(64 * 1024))),
        ("nested JSON of 64 KB", of("messages", "insert", &nested(), &none)),
    ]
}
