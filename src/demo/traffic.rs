//! Realistic Sequin traffic by seed: what a WhatsApp support desk writes to its database, and what goes wrong on the way.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::producer::Producer;
use super::rows::Rows;

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

    /// Whether a kind occurs.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.0.iter().any(|(own, weight)| *own == kind && *weight > 0)
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

/// An endless, reproducible stream of events. What is changed or deleted was inserted before, and an update tells what its
/// columns held. Chats and agents were there from the beginning, and messages are taken to have been where none is inserted.
#[derive(Debug)]
pub struct Traffic {
    producer: Producer,
    mix: Mix,
    /// Messages that nobody has read.
    pending: Rows<Value>,
    read: Rows<Value>,
    /// By tenant and customer.
    chats: BTreeMap<(&'static str, u32), Value>,
    /// By tenant and number.
    agents: BTreeMap<(&'static str, u32), Value>,
}

const TENANTS: [&str; 3] = ["CID1001", "CID1002", "CID1003"];
/// Customers and agents of each.
const CUSTOMERS: u32 = 400;
const AGENTS: u32 = 8;

impl Traffic {
    /// Traffic by `seed`, committed from `start_micros` (microseconds since the Unix epoch) on.
    pub fn new(seed: u64, start_micros: i64) -> Self {
        Self::with_mix(seed, start_micros, Mix::default())
    }

    /// The same of another mix.
    pub fn with_mix(seed: u64, start_micros: i64, mix: Mix) -> Self {
        let (pending, read) = (Rows::default(), Rows::default());
        let (chats, agents) = (BTreeMap::new(), BTreeMap::new());
        Self { producer: Producer::new(seed, start_micros), mix, pending, read, chats, agents }
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
        let record = self.message();
        self.pending.put(record.clone(), &mut self.producer.random);
        self.push(0, "messages", "insert", record, Value::Null, Expected::Published);
    }

    /// A message that is there; `None` if one has to be inserted first. `pending` says that nobody may have read it.
    fn one_there(&mut self, pending: bool) -> Option<Value> {
        let random = &mut self.producer.random;
        let read = if pending { None } else { self.read.take(random) };
        let found = read.or_else(|| self.pending.take(random));
        match found {
            None if !self.mix.has(Kind::Insert) => Some(self.message()),
            found => found,
        }
    }

    /// Two changes of one row in one transaction: only their commit_idx tells them apart.
    fn delivered_and_read(&mut self) {
        let Some(mut record) = self.one_there(true) else { return self.new_message() };
        for (idx, status) in (0..).zip(["delivered", "read"]) {
            let changes = changed(&mut record, json!({ "status": status, "updated_at": self.time() }));
            self.push(idx, "messages", "update", record.clone(), changes, Expected::Published);
        }
        self.read.put(record, &mut self.producer.random);
    }

    fn chat_changes(&mut self) {
        let (tenant, customer) = self.who();
        let now = self.producer.now_micros / 1_000_000;
        let mut record = self.chats.remove(&(tenant, customer)).unwrap_or_else(|| {
            let jid = jid(customer);
            json!({
                "id": format!("chat-{tenant}-{customer}"), "chat_id": chat(&jid), "agent_id": agent(customer), "company_id": tenant,
                "jid": jid, "push_name": "Siti 🌺", "is_group": false, "unread_count": 0,
                "last_message": {"text": "halo"}, "conversation_timestamp": now - 3_600,
            })
        });
        let unread = record["unread_count"].as_u64().unwrap_or_default();
        let new = match self.producer.random.u8(0..3) {
            0 if unread > 0 => json!({ "unread_count": 0 }),
            _ => json!({
                "unread_count": unread + 1, "last_message": {"text": format!("baik, terima kasih ({now})")},
                "conversation_timestamp": now,
            }),
        };
        let changes = changed(&mut record, new);
        self.chats.insert((tenant, customer), record.clone());
        self.push(0, "chats", "update", record, changes, Expected::Published);
    }

    fn agent_changes(&mut self) {
        let (tenant, number) = self.who();
        let number = number % AGENTS;
        let mut record = self.agents.remove(&(tenant, number)).unwrap_or_else(|| {
            json!({
                "id": number, "agent_id": agent(number), "company_id": tenant, "status": "connecting", "agent_name": "Budi",
                "battery_level": 81,
            })
        });
        let status = if record["status"] == "connected" { "connecting" } else { "connected" };
        let changes =
            changed(&mut record, json!({ "status": status, "battery_level": self.producer.random.u8(5..100) }));
        self.agents.insert((tenant, number), record.clone());
        self.push(0, "agents", "update", record, changes, Expected::Published);
    }

    fn message_deleted(&mut self) {
        let Some(record) = self.one_there(false) else { return self.new_message() };
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
                // A delete as the default replica identity has it.
                let Some(row) = self.one_there(false) else { return self.new_message() };
                let record = json!({"id": row["id"], "message_date": row["message_date"], "message_id": null});
                self.push(0, "messages", "delete", record, Value::Null, Expected::DeadLettered);
            }
            1 => {
                let mut record = self.message();
                record["company_id"] = Value::Null;
                self.push(0, "messages", "insert", record, Value::Null, Expected::DeadLettered);
            }
            _ => {
                let record = self.message();
                self.push(0, "messages", "insert", record, Value::Null, Expected::DeadLettered);
                if let Some(event) = self.producer.last_sent() {
                    event.payload.truncate(100);
                }
            }
        }
    }

    /// A tenant and one of its customers.
    fn who(&mut self) -> (&'static str, u32) {
        let tenant = TENANTS[self.producer.random.usize(0..TENANTS.len())];
        (tenant, self.producer.random.u32(0..CUSTOMERS))
    }

    /// When the transaction was committed, as a column without a time zone has it.
    fn time(&self) -> String {
        let time = Timestamp::from_microsecond(self.producer.now_micros).unwrap_or_default();
        format!("{time:.6}").trim_end_matches('Z').to_owned()
    }

    /// A message that just came.
    fn message(&mut self) -> Value {
        let ((tenant, number), time) = (self.who(), self.time());
        let customer = jid(number);
        let id = 9_007_199_254_740_993_u64 + self.producer.random.u64(0..1_000_000_000);
        let message_id = format!("3EB0{:016X}", self.producer.random.u64(..));
        json!({
            "id": id, "message_id": message_id, "chat_id": chat(&customer), "agent_id": agent(number), "company_id": tenant,
            "from": customer, "to": "6281100000@s.whatsapp.net", "jid": customer, "flow": "IN", "status": "pending", "is_deleted": false,
            "message_obj": {"conversation": "halo, pesanan saya belum sampai 🙏", "messageContextInfo": {"deviceListMetadataVersion": 2}},
            "key": {"id": message_id, "fromMe": false, "remoteJid": customer},
            "message_timestamp": self.producer.now_micros / 1_000_000, "message_date": time.get(..10),
            "created_at": time, "updated_at": time,
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

fn jid(customer: u32) -> String {
    format!("62812{customer:07}@s.whatsapp.net")
}

/// The agent that looks after a customer.
fn agent(customer: u32) -> String {
    format!("agent-{}", 1 + customer % AGENTS)
}

/// Gives columns of a row other values; the former ones of those that differ.
fn changed(row: &mut Value, new: Value) -> Value {
    let mut former = json!({});
    if let Value::Object(new) = new {
        for (name, value) in new {
            if row[&name] != value {
                former[&name] = std::mem::replace(&mut row[&name], value);
            }
        }
    }
    former
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
