//! A bench for whole-service tests: a nats-server, a redis-server and the real binary, and a ledger of what went in and out.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{self, ErrorCode, consumer, stream};
use futures::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::nats::{NatsServer, nats_servers};
use super::process;
use super::redis::RedisServer;

/// How long anything may take that should happen soon.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `check` gives a value; fails with `what` if it does not within [`PATIENCE`].
pub async fn eventually<R>(what: &str, mut check: impl AsyncFnMut() -> Option<R>) -> R {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = check().await {
            return result;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        pause().await;
    }
}

/// The pause between two looks.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(25)).await;
}

/// A nats-server, the oldest supported one that is there; it ends with this value.
pub struct Nats {
    server: NatsServer,
    login: Option<(String, String)>,
}

impl Nats {
    /// Starts one without credentials.
    pub fn start() -> Self {
        Self { server: NatsServer::start(&nats_servers()[0]), login: None }
    }

    /// Starts one that asks for `user` and `password`.
    pub fn start_with_password(user: &str, password: &str) -> Self {
        let config = format!("authorization {{ user: {user:?}, password: {password:?} }}");
        let server = NatsServer::start_with(&nats_servers()[0], &config);
        Self { server, login: Some((user.to_owned(), password.to_owned())) }
    }

    /// Its URL, with credentials where it asks for them.
    pub fn url(&self) -> String {
        let login = self.login.as_ref().map(|(user, password)| format!("{user}:{password}@"));
        self.server.url().replace("://", &format!("://{}", login.unwrap_or_default()))
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on the same port with what it has stored.
    pub fn restart(&mut self) {
        self.server.restart();
    }

    /// A copy of what it has stored; only while it is down.
    pub fn copy_store(&self) -> TempDir {
        assert!(self.server.is_down(), "a running server changes its files");
        let copy = TempDir::new().unwrap();
        copy_directory(&self.server.store(), &copy.path().join("store"));
        copy
    }

    /// Puts a copy back in place of what it has stored; only while it is down.
    pub fn restore_store(&self, copy: &TempDir) {
        assert!(self.server.is_down(), "a running server changes its files");
        let store = self.server.store();
        std::fs::remove_dir_all(&store).unwrap();
        copy_directory(&copy.path().join("store"), &store);
    }

    /// A client of it.
    pub async fn client(&self) -> jetstream::Context {
        let options = match self.login.clone() {
            Some((user, password)) => async_nats::ConnectOptions::with_user_and_password(user, password),
            None => async_nats::ConnectOptions::new(),
        };
        let options = options.reconnect_delay_callback(|_| Duration::from_millis(50));
        let client = options.connect(self.server.url()).await.unwrap();
        let mut context = jetstream::new(client);
        // What went down with a server is soon asked again.
        context.set_timeout(Duration::from_secs(2));
        context
    }
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The real binary, running; it ends with this value.
pub struct Consumer {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    http: Option<String>,
}

impl Consumer {
    /// Starts it with settings in the environment and waits until it says that it has started.
    pub async fn start(settings: &[(&str, String)]) -> Self {
        Self::until_said("started", settings).await
    }

    /// Starts it and waits only until it answers over HTTP, which it does before it has reached its servers.
    pub async fn starting(settings: &[(&str, String)]) -> Self {
        Self::until_said("answering over HTTP", settings).await
    }

    async fn until_said(message: &str, settings: &[(&str, String)]) -> Self {
        let mut consumer = Self::spawn(settings);
        let log = Arc::clone(&consumer.log);
        let http = eventually(message, async || {
            let ended = consumer.child.try_wait().unwrap();
            assert!(ended.is_none(), "the service ended instead of starting:\n{}", log.lock().unwrap().join("\n"));
            let lines = log.lock().unwrap();
            let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.filter(|line| line["msg"] == message).find_map(|line| line["http"].as_str().map(str::to_owned))
        });
        let http = http.await;
        consumer.http = Some(http);
        consumer
    }

    fn spawn(settings: &[(&str, String)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_daisi-cdc-consumer"))
            .arg("run")
            .env_clear()
            .envs(settings.iter().map(|(name, value)| (format!("DAISI_CDC_{name}"), value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stderr, sink) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        Self { child, log, http: None }
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Where HTTP listens, `host:port`.
    pub fn address(&self) -> &str {
        self.http.as_ref().unwrap()
    }

    /// Status and body of a page.
    pub fn get(&self, path: &str) -> (u16, String) {
        let response = self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.log()));
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn try_get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    }

    /// Status of `/readyz`, and the dependencies it names.
    pub fn readiness(&self) -> (u16, Vec<String>) {
        let (status, body) = self.get("/readyz");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["ready"], status == 200, "{body}");
        let reasons = body["reasons"].as_array().unwrap();
        let told = |reason: &Value| {
            assert!(reason["error"].is_string() && reason["since"].is_string(), "{reason}");
            reason["dependency"].as_str().unwrap().to_owned()
        };
        (status, reasons.iter().map(told).collect())
    }

    /// Holds that it is not ready for want of this dependency, at least: on a slow machine another one may be missed as well.
    pub fn assert_unready(&self, dependency: &str) {
        let (status, reasons) = self.readiness();
        assert!(status == 503 && reasons.iter().any(|reason| reason == dependency), "{status} {reasons:?}");
    }

    /// The metrics as they are now.
    pub fn metrics(&self) -> Metrics {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        Metrics(text)
    }

    /// Waits until a sample, such as `cdc_consumer_paused{reason="dedup"}`, has a value.
    pub async fn until_metric(&self, sample: &str, is: impl Fn(f64) -> bool) {
        let what = format!("{sample} as expected; the log says:\n{}", self.log());
        eventually(&what, async || is(self.metrics().value(sample)).then_some(())).await;
    }

    /// Waits until it is ready and has nothing in flight and nothing to come.
    pub async fn until_idle(&self) {
        eventually("the service is ready and idle", async || {
            let metrics = self.metrics();
            let empty = metrics.value("cdc_consumer_in_flight") == 0.0 && metrics.value("cdc_consumer_pending") == 0.0;
            (empty && self.readiness().0 == 200).then_some(())
        })
        .await;
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, name: &str) {
        process::signal(&self.child, name);
    }

    /// Waits for its end and returns its exit status; `None` if a signal ended it.
    pub async fn ended(&mut self) -> Option<i32> {
        eventually("the service ends", async || self.child.try_wait().unwrap()).await.code()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the log of the service:\n{}", self.log());
        }
    }
}

/// What `/metrics` said.
pub struct Metrics(pub String);

impl Metrics {
    /// The value of a sample with its labels in any order; 0 if it is not there.
    pub fn value(&self, sample: &str) -> f64 {
        self.find(sample).unwrap_or(0.0)
    }

    /// The value of a sample with its labels in any order.
    pub fn find(&self, sample: &str) -> Option<f64> {
        let wanted = parts(sample);
        let samples = self.0.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        samples.into_iter().find(|(found, _)| parts(found) == wanted).map(|(_, value)| value.parse().unwrap())
    }
}

fn parts(sample: &str) -> (&str, Vec<&str>) {
    let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
    let mut labels: Vec<&str> = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
    labels.sort_unstable();
    (name, labels)
}

/// What came out under one event id.
#[derive(Debug, Clone)]
pub struct Output {
    pub subject: String,
    pub headers: HeaderMap,
    pub body: Value,
}

/// Servers for one test, and what was fed.
pub struct Bench {
    pub nats: Nats,
    pub redis: RedisServer,
    pub js: jetstream::Context,
    next: Arc<AtomicU64>,
}

impl Bench {
    /// Starts both servers.
    pub async fn start() -> Self {
        Self::with(Nats::start(), RedisServer::start()).await
    }

    /// On servers of the caller's making.
    pub async fn with(nats: Nats, redis: RedisServer) -> Self {
        let js = nats.client().await;
        Self { nats, redis, js, next: Arc::new(AtomicU64::new(0)) }
    }

    /// Settings for these servers, quick to notice and to retry; `more` comes on top.
    pub fn settings<'a>(&self, more: &[(&'a str, &str)]) -> Vec<(&'a str, String)> {
        let mut settings = vec![
            ("NATS__URL", self.nats.url()),
            ("DEDUP__URL", self.redis.url()),
            ("HTTP__LISTEN", "127.0.0.1:0".to_owned()),
            ("SOURCE__ACK_WAIT", "2s".to_owned()),
            ("RETRY__MAX", "500ms".to_owned()),
            ("SHUTDOWN__GRACE", "10s".to_owned()),
            ("WORKERS", "4".to_owned()),
        ];
        settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        settings
    }

    /// Starts the service.
    pub async fn consumer(&self, more: &[(&str, &str)]) -> Consumer {
        Consumer::start(&self.settings(more)).await
    }

    /// How many events have been fed.
    pub fn fed(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// Feeds events, numbered on from the last; returns once the source has stored them.
    pub async fn feed(&self, count: u64) {
        let first = self.next.fetch_add(count, Ordering::SeqCst);
        futures::stream::iter(first..first + count)
            .for_each_concurrent(64, |number| feed(&self.js, event(number, "CID1"), number))
            .await;
    }

    /// Feeds one event of the caller's making; returns once the source has stored it.
    pub async fn feed_one(&self, (subject, payload): (String, Vec<u8>), message_id: &str) {
        put(&self.js, subject, payload, message_id).await;
    }

    /// Feeds about 400 events a second until told to stop.
    pub fn load(&self) -> Load {
        let (js, next, stop) = (self.js.clone(), Arc::clone(&self.next), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::SeqCst) {
                let first = next.fetch_add(10, Ordering::SeqCst);
                let feeds = (first..first + 10).map(|number| feed(&js, event(number, "CID1"), number));
                futures::future::join_all(feeds).await;
                pause().await;
            }
        });
        Load { stop, task }
    }

    /// A stream as it is now; `None` if it is not there. Whatever else goes wrong is tried again.
    async fn stream(&self, name: &str) -> Option<stream::Stream> {
        eventually(&format!("the server tells of {name}"), async || match self.js.get_stream(name).await {
            Ok(stream) => Some(Some(stream)),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Some(None),
                _ => None,
            },
        })
        .await
    }

    /// How many messages a stream holds; 0 if it is not there.
    pub async fn count(&self, name: &str) -> u64 {
        self.stream(name).await.map_or(0, |stream| stream.cached_info().state.messages)
    }

    /// Waits until the target holds at least so many.
    pub async fn until_target(&self, count: u64) {
        let what = format!("the target holds {count} events");
        eventually(&what, async || (self.count("wa_stream").await >= count).then_some(())).await;
    }

    /// Everything a stream holds, in order.
    pub async fn read(&self, name: &str) -> Vec<Output> {
        let stream = self.stream(name).await.unwrap_or_else(|| panic!("there is no stream {name}"));
        let count = usize::try_from(stream.cached_info().state.messages).unwrap();
        let settings = consumer::pull::Config {
            ack_policy: consumer::AckPolicy::None,
            inactive_threshold: PATIENCE,
            ..Default::default()
        };
        let consumer =
            eventually("a consumer to read with", async || stream.create_consumer(settings.clone()).await.ok()).await;
        let mut outputs = Vec::with_capacity(count);
        while outputs.len() < count {
            let mut messages = consumer.fetch().max_messages(500).messages().await.unwrap();
            while let Some(message) = messages.next().await {
                let message = message.unwrap();
                let body = serde_json::from_slice(&message.payload).unwrap_or(Value::Null);
                let (subject, headers) = (message.subject.to_string(), message.headers.clone().unwrap_or_default());
                outputs.push(Output { subject, headers, body });
            }
        }
        outputs
    }

    /// Waits until every event fed has come out, then asserts that each did so once and in the order of its row, except
    /// where it is marked as late.
    pub async fn assert_once_each(&self) {
        self.until_target(self.fed()).await;
        let outputs = self.read("wa_stream").await;
        assert_once_each(&outputs, 0..self.fed());
    }

    /// Creates a stream for `subjects` as the service would, but for the subjects.
    pub async fn create_stream(&self, name: &str, subjects: &[&str]) {
        let settings = stream::Config {
            name: name.to_owned(),
            subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
            duplicate_window: Duration::from_secs(120),
            ..Default::default()
        };
        self.js.create_stream(settings).await.unwrap();
    }
}

/// Asserts that the events of these numbers came out once each, a row in order but for what is marked as late.
pub fn assert_once_each(outputs: &[Output], numbers: std::ops::Range<u64>) {
    let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
    let mut rows: BTreeMap<String, u64> = BTreeMap::new();
    for output in outputs {
        let number = output.body["row_data"]["number"].as_u64().unwrap();
        *seen.entry(number).or_default() += 1;
        let newest = rows.entry(output.body["message_id"].as_str().unwrap().to_owned()).or_default();
        let late = output.headers.get("Cdc-Late").is_some();
        assert!(number >= *newest || late, "event {number} came after {newest} of its row and does not say so");
        *newest = number.max(*newest);
    }
    let lost: Vec<u64> = numbers.clone().filter(|number| !seen.contains_key(number)).collect();
    let doubled: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    let strange: Vec<_> = seen.keys().filter(|number| !numbers.contains(number)).collect();
    assert!(lost.is_empty(), "{} of {numbers:?} are lost: {lost:?}", lost.len());
    assert!(doubled.is_empty(), "doubled: {doubled:?}");
    assert!(strange.is_empty(), "never fed: {strange:?}");
}

/// Load in the background.
pub struct Load {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    /// Ends it; what has been begun is stored.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
    }
}

async fn feed(js: &jetstream::Context, (subject, payload): (String, Vec<u8>), number: u64) {
    put(js, subject, payload, &format!("event-{number}")).await;
}

/// Publishes to the source until it is stored, under one id.
async fn put(js: &jetstream::Context, subject: String, payload: Vec<u8>, message_id: &str) {
    let (payload, deadline) = (bytes::Bytes::from(payload), Instant::now() + PATIENCE);
    loop {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", message_id);
        if let Ok(stored) = js.publish_with_headers(subject.clone(), headers, payload.clone()).await
            && stored.await.is_ok()
        {
            return;
        }
        assert!(Instant::now() < deadline, "the source did not store {message_id}");
        pause().await;
    }
}

/// The event of a number: a change of one of 20 rows of a tenant.
pub fn event(number: u64, tenant: &str) -> (String, Vec<u8>) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let record = json!({
        "id": number % 20, "message_id": format!("M{}", number % 20), "chat_id": "chat-1", "agent_id": "agent-1",
        "company_id": tenant, "status": "pending", "number": number,
    });
    let payload = json!({
        "record": record, "changes": {"status": "sent"}, "action": "update",
        "metadata": {
            "table_schema": "daisi", "table_name": "messages", "database_name": "daisi_db",
            "commit_timestamp": u64::try_from(now.as_micros()).unwrap(), "commit_lsn": 1_000_000 + number, "commit_idx": 0,
            "idempotency_key": format!("key-{number}"), "transaction_annotations": null,
            "consumer": {"id": "c", "name": "sink", "annotations": {}},
        }
    });
    ("sequin.changes.daisi_db.daisi.messages.update".to_owned(), payload.to_string().into_bytes())
}
