//! Change events as Sequin sends them, of the sizes that are measured.

use serde_json::{Map, Value, json};

/// The makes of payload, named as in the benchmarks of the service that this one replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// 7 columns.
    Small,
    /// 18 columns.
    Medium,
    /// 21 columns.
    Large,
    /// 18 columns, and text until the payload has about this many bytes.
    Bytes(usize),
}

impl std::str::FromStr for Size {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "small" => Ok(Self::Small),
            "medium" => Ok(Self::Medium),
            "large" => Ok(Self::Large),
            bytes => bytes.parse().map(Self::Bytes),
        }
    }
}

/// An insert into `messages`, its number in every key; `row` tells which row and chat it is of.
pub fn message(size: Size, number: u64, row: u64) -> String {
    let mut record = Map::new();
    let key = format!("3EB0F00D5A17{row:08}");
    let jid = format!("62812{:08}@s.whatsapp.net", row % 1_000);
    let text = match size {
        Size::Small | Size::Medium => 0,
        Size::Large => 850,
        Size::Bytes(bytes) => bytes.saturating_sub(message(Size::Medium, number, row).len()),
    };
    let columns: [(&str, Value); 21] = [
        ("id", json!(9_007_199_254_740_993_u64 + row)),
        ("message_id", json!(key)),
        ("chat_id", json!(jid)),
        ("agent_id", json!(format!("agent-{}", row % 20))),
        ("company_id", json!("CID1001")),
        ("message_obj", json!({"conversation": format!("hello{}", "x".repeat(text))})),
        ("key", json!({"id": key, "fromMe": false, "remoteJid": jid})),
        ("from", json!(jid)),
        ("to", json!("6281100000@s")),
        ("jid", json!(jid)),
        ("flow", json!("IN")),
        ("status", json!("pending")),
        ("is_deleted", json!(false)),
        ("message_timestamp", json!(1_767_600_000)),
        ("message_date", json!("2026-01-05")),
        ("created_at", json!("2026-01-05T08:00:00.123456")),
        ("updated_at", json!("2026-01-05T08:00:00.123456")),
        ("edited_message_obj", Value::Null),
        ("last_metadata", json!({"device": "android", "version": "2.24.1"})),
        ("from_user", json!("Siti")),
        ("to_user", json!("Support")),
    ];
    let count = match size {
        Size::Small => 7,
        Size::Medium | Size::Bytes(_) => 18,
        Size::Large => 21,
    };
    for (name, value) in columns.into_iter().take(count) {
        record.insert(name.to_owned(), value);
    }
    envelope("messages", "insert", &Value::Object(record), &Value::Null, number)
}

/// The envelope of a change.
pub(crate) fn envelope(table: &str, action: &str, record: &Value, changes: &Value, number: u64) -> String {
    let now = jiff::Timestamp::now();
    format!(
        r#"{{"record":{record},"changes":{changes},"action":"{action}","metadata":{{"table_schema":"daisi_CID1001","table_name":"{table}","commit_timestamp":"{now:.6}","commit_lsn":{},"commit_idx":0,"database_name":"daisi_db","idempotency_key":"{number}","consumer":{{"id":"f6d6d0c1","name":"wa"}}}}}}"#,
        26_000_000_000 + number,
    )
}
