//! The dead letters: what they carry, and what is too large for one message.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::nats::{NatsServer, on_every_server};
use async_nats::jetstream;
use cdc_actors::message::{DeadLetter, Delivery, DeliveryId, Headers, Reason, Receipt};
use cdc_actors::ports::DeadLetters;
use daisi_cdc_consumer::adapters::nats::{
    Connection, DeadLetterSettings, JetStreamDeadLetters, StreamSettings, streams,
};

use super::connect;

on_every_server! {
    dead_letters_carry_their_story
    huge_dead_letters_are_split
}

fn letter(payload: Vec<u8>, headers: Headers, detail: &str) -> DeadLetter {
    let id = DeliveryId { stream_created: 1, sequence: 7, timestamp: 3 };
    let delivery = Delivery {
        receipt: Receipt { id, consumer: 0, reply: "".into() },
        subject: "sequin.changes.db.public.messages.insert".into(),
        headers,
        payload: payload.into(),
        deliveries: 2,
        received: Instant::now(),
    };
    DeadLetter { delivery: delivery.into(), table: None, reason: Reason::NotJson, detail: detail.to_owned() }
}

async fn dead_letters(connection: &Connection) -> (JetStreamDeadLetters, jetstream::stream::Stream) {
    streams::ensure_stream(connection, &StreamSettings::new("DEAD", vec!["dead.>".to_owned()])).await.unwrap();
    let settings = DeadLetterSettings {
        stream: "DEAD".to_owned(),
        subject_prefix: "dead".to_owned(),
        source_stream: "IN".to_owned(),
        ack_timeout: Duration::from_secs(5),
    };
    let stream = jetstream::new(connection.client().clone()).get_stream("DEAD").await.unwrap();
    (JetStreamDeadLetters::new(connection.clone(), settings).await.unwrap(), stream)
}

async fn dead_letters_carry_their_story(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let (dead_letters, mut stream) = dead_letters(&connection).await;
    let headers = vec![("Nats-Msg-Id".to_owned(), "orig".to_owned()), ("x".to_owned(), "y".to_owned())];
    let letter = letter(b"{broken".to_vec(), headers, "line 1\r\nNats-Rollup: all");
    dead_letters.store(letter.clone()).await.unwrap();
    dead_letters.store(letter.clone()).await.unwrap();
    dead_letters.store(DeadLetter { reason: Reason::CrashesProcess, ..letter }).await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 1, "stored once, whatever a later attempt says");
    let message = stream.get_raw_message(1).await.unwrap();
    assert_eq!(message.subject.as_str(), "dead.unknown.not_json");
    assert_eq!(&message.payload[..], b"{broken");
    for (name, value) in [
        ("Cdc-Reason", "not_json"),
        ("Cdc-Detail", "line 1  Nats-Rollup: all"),
        ("Cdc-Stream", "IN"),
        ("Cdc-Sequence", "7"),
        ("Cdc-Subject", "sequin.changes.db.public.messages.insert"),
        ("Cdc-Deliveries", "2"),
        ("Cdc-Source-Nats-Msg-Id", "orig"),
        ("Cdc-Source-x", "y"),
        ("Nats-Msg-Id", "1-7-3"),
    ] {
        assert_eq!(message.headers.get(name).map(|v| v.as_str()), Some(value), "{name}");
    }
    let time = message.headers.get("Cdc-Time").unwrap().as_str();
    assert!(time.parse::<jiff::Timestamp>().is_ok() && time.len() == 27, "{time}");
}

async fn huge_dead_letters_are_split(binary: &Path) {
    let server = NatsServer::start_with(binary, "max_payload: 20000");
    let connection = connect(&server).await;
    let (dead_letters, mut stream) = dead_letters(&connection).await;
    // Nothing that compresses, under headers that do not fit.
    let mut state = 88_172_645_463_325_252_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(60_000)
    .collect();
    let headers = vec![("x".to_owned(), "v".repeat(9000))];
    dead_letters.store(letter(noise.clone(), headers, "huge")).await.unwrap();
    let mut joined = Vec::new();
    let count = stream.info().await.unwrap().state.messages;
    assert!(count >= 4, "{count}");
    for sequence in 1..=count {
        let message = stream.get_raw_message(sequence).await.unwrap();
        assert_eq!(message.headers.get("Cdc-Part").unwrap().as_str(), format!("{sequence}/{count}"));
        assert_eq!(message.headers.get("Cdc-Encoding").unwrap().as_str(), "gzip");
        joined.extend_from_slice(&message.payload);
    }
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(&joined[..]).read_to_end(&mut body).unwrap();
    let line_end = body.iter().position(|b| *b == b'\n').unwrap();
    let envelope: serde_json::Value = serde_json::from_slice(&body[..line_end]).unwrap();
    assert_eq!(envelope["headers"][0][1], "v".repeat(9000));
    assert_eq!(&body[line_end + 1..], &noise[..]);
    // What compresses well becomes one message.
    dead_letters
        .store(DeadLetter { reason: Reason::TooLarge, ..letter(vec![b'a'; 60_000], vec![], "") })
        .await
        .unwrap();
    let message = stream.get_raw_message(count + 1).await.unwrap();
    assert!(message.headers.get("Cdc-Part").is_none() && message.headers.get("Cdc-Encoding").is_some());
}
