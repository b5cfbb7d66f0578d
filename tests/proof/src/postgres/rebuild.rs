//! The tables as whoever listens to the target would rebuild them, held against those of the database.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use async_nats::jetstream;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::bridge::UNCHANGED;
use super::workload::{SCHEMAS, TABLES};
use crate::judge;
use crate::servers::PostgresServer;
use crate::traffic::Metadata;
use crate::world::{DEAD_LETTERS, TARGET};

/// A row by column, every value as it stands in the event.
type Row = BTreeMap<String, Box<RawValue>>;
/// Rows by primary key.
type Table = HashMap<String, Row>;
/// Schema and table.
type Name = (String, String);

/// An event of the target.
#[derive(Deserialize)]
struct Event {
    schema: String,
    table: String,
    action: String,
    commit_lsn: u64,
    commit_idx: u64,
    row_data: Row,
    changes: Option<Row>,
}

/// A dead letter's body: a change as it came.
#[derive(Deserialize)]
struct Letter {
    record: Row,
    action: String,
    metadata: Metadata,
}

impl From<Letter> for Event {
    fn from(letter: Letter) -> Self {
        let Letter { record, action, metadata } = letter;
        let Metadata { table_schema: schema, table_name: table, commit_lsn, commit_idx } = metadata;
        Self { schema, table, action, commit_lsn, commit_idx, row_data: record, changes: None }
    }
}

/// What differs between the tables and what target and dead letters make of them.
///
/// Deletes that carry no more than the primary key are among the dead letters, and tell enough here.
pub async fn differences(js: &jetstream::Context, server: &PostgresServer) -> Vec<String> {
    let mut events: Vec<Event> =
        bodies(js, TARGET).await.iter().map(|body| serde_json::from_slice(body).unwrap()).collect();
    let letters = bodies(js, DEAD_LETTERS).await;
    events.extend(letters.iter().map(|body| Event::from(serde_json::from_slice::<Letter>(body).unwrap())));
    // Whoever rebuilds rows goes by the position of the commit; that it rises by row is the judge's part.
    events.sort_by_key(|event| (event.commit_lsn, event.commit_idx));
    let mut tables: HashMap<Name, Table> = HashMap::new();
    for event in events {
        apply(tables.entry((event.schema.clone(), event.table.clone())).or_default(), event);
    }
    let names = SCHEMAS.iter().flat_map(|schema| TABLES.iter().map(move |table| (*schema, *table)));
    names.filter_map(|(schema, table)| difference(server, schema, table, &tables)).collect()
}

async fn bodies(js: &jetstream::Context, stream: &str) -> Vec<Bytes> {
    let mut bodies = Vec::new();
    judge::each(js, stream, |message, _| bodies.push(message.payload.clone())).await;
    bodies
}

fn apply(table: &mut Table, event: Event) {
    let Event { table: name, action, row_data: mut row, changes, .. } = event;
    let key = |row: &Row| {
        let columns: &[&str] = if name == "messages" { &["id", "message_date"] } else { &["id"] };
        columns.iter().map(|column| row[*column].get()).collect::<Vec<_>>().join(",")
    };
    let mut before = row.iter().map(|(name, value)| (name.clone(), value.clone())).collect::<Row>();
    before.extend(changes.unwrap_or_default());
    let old = table.remove(&key(&before));
    if action == "delete" {
        return;
    }
    let unchanged = format!("{UNCHANGED:?}");
    for (column, value) in row.iter_mut().filter(|(_, value)| value.get() == unchanged) {
        // Without an earlier value it stays what no table holds.
        if let Some(known) = old.as_ref().and_then(|old| old.get(column)) {
            *value = known.clone();
        }
    }
    table.insert(key(&row), row);
}

/// Lets the database compare, type by type.
fn difference(server: &PostgresServer, schema: &str, table: &str, tables: &HashMap<Name, Table>) -> Option<String> {
    let rebuilt = tables.get(&(schema.to_owned(), table.to_owned()));
    let mut sql = "CREATE TEMP TABLE rebuilt (row jsonb);\n".to_owned();
    for row in rebuilt.into_iter().flat_map(|rows| rows.values()) {
        writeln!(sql, "INSERT INTO rebuilt VALUES ($row${}$row$);", serde_json::to_string(row).unwrap()).unwrap();
    }
    let all = format!("{schema}.{table}");
    let made = format!("SELECT (jsonb_populate_record(NULL::{all}, row)).* FROM rebuilt");
    write!(
        sql,
        "SELECT (SELECT count(*) FROM {all}), (SELECT count(*) FROM rebuilt),
           (SELECT count(*) FROM (TABLE {all} EXCEPT ALL {made}) missing),
           (SELECT count(*) FROM ({made} EXCEPT ALL TABLE {all}) surplus)"
    )
    .unwrap();
    let told = server.psql(&sql).unwrap();
    let counts: Vec<u64> = told.trim().split('\t').map(|count| count.parse().unwrap()).collect();
    let same = counts[0] == counts[1] && counts[0] > 0 && counts[2..] == [0, 0];
    (!same).then(|| {
        format!("{all}: {} rows, rebuilt {}, missing {}, surplus {}", counts[0], counts[1], counts[2], counts[3])
    })
}
