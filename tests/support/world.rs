//! Servers, streams and a service, as one test needs them.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, stream};
use async_nats::{Client, HeaderMap};
use futures::StreamExt;
use serde_json::Value;

use super::change::Input;
use super::nats::{NatsServer, nats_servers};
use super::redis::RedisServer;
use super::service::{Service, Settings};

/// How long the service may take to be done with what it was fed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Messages on their way to the source at a time.
const WINDOW: usize = 1_000;

/// Names of the streams and the consumer, which are the defaults.
pub const SOURCE: &str = "cdc_events_stream";
pub const TARGET: &str = "wa_stream";
pub const DEAD_LETTERS: &str = "cdc_dead_letters";
pub const CONSUMER: &str = "cdc_consumers";

/// A message in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its sequence.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// Its headers, by name.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub payload: Vec<u8>,
}

impl Stored {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Its body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }

    /// Its body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap()
    }

    /// Where in the database's history it happened.
    pub fn position(&self) -> (u64, u64) {
        let event = self.json();
        (event["commit_lsn"].as_u64().unwrap(), event["commit_idx"].as_u64().unwrap())
    }
}

/// Servers of one test and the settings for them.
pub struct World {
    /// The nats-server.
    pub nats: NatsServer,
    /// The redis-server.
    pub redis: RedisServer,
    /// A client of the test's own.
    pub client: Client,
    /// What the service is told.
    pub settings: Settings,
}

impl World {
    /// With the oldest supported nats-server that is there.
    pub async fn new() -> Self {
        Self::on(&nats_servers()[0]).await
    }

    /// With this nats-server.
    pub async fn on(binary: &Path) -> Self {
        let (nats, redis) = (NatsServer::start(binary), RedisServer::start());
        let client = async_nats::connect(nats.url()).await.unwrap();
        let mut world = Self { settings: Settings::new(), nats, redis, client };
        let (nats, redis) = (world.nats.url(), world.redis.url());
        world.set("nats.url", &nats).set("dedup.url", &redis).set("http.listen", "127.0.0.1:0");
        world
    }

    /// Changes a setting for the services started from now on.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Changes several settings.
    pub fn set_all(&mut self, pairs: &[(&str, &str)]) -> &Self {
        for (name, value) in pairs {
            self.set(name, value);
        }
        self
    }

    /// Starts the real binary.
    pub fn start(&self) -> Service {
        Service::start(&self.settings)
    }

    /// Starts the service in this process.
    pub fn start_in_process(&self) -> Service {
        Service::start_in_process(&self.settings)
    }

    /// JetStream.
    pub fn jetstream(&self) -> jetstream::Context {
        let mut context = jetstream::new(self.client.clone());
        context.set_timeout(PATIENCE);
        context
    }

    /// Creates the source stream, as an operator would before the service has ever run.
    pub async fn create_source(&self) {
        let config =
            stream::Config { name: SOURCE.to_owned(), subjects: vec!["sequin.>".to_owned()], ..Default::default() };
        self.jetstream().create_stream(config).await.unwrap();
    }

    /// Feeds the source stream in order, every message confirmed.
    pub async fn feed<'i>(&self, inputs: impl IntoIterator<Item = &'i Input>) {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.unwrap();
        let (mut sent, mut confirmed) = (0, 0);
        for input in inputs {
            let mut headers = HeaderMap::new();
            input.headers.iter().for_each(|(name, value)| headers.append(name.as_str(), value.as_str()));
            let (subject, payload) = (input.subject.clone(), input.payload.clone().into());
            self.client.publish_with_reply_and_headers(subject, inbox.clone(), headers, payload).await.unwrap();
            sent += 1;
            if sent - confirmed == WINDOW {
                confirm(&mut answers, WINDOW / 2).await;
                confirmed += WINDOW / 2;
            }
        }
        confirm(&mut answers, sent - confirmed).await;
    }

    /// Everything in a stream, in order.
    pub async fn stored(&self, name: &str) -> Vec<Stored> {
        let mut stream = self.jetstream().get_stream(name).await.unwrap();
        let expected = stream.info().await.unwrap().state.messages;
        let expected = usize::try_from(expected).unwrap();
        let config = pull::Config {
            ack_policy: AckPolicy::None,
            deliver_policy: DeliverPolicy::All,
            inactive_threshold: PATIENCE,
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let mut all = Vec::with_capacity(expected);
        while all.len() < expected {
            let count = (expected - all.len()).min(1_000);
            let mut batch = consumer.batch().max_messages(count).expires(PATIENCE).messages().await.unwrap();
            while let Some(message) = batch.next().await {
                all.push(stored(&message.unwrap()));
            }
        }
        all
    }

    /// What the service has published.
    pub async fn published(&self) -> Vec<Stored> {
        self.stored(TARGET).await
    }

    /// What it has put aside.
    pub async fn dead_letters(&self) -> Vec<Stored> {
        self.stored(DEAD_LETTERS).await
    }

    /// Waits until every message of the source is acknowledged, as long as there are ever more of them.
    pub async fn settled(&self) {
        let (mut deadline, mut done) = (Instant::now() + PATIENCE, 0);
        let mut stream = self.jetstream().get_stream(SOURCE).await.unwrap();
        let mut consumer: PullConsumer = stream.get_consumer(CONSUMER).await.unwrap();
        loop {
            let last = stream.info().await.unwrap().state.last_sequence;
            let info = consumer.info().await.unwrap();
            let (pending, unacknowledged, floor) =
                (info.num_pending, info.num_ack_pending, info.ack_floor.stream_sequence);
            if (pending, unacknowledged) == (0, 0) && floor == last {
                return;
            }
            if floor > done {
                (deadline, done) = (Instant::now() + PATIENCE, floor);
            }
            assert!(
                Instant::now() < deadline,
                "after {PATIENCE:?} {pending} are waiting, {unacknowledged} unacknowledged, {floor} of {last} done"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the service is done with everything and has published and put aside this many messages in all.
    pub async fn adds_up(&self, published: usize, dead_letters: usize) -> (Vec<Stored>, Vec<Stored>) {
        self.settled().await;
        let found = (self.published().await, self.dead_letters().await);
        assert_eq!((found.0.len(), found.1.len()), (published, dead_letters), "{}", shown(&found.1));
        found
    }
}

fn shown(letters: &[Stored]) -> String {
    let lines = letters.iter().map(|letter| format!("{} {:?}", letter.subject, letter.header("Cdc-Detail")));
    lines.take(20).collect::<Vec<_>>().join("\n")
}

async fn confirm(answers: &mut async_nats::Subscriber, count: usize) {
    for _ in 0..count {
        let answer = tokio::time::timeout(PATIENCE, answers.next()).await.expect("an answer in time").unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload)
            .unwrap_or_else(|_| panic!("no stream listens: {:?} {:?}", answer.status, answer.payload));
        assert!(answer["seq"].is_u64() && answer.get("duplicate").is_none(), "{answer}");
    }
}

fn stored(message: &jetstream::Message) -> Stored {
    let headers = message.headers.iter().flat_map(HeaderMap::iter);
    let mut headers: Vec<_> = headers
        .flat_map(|(name, values)| values.iter().map(move |value| (name.to_string(), value.as_str().to_owned())))
        .collect();
    headers.sort();
    Stored {
        sequence: message.info().unwrap().stream_sequence,
        subject: message.subject.to_string(),
        headers,
        payload: message.payload.to_vec(),
    }
}
