//! What must hold for any input. The fuzzer looks for one for which it does not; `tests/corpus.rs` replays what it has kept.
#![allow(dead_code, reason = "each program uses its own part")]
#![allow(clippy::unwrap_used, reason = "a property that cannot be checked must stop")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cdc_actors::ports::Clock;
use daisi_cdc_consumer::adapters::http::serve;
use daisi_cdc_consumer::adapters::telemetry::Telemetry;
use daisi_cdc_consumer::config::Config;
use daisi_cdc_consumer::domain::scan::Scanner;
use daisi_cdc_consumer::domain::subject::SourceSubject;
use daisi_cdc_consumer::domain::{
    CdcTransform, TransformConfig, UnhandledFields, UnsafeTokens, decode_token, encode_token, explain,
};
use daisi_cdc_consumer::logging;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Every reason that a dead letter may have.
const REASONS: &[&str] = &[
    "not_json",
    "wrong_shape",
    "missing_key",
    "missing_routing",
    "tenant_mismatch",
    "replica_identity",
    "illegal_token",
    "subject_too_long",
    "too_large",
    "unchanged_toast",
    "rejected_field",
];

/// The first line is the subject, the rest the body: there is a verdict, and what is published is one well-formed event
/// under its own tenant's subject.
pub fn event(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (subject, _) = text.split_once('\n').unwrap_or((&text, ""));
    let body = data.iter().position(|byte| *byte == b'\n').map_or(&[][..], |at| &data[at + 1..]);
    for (tokens, fields) in [
        (UnsafeTokens::Encode, UnhandledFields::Keep),
        (UnsafeTokens::Reject, UnhandledFields::Drop),
        (UnsafeTokens::Encode, UnhandledFields::Reject),
    ] {
        let mut config = TransformConfig { unsafe_tokens: tokens, ..TransformConfig::default() };
        for table in [&mut config.tables.messages, &mut config.tables.chats, &mut config.tables.agents] {
            table.unhandled_fields = fields;
        }
        let said = explain(&CdcTransform::new(config), subject, Vec::new(), Bytes::copy_from_slice(body), "dead");
        match said.verdict {
            "publish" => published(tokens, &said.subject.unwrap(), &said.event_key.unwrap(), &said.payload.unwrap()),
            "dead_letter" => assert!(REASONS.contains(&said.reason.unwrap()), "{:?}", said.reason),
            verdict => assert_eq!(verdict, "skip"),
        }
    }
}

/// What routes an event; the rest of it may be nested deeper than a parser of values goes.
#[derive(Deserialize)]
struct Event {
    table: String,
    company_id: String,
    agent_id: String,
    chat_id: Option<String>,
}

fn published(tokens: UnsafeTokens, subject: &str, key: &str, payload: &str) {
    let Event { table, company_id, agent_id, chat_id } = serde_json::from_str(payload).unwrap();
    let token = |value: &str| match tokens {
        UnsafeTokens::Encode => encode_token(value).into_owned(),
        // What is no token as it stands was rejected.
        UnsafeTokens::Reject => value.to_owned(),
    };
    let head = format!("wa.{}.{}.{table}", token(&company_id), token(&agent_id));
    let chat = chat_id.as_deref().map(token).unwrap_or_default();
    let expected = if table == "messages" { format!("{head}.{chat}") } else { head };
    assert_eq!(subject, expected, "another tenant's subject, or none");
    assert!(subject.len() <= 1024 && subject.split('.').all(is_token), "{subject:?}");
    assert!((1..=200).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()), "{key:?}");
}

fn is_token(token: &str) -> bool {
    !token.is_empty() && !token.contains(|c: char| matches!(c, '*' | '>') || c.is_whitespace() || c.is_control())
}

/// A subject that is understood is made of exactly what was understood.
pub fn subject(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Some(found) = SourceSubject::parse(text) else { return };
    let rest = format!("{}.{}.{}.{}", found.database, found.schema, found.table, found.action.name());
    assert!(text == format!("sequin.{rest}") || text == format!("sequin.changes.{rest}"), "{text:?}");
}

/// Any text becomes one legal token, and comes back from it.
pub fn token(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if text.is_empty() {
        return;
    }
    let token = encode_token(text);
    assert!(is_token(&token) && !token.contains('.'), "{text:?} became {token:?}");
    assert_eq!(decode_token(&token).as_deref(), Some(text));
}

/// What is JSON is decided as serde_json decides it, and a value is what stands between its ends.
pub fn json(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut scanner = Scanner::new(text);
    let ours = scanner.value().and_then(|value| scanner.end().map(|()| value));
    let theirs = serde_json::from_str::<&RawValue>(text).map(RawValue::get);
    assert_eq!(ours.ok(), theirs.ok(), "{text:?}");
}

/// Any file is a configuration or an error that names what is wrong; none shows a secret.
pub fn config(data: &[u8]) {
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    file.write_all(data).unwrap();
    if let Err(error) = Config::load(Some(file.path()), []) {
        assert!(!error.to_string().trim().is_empty());
    }
}

struct Frozen;

impl Clock for Frozen {
    fn now(&self) -> Instant {
        static NOW: OnceLock<Instant> = OnceLock::new();
        *NOW.get_or_init(Instant::now)
    }

    fn unix_nanos(&self) -> i64 {
        0
    }
}

/// Where the endpoint under test listens, and what it tells of.
fn endpoint() -> &'static (SocketAddr, Arc<Telemetry>) {
    static ENDPOINT: OnceLock<(SocketAddr, Arc<Telemetry>)> = OnceLock::new();
    ENDPOINT.get_or_init(|| {
        let (told, started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let telemetry = Arc::new(Telemetry::new(logging::discard(), Arc::new(Frozen), &["messages"]));
                let http = serve(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::clone(&telemetry), Vec::new()).unwrap();
                told.send((http.address(), telemetry)).unwrap();
                std::future::pending::<()>().await;
            });
        });
        started.recv().unwrap()
    })
}

/// Whatever is sent, nothing changes, and the next who asks is answered.
pub fn http(data: &[u8]) {
    let (address, telemetry) = endpoint();
    let figures = || {
        let mut lines: Vec<String> = telemetry.render().lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let before = figures();
    let _ = exchange(*address, data);
    let answer = exchange(*address, b"GET /metrics HTTP/1.1\r\nhost: fuzz\r\nconnection: close\r\n\r\n").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    assert!(figures() == before, "a request has changed something");
}

fn exchange(address: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(request)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
