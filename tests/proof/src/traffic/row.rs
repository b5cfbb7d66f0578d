//! Rows of the three tables, with histories.

use std::fmt::Write;

/// One of the tables that the service knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Messages,
    Chats,
    Agents,
}

impl Table {
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Chats => "chats",
            Self::Agents => "agents",
        }
    }
}

/// A row as it stands in the database.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub table: Table,
    pub tenant: u64,
    pub number: u64,
    pub present: bool,
    pub version: u64,
}

impl Row {
    /// The row of a number: seven of ten are messages, two chats, one an agent.
    pub fn new(number: u64, tenants: u64) -> Self {
        let table = match number % 10 {
            0 => Table::Agents,
            1 | 2 => Table::Chats,
            _ => Table::Messages,
        };
        Self { table, tenant: number % tenants, number, present: false, version: 0 }
    }

    pub fn schema(&self) -> String {
        format!("daisi_tenant{}", self.tenant)
    }

    pub fn company(&self) -> String {
        format!("tenant{}", self.tenant)
    }

    fn agent(&self) -> String {
        match self.table {
            Table::Agents => format!("agent-{}", self.number),
            _ => format!("agent-{}", self.tenant),
        }
    }

    /// As WhatsApp writes them: with dots, now and then with a blank and letters beyond ASCII.
    fn chat(&self) -> String {
        match self.number % 4 {
            0 => format!("6281{}@s.whatsapp.net", self.number),
            1 => format!("grup é {}", self.number),
            2 => format!("100%_{}", self.number),
            _ => format!("chat-{}", self.number),
        }
    }

    /// What the row is known by downstream.
    pub fn key(&self) -> String {
        match self.table {
            Table::Messages => format!("M{}", self.number),
            Table::Chats => self.chat(),
            Table::Agents => self.agent(),
        }
    }

    pub fn identity(&self) -> String {
        format!("{}/{}/{}", self.schema(), self.table.name(), self.key())
    }

    /// The subject that its events must come out under.
    pub fn target(&self) -> String {
        target(self.table.name(), &self.company(), &self.agent(), &self.chat())
    }

    /// The record as JSON text, with `extra` bytes of free text.
    pub fn record(&self, extra: usize) -> String {
        let (company, agent, chat, version) = (self.company(), self.agent(), text(&self.chat()), self.version);
        let key = text(&self.key());
        match self.table {
            Table::Messages => format!(
                r#"{{"id": {version}, "message_id":{key},"chat_id":{chat},"agent_id":"{agent}","company_id":"{company}","flow":"IN","status":"v{version}","is_deleted":false,"message_timestamp":1767600000,"message_date":"2026-01-05","message_obj":{{"big":90071992547409931{version},"exact":1.10000000000000000000{version},"text":"{}"}}}}"#,
                "é".repeat(extra / 2)
            ),
            Table::Chats => format!(
                r#"{{"id":"c{version}","chat_id":{key},"agent_id":"{agent}","company_id":"{company}","push_name":"Siti \ud83c\udf3a","unread_count":{version},"last_message":{{"text":"{}"}}}}"#,
                "x".repeat(extra)
            ),
            Table::Agents => format!(
                r#"{{"id":{version},"agent_id":{key},"company_id":"{company}","status":"v{version}","last_metadata":"{}"}}"#,
                "x".repeat(extra)
            ),
        }
    }

    /// What REPLICA IDENTITY DEFAULT leaves of a deleted row.
    pub fn only_id(&self) -> String {
        // Messages are partitioned by day: their primary key holds it.
        let day = if self.table == Table::Messages { r#","message_date":"2026-01-05""# } else { "" };
        format!(r#"{{"id":{},"message_id":null,"chat_id":null,"agent_id":null,"company_id":null{day}}}"#, self.version)
    }
}

fn text(value: &str) -> String {
    serde_json::to_string(value).unwrap()
}

/// The subject that events of a row must come out under; the chat matters for messages alone.
pub(crate) fn target(table: &str, company: &str, agent: &str, chat: &str) -> String {
    let (company, agent) = (token(company), token(agent));
    match table {
        "messages" => format!("wa.{company}.{agent}.{table}.{}", token(chat)),
        _ => format!("wa.{company}.{agent}.{table}"),
    }
}

/// One token of a subject: what has a meaning in subjects is percent-encoded, and so is the percent sign.
fn token(value: &str) -> String {
    let harmful = |c: char| matches!(c, '.' | '*' | '>' | '%') || c.is_whitespace() || c.is_control();
    let mut out = String::new();
    for c in value.chars() {
        if harmful(c) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(c);
        }
    }
    out
}
