//! A source event as far as the naive service understands it.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::traffic::{Metadata, hash};

/// What is to be done with an event.
pub(super) enum Decision {
    Publish(Box<Event>),
    Bury(&'static str),
    Skip,
}

/// An event to publish.
pub(super) struct Event {
    pub key: String,
    pub row: String,
    pub position: (u64, u64),
    pub subject: String,
    pub body: String,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    record: &'a RawValue,
    #[serde(borrow)]
    changes: Option<&'a RawValue>,
    action: String,
    metadata: Metadata,
}

pub(super) fn decide(payload: &[u8]) -> Decision {
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(payload) else { return Decision::Bury("not_json") };
    let metadata = &envelope.metadata;
    let (table, schema) = (metadata.table_name.as_str(), metadata.table_schema.as_str());
    let column = match table {
        "messages" => "message_id",
        "chats" => "chat_id",
        "agents" => "agent_id",
        _ => return Decision::Skip,
    };
    let Ok(Value::Object(record)) = serde_json::from_str(envelope.record.get()) else {
        return Decision::Bury("wrong_shape");
    };
    let text = |name: &str| record.get(name).and_then(Value::as_str);
    let missing = if envelope.action == "delete" { "replica_identity" } else { "missing_routing" };
    let (Some(company), Some(agent)) = (text("company_id"), text("agent_id")) else { return Decision::Bury(missing) };
    let Some(key) = text(column) else { return Decision::Bury("missing_key") };
    let (company, agent) = (token(company), token(agent));
    let subject = match text("chat_id") {
        Some(chat) if table == "messages" => format!("wa.{company}.{agent}.messages.{}", token(chat)),
        None if table == "messages" => return Decision::Bury(missing),
        _ => format!("wa.{company}.{agent}.{table}"),
    };
    let row = format!("{schema}/{table}/{key}");
    let mut head = json!({
        "table": table, "schema": schema, "action": envelope.action, "agent_id": text("agent_id"), "chat_id": text("chat_id"),
        "message_id": text("message_id"), "commit_lsn": metadata.commit_lsn, "commit_idx": metadata.commit_idx,
    })
    .to_string();
    head.pop();
    let changes = envelope.changes.map(|changes| format!(r#","changes":{changes}"#)).unwrap_or_default();
    let body = format!(r#"{head},"row_data":{}{changes}}}"#, envelope.record);
    let key =
        format!("naive-{:016x}", hash(format!("{row}/{}/{}", metadata.commit_lsn, metadata.commit_idx).as_bytes()));
    let position = (metadata.commit_lsn, metadata.commit_idx);
    Decision::Publish(Box::new(Event { key, row, position, subject, body }))
}

fn token(value: &str) -> String {
    value.replace('%', "%25").replace('.', "%2E").replace(' ', "%20")
}
