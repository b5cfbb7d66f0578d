//! Realistic Sequin traffic by seed: what a WhatsApp support desk writes to its database, and what goes wrong on the way.

use super::producer::Producer;
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

/// What a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A message is inserted.
    Insert,
    /// A message is delivered and read: two changes of one row in one transaction.
    Update,
    /// A chat is updated.
    Chat,
    /// An agent is updated.
    Agent,
    /// A message is deleted.
    Delete,
    /// An event comes a second time.
    Again,
    /// A row of a table that is not ours is inserted.
    Other,
    /// Something that can never be published.
    Poison,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] =
        [Self::Insert, Self::Update, Self::Chat, Self::Agent, Self::Delete, Self::Again, Self::Other, Self::Poison];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Chat => "chat",
            Self::Agent => "agent",
            Self::Delete => "delete",
            Self::Again => "again",
            Self::Other => "other",
            Self::Poison => "poison",
        }
    }
}

/// How often each kind occurs: weights, which need not add up to anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix(Vec<(Kind, u32)>);

impl Default for Mix {
    fn default() -> Self {
        Self(Kind::ALL.into_iter().zip([50, 20, 12, 4, 4, 4, 4, 2]).collect())
    }
}

impl Mix {
    /// The greatest weight.
    pub const MOST: u32 = 1_000_000;

    /// A mix of these kinds alone; `None` if nothing would ever occur, or a weight is above [`Self::MOST`].
    pub fn new(weights: Vec<(Kind, u32)>) -> Option<Self> {
        let sound = weights.iter().all(|(_, weight)| *weight <= Self::MOST);
        (sound && weights.iter().any(|(_, weight)| *weight > 0)).then_some(Self(weights))
    }

    /// The kinds of it that any table has, if there are any.
    pub fn of_any_table(&self) -> Option<Self> {
        let is_own = |kind: Kind| matches!(kind, Kind::Chat | Kind::Agent | Kind::Other);
        Self::new(self.0.iter().copied().filter(|(kind, _)| !is_own(*kind)).collect())
    }

    pub(super) fn pick(&self, random: &mut fastrand::Rng) -> Kind {
        let mut left = random.u32(0..self.0.iter().map(|(_, weight)| weight).sum());
        for (kind, weight) in &self.0 {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *kind,
            }
        }
        Kind::Insert
    }
}

/// An endless, reproducible stream of events.
#[derive(Debug)]
pub struct Traffic {
    producer: Producer,
    mix: Mix,
}

const TENANTS: [&str; 3] = ["CID1001", "CID1002", "CID1003"];

impl Traffic {
    /// Traffic by `seed`, committed from `start_micros` (microseconds since the Unix epoch) on.
    pub fn new(seed: u64, start_micros: i64) -> Self {
        Self::with_mix(seed, start_micros, Mix::default())
    }

    /// The same of another mix.
    pub fn with_mix(seed: u64, start_micros: i64, mix: Mix) -> Self {
        Self { producer: Producer::new(seed, start_micros), mix }
    }

    fn transaction(&mut self) {
        self.producer.begin();
        match self.mix.pick(&mut self.producer.random) {
            Kind::Insert => self.new_message(),
            Kind::Update => self.delivered_and_read(),
            Kind::Chat => self.chat_changes(),
            Kind::Agent => self.agent_changes(),
            Kind::Delete => self.message_deleted(),
            Kind::Again => self.sent_again(),
            Kind::Other => self.other_table(),
            Kind::Poison => self.poison(),
        }
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
            "id": format!("chat-{}", self.producer.random.u32(0..5_000)), "chat_id": chat(&customer), "agent_id": agent, "company_id": tenant,
            "jid": customer, "push_name": "Siti 🌺", "is_group": false, "unread_count": self.producer.random.u32(0..20),
            "last_message": {"text": "baik, terima kasih"}, "conversation_timestamp": self.producer.now_micros / 1_000_000,
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

    fn sent_again(&mut self) {
        if !self.producer.send_again() {
            self.new_message();
        }
    }

    fn other_table(&mut self) {
        let record = json!({"id": self.producer.random.u32(..), "total": 125_000});
        self.push(0, "invoices", "insert", record, Value::Null, Expected::Skipped);
    }

    fn poison(&mut self) {
        match self.producer.random.u8(0..3) {
            0 => {
                let record = json!({"id": self.producer.random.u64(0..1_000_000), "message_date": "2026-01-05", "message_id": null});
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
                if let Some(event) = self.producer.last_sent() {
                    event.payload.truncate(100);
                }
            }
        }
    }

    fn who(&mut self) -> (&'static str, String, String) {
        let tenant = TENANTS[self.producer.random.usize(0..TENANTS.len())];
        let customer = format!("62812{:07}@s.whatsapp.net", self.producer.random.u32(0..400));
        (tenant, format!("agent-{}", self.producer.random.u8(1..9)), customer)
    }

    fn message(&mut self, status: &str) -> Value {
        let (tenant, agent, customer) = self.who();
        let id = 9_007_199_254_740_993_u64 + self.producer.random.u64(0..1_000_000);
        let message_id = format!("3EB0{:016X}", self.producer.random.u64(..));
        json!({
            "id": id, "message_id": message_id, "chat_id": chat(&customer), "agent_id": agent, "company_id": tenant,
            "from": customer, "to": "6281100000@s.whatsapp.net", "jid": customer, "flow": "IN", "status": status, "is_deleted": status == "deleted",
            "message_obj": {"conversation": "halo, pesanan saya belum sampai 🙏", "messageContextInfo": {"deviceListMetadataVersion": 2}},
            "key": {"id": message_id, "fromMe": false, "remoteJid": customer},
            "message_timestamp": self.producer.now_micros / 1_000_000, "message_date": "2026-01-05",
            "created_at": "2026-01-05T08:00:00.123456", "updated_at": "2026-01-05T08:00:00.123456",
        })
    }

    fn push(&mut self, idx: u64, table: &str, action: &str, record: Value, changes: Value, expected: Expected) {
        let tenant = record["company_id"].as_str().unwrap_or(TENANTS[0]);
        let schema = format!("daisi_{tenant}");
        let message_id = self.producer.message_id(idx);
        let Producer { lsn, now_micros, .. } = self.producer;
        let subject = format!("sequin.changes.daisi_db.{schema}.{table}.{action}");
        let payload = json!({
            "record": record, "changes": changes, "action": action,
            "metadata": {
                "table_schema": schema, "table_name": table, "commit_timestamp": now_micros, "commit_lsn": lsn,
                "commit_idx": idx, "database_name": "daisi_db", "idempotency_key": message_id, "transaction_annotations": null,
                "consumer": {"id": "f6d6d0c1", "name": "wa_sink", "annotations": {}},
            }
        });
        self.producer.send(SourceEvent { subject, message_id, payload: payload.to_string().into_bytes(), expected });
    }
}

fn chat(customer: &str) -> String {
    format!("chat_{customer}")
}

impl Iterator for Traffic {
    type Item = SourceEvent;

    fn next(&mut self) -> Option<SourceEvent> {
        loop {
            if let Some(event) = self.producer.next() {
                return Some(event);
            }
            self.transaction();
        }
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

    #[test]
    fn a_mix_holds_what_it_names_by_weight() {
        assert_eq!((Mix::new(vec![]), Mix::new(vec![(Kind::Chat, 0)])), (None, None));
        let mix = Mix::new(vec![(Kind::Chat, 3), (Kind::Agent, 1)]).unwrap();
        let events: Vec<_> = Traffic::with_mix(1, 0, mix).take(4_000).collect();
        let chats = events.iter().filter(|event| event.subject.contains(".chats.")).count();
        assert!((2_800..3_200).contains(&chats), "{chats}");
        assert_eq!(chats + events.iter().filter(|event| event.subject.contains(".agents.")).count(), 4_000);
    }
}
