use std::time::{Duration, Instant};

use cdc_actors::message::{DeliveryId, Reason};
use cdc_actors::ports::{Dependency, Failure, FailureClass, Observer};
use cdc_actors::telemetry::{Outcome, PauseReason, Telemetry as Event};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connections::{HEAD_TIME, LIFETIME, LINGER_TIME, MAX_CONNECTIONS, MAX_HEAD, STOP};
use super::*;
use crate::adapters::telemetry::tests::ManualClock;
use crate::logging;

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    say(address, format!("{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await
}

/// Sends this and reads until the server closes, which it does after one answer.
async fn say(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

fn start() -> (Http, Arc<Telemetry>, Arc<ManualClock>) {
    start_with("cdc_events_stream")
}

/// One whose `/status.json` is longer than what fits into the buffers on the way to a client that does not read.
fn start_with_long_answers() -> Http {
    start_with(&"x".repeat(16 << 20)).0
}

fn start_with(stream: &str) -> (Http, Arc<Telemetry>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let telemetry = Arc::new(Telemetry::new(logging::discard(), clock.clone(), &["messages", "chats", "agents"]));
    let setting = |key: &str, value: &str| InForce { key: key.into(), value: value.into(), origin: "default".into() };
    let settings = vec![setting("source.stream", stream), setting("nats.password", "***")];
    let http = serve(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::clone(&telemetry), settings).unwrap();
    assert_ne!(http.address().port(), 0);
    (http, telemetry, clock)
}

fn refused() -> Failure {
    Failure::new("check keys", FailureClass::Disconnected, "refused <b> by redis://:secret@h")
}

#[tokio::test]
async fn readiness_follows_the_start_the_dependencies_and_the_shutdown() {
    let (http, telemetry, clock) = start();
    let before = ask(http.address(), "GET", "/readyz").await;
    assert_eq!((before.status, &before.json()["ready"]), (503, &json!(false)));
    assert_eq!(before.json()["reasons"][0]["error"], "starting");

    telemetry.status().set_started(true);
    let ready = ask(http.address(), "GET", "/readyz").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true, "reasons": []})));

    clock.advance(Duration::from_secs(5));
    telemetry.observe(Event::DependencyChanged { dependency: Dependency::Dedup, failure: Some(&refused()) });
    let down = ask(http.address(), "GET", "/readyz").await;
    assert_eq!(down.status, 503);
    let expected = json!({"ready": false, "reasons": [{
        "dependency": "dedup", "error": "check keys: refused <b> by redis://***@h", "since": "2023-11-14T22:13:25.000Z",
    }]});
    assert_eq!(down.json(), expected);

    telemetry.observe(Event::DependencyChanged { dependency: Dependency::Dedup, failure: None });
    telemetry.observe(Event::Paused { reason: PauseReason::Shutdown, paused: true });
    let stopping = ask(http.address(), "GET", "/readyz").await;
    assert_eq!((stopping.status, &stopping.json()["reasons"][0]["error"]), (503, &json!("shutting down")));
    http.stop().await;
}

#[tokio::test]
async fn liveness_fails_when_an_actor_falls_silent() {
    let (http, telemetry, clock) = start();
    telemetry.status().heartbeat("ingest");
    assert_eq!(ask(http.address(), "GET", "/healthz").await.status, 200);
    clock.advance(Duration::from_secs(31));
    let silent = ask(http.address(), "GET", "/healthz").await;
    assert_eq!(silent.status, 503);
    assert_eq!(silent.json(), json!({"alive": false, "silent": [{"actor": "ingest", "seconds": 31}]}));
    telemetry.status().heartbeat("ingest");
    assert_eq!(ask(http.address(), "GET", "/healthz").await.status, 200);
    http.stop().await;
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let (http, telemetry, _) = start();
    let took = Duration::from_millis(2);
    telemetry.observe(Event::Settled { table: Some("chats"), outcome: Outcome::Processed, took });
    let answer = ask(http.address(), "GET", "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    assert!(answer.body.contains("cdc_consumer_events_total{table=\"chats\",result=\"processed\"} 1"));
    http.stop().await;
}

#[tokio::test]
async fn the_page_is_one_document_that_may_run_its_own_script_and_nothing_else() {
    let (http, ..) = start();
    let page = ask(http.address(), "GET", "/").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: text/html; charset=utf-8"), "{}", page.head);
    for outside in ["http://", "https://", "src=\"", "@import", "url(", " style=\"", " onclick", "innerHTML"] {
        assert!(!page.body.contains(outside), "{outside}");
    }
    let policy = page.head.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
    for (directive, element) in [("script-src", "script"), ("style-src", "style")] {
        let parts: Vec<&str> = page.body.split(&format!("<{element}>")).collect();
        assert_eq!(parts.len(), 2, "one {element}");
        let (text, _) = parts[1].split_once(&format!("</{element}>")).unwrap();
        // What a browser computes of what it got.
        let expected = format!("{directive} '{}'", page::fingerprint(text)).to_lowercase();
        assert!(policy.contains(&expected), "{expected} in {policy}");
    }
    for directive in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    http.stop().await;
}

#[tokio::test]
async fn the_state_is_what_the_metrics_and_the_probes_say() {
    let (http, telemetry, clock) = start();
    telemetry.status().set_started(true);
    let took = Duration::from_millis(3);
    for (table, outcome) in
        [("chats", Outcome::Processed), ("agents", Outcome::Processed), ("chats", Outcome::Duplicate)]
    {
        telemetry.observe(Event::Settled { table: Some(table), outcome, took });
    }
    let id = DeliveryId { stream_created: 1, sequence: 42, timestamp: 3 };
    let letter =
        |reason| Event::DeadLettered { id, subject: "secret.tenant", table: None, reason, detail: "at byte 7" };
    telemetry.observe(letter(Reason::NotJson));
    clock.advance(Duration::from_secs(5));
    telemetry.observe(letter(Reason::NotJson));
    telemetry.observe(Event::Backlog { pending: 4_711, lag: Duration::from_millis(1_500) });
    telemetry.observe(Event::InFlight { messages: 11, bytes: 12_000 });
    telemetry.observe(Event::DedupChecked { hits: 2, misses: 5 });
    telemetry.observe(Event::Paused { reason: PauseReason::Dependency(Dependency::Dedup), paused: true });
    let failure = refused();
    let (dependency, operation) = (Dependency::Dedup, "check");
    telemetry.observe(Event::Called { dependency, operation, took, failure: Some(&failure) });
    telemetry.observe(Event::Streak { dependency, failures: 9 });
    telemetry.observe(Event::DependencyChanged { dependency, failure: Some(&failure) });

    let answer = ask(http.address(), "GET", "/status.json").await;
    assert_eq!(answer.status, 200);
    assert!(!answer.body.contains("secret"), "{}", answer.body);
    let state = answer.json();
    assert_eq!((&state["ready"], &state["alive"]), (&json!(false), &json!(true)));
    assert_eq!(state["reasons"][0]["error"], "check keys: refused <b> by redis://***@h");
    assert_eq!(
        (&state["started"], &state["now"]),
        (&json!("2023-11-14T22:13:20.000Z"), &json!("2023-11-14T22:13:25.000Z"))
    );
    assert_eq!(state["uptime_seconds"], 5);
    assert_eq!(state["events"]["chats"], json!({"processed": 1, "duplicate": 1, "skipped": 0, "dead_lettered": 0}));
    assert_eq!(state["source"], json!({"pending": 4711, "lag_seconds": 1.5, "redelivered": 0}));
    assert_eq!(state["in_flight"], json!({"messages": 11, "bytes": 12_000}));
    assert_eq!(state["dedup"], json!({"hits": 2, "misses": 5, "errors": 1, "bypassed": 0, "unrecorded": 0}));
    assert_eq!(state["dead_letters"], json!([{"table": "other", "reason": "not_json", "count": 2}]));
    let dedup = state["dependencies"].as_array().unwrap().iter().find(|d| d["name"] == "dedup").unwrap();
    assert_eq!(dedup, &json!({"name": "dedup", "up": false, "consecutive_failures": 9}));
    assert_eq!(state["paused"], json!(["dedup"]));
    let latency = |of: &str| state["latencies"].as_array().unwrap().iter().find(|l| l["of"] == of).unwrap().clone();
    assert_eq!(latency("processing")["count"], 3);
    let buckets = latency("processing")["buckets"].clone();
    assert!(
        buckets.as_array().unwrap().contains(&json!(["0.0025", 0]))
            && buckets.as_array().unwrap().contains(&json!(["0.005", 3]))
    );
    assert_eq!(buckets.as_array().unwrap().last().unwrap(), &json!(["+Inf", 3]));
    assert_eq!(
        (latency("dedup check")["count"].clone(), latency("commit_to_publish")["count"].clone()),
        (json!(1), json!(0))
    );
    let troubles = json!([
        {"what": "call failed", "with": "dedup check", "error": "check keys: refused <b> by redis://***@h", "times": 1,
         "first": "2023-11-14T22:13:25.000Z", "last": "2023-11-14T22:13:25.000Z"},
        {"what": "event is a dead letter", "with": "other not_json", "error": "at byte 7", "times": 2,
         "first": "2023-11-14T22:13:20.000Z", "last": "2023-11-14T22:13:25.000Z"},
    ]);
    assert_eq!(state["troubles"], troubles);
    assert_eq!(state["settings"][1], json!({"key": "nats.password", "value": "***", "origin": "default"}));
    http.stop().await;
}

#[tokio::test]
async fn only_known_paths_and_only_get() {
    let (http, _telemetry, _) = start();
    for path in ["/nothing", "/metrics/", "/readyz/x"] {
        assert_eq!(ask(http.address(), "GET", path).await.status, 404, "{path}");
    }
    for (method, path) in [("POST", "/metrics"), ("PUT", "/"), ("DELETE", "/readyz"), ("OPTIONS", "/healthz")] {
        let answer = ask(http.address(), method, path).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(answer.head.contains("allow: get, head"), "{}", answer.head);
    }
    let head = ask(http.address(), "HEAD", "/metrics").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("content-length: ") && !head.head.contains("content-length: 0"), "{}", head.head);
    http.stop().await;
}

#[tokio::test]
async fn every_answer_says_what_may_be_done_with_it() {
    let (http, ..) = start();
    for path in ["/", "/status.json", "/metrics", "/healthz", "/readyz", "/nothing"] {
        let head = ask(http.address(), "GET", path).await.head;
        for line in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "content-security-policy: default-src 'none'",
            "connection: close",
        ] {
            assert!(head.contains(line), "{path}: {line} in {head}");
        }
        assert!(!head.contains("server:") && !head.contains("access-control"), "{head}");
    }
    http.stop().await;
}

#[tokio::test]
async fn what_a_client_sends_is_bounded_and_it_still_gets_its_answer() {
    let (http, ..) = start();
    let address = http.address();
    let padded = |size: usize| format!("GET /healthz HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(size));
    assert_eq!(say(address, padded(MAX_HEAD / 2).as_bytes()).await.status, 200);
    assert_eq!(say(address, padded(8 * MAX_HEAD).as_bytes()).await.status, 431);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(200));
    assert_eq!(say(address, many.as_bytes()).await.status, 431);
    // A body is not read, whatever it says of itself.
    let body = "x".repeat(200_000);
    let sized = format!("POST /metrics HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n\r\n{body}");
    assert_eq!(say(address, sized.as_bytes()).await.status, 405);
    let endless = "GET /healthz HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999\r\n\r\nx";
    assert_eq!(say(address, endless.as_bytes()).await.status, 200);
    for nonsense in
        ["GET\r\n\r\n", "\0\u{1}\u{2}\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nA\u{0}: b\r\n\r\n"]
    {
        assert_eq!(say(address, nonsense.as_bytes()).await.status, 400, "{nonsense:?}");
    }
    // One request a connection: what follows it is not another.
    let twice = "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n".repeat(2);
    assert_eq!(say(address, twice.as_bytes()).await.body.matches("HTTP/1.1").count(), 0);
    http.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_its_time_is_cut_off() {
    let http = start_with_long_answers();
    let silent = async {
        let mut stream = TcpStream::connect(http.address()).await.unwrap();
        let began = Instant::now();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        began.elapsed()
    };
    let dripping = async {
        let mut stream = TcpStream::connect(http.address()).await.unwrap();
        let began = Instant::now();
        stream.write_all(b"GET /").await.unwrap();
        while stream.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    };
    let never_closing = async {
        let mut stream = TcpStream::connect(http.address()).await.unwrap();
        let began = Instant::now();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        // The answer is here and its connection half closed; the other half goes, too.
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    };
    let not_reading = async {
        let mut stream = asked_and_not_read(http.address()).await;
        tokio::time::sleep(LIFETIME + Duration::from_secs(1)).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        let whole = read.is_ok() && is_whole(&answer);
        (answer.len(), whole)
    };
    let (silent, dripping, never_closing, not_reading) = tokio::join!(silent, dripping, never_closing, not_reading);
    let slack = Duration::from_secs(3);
    for (took, limit) in [(silent, HEAD_TIME), (dripping, HEAD_TIME), (never_closing, LINGER_TIME)] {
        assert!(took > limit / 2 && took < limit + slack, "{took:?} of {limit:?}");
    }
    assert!(not_reading.0 > 0 && !not_reading.1, "the answer waited for a client that did not read: {not_reading:?}");
    http.stop().await;
}

#[tokio::test]
async fn whoever_asks_is_answered_however_many_hold_connections_and_say_nothing() {
    let (http, ..) = start();
    let address = http.address();
    let mut idle = Vec::new();
    for _ in 0..2 * MAX_CONNECTIONS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let began = Instant::now();
    assert_eq!(ask(address, "GET", "/healthz").await.status, 200);
    assert!(began.elapsed() < HEAD_TIME / 2, "it did not wait for others to be cut off: {:?}", began.elapsed());
    // The oldest had to go, the newest are still there.
    idle[0].read_to_end(&mut Vec::new()).await.unwrap();
    let mut newest = idle.pop().unwrap();
    newest.write_all(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    newest.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    http.stop().await;
}

#[tokio::test]
async fn whoever_has_asked_is_closed_after_those_who_have_not() {
    let http = start_with_long_answers();
    let mut asked = asked_and_not_read(http.address()).await;
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS + 20 {
        idle.push(TcpStream::connect(http.address()).await.unwrap());
    }
    // Younger than the one that asked, and gone.
    idle[0].read_to_end(&mut Vec::new()).await.unwrap();
    let mut answer = Vec::new();
    asked.read_to_end(&mut answer).await.unwrap();
    assert!(is_whole(&answer), "{} bytes", answer.len());
    http.stop().await;
}

/// Whether as much has come as the head says.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.unwrap().parse() == Ok(body.len())
}

/// A client that has asked for `/status.json` and takes its time.
async fn asked_and_not_read(address: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(b"GET /status.json HTTP/1.1\r\nHost: t\r\n\r\n").await.unwrap();
    stream
}

#[tokio::test]
async fn it_can_be_stopped_and_says_when_the_address_is_taken() {
    let (http, telemetry, _) = start();
    let address = http.address();
    let error = serve(address, Arc::clone(&telemetry), Vec::new()).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()) && error.to_string().contains("http.listen"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    let began = Instant::now();
    http.stop().await;
    assert!(began.elapsed() < STOP + Duration::from_secs(5));
    TcpStream::connect(address).await.unwrap_err();
}
