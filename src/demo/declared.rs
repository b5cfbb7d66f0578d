//! Realistic traffic of declared tables, by seed: rows inserted, changed and deleted, and what goes wrong on the way.

use bytes::Bytes;
use cdc_actors::message::Headers;
use jiff::Timestamp;

use super::producer::Producer;
use super::traffic::{Expected, Kind, Mix, SourceEvent};
use crate::domain::specimen::Specimen;
use crate::domain::subject::Action;
use crate::domain::table::Table;
use crate::domain::{CdcTransform, DeclaredTable, explain};

/// Rows that are made up for one event, until one is published.
const TRIES: usize = 24;

/// An endless, reproducible stream of events of declared tables.
#[derive(Debug)]
pub struct TableTraffic {
    tables: Vec<DeclaredTable>,
    /// It says what becomes of each event.
    transform: CdcTransform,
    producer: Producer,
    mix: Mix,
    rows: u64,
}

impl TableTraffic {
    /// Traffic of `tables` by `seed`, committed from `start_micros` on. `tables` are not empty, and known to `transform`.
    /// Kinds of `mix` that tables of one's own do not have do not occur.
    pub fn new(tables: Vec<DeclaredTable>, transform: CdcTransform, mix: Mix, seed: u64, start_micros: i64) -> Self {
        Self { tables, transform, producer: Producer::new(seed, start_micros), mix, rows: 0 }
    }

    fn transaction(&mut self) {
        self.producer.begin();
        let table = self.tables[self.producer.random.usize(0..self.tables.len())].clone();
        let old = self.producer.random.u64(0..self.rows.max(1));
        match self.mix.pick(&mut self.producer.random) {
            Kind::Insert => self.new_row(&table),
            Kind::Update => {
                // Two changes of a row in one transaction: only their commit_idx tells them apart.
                self.change(&table, old, Action::Update, 0);
                self.change(&table, old, Action::Update, 1);
            }
            Kind::Delete => self.change(&table, old, Action::Delete, 0),
            Kind::Again => self.sent_again(&table),
            Kind::Poison => self.poison(&table),
            Kind::Chat | Kind::Agent | Kind::Other => {}
        }
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_microsecond(self.producer.now_micros).unwrap_or_default()
    }

    /// A row that is new, or comes of a backfill now and then.
    fn new_row(&mut self, table: &DeclaredTable) {
        self.rows += 1;
        let action = if self.producer.random.u8(0..12) == 0 { Action::Read } else { Action::Insert };
        self.change(table, self.rows, action, 0);
    }

    /// A change that is published, if the table publishes any such change.
    fn change(&mut self, table: &DeclaredTable, row: u64, action: Action, idx: u64) {
        for tries_left in (0..TRIES).rev() {
            let time = self.time();
            let specimen = table.specimen(&mut self.producer.random, row, time);
            let changes = match action {
                Action::Update => self.changed(&specimen),
                Action::Insert | Action::Delete | Action::Read => "null".to_owned(),
            };
            let event = self.event(table.name(), &specimen, action, &changes, idx);
            if event.expected == Expected::Published || tries_left == 0 {
                return self.producer.send(event);
            }
        }
    }

    /// What a column held before.
    fn changed(&mut self, specimen: &Specimen) -> String {
        let (name, _) = &specimen.columns[self.producer.random.usize(0..specimen.columns.len())];
        format!("{{{}:null}}", serde_json::json!(name))
    }

    fn sent_again(&mut self, table: &DeclaredTable) {
        if !self.producer.send_again() {
            self.new_row(table);
        }
    }

    /// A column of another type, where the table has one that can be wrong; else text that is cut off.
    fn poison(&mut self, table: &DeclaredTable) {
        self.rows += 1;
        let time = self.time();
        let mut specimen = table.specimen(&mut self.producer.random, self.rows, time);
        let place = self.producer.random.usize(0..specimen.columns.len());
        "{}".clone_into(&mut specimen.columns[place].1);
        let mut event = self.event(table.name(), &specimen, Action::Insert, "null", 0);
        if event.expected != Expected::DeadLettered {
            event.payload.truncate(100);
            event.expected = Expected::DeadLettered;
        }
        self.producer.send(event);
    }

    fn event(&mut self, table: &str, specimen: &Specimen, action: Action, changes: &str, idx: u64) -> SourceEvent {
        let message_id = self.producer.message_id(idx);
        let Producer { lsn, now_micros, .. } = self.producer;
        let (schema, action) = (&specimen.schema, action.name());
        let subject = format!("sequin.changes.daisi_db.{schema}.{table}.{action}");
        let payload = format!(
            "{{\"record\":{},\"changes\":{changes},\"action\":\"{action}\",\"metadata\":{{\"table_schema\":{},\"table_name\":{},\
             \"commit_timestamp\":{now_micros},\"commit_lsn\":{lsn},\"commit_idx\":{idx},\"database_name\":\"daisi_db\",\
             \"idempotency_key\":\"{message_id}\",\"transaction_annotations\":null}}}}",
            specimen.record(),
            serde_json::json!(schema),
            serde_json::json!(table),
        );
        let payload = Bytes::from(payload);
        let said = explain(&self.transform, &subject, Headers::new(), payload.clone(), "");
        let expected = match said.verdict {
            "publish" => Expected::Published,
            "skip" => Expected::Skipped,
            _ => Expected::DeadLettered,
        };
        SourceEvent { subject, message_id, payload: payload.into(), expected }
    }
}

impl Iterator for TableTraffic {
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
