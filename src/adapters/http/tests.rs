use std::time::Instant;

use cdc_actors::ports::{Dependency, Failure, FailureClass, Observer};
use cdc_actors::telemetry::{Outcome, PauseReason, Telemetry as Event};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

fn start() -> (Http, Arc<Telemetry>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let telemetry = Arc::new(Telemetry::new(logging::discard(), clock.clone()));
    let http = serve(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::clone(&telemetry)).unwrap();
    assert_ne!(http.address().port(), 0);
    (http, telemetry, clock)
}

fn refused() -> Failure {
    Failure::new("check keys", FailureClass::Disconnected, "refused <b> by redis://:secret@h")
}

#[actix_web::test]
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

#[actix_web::test]
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

#[actix_web::test]
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

#[actix_web::test]
async fn the_page_shows_state_and_figures_and_escapes_what_servers_say() {
    let (http, telemetry, _) = start();
    telemetry.status().set_started(true);
    telemetry.observe(Event::Backlog { pending: 4_711, lag: Duration::from_millis(1_500) });
    let good = ask(http.address(), "GET", "/").await;
    assert_eq!(good.status, 200);
    assert!(good.head.contains("text/html") && good.head.contains("default-src 'none'"), "{}", good.head);
    for expected in [">ready<", "4711", "1.5 s", "href=\"/metrics\"", "href=\"/readyz\"", "href=\"/healthz\""] {
        assert!(good.body.contains(expected), "{expected}: {}", good.body);
    }
    assert!(!good.body.contains("http://") && !good.body.contains("https://") && !good.body.contains("<script"));
    telemetry.observe(Event::DependencyChanged { dependency: Dependency::Target, failure: Some(&refused()) });
    let bad = ask(http.address(), "GET", "/").await.body;
    assert!(bad.contains(">not ready<") && bad.contains("refused &lt;b&gt;") && !bad.contains("<b>"), "{bad}");
    assert!(!bad.contains("secret"));
    http.stop().await;
}

#[actix_web::test]
async fn only_known_paths_and_only_get() {
    let (http, _telemetry, _) = start();
    for path in ["/nothing", "/metrics/", "/readyz/x"] {
        assert_eq!(ask(http.address(), "GET", path).await.status, 404, "{path}");
    }
    for (method, path) in [("POST", "/metrics"), ("PUT", "/"), ("DELETE", "/readyz"), ("OPTIONS", "/healthz")] {
        let answer = ask(http.address(), method, path).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(answer.head.contains("allow: get"), "{}", answer.head);
    }
    http.stop().await;
}

#[actix_web::test]
async fn it_can_be_stopped_and_says_when_the_address_is_taken() {
    let (http, telemetry, _) = start();
    let address = http.address();
    let error = serve(address, Arc::clone(&telemetry)).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()) && error.to_string().contains("http.listen"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    let began = Instant::now();
    http.stop().await;
    assert!(began.elapsed() < Duration::from_secs(STOP_SECONDS + 5));
    TcpStream::connect(address).await.unwrap_err();
}
