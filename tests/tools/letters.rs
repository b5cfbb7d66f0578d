//! `dead-letters list`, `show` and `drop`.

use async_nats::jetstream::stream;
use serde_json::{Value, json};

use crate::replay::rejected;
use crate::support::change::{Change, Input, agent};
use crate::support::nats::nats_servers;
use crate::support::service::{Service, Settings, command};
use crate::support::world::World;
use crate::{json_tool, tool};

/// Letters of four kinds, in this order: rejected_field, missing_routing, not_json of a table, not_json of none.
async fn put_aside(world: &mut World) {
    world.set("tables.agents.unhandled_fields", "reject");
    world.create_source().await;
    let inputs = [
        Change::new("agents", &agent("a-1"))
            .column("added", 1)
            .input()
            .header("x-trace", "t1")
            .header("Nats-Msg-Id", "one"),
        Change::message("m-1").column("chat_id", Value::Null).column("company_id", "globex").input(),
        Input::new(Change::message("m-2").subject(), "{\"a\u{1b}[31m"),
        Input::new("sequin.any", b"\xff\xfe".as_slice()),
    ];
    world.feed(&inputs).await;
    let service = world.start();
    world.adds_up(0, inputs.len()).await;
    service.stop();
}

fn sequences(letters: &[Value]) -> Vec<u64> {
    letters.iter().map(|letter| letter["sequence"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn letters_are_listed_shown_and_dropped() {
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        put_aside(&mut world).await;
        let list = |filter: &[&str]| json_tool(&world.settings, &[&["dead-letters", "list"], filter].concat(), 0);
        let all = list(&[]);
        let reasons: Vec<_> = all.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
        // They are stored as they are decided, which need not be the order of the source.
        let number = |reason: &str, table: &str| {
            let is_it = |letter: &&Value| letter["reason"] == reason && letter["table"] == table;
            all.iter().find(is_it).unwrap_or_else(|| panic!("no {reason} in {reasons:?}"))["sequence"].as_u64().unwrap()
        };
        let rejected = number("rejected_field", "agents");
        let missing = number("missing_routing", "messages");
        let (broken, binary) = (number("not_json", "messages"), number("not_json", "unknown"));
        assert_eq!(all.len(), 4);
        assert_eq!(sequences(&list(&["--table", "agents"])), [rejected]);
        assert_eq!(sequences(&list(&["--reason", "not_json", "--table", "unknown"])), [binary]);
        assert_eq!(sequences(&list(&["--tenant", "globex"])), [missing]);
        assert_eq!((list(&["--since", "1h"]).len(), list(&["--until", "1h"]).len()), (4, 0));
        assert_eq!(list(&["--since", "2026-01-05T08:00:00Z", "--tenant", "acme"]).len(), 1);
        let first = all.iter().find(|letter| letter["sequence"] == rejected).unwrap();
        assert_eq!(first["subject"], Change::new("agents", &agent("a")).subject());
        assert_eq!(
            (&first["source_sequence"], &first["deliveries"], &first["replays"]),
            (&json!(1), &json!(1), &json!(0))
        );
        assert!(first["detail"].as_str().unwrap().contains("added"));

        let (code, text, _) = tool(&world.settings, &["dead-letters", "list"]);
        assert_eq!((code, text.lines().count()), (0, 5), "{text}");
        assert!(text.contains("REASON") && text.contains("rejected_field") && text.contains("globex"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");

        let show =
            |sequence: u64| json_tool(&world.settings, &["dead-letters", "show", &sequence.to_string()], 0).remove(0);
        let shown = show(rejected);
        assert_eq!(shown["payload"], Change::new("agents", &agent("a-1")).column("added", 1).payload());
        assert_eq!(shown["headers"], json!({"x-trace": "t1", "Nats-Msg-Id": "one"}));
        assert_eq!((&shown["history"], &shown["payload_base64"]), (&json!([]), &Value::Null));
        // What is shown can be explained as it is, here with columns kept that are not known.
        let explained = command(&Settings::new(), &["explain"], shown.to_string().as_bytes()).stdout;
        let explained: Value = serde_json::from_slice(&explained).unwrap();
        assert_eq!(
            (&explained["verdict"], &explained["unhandled_fields"]),
            (&json!("publish"), &json!(["added"])),
            "{explained}"
        );
        assert_eq!((&show(binary)["payload"], &show(binary)["payload_base64"]), (&Value::Null, &json!("//4=")));
        let (code, text, _) = tool(&world.settings, &["dead-letters", "show", &broken.to_string()]);
        assert!(code == 0 && text.contains("not_json") && text.contains("{\"a"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let (code, text, error) = tool(&world.settings, &["dead-letters", "show", "99"]);
        assert_eq!((code, text.as_str()), (1, ""));
        assert!(error.contains("no dead letter 99"), "{error}");
        let shown = json_tool(&world.settings, &["dead-letters", "show", "99", &rejected.to_string()], 1);
        assert_eq!(shown[0], json!({"sequence": 99, "outcome": "not_there"}));
        assert_eq!((shown.len(), &shown[1]["sequence"]), (2, &json!(rejected)));
        // No message has this sequence, and the server has another word for that.
        let (code, text, error) = tool(&world.settings, &["dead-letters", "show", "0"]);
        assert_eq!((code, text.as_str()), (1, ""));
        assert!(error.contains("no dead letter 0 in cdc_dead_letters"), "{error}");

        let would = json_tool(&world.settings, &["dead-letters", "drop", "--reason", "not_json", "--dry-run"], 0);
        assert_eq!(would.last(), Some(&json!({"summary": {"would_be_dropped": 2, "not_tried": 0, "not_there": 0}})));
        assert_eq!((would.len(), world.dead_letters().await.len()), (3, 4));
        let dropped = json_tool(&world.settings, &["dead-letters", "drop", &broken.to_string(), "99"], 1);
        let said = |sequence: u64, outcome: &str| json!({"sequence": sequence, "outcome": outcome});
        let summary =
            json!({"summary": {"dropped": 1, "gone": 0, "being_replayed": 0, "not_tried": 0, "not_there": 1}});
        assert_eq!(dropped, [said(99, "not_there"), said(broken, "dropped"), summary]);
        json_tool(&world.settings, &["dead-letters", "drop", "--reason", "not_json"], 0);
        assert_eq!(sequences(&list(&[])).len(), 2);
        json_tool(&world.settings, &["dead-letters", "drop", "--all"], 0);
        let (code, text, _) = tool(&world.settings, &["dead-letters", "list"]);
        assert_eq!((code, text.as_str()), (0, "no dead letters\n"));
    }
}

#[tokio::test]
async fn what_an_event_holds_does_not_command_the_terminal() {
    let world = World::new().await;
    world.create_source().await;
    // JSON may hold DEL, and the control sequence introducer of eight bits.
    let body = "{\n\t\"a\": \"\u{9b}31m\u{7f}\"}";
    world.feed(&[Input::new(Change::message("m").subject(), body)]).await;
    let service = world.start();
    world.adds_up(0, 1).await;
    service.stop();
    let (code, text, _) = tool(&world.settings, &["dead-letters", "show", "1"]);
    assert!(code == 0 && text.contains("\n{\n\t\"a\": \" 31m \"}\n"), "{text:?}");
    assert!(!text.contains(|c: char| c.is_control() && !"\n\t".contains(c)), "{text:?}");
}

#[tokio::test]
async fn the_tenant_is_the_one_the_table_routes_by() {
    let world = World::new().await;
    world.create_source().await;
    let directory = tempfile::TempDir::new().unwrap();
    let table = |name: &str, tenant: &str| {
        format!(
            "  {name}: {{key: id, routing: {{company_id: {tenant}}}, subject: '{{prefix}}.{{company_id}}.{name}', \
             columns: {{id: integer not null, org_id: string, origin: json}}}}\n"
        )
    };
    let tables = [
        table("orders", "org_id"),
        table("visits", "{column: origin, pointer: /org}"),
        table("tills", "{schema: 'daisi_{company_id}'}"),
    ];
    let file = directory.path().join("tables.yaml");
    std::fs::write(&file, format!("tables:\n{}", tables.concat())).unwrap();
    let config = ["--config", file.to_str().unwrap()];
    let row = json!({"id": "no integer", "org_id": "globex", "origin": {"org": "globex"}, "company_id": "other"});
    let change = |table: &str| Change::new(table, &row).schema("daisi_globex").input();
    world.feed(&["orders", "visits", "tills"].map(change)).await;
    let service = Service::spawn(&world.settings, &[&["run"], &config[..]].concat()).started();
    world.adds_up(0, 3).await;
    service.stop();
    let list = ["dead-letters", "list", "--tenant"];
    let listed = json_tool(&world.settings, &[&list[..], &["globex"], &config].concat(), 0);
    assert_eq!(listed.len(), 3, "{listed:?}");
    assert!(listed.iter().all(|letter| letter["tenant"] == "globex"), "{listed:?}");
    let (_, text, _) = tool(&world.settings, &[&list[..], &["nobody"], &config].concat());
    assert_eq!(text, "none of 3 dead letters fits\n");
    let (_, text, _) = tool(&world.settings, &[&["dead-letters", "show", "1"], &config[..]].concat());
    assert!(text.contains("tenant       globex"), "{text}");
    // A configuration that does not know the tables falls back on the column.
    assert_eq!(json_tool(&world.settings, &[&list[..], &["other"]].concat(), 0).len(), 3);
}

/// A claim as an operator's replay makes it, of the letter with this `Nats-Msg-Id`: where it was stored.
async fn claim(world: &World, letter: &str) -> u64 {
    let claim = world.jetstream().publish(format!("cdc.dead_letters_replays.replay-{letter}"), "{}".into()).await;
    claim.unwrap().await.unwrap().sequence
}

#[tokio::test]
async fn what_somebody_replays_is_not_dropped() {
    let mut world = World::new().await;
    rejected(&mut world, 2, stream::RetentionPolicy::Limits).await;
    let claims = stream::Config {
        name: "cdc_dead_letters_replays".to_owned(),
        subjects: vec!["cdc.dead_letters_replays.>".to_owned()],
        ..Default::default()
    };
    world.jetstream().create_stream(claims).await.unwrap();
    let letters = world.dead_letters().await;
    let claimed = claim(&world, letters[0].header("Nats-Msg-Id").unwrap()).await;
    let dropped = json_tool(&world.settings, &["dead-letters", "drop", "--all"], 1);
    let mut outcomes: Vec<_> = dropped.iter().filter_map(|said| said["outcome"].as_str()).collect();
    // Letters are stored as they are decided, which need not be the order of the source.
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["being_replayed", "dropped"]);
    assert_eq!(world.dead_letters().await, letters[..1]);
    let (code, text, _) = tool(&world.settings, &["dead-letters", "drop", "--all"]);
    assert!(code == 1 && text.contains("0 dropped, 1 stay"), "{text}");
    let claims = world.jetstream().get_stream("cdc_dead_letters_replays").await.unwrap();
    claims.delete_message(claimed).await.unwrap();
    json_tool(&world.settings, &["dead-letters", "drop", "--all"], 0);
    assert_eq!(world.dead_letters().await, []);
}

#[tokio::test]
async fn a_stream_or_a_server_that_is_not_there_is_said() {
    let mut world = World::new().await;
    let (code, _, error) = tool(&world.settings, &["dead-letters", "list"]);
    assert_eq!(code, 78);
    assert!(error.contains("cdc_dead_letters does not exist"), "{error}");
    let (code, ..) = tool(&world.set("nats.url", "nats://127.0.0.1:1").settings, &["dead-letters", "list"]);
    assert_eq!(code, 69);
}
