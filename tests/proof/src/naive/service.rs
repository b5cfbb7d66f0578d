//! The naive service: one batch after the other.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, AckKind, Message, consumer, stream};
use futures::StreamExt;

use super::Flaw;
use super::event::{Decision, Event, decide};
use super::records::Records;
use crate::world::{CONSUMER, DEAD_LETTERS, SOURCE, TARGET};

/// Messages in a batch.
const BATCH: usize = 50;
/// The pause before another attempt.
const PAUSE: Duration = Duration::from_millis(100);

fn setting(name: &str, default: &str) -> String {
    std::env::var(format!("DAISI_CDC_{name}")).unwrap_or_else(|_| default.to_owned())
}

/// See the module.
pub(super) struct Service {
    js: jetstream::Context,
    records: Records,
    flaw: Option<Flaw>,
    /// The newest position that may be stored, by row, and whether it was delivered here first.
    newest: HashMap<String, ((u64, u64), bool)>,
}

/// A delivery that is to be published.
struct Item {
    message: Message,
    event: Box<Event>,
    redelivered: bool,
}

impl Service {
    pub async fn connect(flaw: Option<Flaw>) -> Self {
        let (user, password) = (setting("NATS__USER", ""), setting("NATS__PASSWORD", ""));
        let client = async_nats::ConnectOptions::with_user_and_password(user, password)
            .retry_on_initial_connect()
            .reconnect_delay_callback(|_| PAUSE)
            .connect(setting("NATS__URL", "nats://localhost:4222"))
            .await
            .unwrap();
        let mut js = jetstream::new(client);
        js.set_timeout(Duration::from_secs(1));
        let records = Records::new(&setting("DEDUP__URL", "redis://localhost"), flaw);
        let service = Self { js, records, flaw, newest: HashMap::new() };
        while service.consumer().await.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
        service
    }

    pub async fn run(&mut self) {
        loop {
            match self.consumer().await {
                Some(consumer) => self.batch(&consumer).await,
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// The consumer, with its streams, created where they are missing.
    async fn consumer(&self) -> Option<consumer::PullConsumer> {
        let config = |name: &str, subject: &str| stream::Config {
            name: name.to_owned(),
            subjects: vec![subject.to_owned()],
            duplicate_window: Duration::from_secs(120),
            ..Default::default()
        };
        let mut source = config(SOURCE, "sequin.>");
        if setting("SOURCE__RETENTION", "limits") == "workqueue" {
            source.retention = stream::RetentionPolicy::WorkQueue;
        }
        self.js.get_or_create_stream(config(TARGET, "wa.>")).await.ok()?;
        self.js.get_or_create_stream(config(DEAD_LETTERS, "cdc.dead_letters.>")).await.ok()?;
        let source = self.js.get_or_create_stream(source).await.ok()?;
        let durable = consumer::pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            ack_wait: Duration::from_secs(2),
            max_ack_pending: 5_000,
            ..Default::default()
        };
        source.get_or_create_consumer(CONSUMER, durable).await.ok()
    }

    /// When a stream was created, and its last sequence; asked until there is an answer.
    async fn stream(&self, name: &str) -> (String, u64) {
        loop {
            if let Ok(stream) = self.js.get_stream(name).await {
                let info = stream.cached_info();
                return (info.created.unix_timestamp_nanos().to_string(), info.state.last_sequence);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn batch(&mut self, consumer: &consumer::PullConsumer) {
        let life = self.stream(SOURCE).await.0;
        let fetched = consumer.fetch().max_messages(BATCH).messages().await;
        let Ok(messages) = fetched else { return tokio::time::sleep(PAUSE).await };
        let messages: Vec<Message> = messages.filter_map(async |message| message.ok()).collect().await;
        // Looked at after the fetch: what was fetched may be delivered again for what the target lost meanwhile.
        let created = self.stream(TARGET).await.0;
        let js = self.js.clone();
        let last =
            async || js.get_stream(TARGET).await.map_or(u64::MAX, |stream| stream.cached_info().state.last_sequence);
        let generation = self.records.generation(&created, last).await;
        let target = format!("{created}/{generation}");
        if self.flaw == Some(Flaw::AckFirst) {
            self.acknowledge(messages.iter(), &life).await;
        }
        let mut items = Vec::new();
        for message in &messages {
            match decide(&message.payload) {
                Decision::Publish(event) => {
                    let redelivered = message.info().is_ok_and(|info| info.delivered > 1);
                    items.push(Item { message: message.clone(), event, redelivered });
                }
                Decision::Bury(reason) => self.bury(message, reason).await,
                Decision::Skip => {}
            }
        }
        let keys: Vec<String> = items.iter().map(|item| item.event.key.clone()).collect();
        let known = if keys.is_empty() { Vec::new() } else { self.records.check(&keys, &target).await };
        let mut known = known.into_iter();
        let mut seen = HashSet::new();
        items.retain(|item| known.next() == Some(false) && seen.insert(item.event.key.clone()));
        let stored: Vec<String> = items.iter().map(|item| item.event.key.clone()).collect();
        let highest = self.publish(items).await;
        self.records.record(&stored, &target, &created, highest).await;
        if self.flaw != Some(Flaw::AckFirst) {
            self.acknowledge(messages.iter(), &life).await;
        }
    }

    /// Publishes in order until everything is stored: the highest sequence.
    async fn publish(&mut self, mut items: Vec<Item>) -> u64 {
        if self.flaw == Some(Flaw::Spread) {
            fastrand::shuffle(&mut items);
        }
        let mut highest = 0;
        while !items.is_empty() {
            let mut acks = Vec::new();
            for item in &items {
                let headers = self.headers(item);
                acks.push(
                    self.js
                        .publish_with_headers(item.event.subject.clone(), headers, item.event.body.clone().into())
                        .await,
                );
            }
            let mut failed = Vec::new();
            for (item, ack) in items.into_iter().zip(acks) {
                let stored = match ack {
                    Ok(ack) => ack.await.ok(),
                    Err(_) => None,
                };
                match stored {
                    Some(stored) => highest = highest.max(stored.sequence),
                    None => failed.push(item),
                }
            }
            items = failed;
            if !items.is_empty() {
                // What waits long is not to be delivered to somebody else.
                for item in &items {
                    let _ = item.message.ack_with(AckKind::Progress).await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        highest
    }

    fn headers(&mut self, item: &Item) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !matches!(self.flaw, Some(Flaw::NoMsgId | Flaw::NoDedup)) {
            headers.insert("Nats-Msg-Id", item.event.key.as_str());
        }
        let position = item.event.position;
        let newest = self.newest.get(&item.event.row).copied();
        let late = match newest {
            Some((newest, _)) if position < newest => Some("true"),
            Some((_, first_hand)) if item.redelivered && !first_hand => Some("unknown"),
            None if item.redelivered => Some("unknown"),
            _ => None,
        };
        if let Some(late) = late.filter(|_| self.flaw != Some(Flaw::Spread)) {
            headers.insert("Cdc-Late", late);
        }
        let first_hand = !item.redelivered || newest.is_some_and(|(_, first_hand)| first_hand);
        let position = newest.map_or(position, |(newest, _)| newest.max(position));
        self.newest.insert(item.event.row.clone(), (position, first_hand));
        headers
    }

    async fn bury(&self, message: &Message, reason: &'static str) {
        if self.flaw == Some(Flaw::DropPoison) {
            return;
        }
        let sequence = message.info().map_or(0, |info| info.stream_sequence).to_string();
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("letter-{sequence}"));
        headers.insert("Cdc-Reason", reason);
        headers.insert("Cdc-Sequence", sequence);
        let subject = format!("cdc.dead_letters.naive.{reason}");
        loop {
            let sent = self.js.publish_with_headers(subject.clone(), headers.clone(), message.payload.clone()).await;
            if let Ok(sent) = sent
                && sent.await.is_ok()
            {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn acknowledge(&self, messages: impl Iterator<Item = &Message>, life: &str) {
        if self.stream(SOURCE).await.0 != life {
            return;
        }
        for message in messages {
            // An ack that is lost makes a redelivery.
            let _ = message.ack().await;
        }
    }
}
