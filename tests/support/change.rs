//! Change events as Sequin writes them.

use serde_json::{Value, json};

/// One message for the source stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub payload: Vec<u8>,
}

impl Input {
    /// A message without headers.
    pub fn new(subject: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self { subject: subject.into(), headers: Vec::new(), payload: payload.into() }
    }

    /// With a header more.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A change of one row.
#[derive(Debug, Clone)]
pub struct Change {
    /// The table.
    pub table: String,
    /// insert, update, delete or read.
    pub action: String,
    /// The schema.
    pub schema: String,
    /// The row, as JSON text that travels as it is.
    pub record: String,
    /// Old values, as JSON text.
    pub changes: Option<String>,
    /// Log sequence number.
    pub lsn: u64,
    /// Place in the transaction.
    pub idx: u64,
}

impl Change {
    /// An insert into a table of `daisi_acme`.
    pub fn new(table: &str, record: &Value) -> Self {
        Self {
            table: table.to_owned(),
            action: "insert".to_owned(),
            schema: "daisi_acme".to_owned(),
            record: record.to_string(),
            changes: None,
            lsn: 26_000_000_000,
            idx: 0,
        }
    }

    /// An insert of a message into `messages`.
    pub fn message(id: &str) -> Self {
        Self::new("messages", &message(id))
    }

    /// Another action; an update says what it changed.
    pub fn action(mut self, action: &str) -> Self {
        self.action = action.to_owned();
        self.changes = (action == "update").then(|| r#"{"status":"before"}"#.to_owned());
        self
    }

    /// At another place.
    pub fn at(mut self, lsn: u64, idx: u64) -> Self {
        (self.lsn, self.idx) = (lsn, idx);
        self
    }

    /// In another schema.
    pub fn schema(mut self, schema: &str) -> Self {
        self.schema = schema.to_owned();
        self
    }

    /// With another record, as it is.
    pub fn record(mut self, record: impl Into<String>) -> Self {
        self.record = record.into();
        self
    }

    /// With one column changed; `null` if the value is `None`.
    pub fn column(mut self, name: &str, value: impl Into<Value>) -> Self {
        let mut record: Value = serde_json::from_str(&self.record).unwrap();
        record[name] = value.into();
        self.record = record.to_string();
        self
    }

    /// The subject that Sequin has published under since mid 2025.
    pub fn subject(&self) -> String {
        format!("sequin.daisi_db.{}.{}.{}", self.schema, self.table, self.action)
    }

    /// The subject that Sequin published under before.
    pub fn old_subject(&self) -> String {
        self.subject().replacen("sequin.", "sequin.changes.", 1)
    }

    /// The body.
    pub fn payload(&self) -> String {
        let metadata = json!({
            "table_schema": self.schema, "table_name": self.table, "commit_timestamp": "2026-01-05T08:00:00.123456Z",
            "commit_lsn": self.lsn, "commit_idx": self.idx, "database_name": "daisi_db",
            "idempotency_key": format!("{}:{}", self.lsn, self.idx), "transaction_annotations": null,
            "consumer": {"id": "f6d6d0c1", "name": "wa_sink", "annotations": {}},
        });
        let changes = self.changes.as_deref().unwrap_or("null");
        let (record, action) = (&self.record, &self.action);
        format!(r#"{{"record":{record},"changes":{changes},"action":"{action}","metadata":{metadata}}}"#)
    }

    /// The message under the newer subject.
    pub fn input(&self) -> Input {
        Input::new(self.subject(), self.payload())
    }
}

/// A row of `messages`.
pub fn message(id: &str) -> Value {
    json!({
        "id": 7, "message_id": id, "chat_id": "chat-1", "agent_id": "agent-1", "company_id": "acme",
        "from": "6281@s.whatsapp.net", "flow": "IN", "status": "pending", "is_deleted": false,
        "message_obj": {"conversation": "halo"}, "message_timestamp": 1_767_600_000, "message_date": "2026-01-05",
    })
}

/// A row of `chats`.
pub fn chat(id: &str) -> Value {
    json!({
        "id": "c7", "chat_id": id, "agent_id": "agent-1", "company_id": "acme", "push_name": "Siti 🌺", "unread_count": 3,
    })
}

/// A row of `agents`.
pub fn agent(id: &str) -> Value {
    json!({"id": 7, "agent_id": id, "company_id": "acme", "status": "connected", "agent_name": "Budi"})
}
