//! Realistic traffic of declared tables, by seed: rows inserted, changed and deleted, and what goes wrong on the way.

use bytes::Bytes;
use cdc_actors::message::Headers;
use jiff::Timestamp;

use super::producer::Producer;
use super::rows::Rows;
use super::traffic::{Expected, Kind, Mix, SourceEvent};
use crate::domain::specimen::Specimen;
use crate::domain::subject::Action;
use crate::domain::table::Table;
use crate::domain::{CdcTransform, DeclaredTable, explain};

/// Rows that are made up for one event, until one is published.
const TRIES: usize = 24;

/// A row of a table, by number.
type Row = (u64, Specimen);

/// An endless, reproducible stream of events of declared tables. What is changed or deleted was inserted before, and an update
/// tells what its columns held. Where nothing is inserted rows are taken to have been there.
#[derive(Debug)]
pub struct TableTraffic {
    tables: Vec<DeclaredTable>,
    /// It says what becomes of each event.
    transform: CdcTransform,
    producer: Producer,
    mix: Mix,
    rows: u64,
    /// By table.
    there: Vec<Rows<Row>>,
}

impl TableTraffic {
    /// Traffic of `tables` by `seed`, committed from `start_micros` on. `tables` are not empty, and known to `transform`.
    /// Kinds of `mix` that tables of one's own do not have do not occur.
    pub fn new(tables: Vec<DeclaredTable>, transform: CdcTransform, mix: Mix, seed: u64, start_micros: i64) -> Self {
        let there = tables.iter().map(|_| Rows::default()).collect();
        Self { tables, transform, producer: Producer::new(seed, start_micros), mix, rows: 0, there }
    }

    fn transaction(&mut self) {
        self.producer.begin();
        let place = self.producer.random.usize(0..self.tables.len());
        match self.mix.pick(&mut self.producer.random) {
            Kind::Insert => self.new_row(place),
            Kind::Update => self.changed_twice(place),
            Kind::Delete => self.deleted(place),
            Kind::Again => self.sent_again(place),
            Kind::Poison => self.poison(place),
            Kind::Chat | Kind::Agent | Kind::Other => {}
        }
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_microsecond(self.producer.now_micros).unwrap_or_default()
    }

    /// A row that is new, or comes of a backfill now and then.
    fn new_row(&mut self, place: usize) {
        let action = if self.producer.random.u8(0..12) == 0 { Action::Read } else { Action::Insert };
        let (row, event) = self.made_up(place, action);
        self.there[place].put(row, &mut self.producer.random);
        self.producer.send(event);
    }

    /// A row whose event is published, if the table publishes any such event.
    fn made_up(&mut self, place: usize, action: Action) -> (Row, SourceEvent) {
        self.rows += 1;
        let (table, number, time) = (self.tables[place].clone(), self.rows, self.time());
        let make = |traffic: &mut Self| {
            let specimen = table.specimen(&mut traffic.producer.random, number, time);
            let event = traffic.event(table.name(), &specimen, action, "null", 0);
            (specimen, event)
        };
        let (specimen, event) = self.best(make);
        ((number, specimen), event)
    }

    /// The first that is published; the last one tried if none is.
    fn best(&mut self, mut make: impl FnMut(&mut Self) -> (Specimen, SourceEvent)) -> (Specimen, SourceEvent) {
        let mut made = make(self);
        for _ in 1..TRIES {
            if made.1.expected == Expected::Published {
                break;
            }
            made = make(self);
        }
        made
    }

    /// A row that is there; `None` if one has to be inserted first.
    fn one_there(&mut self, place: usize) -> Option<Row> {
        match self.there[place].take(&mut self.producer.random) {
            None if !self.mix.has(Kind::Insert) => Some(self.made_up(place, Action::Insert).0),
            found => found,
        }
    }

    /// Two changes of a row in one transaction: only their commit_idx tells them apart.
    fn changed_twice(&mut self, place: usize) {
        let Some((number, mut specimen)) = self.one_there(place) else { return self.new_row(place) };
        let (table, time) = (self.tables[place].clone(), self.time());
        for idx in 0..2 {
            let make = |traffic: &mut Self| {
                let (changed, former) = table.changed(&specimen, &mut traffic.producer.random, number, time);
                let event = traffic.event(table.name(), &changed, Action::Update, &former, idx);
                (changed, event)
            };
            let (changed, event) = self.best(make);
            self.producer.send(event);
            specimen = changed;
        }
        self.there[place].put((number, specimen), &mut self.producer.random);
    }

    fn deleted(&mut self, place: usize) {
        let Some((_, specimen)) = self.one_there(place) else { return self.new_row(place) };
        let event = self.event(self.tables[place].name(), &specimen, Action::Delete, "null", 0);
        self.producer.send(event);
    }

    fn sent_again(&mut self, place: usize) {
        if !self.producer.send_again() {
            self.new_row(place);
        }
    }

    /// A column of another type, where the table has one that can be wrong; else text that is cut off.
    fn poison(&mut self, place: usize) {
        self.rows += 1;
        let (table, time) = (self.tables[place].clone(), self.time());
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
