//! Turns logical replication into messages as Sequin sends them.

use std::sync::Arc;

use super::decode::{Decoder, Message, Relation, Step, Value};
use super::workload::PUBLICATION;
use crate::servers::PostgresServer;
use crate::traffic::{self, Change, Envelope, Expect, Identity};

/// The replication slot.
const SLOT: &str = "cdc";
/// Changes that are read at once, but always whole transactions.
const BATCH: u32 = 500;
/// What Sequin sends in place of a large value that was left as it was.
pub(super) const UNCHANGED: &str = "unchanged_toast";
/// From the epoch of UNIX to that of PostgreSQL, in microseconds.
const EPOCH: i64 = 946_684_800_000_000;

/// Object ids of the types whose values are JSON as they stand.
const BARE: [u32; 6] = [20, 21, 23, 114, 1700, 3802];
/// The object id of `bool`.
const BOOL: u32 = 16;

/// See the module.
#[derive(Debug)]
pub struct Bridge {
    server: Arc<PostgresServer>,
    decoder: Decoder,
    number: u64,
    lsn: u64,
    idx: u64,
    committed: jiff::Timestamp,
}

impl Bridge {
    /// Creates the slot: changes from now on are read.
    pub fn open(server: Arc<PostgresServer>) -> Self {
        server.psql(&format!("SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")).unwrap();
        let committed = jiff::Timestamp::UNIX_EPOCH;
        Self { server, decoder: Decoder::default(), number: 0, lsn: 0, idx: 0, committed }
    }

    /// The next changes, in the order of their commits.
    pub fn read(&mut self) -> Vec<Change> {
        let sql = format!(
            "SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('{SLOT}', NULL, {BATCH}, \
             'proto_version', '1', 'publication_names', '{PUBLICATION}')"
        );
        let lines = self.server.psql(&sql).unwrap();
        let mut changes = Vec::new();
        for line in lines.lines() {
            match self.decoder.read(&unhex(line)) {
                Message::Begin { lsn, micros } => {
                    (self.lsn, self.idx) = (lsn, 0);
                    self.committed = jiff::Timestamp::from_microsecond(micros + EPOCH).unwrap();
                }
                Message::Step { relation, step } => changes.push(self.change(relation, step)),
                Message::Other => {}
            }
        }
        changes
    }

    fn change(&mut self, relation: u32, step: Step) -> Change {
        let relation = self.decoder.relation(relation);
        let whole = relation.columns.iter().all(|column| column.key);
        let (action, row, changes) = match step {
            Step::Insert { new } => ("insert", new, None),
            Step::Update { old, new } => {
                let new = filled(new, old.as_deref().filter(|_| whole));
                let changes = changed(relation, old.as_deref(), &new);
                ("update", new, Some(changes))
            }
            Step::Delete { old } => ("delete", old, None),
        };
        let expect = match action {
            "delete" if !whole => Expect::DeadLetter("replica_identity"),
            _ => Expect::Target(target(relation, &row)),
        };
        let Relation { schema, table, .. } = relation;
        let identity =
            Identity { row: format!("{schema}/{table}/{}", key(relation, &row)), lsn: self.lsn, idx: self.idx };
        let record = object(relation, &row, |_| true);
        let id = format!("{}:{}", self.lsn, self.idx);
        let payload = Envelope {
            record: &record,
            changes: changes.as_deref(),
            action,
            database: "postgres",
            schema,
            table,
            committed: self.committed,
            lsn: self.lsn,
            idx: self.idx,
            idempotency_key: &id,
        }
        .body();
        self.idx += 1;
        self.number += 1;
        Change {
            number: self.number,
            subject: format!("sequin.postgres.{schema}.{table}.{action}"),
            id,
            payload: payload.into(),
            expect,
            identity,
            record: record.into(),
            changes: changes.map(Into::into),
        }
    }
}

/// A new row, with what it leaves out taken from the old one, where that is whole.
fn filled(new: Vec<Value>, old: Option<&[Value]>) -> Vec<Value> {
    let known = |index: usize| old.map(|old| old[index].clone());
    let fill = |(index, value)| if value == Value::Unchanged { known(index).unwrap_or(value) } else { value };
    new.into_iter().enumerate().map(fill).collect()
}

/// The old values of what has changed, as far as the replica identity tells them.
fn changed(relation: &Relation, old: Option<&[Value]>, new: &[Value]) -> String {
    let Some(old) = old else { return "{}".to_owned() };
    object(relation, old, |index| relation.columns[index].key && old[index] != new[index])
}

/// A row as JSON, or some columns of it.
fn object(relation: &Relation, row: &[Value], wanted: impl Fn(usize) -> bool) -> String {
    let columns = relation.columns.iter().zip(row).enumerate().filter(|(index, _)| wanted(*index));
    let members: Vec<String> = columns
        .map(|(_, (column, value))| {
            let value = match value {
                Value::Null => "null".to_owned(),
                Value::Unchanged => format!("{UNCHANGED:?}"),
                Value::Text(text) if BARE.contains(&column.kind) => text.clone(),
                Value::Text(text) if column.kind == BOOL => (text == "t").to_string(),
                Value::Text(text) => serde_json::to_string(text).unwrap(),
            };
            format!("{}:{value}", serde_json::to_string(&column.name).unwrap())
        })
        .collect();
    format!("{{{}}}", members.join(","))
}

fn column<'a>(relation: &Relation, row: &'a [Value], name: &str) -> &'a str {
    let index = relation.columns.iter().position(|column| column.name == name).unwrap();
    if let Value::Text(text) = &row[index] { text } else { "" }
}

fn key<'a>(relation: &Relation, row: &'a [Value]) -> &'a str {
    let name = match relation.table.as_str() {
        "messages" => "message_id",
        "chats" => "chat_id",
        _ => "agent_id",
    };
    column(relation, row, name)
}

/// The subject that a change must come out under.
fn target(relation: &Relation, row: &[Value]) -> String {
    let chat = if relation.table == "messages" { column(relation, row, "chat_id") } else { "" };
    traffic::target(&relation.table, column(relation, row, "company_id"), column(relation, row, "agent_id"), chat)
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
