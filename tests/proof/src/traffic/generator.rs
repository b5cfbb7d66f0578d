//! Draws changes by seed.

use std::collections::VecDeque;

use bytes::Bytes;

use super::row::{Row, Table};
use super::{Change, Envelope, Expect, Identity};

/// What the traffic is made of; shares are 0 to 1.
#[derive(Debug, Clone)]
pub struct Mix {
    /// Rows that change.
    pub rows: u64,
    /// Tenants that the rows belong to.
    pub tenants: u64,
    /// Share of changes that fall on one row.
    pub hot_share: f64,
    /// Share of changes that belong to the same transaction as the one before.
    pub same_transaction: f64,
    /// Within a transaction, share of changes of the row that was changed just before.
    pub same_row: f64,
    /// Share of changes that the producer sends a second time.
    pub repeated: f64,
    /// Share of messages that can never be published.
    pub poison: f64,
    /// Share of messages of tables that are not allowed.
    pub other_tables: f64,
    /// Share of messages that make a sabotaged transform panic, half of them when their row is looked for.
    pub panicking: f64,
    /// Free text in a row, in bytes.
    pub payload_bytes: usize,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            rows: 60,
            tenants: 3,
            hot_share: 0.0,
            same_transaction: 0.3,
            same_row: 0.5,
            repeated: 0.04,
            poison: 0.02,
            other_tables: 0.03,
            panicking: 0.0,
            payload_bytes: 100,
        }
    }
}

/// How many changes back a repetition may reach.
const REPEATED_FROM: usize = 40;

/// Changes without end. The same seed draws the same, but for the time of the commit.
#[derive(Debug)]
pub struct Generator {
    rng: fastrand::Rng,
    mix: Mix,
    rows: Vec<Row>,
    recent: VecDeque<Change>,
    number: u64,
    lsn: u64,
    idx: u64,
    last_row: usize,
}

impl Generator {
    /// Draws by a seed.
    pub fn new(seed: u64, mix: Mix) -> Self {
        let rows = (0..mix.rows).map(|number| Row::new(number, mix.tenants)).collect();
        let (rng, recent) = (fastrand::Rng::with_seed(seed), VecDeque::new());
        Self { rng, mix, rows, recent, number: 0, lsn: 26_000_000_000, idx: 0, last_row: 0 }
    }

    fn drawn(&mut self, share: f64) -> bool {
        self.rng.f64() < share
    }

    /// A change that was sent before, under another id, as a producer does that was restarted.
    fn repeated(&mut self) -> Option<Change> {
        let index = self.rng.usize(0..self.recent.len().max(1));
        let mut change = self.recent.get(index)?.clone();
        change.number = self.number;
        change.id = format!("repeated-{}", self.number);
        change.expect = Expect::Repeated;
        Some(change)
    }

    fn step(&mut self) {
        if self.drawn(self.mix.same_transaction) {
            self.idx += 1;
        } else {
            (self.lsn, self.idx) = (self.lsn + self.rng.u64(8..400), 0);
        }
    }

    fn pick(&mut self) -> usize {
        if self.idx > 0 && self.drawn(self.mix.same_row) {
            self.last_row
        } else if self.drawn(self.mix.hot_share) {
            // The first row is an agent; a message has more to it.
            3.min(self.rows.len() - 1)
        } else {
            self.rng.usize(0..self.rows.len())
        }
    }

    fn change(&mut self) -> Change {
        let index = self.pick();
        self.last_row = index;
        let draw = self.rng.f64();
        let row = &mut self.rows[index];
        let before = format!(r#"{{"status":"v{}"}}"#, row.version);
        row.version += 1;
        let (action, changes) = match (row.present, draw) {
            (false, 0.0..0.8) => ("insert", None),
            (false, _) => ("read", None),
            (true, 0.0..0.1) => ("delete", None),
            (true, _) => ("update", Some(before)),
        };
        row.present = action != "delete";
        let row = row.clone();
        let record = row.record(self.mix.payload_bytes);
        self.message(&row, action, record, changes, Expect::Target(row.target()))
    }

    /// Something that can never be published, or is of no concern.
    fn odd(&mut self, poison: bool) -> Change {
        let kind = self.rng.u8(0..5);
        let index = self.pick();
        let row = self.rows[index].clone();
        let record = row.record(self.mix.payload_bytes);
        let null =
            |name: &str, value: &str| record.replacen(&format!(r#""{name}":{value}"#), &format!(r#""{name}":null"#), 1);
        if !poison {
            let mut change = self.message(&row, "insert", record, None, Expect::Skip);
            let text = String::from_utf8_lossy(&change.payload)
                .replace(&format!(r#""table_name":"{}""#, row.table.name()), r#""table_name":"invoices""#);
            change.payload = text.into();
            change.subject = change.subject.replace(&format!(".{}.", row.table.name()), ".invoices.");
            return change;
        }
        let company = format!(r#""{}""#, row.company());
        let (action, record, reason) = match (kind, row.table) {
            (0, _) => ("delete", row.only_id(), "replica_identity"),
            (1, Table::Messages) => ("insert", null("message_id", &format!(r#""{}""#, row.key())), "missing_key"),
            (2, _) => ("insert", "[1,2]".to_owned(), "wrong_shape"),
            (3, _) => ("insert", format!("{{\"number\":{},", self.number), "not_json"),
            _ => ("insert", null("company_id", &company), "missing_routing"),
        };
        self.message(&row, action, record, None, Expect::DeadLetter(reason))
    }

    /// Good, but for a note that a sabotaged transform panics at.
    fn panicking(&mut self) -> Change {
        let mut change = self.change();
        let step = if self.number.is_multiple_of(2) { "order" } else { "decide" };
        let note = format!(r#""transaction_annotations":{{"sabotage":"{step}"}}"#);
        let text = String::from_utf8_lossy(&change.payload).replace(r#""transaction_annotations":null"#, &note);
        (change.payload, change.expect) = (text.into(), Expect::DeadLetter("panic"));
        change
    }

    fn message(&mut self, row: &Row, action: &str, record: String, changes: Option<String>, expect: Expect) -> Change {
        let (lsn, idx, schema, table, number) = (self.lsn, self.idx, row.schema(), row.table.name(), self.number);
        let payload = Envelope {
            record: &record,
            changes: changes.as_deref(),
            action,
            database: "daisi_db",
            schema: &schema,
            table,
            committed: jiff::Timestamp::now(),
            lsn,
            idx,
            idempotency_key: &format!("key-{number}"),
        }
        .body();
        // Sequin's form until mid 2025, and the one since.
        let prefix = if number % 3 == 0 { "sequin.changes" } else { "sequin" };
        Change {
            number,
            subject: format!("{prefix}.daisi_db.{schema}.{table}.{action}"),
            id: format!("change-{number}"),
            payload: payload.into(),
            expect,
            identity: Identity { row: row.identity(), lsn, idx },
            record: record.into(),
            changes: changes.map(Bytes::from),
        }
    }
}

impl Iterator for Generator {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        self.number += 1;
        if self.drawn(self.mix.repeated)
            && let Some(change) = self.repeated()
        {
            return Some(change);
        }
        self.step();
        let change = if self.drawn(self.mix.poison) {
            self.odd(true)
        } else if self.drawn(self.mix.other_tables) {
            self.odd(false)
        } else if self.mix.panicking > 0.0 && self.drawn(self.mix.panicking) {
            self.panicking()
        } else {
            self.change()
        };
        if matches!(change.expect, Expect::Target(_)) {
            self.recent.push_back(change.clone());
            if self.recent.len() > REPEATED_FROM {
                self.recent.pop_front();
            }
        }
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::{Expect, Generator, Mix};

    #[test]
    fn the_same_seed_draws_the_same_changes() {
        let draw = |seed| -> Vec<_> {
            Generator::new(seed, Mix::default())
                .take(500)
                .map(|change| (change.subject, change.identity, change.record))
                .collect()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn every_kind_of_change_is_drawn() {
        let changes: Vec<_> = Generator::new(1, Mix::default()).take(5_000).collect();
        let has = |is: &dyn Fn(&super::Change) -> bool| changes.iter().any(is);
        for action in ["insert", "update", "delete", "read"] {
            assert!(has(&|change| change.subject.ends_with(action)), "{action}");
        }
        for reason in ["replica_identity", "missing_key", "wrong_shape", "not_json", "missing_routing"] {
            assert!(has(&|change| change.expect == Expect::DeadLetter(reason)), "{reason}");
        }
        assert!(has(&|change| change.expect == Expect::Skip));
        assert!(has(&|change| change.expect == Expect::Repeated));
        assert!(has(&|change| change.identity.idx > 2));
        let valid = |change: &super::Change| serde_json::from_slice::<serde_json::Value>(&change.payload).is_ok();
        assert!(changes.iter().all(|change| valid(change) || change.expect == Expect::DeadLetter("not_json")));
    }
}
