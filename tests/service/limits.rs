//! Large events, long ids, many events, and many changes of one row.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::support::change::{Change, Input};
use crate::support::nats::nats_servers;
use crate::support::world::{PATIENCE, Stored, TARGET, World};

const MAX_PAYLOAD: usize = 1 << 20;

/// A change whose enriched event has exactly this many bytes.
fn sized(id: &str, event: usize) -> Change {
    let change = |filler: String| Change::message(id).column("message_text", filler);
    // One byte of filler is one byte of the event.
    let empty = change(String::new());
    change(noise(event - enriched_len(&empty)))
}

/// Bytes of the enriched event of an insert of [`Change::message`].
fn enriched_len(change: &Change) -> usize {
    let row: serde_json::Value = serde_json::from_str(&change.record).unwrap();
    let id = row["message_id"].as_str().unwrap();
    let around = format!(
        r#"{{"event_id":"{}:messages:{id}","table":"messages","schema":"{}","action":"insert","company_id":"acme","agent_id":"agent-1","chat_id":"chat-1","message_id":"{id}","commit_lsn":{},"commit_idx":{},"commit_timestamp":"2026-01-05T08:00:00.123456Z","row_data":}}"#,
        change.lsn, change.schema, change.lsn, change.idx
    );
    around.len() + change.record.len()
}

/// Letters that do not compress to much less than their number.
fn noise(count: usize) -> String {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.alphanumeric()).take(count).collect()
}

fn find<'s>(stored: &'s [Stored], key: &str) -> &'s Stored {
    let is_it = |event: &&Stored| event.json()["message_id"] == key;
    stored.iter().find(is_it).unwrap()
}

/// The body of a dead letter, put together and unpacked.
fn body(parts: &[&Stored]) -> Vec<u8> {
    let whole: Vec<u8> = parts.iter().flat_map(|part| part.payload.clone()).collect();
    let mut unpacked = Vec::new();
    match parts[0].header("Cdc-Encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(whole.as_slice()).read_to_end(&mut unpacked).unwrap(),
        other => panic!("{other:?}"),
    };
    unpacked
}

#[tokio::test]
async fn events_up_to_max_payload_come_out_and_larger_ones_whole_as_dead_letters() {
    for server in nats_servers() {
        let world = World::on(&server).await;
        let service = world.start();
        // With its one header the event fills what the server accepts to the last byte.
        let header = |change: &Change| {
            let row: serde_json::Value = serde_json::from_str(&change.record).unwrap();
            let id = row["message_id"].as_str().unwrap();
            format!("NATS/1.0\r\nNats-Msg-Id: daisi_db:daisi_acme:{}:messages:{id}:0\r\n\r\n", change.lsn).len()
        };
        let room = MAX_PAYLOAD - header(&sized("m-fits", 10_000));
        let fits = sized("m-fits", room);
        let over = sized("m-over", room + 1);
        // The source accepts it: the metadata say less than the event does.
        let short = |change: &Change| {
            let (record, schema, lsn) = (&change.record, &change.schema, change.lsn);
            let metadata = format!(
                r#"{{"table_schema":"{schema}","table_name":"messages","commit_timestamp":"2026-01-05T08:00:00.123456Z","commit_lsn":{lsn},"commit_idx":0,"database_name":"daisi_db"}}"#
            );
            format!(r#"{{"record":{record},"action":"insert","metadata":{metadata}}}"#)
        };
        let inputs = [Input::new(fits.subject(), short(&fits)), Input::new(over.subject(), short(&over))];
        for input in &inputs {
            assert!(input.payload.len() <= MAX_PAYLOAD, "{} bytes", input.payload.len());
        }
        world.feed(&inputs).await;
        world.settled().await;
        let published = world.published().await;
        assert_eq!(published.len(), 1);
        assert_eq!(published[0].payload.len(), room);
        assert_eq!(published[0].json()["row_data"].to_string(), fits.record);
        let letters = world.dead_letters().await;
        assert!(letters.iter().all(|letter| letter.subject == "cdc.dead_letters.messages.too_large"));
        assert_eq!(body(&letters.iter().collect::<Vec<_>>()), inputs[1].payload);
        assert!(letters[0].header("Cdc-Detail").unwrap().contains("bytes"));
        assert_eq!(service.metric("cdc_consumer_dead_letters_total", &[r#"reason="too_large""#]), 1.0);
        service.stop();
    }
}

#[tokio::test]
async fn max_payload_lowered_under_large_events() {
    const LOWERED: usize = 100_000;
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        world.create_source().await;
        let service = world.start();
        world.feed([&Change::message("m-before").input()]).await;
        world.settled().await;
        service.freeze();
        let large: Vec<_> =
            (0..4).map(|i| sized(&format!("m-large-{i}"), 300_000 + i).at(30, i as u64).input()).collect();
        let small: Vec<_> = (0..20).map(|i| Change::message(&format!("m-{i}")).at(40 + i, 0).input()).collect();
        world.feed(large.iter().chain(&small)).await;
        world.nats.reload(&format!("max_payload: {LOWERED}"));
        let deadline = Instant::now() + PATIENCE;
        while async_nats::connect(world.nats.url()).await.unwrap().server_info().max_payload != LOWERED {
            assert!(Instant::now() < deadline, "the server did not take the new limit over");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        service.signal("CONT");
        world.settled().await;
        let published = world.published().await;
        let mut keys: Vec<_> = published.iter().map(|event| event.json()["message_id"].clone()).collect();
        keys.sort_by_key(ToString::to_string);
        keys.dedup();
        assert_eq!(keys.len(), 1 + small.len(), "{keys:?}");
        assert_eq!(published.len(), 1 + small.len());
        let letters = world.dead_letters().await;
        for (sequence, input) in (2..).zip(&large) {
            let is_its = |letter: &&Stored| letter.header("Cdc-Sequence") == Some(&sequence.to_string());
            let parts: Vec<_> = letters.iter().filter(is_its).collect();
            assert!(parts.len() > 1, "noise does not fit into one part");
            for (i, part) in (1..).zip(&parts) {
                assert_eq!(part.subject, "cdc.dead_letters.messages.too_large");
                assert_eq!(part.header("Cdc-Part"), Some(format!("{i}/{}", parts.len()).as_str()));
            }
            assert_eq!(body(&parts), input.payload);
        }
        service.stop();
    }
}

#[tokio::test]
async fn an_id_of_5000_bytes() {
    let world = World::new().await;
    let service = world.start();
    let long = "k".repeat(5_000);
    // In the subject it is too long for any server; elsewhere it is an id like any other.
    let routing = Change::message("m-1").column("company_id", long.as_str());
    let key = Change::message(&long);
    world.feed([&routing.input(), &key.input(), &key.input(), &Change::message("m-2").input()]).await;
    let (published, letters) = world.adds_up(2, 1).await;
    assert_eq!(letters[0].subject, "cdc.dead_letters.messages.subject_too_long");
    assert_eq!(letters[0].text(), routing.payload());
    assert_eq!(find(&published, &long).header("Nats-Msg-Id").unwrap().len(), 32);
    assert_eq!(service.metric("cdc_consumer_nats_reconnects_total", &[]), 0.0);
    service.stop();
}

#[tokio::test]
async fn a_hot_row_comes_out_in_source_order() {
    const CHANGES: u64 = 2_000;
    for server in nats_servers() {
        let world = World::on(&server).await;
        let service = world.start();
        let hot = |i: u64| Change::message("hot").action("update").at(1_000 + i / 3, i % 3);
        let cold = |i: u64| Change::message(&format!("cold-{}", i % 50)).action("update").at(1_000 + i / 3, i % 3);
        let inputs: Vec<_> = (0..CHANGES).flat_map(|i| [hot(i).input(), cold(i).input()]).collect();
        world.feed(&inputs).await;
        let (published, _) = world.adds_up(inputs.len(), 0).await;
        let of_row = |id: String| {
            let of_row = published.iter().filter(move |event| event.header("Nats-Msg-Id").unwrap().contains(&id));
            of_row.map(Stored::position).collect::<Vec<_>>()
        };
        let expected: Vec<_> = (0..CHANGES).map(|i| (1_000 + i / 3, i % 3)).collect();
        assert_eq!(of_row(":hot:".to_owned()), expected);
        for row in 0..50 {
            let positions = of_row(format!(":cold-{row}:"));
            assert!(positions.len() == 40 && positions.is_sorted(), "cold-{row}: {positions:?}");
        }
        assert!(published.iter().all(|event| event.header("Cdc-Late").is_none()));
        service.stop();
    }
}

#[tokio::test]
async fn a_source_that_holds_100_000_events_already() {
    const EVENTS: u64 = 100_000;
    let world = World::new().await;
    world.create_source().await;
    let record = |i: u64| format!(r#"{{"agent_id":"a{}","company_id":"c"}}"#, i % 1_000);
    let payload = |i: u64| {
        let (record, schema) = (record(i), r#""table_schema":"s","table_name":"agents""#);
        format!(r#"{{"record":{record},"action":"update","metadata":{{{schema},"commit_lsn":{i},"commit_idx":0}}}}"#)
    };
    let inputs: Vec<_> = (0..EVENTS).map(|i| Input::new("sequin.d.s.agents.update", payload(i))).collect();
    world.feed(&inputs).await;
    let service = world.start();
    world.settled().await;
    let target = world.jetstream().get_stream(TARGET).await.unwrap();
    assert_eq!(target.cached_info().state.messages, EVENTS);
    assert!(world.dead_letters().await.is_empty());
    service.until_told(inputs.len());
    assert_eq!(service.metric("cdc_consumer_events_total", &[r#"result="processed""#]), EVENTS as f64);
    assert_eq!(service.metric("cdc_consumer_redelivered_total", &[]), 0.0);
    service.stop();
}
