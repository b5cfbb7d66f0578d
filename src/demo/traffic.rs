//! Realistic Sequin traffic by seed: what a WhatsApp support desk writes to its database, and what goes wrong on the way.

use serde_json::{Value, json};

/// What should become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Published.
    Published,
    /// Dropped as published before.
    Duplicate,
    /// Acknowledged unread: a table that is not ours.
    Skipped,
    /// In the dead-letter stream.
    DeadLettered,
}

/// One message as Sequin would publish it.
#[derive(Debug, Clone)]
pub struct SourceEvent {
    /// Its subject.
    pub subject: String,
    /// Its `Nats-Msg-Id`.
    pub message_id: String,
    /// Its JSON, or what should have been JSON.
    pub payload: Vec<u8>,
    /// What should become of it.
    pub expected: Expected,
}

/// An endless, reproducible stream of events.
#[derive(Debug)]
pub struct Traffic {
    random: fastrand::Rng,
    lsn: u64,
    number: u64,
    now_micros: i64,
    waiting: Vec<SourceEvent>,
    last_published: Option<SourceEvent>,
}

const TENANTS: [&str; 3] = ["CID1001", "CID1002", "CID1003"];

impl Traffic {
    /// Traffic by `seed`, committed from `start_micros` (microseconds since the Unix epoch) on.
    pub fn new(seed: u64, start_micros: i64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            lsn: 26_000_000_000,
            number: 0,
            now_micros: start_micros,
            waiting: Vec::new(),
            last_published: None,
        }
    }

    fn transaction(&mut self) {
        self.lsn += self.random.u64(40..4_000);
        self.now_micros += 150;
        match self.random.u8(0..100) {
            0..50 => self.new_message(),
            50..70 => self.delivered_and_read(),
            70..82 => self.chat_changes(),
            82..86 => self.agent_changes(),
            86..90 => self.message_deleted(),
            90..94 => self.sent_again(),
            94..98 => self.other_table(),
            _ => self.poison(),
        }
        self.waiting.reverse();
    }

    fn new_message(&mut self) {
        let record = self.message("pending");
        self.push(0, "messages", "insert", record, Value::Null, Expected::Published);
    }

    /// Two changes of one row in one transaction: only their commit_idx tells them apart.
    fn delivered_and_read(&mut self) {
        let (first, mut second) = (self.message("delivered"), Value::Null);
        second.clone_from(&first);
        second["status"] = json!("read");
        self.push(0, "messages", "update", first, json!({"status": "pending"}), Expected::Published);
        self.push(1, "messages", "update", second, json!({"status": "delivered"}), Expected::Published);
    }

    fn chat_changes(&mut self) {
        let (tenant, agent, customer) = self.who();
        let record = json!({
            "id": format!("chat-{}", self.random.u32(0..5_000)), "chat_id": chat(&customer), "agent_id": agent, "company_id": tenant,
            "jid": customer, "push_name": "Siti 🌺", "is_group": false, "unread_count": self.random.u32(0..20),
            "last_message": {"text": "baik, terima kasih"}, "conversation_timestamp": self.now_micros / 1_000_000,
        });
        self.push(0, "chats", "update", record, json!({"unread_count": 0}), Expected::Published);
    }

    fn agent_changes(&mut self) {
        let (tenant, agent, _) = self.who();
        let record = json!({"id": 7, "agent_id": agent, "company_id": tenant, "status": "connected", "agent_name": "Budi", "battery_level": 81});
        self.push(0, "agents", "update", record, json!({"status": "connecting"}), Expected::Published);
    }

    fn message_deleted(&mut self) {
        let record = self.message("deleted");
        self.push(0, "messages", "delete", record, Value::Null, Expected::Published);
    }

    /// The producer sends an event a second time, under another `Nats-Msg-Id`, so that the source stream keeps it.
    fn sent_again(&mut self) {
        let Some(mut again) = self.last_published.clone() else { return self.new_message() };
        self.number += 1;
        again.message_id = format!("again-{}", self.number);
        again.expected = Expected::Duplicate;
        self.waiting.push(again);
    }

    fn other_table(&mut self) {
        let record = json!({"id": self.random.u32(..), "total": 125_000});
        self.push(0, "invoices", "insert", record, Value::Null, Expected::Skipped);
    }

    fn poison(&mut self) {
        match self.random.u8(0..3) {
            0 => {
                let record =
                    json!({"id": self.random.u64(0..1_000_000), "message_date": "2026-01-05", "message_id": null});
                self.push(0, "messages", "delete", record, Value::Null, Expected::DeadLettered);
            }
            1 => {
                let mut record = self.message("pending");
                record["company_id"] = Value::Null;
                self.push(0, "messages", "insert", record, Value::Null, Expected::DeadLettered);
            }
            _ => {
                let record = self.message("pending");
                self.push(0, "messages", "insert", record, Value::Null, Expected::DeadLettered);
                if let Some(event) = self.waiting.last_mut() {
                    event.payload.truncate(100);
                }
            }
        }
    }

    fn who(&mut self) -> (&'static str, String, String) {
        let tenant = TENANTS[self.random.usize(0..TENANTS.len())];
        let customer = format!("62812{:07}@s.whatsapp.net", self.random.u32(0..400));
        (tenant, format!("agent-{}", self.random.u8(1..9)), customer)
    }

    fn message(&mut self, status: &str) -> Value {
        let (tenant, agent, customer) = self.who();
        let id = 9_007_199_254_740_993_u64 + self.random.u64(0..1_000_000);
        let message_id = format!("3EB0{:016X}", self.random.u64(..));
        json!({
            "id": id, "message_id": message_id, "chat_id": chat(&customer), "agent_id": agent, "company_id": tenant,
            "from": customer, "to": "6281100000@s.whatsapp.net", "jid": customer, "flow": "IN", "status": status, "is_deleted": status == "deleted",
            "message_obj": {"conversation": "halo, pesanan saya belum sampai 🙏", "messageContextInfo": {"deviceListMetadataVersion": 2}},
            "key": {"id": message_id, "fromMe": false, "remoteJid": customer},
            "message_timestamp": self.now_micros / 1_000_000, "message_date": "2026-01-05",
            "created_at": "2026-01-05T08:00:00.123456", "updated_at": "2026-01-05T08:00:00.123456",
        })
    }

    fn push(&mut self, idx: u64, table: &str, action: &str, record: Value, changes: Value, expected: Expected) {
        let tenant = record["company_id"].as_str().unwrap_or(TENANTS[0]);
        let schema = format!("daisi_{tenant}");
        self.number += 1;
        let message_id = format!("{}:{idx}:{}", self.lsn, self.number);
        let subject = format!("sequin.changes.daisi_db.{schema}.{table}.{action}");
        let payload = json!({
            "record": record, "changes": changes, "action": action,
            "metadata": {
                "table_schema": schema, "table_name": table, "commit_timestamp": self.now_micros, "commit_lsn": self.lsn,
                "commit_idx": idx, "database_name": "daisi_db", "idempotency_key": message_id, "transaction_annotations": null,
                "consumer": {"id": "f6d6d0c1", "name": "wa_sink", "annotations": {}},
            }
        });
        let event = SourceEvent { subject, message_id, payload: payload.to_string().into_bytes(), expected };
        if expected == Expected::Published {
            self.last_published = Some(event.clone());
        }
        self.waiting.push(event);
    }
}

fn chat(customer: &str) -> String {
    format!("chat_{customer}")
}

impl Iterator for Traffic {
    type Item = SourceEvent;

    fn next(&mut self) -> Option<SourceEvent> {
        while self.waiting.is_empty() {
            self.transaction();
        }
        self.waiting.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_traffic_and_every_kind_occurs() {
        let take = |seed| Traffic::new(seed, 0).take(5_000).collect::<Vec<_>>();
        let (first, second) = (take(7), take(7));
        assert!(first.iter().zip(&second).all(|(a, b)| a.payload == b.payload && a.subject == b.subject));
        for kind in [Expected::Published, Expected::Duplicate, Expected::Skipped, Expected::DeadLettered] {
            assert!(first.iter().any(|event| event.expected == kind), "{kind:?} never occurs");
        }
        assert_ne!(first[0].payload, take(8)[0].payload);
    }
}
