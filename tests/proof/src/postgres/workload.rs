//! Concurrent transactions on the tables of two tenants.

use std::fmt::Write;
use std::process::Child;

use tempfile::TempDir;

use crate::servers::PostgresServer;

/// The publication that the bridge reads.
pub(super) const PUBLICATION: &str = "cdc";
/// The tenants' schemas. The first has REPLICA IDENTITY FULL, the second the default.
pub(super) const SCHEMAS: [&str; 2] = ["daisi_acme", "daisi_globex"];
/// The tables.
pub(super) const TABLES: [&str; 3] = ["messages", "chats", "agents"];
/// Sessions that work at a time.
const SESSIONS: u64 = 4;
/// Keys that rows of a table have.
const KEYS: u64 = 60;
/// Letters of a value that is too large to stand in its row.
const LARGE: usize = 9_000;

/// Creates schemas, tables and the publication.
pub fn prepare(server: &PostgresServer) {
    let mut sql = format!("CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES WITH (publish_via_partition_root = true);");
    for (index, schema) in SCHEMAS.iter().enumerate() {
        let identity = if index == 0 { "FULL" } else { "DEFAULT" };
        write!(
            sql,
            "CREATE SCHEMA {schema}; CREATE SEQUENCE {schema}.ids;
             CREATE TABLE {schema}.messages (id bigint DEFAULT nextval('{schema}.ids'), message_id text, chat_id text,
               agent_id text, company_id text, flow text, status text, is_deleted bool DEFAULT false,
               message_obj jsonb, message_timestamp bigint, message_date date, price numeric,
               created_at timestamptz DEFAULT now(), PRIMARY KEY (id, message_date)) PARTITION BY RANGE (message_date);
             CREATE TABLE {schema}.messages_old PARTITION OF {schema}.messages FOR VALUES FROM (MINVALUE) TO ('2026-01-05');
             CREATE TABLE {schema}.messages_new PARTITION OF {schema}.messages FOR VALUES FROM ('2026-01-05') TO (MAXVALUE);
             CREATE TABLE {schema}.chats (id text PRIMARY KEY DEFAULT nextval('{schema}.ids')::text, chat_id text UNIQUE,
               agent_id text, company_id text, push_name text, is_group bool, unread_count int, last_message jsonb,
               conversation_timestamp bigint, notes text);
             CREATE TABLE {schema}.agents (id bigint PRIMARY KEY DEFAULT nextval('{schema}.ids'), agent_id text UNIQUE,
               company_id text, status text, balance numeric, last_metadata jsonb);
             ALTER TABLE {schema}.messages_old ALTER message_obj SET STORAGE EXTERNAL, REPLICA IDENTITY {identity};
             ALTER TABLE {schema}.messages_new ALTER message_obj SET STORAGE EXTERNAL, REPLICA IDENTITY {identity};
             ALTER TABLE {schema}.messages REPLICA IDENTITY {identity};
             ALTER TABLE {schema}.chats ALTER notes SET STORAGE EXTERNAL, REPLICA IDENTITY {identity};
             ALTER TABLE {schema}.agents ALTER last_metadata SET STORAGE EXTERNAL, REPLICA IDENTITY {identity};"
        )
        .unwrap();
    }
    server.psql(&sql).unwrap();
}

/// Sessions at work.
#[derive(Debug)]
pub struct Workload {
    sessions: Vec<Child>,
    _scripts: TempDir,
}

impl Workload {
    /// Starts sessions of so many transactions each, drawn by a seed.
    pub fn start(server: &PostgresServer, seed: u64, transactions: u64) -> Self {
        let scripts = TempDir::new().unwrap();
        let sessions = (0..SESSIONS)
            .map(|session| {
                let path = scripts.path().join(format!("session-{session}.sql"));
                let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(SESSIONS) + session);
                let script: String = (0..transactions).map(|_| transaction(&mut rng)).collect();
                std::fs::write(&path, script).unwrap();
                server.session_with(&path).spawn().unwrap()
            })
            .collect();
        Self { sessions, _scripts: scripts }
    }

    /// Whether all sessions have come to their end.
    pub fn is_over(&mut self) -> bool {
        self.sessions.iter_mut().all(|session| session.try_wait().unwrap().is_some())
    }
}

/// A transaction of one to six statements; what it locks another may lock, too: one of them is rolled back then.
fn transaction(rng: &mut fastrand::Rng) -> String {
    let mut sql = "BEGIN;\n".to_owned();
    let (mut schema, mut table, mut key) = (0, 0, 0);
    for step in 0..rng.u64(1..=6) {
        // Now and then another change of the same row.
        if step == 0 || rng.u8(0..3) > 0 {
            (schema, table, key) = (rng.usize(0..SCHEMAS.len()), rng.usize(0..TABLES.len()), rng.u64(0..KEYS));
        }
        statement(&mut sql, rng, SCHEMAS[schema], TABLES[table], key);
    }
    sql.push_str(if rng.u8(0..12) == 0 { "ROLLBACK;\n" } else { "COMMIT;\n" });
    sql
}

fn statement(sql: &mut String, rng: &mut fastrand::Rng, schema: &str, table: &str, key: u64) {
    let company = schema.trim_start_matches("daisi_");
    // Beyond what a double holds.
    let (number, price) = (9_007_199_254_740_993 + rng.u64(0..1_000_000), rng.u64(..));
    let (name, json) = (words(rng), format!(r#"{{"text":"{}","n":{price}.10}}"#, words(rng)));
    let large = format!(r#"{{"large":"{}{price}"}}"#, "é".repeat(LARGE / 2));
    let date = if rng.bool() { "2026-01-04" } else { "2026-01-06" };
    let (draw, agent, chat) = (rng.u8(0..10), key % 3, format!("62{key}@s.whatsapp.net"));
    let (id, column) = match table {
        "messages" => (format!("M{key}"), "message_id"),
        "chats" => (chat.clone(), "chat_id"),
        _ => (format!("agent-{key}"), "agent_id"),
    };
    let all = format!("{schema}.{table}");
    let insert = match table {
        "messages" => format!(
            "(message_id, chat_id, agent_id, company_id, flow, status, message_obj, message_timestamp, message_date, price)
             SELECT '{id}', '{chat}', 'agent-{agent}', '{company}', 'IN', NULL, '{large}', {number}, '{date}', {price}.0000"
        ),
        "chats" => format!(
            "(chat_id, agent_id, company_id, push_name, is_group, unread_count, last_message, conversation_timestamp, notes)
             SELECT '{id}', 'agent-{agent}', '{company}', '{name}', false, 0, '{json}', {number}, '{large}'"
        ),
        _ => format!(
            "(agent_id, company_id, status, balance, last_metadata)
             SELECT '{id}', '{company}', '{name}', {price}{price}.{price}, '{large}'"
        ),
    };
    let update = match (table, draw) {
        (_, 2) => format!("id = nextval('{schema}.ids')"),
        ("messages", 3) => format!("message_date = '{date}'"),
        ("messages", 4) => format!("message_obj = '{large}'"),
        ("messages", 5) => format!("message_obj = '{json}', price = NULL"),
        ("messages", _) => format!("status = '{name}', message_timestamp = {number}"),
        ("chats", 3) => format!("notes = '{name}', push_name = NULL"),
        ("chats", _) => format!("unread_count = unread_count + 1, last_message = '{json}', is_group = NOT is_group"),
        (_, 3) => "last_metadata = NULL".to_owned(),
        _ => format!("status = '{name}', balance = balance + 0.1"),
    };
    let _ = match draw {
        0 => writeln!(sql, "DELETE FROM {all} WHERE {column} = '{id}';"),
        1 => writeln!(sql, "INSERT INTO {all} {insert} WHERE NOT EXISTS (SELECT FROM {all} WHERE {column} = '{id}');"),
        _ => writeln!(
            sql,
            "UPDATE {all} SET {update} WHERE {column} = '{id}';\n\
             INSERT INTO {all} {insert} WHERE NOT EXISTS (SELECT FROM {all} WHERE {column} = '{id}');"
        ),
    };
}

/// A few words, some of them beyond ASCII, one with what JSON and SQL quote.
fn words(rng: &mut fastrand::Rng) -> String {
    let all = ["Siti 🌺", "日本語", "é\u{301}", "O''Hara", "tab\\\\there", "a/b", "ünï", "x"];
    (0..3).map(|_| all[rng.usize(0..all.len())]).collect::<Vec<_>>().join(" ")
}
