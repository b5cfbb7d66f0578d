//! Realistic traffic of declared tables, by seed: rows inserted, changed and deleted, and what goes wrong on the way.

use bytes::Bytes;
use cdc_actors::message::Headers;
use jiff::Timestamp;

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
    random: fastrand::Rng,
    mix: Mix,
    lsn: u64,
    number: u64,
    rows: u64,
    now_micros: i64,
    waiting: Vec<SourceEvent>,
    last_published: Option<SourceEvent>,
}

impl TableTraffic {
    /// Traffic of `tables` by `seed`, committed from `start_micros` on. `tables` are not empty, and known to `transform`.
    /// Kinds of `mix` that tables of one's own do not have do not occur.
    pub fn new(tables: Vec<DeclaredTable>, transform: CdcTransform, mix: Mix, seed: u64, start_micros: i64) -> Self {
        Self {
            tables,
            transform,
            mix,
            random: fastrand::Rng::with_seed(seed),
            lsn: 26_000_000_000,
            number: 0,
            rows: 0,
            now_micros: start_micros,
            waiting: Vec::new(),
            last_published: None,
        }
    }

    fn transaction(&mut self) {
        self.lsn += self.random.u64(40..4_000);
        self.now_micros += 150;
        let table = self.tables[self.random.usize(0..self.tables.len())].clone();
        let old = self.random.u64(0..self.rows.max(1));
        match self.mix.pick(&mut self.random) {
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
        self.waiting.reverse();
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_microsecond(self.now_micros).unwrap_or_default()
    }

    /// A row that is new, or comes of a backfill now and then.
    fn new_row(&mut self, table: &DeclaredTable) {
        self.rows += 1;
        let action = if self.random.u8(0..12) == 0 { Action::Read } else { Action::Insert };
        self.change(table, self.rows, action, 0);
    }

    /// A change that is published, if the table publishes any such change.
    fn change(&mut self, table: &DeclaredTable, row: u64, action: Action, idx: u64) {
        for tries_left in (0..TRIES).rev() {
            let time = self.time();
            let specimen = table.specimen(&mut self.random, row, time);
            let changes = match action {
                Action::Update => self.changed(&specimen),
                Action::Insert | Action::Delete | Action::Read => "null".to_owned(),
            };
            let event = self.event(table.name(), &specimen, action, &changes, idx);
            if event.expected == Expected::Published || tries_left == 0 {
                return self.send(event);
            }
        }
    }

    /// What a column held before.
    fn changed(&mut self, specimen: &Specimen) -> String {
        let (name, _) = &specimen.columns[self.random.usize(0..specimen.columns.len())];
        format!("{{{}:null}}", serde_json::json!(name))
    }

    /// The producer sends an event a second time, under another `Nats-Msg-Id`, so that the source stream keeps it.
    fn sent_again(&mut self, table: &DeclaredTable) {
        let Some(mut again) = self.last_published.clone() else { return self.new_row(table) };
        self.number += 1;
        again.message_id = format!("again-{}", self.number);
        again.expected = Expected::Duplicate;
        self.waiting.push(again);
    }

    /// A column of another type, where the table has one that can be wrong; else text that is cut off.
    fn poison(&mut self, table: &DeclaredTable) {
        self.rows += 1;
        let time = self.time();
        let mut specimen = table.specimen(&mut self.random, self.rows, time);
        let place = self.random.usize(0..specimen.columns.len());
        "{}".clone_into(&mut specimen.columns[place].1);
        let mut event = self.event(table.name(), &specimen, Action::Insert, "null", 0);
        if event.expected != Expected::DeadLettered {
            event.payload.truncate(100);
            event.expected = Expected::DeadLettered;
        }
        self.send(event);
    }

    fn event(&mut self, table: &str, specimen: &Specimen, action: Action, changes: &str, idx: u64) -> SourceEvent {
        let Self { lsn, now_micros, .. } = *self;
        self.number += 1;
        let message_id = format!("{lsn}:{idx}:{}", self.number);
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

    fn send(&mut self, event: SourceEvent) {
        if event.expected == Expected::Published {
            self.last_published = Some(event.clone());
        }
        self.waiting.push(event);
    }
}

impl Iterator for TableTraffic {
    type Item = SourceEvent;

    fn next(&mut self) -> Option<SourceEvent> {
        while self.waiting.is_empty() {
            self.transaction();
        }
        self.waiting.pop()
    }
}
