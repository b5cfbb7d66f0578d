//! The JetStream adapters, held on real servers to the contracts that the fakes keep.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod support;

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::{self, stream::Stream};
use bytes::Bytes;
use cdc_actors::ports::{DeadLetters, Publisher, Source};
use cdc_actors::testkit::StoredMessage;
use cdc_actors::testkit::contract::{
    DeadLetterBench, PublisherBench, SourceBench, dead_letters_contract, publisher_contract, source_contract,
};
use daisi_cdc_consumer::adapters::nats::{
    Connection, ConsumerSettings, DeadLetterSettings, JetStreamDeadLetters, JetStreamPublisher, JetStreamSource,
    NatsConfig, PublisherSettings, SourceSettings, StreamSettings, streams,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use support::nats::{NatsServer, on_every_server};

/// Half of it is how late the suite may be: enough for a busy machine.
const ACK_WAIT: Duration = Duration::from_secs(3);
/// What a server accepts unless it is told otherwise.
const MAX_PAYLOAD: usize = 1024 * 1024;

async fn connect(server: &NatsServer) -> Connection {
    Connection::connect(&NatsConfig::new(vec![server.url()], 4096), |_| {}).await.unwrap()
}

async fn create(connection: &Connection, name: &str, subjects: &str) -> Stream {
    streams::ensure_stream(connection, &StreamSettings::new(name, vec![subjects.to_owned()])).await.unwrap();
    jetstream::new(connection.client().clone()).get_stream(name).await.unwrap()
}

async fn stored(stream: &Stream) -> Vec<StoredMessage> {
    let state = stream.get_info().await.unwrap().state;
    let mut all = Vec::new();
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let headers = message.headers.iter().flat_map(|(name, values)| {
            values.iter().map(|value| (name.to_string(), value.as_str().to_owned())).collect::<Vec<_>>()
        });
        all.push(StoredMessage {
            sequence,
            subject: message.subject.to_string(),
            headers: headers.collect(),
            payload: message.payload,
        });
    }
    all
}

struct SourceAtServer {
    source: JetStreamSource,
    connection: Connection,
}

impl SourceBench for SourceAtServer {
    fn source(&self) -> &dyn Source {
        &self.source
    }
    fn feed<'a>(&'a self, payload: &'a str) -> BoxFuture<'a, ()> {
        async {
            let context = jetstream::new(self.connection.client().clone());
            context.publish("in.t", payload.to_owned().into()).await.unwrap().await.unwrap();
        }
        .boxed()
    }
    fn ack_wait(&self) -> Duration {
        ACK_WAIT
    }
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        tokio::time::sleep(time).boxed()
    }
}

struct PublisherAtServer {
    publisher: JetStreamPublisher,
    stream: Stream,
}

impl PublisherBench for PublisherAtServer {
    fn publisher(&self) -> &dyn Publisher {
        &self.publisher
    }
    fn subject(&self, name: &str) -> String {
        format!("out.{name}")
    }
    fn missing_subject(&self) -> String {
        "nowhere.a".to_owned()
    }
    fn max_payload(&self) -> usize {
        MAX_PAYLOAD
    }
    fn stored(&self) -> BoxFuture<'_, Vec<StoredMessage>> {
        stored(&self.stream).boxed()
    }
}

struct DeadLettersAtServer {
    dead_letters: JetStreamDeadLetters,
    stream: Stream,
}

impl DeadLetterBench for DeadLettersAtServer {
    fn dead_letters(&self) -> &dyn DeadLetters {
        &self.dead_letters
    }
    fn payloads(&self) -> BoxFuture<'_, Vec<Bytes>> {
        let payloads = async {
            let letters = stored(&self.stream).await;
            for letter in &letters {
                let changed = ["Cdc-Envelope", "Cdc-Encoding", "Cdc-Part"].map(|name| letter.header(name));
                assert_eq!(changed, [None; 3], "a small letter is stored as it came");
                assert_eq!(letter.header("Injected"), None, "no text becomes a header of its own");
                assert_eq!(letter.header("Cdc-Source-X-Origin"), Some("contract"));
            }
            letters.into_iter().map(|letter| letter.payload).collect()
        };
        payloads.boxed()
    }
}

async fn the_source_keeps_the_contract(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    create(&connection, "IN", "in.>").await;
    let settings = SourceSettings {
        stream: StreamSettings::new("IN", vec!["in.>".to_owned()]),
        consumer: ConsumerSettings {
            name: "c".to_owned(),
            filters: vec!["in.>".to_owned()],
            ack_wait: ACK_WAIT,
            max_ack_pending: 5000,
            max_deliver: None,
            batch: 500,
        },
        stalled_after: None,
        stale_after: Duration::from_secs(600),
    };
    let source = JetStreamSource::new(connection.clone(), settings, |note| panic!("{note}"));
    source_contract(&SourceAtServer { source, connection }).await;
}

async fn the_publisher_keeps_the_contract(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let stream = create(&connection, "OUT", "out.>").await;
    let publisher = JetStreamPublisher::new(connection, PublisherSettings::new("OUT")).await.unwrap();
    publisher_contract(&PublisherAtServer { publisher, stream }).await;
}

async fn the_dead_letters_keep_the_contract(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let stream = create(&connection, "DEAD", "dead.>").await;
    let settings = DeadLetterSettings {
        stream: "DEAD".to_owned(),
        subject_prefix: "dead".to_owned(),
        source_stream: "IN".to_owned(),
        ack_timeout: Duration::from_secs(5),
    };
    let dead_letters = JetStreamDeadLetters::new(connection, settings).await.unwrap();
    dead_letters_contract(&DeadLettersAtServer { dead_letters, stream }).await;
}

on_every_server! {
    the_source_keeps_the_contract
    the_publisher_keeps_the_contract
    the_dead_letters_keep_the_contract
}
