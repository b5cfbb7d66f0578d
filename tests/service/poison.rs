//! What can never be published: in the dead-letter stream with its reason, and acknowledged.

use serde_json::{Value, json};

use crate::support::change::{Change, Input, agent, chat};
use crate::support::nats::nats_servers;
use crate::support::world::{SOURCE, Stored, World};

/// An event, the end of its dead letter's subject, and a part of the detail.
struct Case(Input, &'static str, &'static str);

fn cases() -> Vec<Case> {
    let change = || Change::message("m-1");
    let truncated = |change: Change| Input::new(change.subject(), &change.payload().as_bytes()[..100]);
    let key_only = json!({"id": 7, "message_date": "2026-01-05", "message_id": null, "chat_id": null});
    vec![
        Case(truncated(change()), "messages.not_json", "not JSON"),
        Case(Input::new("sequin.any", b"\xff\xfe".as_slice()), "unknown.not_json", "not UTF-8"),
        Case(Input::new("sequin.any", ""), "unknown.not_json", "not JSON"),
        Case(Input::new("sequin.any", "[1]"), "unknown.wrong_shape", "not a JSON object"),
        Case(change().column("is_deleted", "secret").input(), "messages.wrong_shape", "is_deleted should be a boolean"),
        Case(change().action("upsert").input(), "messages.wrong_shape", "action"),
        Case(change().column("message_id", Value::Null).input(), "messages.missing_key", "message_id"),
        Case(Change::new("chats", &chat("")).input(), "chats.missing_key", "chat_id"),
        Case(change().column("company_id", Value::Null).input(), "messages.missing_routing", "company_id"),
        Case(
            Change::new("agents", &agent("a")).column("company_id", "").input(),
            "agents.missing_routing",
            "company_id",
        ),
        Case(
            Change::new("messages", &key_only).action("delete").input(),
            "messages.replica_identity",
            "REPLICA IDENTITY FULL",
        ),
        Case(change().column("chat_id", "a.b").input(), "messages.illegal_token", "chat_id"),
        Case(change().column("chat_id", "c".repeat(5_000)).input(), "messages.subject_too_long", "5025 bytes"),
        Case(
            change().action("update").column("company_id", "unchanged_toast").input(),
            "messages.unchanged_toast",
            "company_id",
        ),
        Case(Change::new("agents", &agent("a")).column("added", 1).input(), "agents.rejected_field", "added"),
    ]
}

fn is_the_letter(case: &Case, sequence: u64, letter: &Stored) {
    let Case(input, end, detail) = case;
    assert_eq!(letter.subject, format!("cdc.dead_letters.{end}"));
    assert_eq!(letter.payload, input.payload, "{end}");
    let header = |name: &str| letter.header(name).unwrap_or_else(|| panic!("{end}: no {name}"));
    assert_eq!(header("Cdc-Reason"), end.rsplit('.').next().unwrap());
    assert!(header("Cdc-Detail").contains(detail), "{end}: {}", header("Cdc-Detail"));
    assert!(!header("Cdc-Detail").contains("secret"));
    assert_eq!(header("Cdc-Stream"), SOURCE);
    assert_eq!(header("Cdc-Sequence"), sequence.to_string());
    assert_eq!(header("Cdc-Subject"), input.subject);
    assert_eq!(header("Cdc-Deliveries"), "1");
    assert!(header("Cdc-Time").parse::<jiff::Timestamp>().is_ok(), "{}", header("Cdc-Time"));
    assert_eq!(header("Cdc-Source-x-trace"), "t1");
    let original = header("Cdc-Source-Nats-Msg-Id");
    assert!(!header("Nats-Msg-Id").is_empty() && header("Nats-Msg-Id") != original);
    assert_eq!(letter.headers.len(), 10, "{:?}", letter.headers);
}

#[tokio::test]
async fn every_kind_has_its_reason_and_the_rest_goes_on() {
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        world.set("target.unsafe_tokens", "reject").set("tables.agents.unhandled_fields", "reject");
        world.create_source().await;
        let cases = cases();
        let poison = (0..).zip(&cases).map(|(i, Case(input, ..))| {
            input.clone().header("Nats-Msg-Id", &format!("source-{i}")).header("x-trace", "t1")
        });
        // A good event between any two of them, of one row.
        let good = (0..).map(|i| Change::message("good").at(500 + i, 0).input());
        let inputs: Vec<_> = poison.zip(good).flat_map(|(poison, good)| [poison, good]).collect();
        world.feed(&inputs).await;
        let service = world.start();
        let (published, letters) = world.adds_up(cases.len(), cases.len()).await;
        for (i, case) in (0..).zip(&cases) {
            let sequence = 2 * i + 1;
            let is_its = |letter: &&Stored| letter.header("Cdc-Sequence") == Some(&sequence.to_string());
            is_the_letter(case, sequence, letters.iter().find(is_its).unwrap());
        }
        let positions: Vec<_> = published.iter().map(|event| event.position().0).collect();
        assert!(positions.is_sorted(), "{positions:?}");
        assert_eq!(service.metric("cdc_consumer_dead_letters_total", &[]), cases.len() as f64);
        let labels = [r#"table="other""#, r#"reason="not_json""#];
        assert_eq!(service.metric("cdc_consumer_dead_letters_total", &labels), 2.0);
        assert_eq!(service.metric("cdc_consumer_consecutive_failures", &[]), 0.0);
        let log = service.stop();
        assert!(!log.text().contains("secret"), "{}", log.text());
    }
}

/// The client cannot read them and closes its connection over them, and with it what came behind; so they are read by another way.
#[tokio::test]
async fn headers_that_no_client_reads_hold_up_nobody() {
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        world.set("source.ack_wait", "1s").set("retry.max", "100ms");
        world.create_source().await;
        let (sound, broken) = (Change::message("m-sound").input(), Input::new("sequin.d.s.messages.insert", "{"));
        let others: Vec<_> = (0..50).map(|i| Change::message(&format!("m-{i}")).at(30, i).input()).collect();
        world.nats.publish_raw(sound.subject.as_bytes(), b"NATS/1.0\r\nNot a name: x\r\n\r\n", &sound.payload);
        world.feed(&others[..25]).await;
        world.nats.publish_raw(broken.subject.as_bytes(), b"NATS/1.0\r\nno colon\r\n\r\n", &broken.payload);
        world.feed(&others[25..]).await;
        let service = world.start();
        let (published, letters) = world.adds_up(51, 1).await;
        assert!(published.iter().any(|event| event.json()["message_id"] == "m-sound"));
        assert_eq!((letters[0].text(), letters[0].header("Cdc-Reason")), ("{", Some("not_json")));
        service.stop();
    }
}
