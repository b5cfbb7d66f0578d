//! The messages of `pgoutput`, protocol version 1, as the documentation of PostgreSQL has them ("Logical Replication
//! Message Formats").

use std::collections::HashMap;

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    /// Large, and left as it was: it is not sent again.
    Unchanged,
    Text(String),
}

/// A column of a table.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub name: String,
    /// The object id of its type.
    pub kind: u32,
    /// Part of the replica identity.
    pub key: bool,
}

/// A table, as it is announced before its first change.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub schema: String,
    pub table: String,
    pub columns: Vec<Column>,
}

/// What was done to a row.
#[derive(Debug)]
pub(super) enum Step {
    Insert { new: Vec<Value> },
    Update { old: Option<Vec<Value>>, new: Vec<Value> },
    Delete { old: Vec<Value> },
}

/// A message that matters here.
#[derive(Debug)]
pub(super) enum Message {
    Begin { lsn: u64, micros: i64 },
    Step { relation: u32, step: Step },
    Other,
}

/// Reads messages, and remembers the tables that they announce.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    relations: HashMap<u32, Relation>,
}

impl Decoder {
    pub fn relation(&self, id: u32) -> &Relation {
        &self.relations[&id]
    }

    pub fn read(&mut self, bytes: &[u8]) -> Message {
        let mut bytes = Bytes(bytes);
        match bytes.byte() {
            b'B' => Message::Begin { lsn: bytes.number(), micros: i64::from_be_bytes(bytes.array()) },
            b'R' => {
                let id = u32::from_be_bytes(bytes.array());
                let relation = bytes.relation();
                self.relations.insert(id, relation);
                Message::Other
            }
            kind @ (b'I' | b'U' | b'D') => {
                let relation = u32::from_be_bytes(bytes.array());
                let step = match (kind, bytes.byte()) {
                    (b'I', _) => Step::Insert { new: bytes.row() },
                    (b'U', b'N') => Step::Update { old: None, new: bytes.row() },
                    (b'U', _) => {
                        let old = bytes.row();
                        assert_eq!(bytes.byte(), b'N', "an old row is followed by the new one");
                        Step::Update { old: Some(old), new: bytes.row() }
                    }
                    _ => Step::Delete { old: bytes.row() },
                };
                Message::Step { relation, step }
            }
            _ => Message::Other,
        }
    }
}

/// What is left to read of a message.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn number(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    fn count(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    fn name(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap();
        let name = String::from_utf8(self.take(end).to_vec()).unwrap();
        self.byte();
        name
    }

    fn relation(&mut self) -> Relation {
        let (schema, table) = (self.name(), self.name());
        let _replica_identity = self.byte();
        let columns = (0..self.count())
            .map(|_| {
                let key = self.byte() & 1 == 1;
                let column = Column { name: self.name(), kind: u32::from_be_bytes(self.array()), key };
                let _type_modifier: [u8; 4] = self.array();
                column
            })
            .collect();
        Relation { schema, table, columns }
    }

    fn row(&mut self) -> Vec<Value> {
        (0..self.count())
            .map(|_| match self.byte() {
                b'n' => Value::Null,
                b'u' => Value::Unchanged,
                _ => {
                    let length = u32::from_be_bytes(self.array());
                    Value::Text(String::from_utf8(self.take(length as usize).to_vec()).unwrap())
                }
            })
            .collect()
    }
}
