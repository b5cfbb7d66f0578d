//! `generate`, and `explain` of what it writes.

use std::collections::BTreeMap;

use async_nats::jetstream::stream;
use serde_json::{Value, json};

use crate::support::change::Change;
use crate::support::service::Settings;
use crate::support::world::{SOURCE, World};
use crate::{fed_tool, json_lines, json_tool, tool};

const START: &[&str] = &["--start", "2026-01-05T08:00:00Z"];

#[test]
fn the_same_seed_gives_the_same_lines_and_explain_reads_them() {
    let generate = |more: &[&str]| tool(&Settings::new(), &[&["generate"], START, more].concat());
    let (code, text, _) = generate(&["--events", "300", "--seed", "7"]);
    assert_eq!(code, 0);
    assert_eq!(text, generate(&["--events", "300", "--seed", "7"]).1);
    assert_ne!(text, generate(&["--events", "300", "--seed", "8"]).1);
    let lines = json_lines(&text);
    assert_eq!(lines.len(), 300);
    assert!(lines.iter().all(|line| line["subject"].is_string() && line["headers"]["Nats-Msg-Id"].is_string()));

    let (code, explained, error) = fed_tool(&Settings::new(), &["explain"], text.as_bytes());
    assert_eq!(code, 0, "{error}");
    let decisions = json_lines(&explained);
    assert_eq!(decisions.len(), 300);
    for verdict in ["publish", "skip", "dead_letter"] {
        assert!(decisions.iter().any(|decision| decision["verdict"] == verdict), "{verdict}");
    }
    // An array of the same is the same, but for where each stands.
    let array = format!("[{}]", text.lines().collect::<Vec<_>>().join(","));
    let of_array = json_lines(&fed_tool(&Settings::new(), &["explain"], array.as_bytes()).1);
    let elsewhere = |mut decision: Value| {
        decision["input"] = Value::Null;
        decision
    };
    assert!(of_array.into_iter().map(elsewhere).eq(decisions.into_iter().map(elsewhere)));

    let chats = json_lines(&generate(&["--events", "20", "--mix", "chat=1"]).1);
    assert!(chats.iter().all(|line| line["subject"].as_str().unwrap().contains(".chats.")), "{chats:?}");
    // A thousand, if nothing is said; for a while, if that is said.
    assert_eq!(generate(&[]).1.lines().count(), 1_000);
    let few = generate(&["--for", "3s", "--rate", "20"]).1.lines().count();
    // The turns at both ends count; a machine that is slow at the end may miss some.
    assert!((10..=61).contains(&few), "{few}");
}

#[test]
fn what_is_around_an_event_is_never_taken_for_the_event() {
    let event = r#"{"record":{"id":1,"agent_id":"a","company_id":"acme"},"changes":null,"action":"insert","metadata":{"table_schema":"s","table_name":"agents","commit_timestamp":null,"commit_lsn":7,"database_name":"d"}}"#;
    let text = serde_json::to_string(event).unwrap();
    let lines = [
        format!(r#"{{"event":{event}}}"#),
        format!(r#"{{"headers":{{"Nats-Msg-Id":"own"}},"event":{event}}}"#),
        format!(r#"{{"subject":null,"event":{event}}}"#),
        format!(r#"{{"payload":{text}}}"#),
        format!(r#"{{"sequence":7,"subject":null,"headers":null,"payload":{text},"payload_base64":null}}"#),
    ];
    let (code, explained, error) = fed_tool(&Settings::new(), &["explain"], lines.join("\n").as_bytes());
    assert_eq!(code, 0, "{error}");
    let decisions = json_lines(&explained);
    assert_eq!(decisions.len(), lines.len());
    for (line, decision) in lines.iter().zip(&decisions) {
        assert_eq!(
            (&decision["verdict"], &decision["detail"]),
            (&json!("publish"), &Value::Null),
            "{line}: {decision}"
        );
    }
    // Without a place in the transaction the id that it came under tells it apart.
    assert!(decisions[1]["event_key"].as_str().unwrap().ends_with(":own"), "{}", decisions[1]);

    let wrong = [
        (
            format!(r#"{{"subject":"s","headers":{{"a":["b"]}},"event":{event}}}"#),
            "\"headers\" should be names with a text each",
        ),
        (format!(r#"{{"subject":7,"event":{event}}}"#), "\"subject\" should be a text"),
        (format!(r#"{{"payload":{event}}}"#), "\"payload\" should be a text; what is JSON stands in \"event\""),
        (r#"{"payload_base64":"?"}"#.to_owned(), "\"payload_base64\" should be base64"),
        (
            format!(r#"{{"event":{event},"payload":{text}}}"#),
            "one of \"event\", \"payload\" and \"payload_base64\", not several",
        ),
        (
            r#"{"subject":null,"payload":null,"payload_base64":null}"#.to_owned(),
            "nothing in \"event\", \"payload\" or \"payload_base64\"",
        ),
        (r#"{"subject":null,"payload":null,"damage":"part 2 of 3 is missing"}"#.to_owned(), "part 2 of 3 is missing"),
    ];
    let bad = wrong.iter().map(|(line, _)| format!("{line}\n")).collect::<String>();
    let input = format!("{bad}{event}\n");
    let (code, explained, _) = fed_tool(&Settings::new(), &["explain"], input.as_bytes());
    let decisions = json_lines(&explained);
    assert_eq!((code, decisions.len(), &decisions[wrong.len()]["verdict"]), (65, wrong.len() + 1, &json!("publish")));
    let (code, _, error) = fed_tool(&Settings::new(), &["explain", "--output", "text"], input.as_bytes());
    assert_eq!(code, 65);
    for (number, ((line, why), decision)) in (1..).zip(wrong.iter().zip(&decisions)) {
        assert_eq!(decision["input"], json!({"index": number, "line": number}), "{decision}");
        assert!(decision["error"].as_str().is_some_and(|error| error.contains(why)), "{line}: {decision}");
        assert!(error.contains(&format!("event {number} (line {number}): ")), "{error}");
    }
    // Alone, it has no place.
    let (code, _, error) = fed_tool(&Settings::new(), &["explain", "--output", "text"], wrong[0].0.as_bytes());
    assert_eq!((code, error.as_str()), (65, "error: \"headers\" should be names with a text each\n"));
}

#[test]
fn people_are_told_in_words() {
    let event = r#"{"record":{"id":1,"agent_id":"a","company_id":"acme","added":1},"changes":null,"action":"insert",
        "metadata":{"table_schema":"s","table_name":"agents","commit_timestamp":null,"commit_lsn":7,"commit_idx":0,"database_name":"d"}}"#;
    let (code, text, _) = fed_tool(&Settings::new(), &["explain", "--output", "text"], event.as_bytes());
    assert_eq!(code, 0);
    for part in ["publish\n", "sequin.d.s.agents.insert", "wa.acme.a.agents", "7:agents:a", "unhandled fields added"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let (_, text, _) = fed_tool(&Settings::new(), &["explain", "--output", "text"], b"{");
    assert!(text.starts_with("dead letter not_json\n"), "{text}");
}

#[test]
fn a_byte_order_mark_or_a_broken_first_line_does_not_make_one_event_of_several() {
    let event = Change::message("m").payload();
    let explained = |text: &[u8]| {
        let (code, told, error) = fed_tool(&Settings::new(), &["explain"], text);
        assert_eq!(code, 0, "{error}");
        json_lines(&told).iter().map(|told| told["verdict"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(explained(format!("\u{feff}{event}\n{event}\n").as_bytes()), ["publish", "publish"]);
    assert_eq!(explained(format!("\u{feff}{event}").as_bytes()), ["publish"]);
    assert_eq!(explained(format!("{{broken\n{event}\n{event}\n").as_bytes()), ["dead_letter", "publish", "publish"]);
    let (code, _, error) = fed_tool(&Settings::new(), &["explain"], b"\xff\xfe{\0}\0");
    assert!(code == 65 && error.contains("UTF-16"), "{error}");
}

#[test]
fn a_trace_tells_the_steps_and_the_exact_place() {
    let event = Change::message("m").column("is_deleted", "no").payload();
    let trace =
        |output: &str| fed_tool(&Settings::new(), &["explain", "--trace", "--output", output], event.as_bytes());
    let (code, text, _) = trace("json");
    let said = json_lines(&text).remove(0);
    let column = event.find("\"no\"").unwrap() + 1;
    let place = json!({"line": 1, "column": column, "pointer": "/record/is_deleted", "expected": "a boolean"});
    assert_eq!((code, &said["verdict"], &said["trace"]["place"]), (0, &json!("dead_letter"), &place));
    assert_eq!(said["trace"]["source"]["table"], "messages");
    let (_, text, _) = trace("text");
    for part in ["subject says", "company_id = \"acme\", from /record/company_id", "is_deleted: string", "order key"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(
        text.contains(&format!("line 1, column {column} of the event, \"/record/is_deleted\": expected a boolean")),
        "{text}"
    );
    // Without it the object is what it always was.
    let (_, plain, _) = fed_tool(&Settings::new(), &["explain"], event.as_bytes());
    assert_eq!(json_lines(&plain)[0].as_object().unwrap().len(), 9);
}

#[tokio::test]
async fn what_is_published_is_in_the_source_and_nowhere_else() {
    let world = World::new().await;
    let (code, _, error) = tool(&world.settings, &["generate", "--publish"]);
    assert_eq!(code, 78, "{error}");
    world.create_source().await;
    let publish = ["generate", "--publish", "--events", "700", "--seed", "3"];
    let said = json_tool(&world.settings, &publish, 0);
    assert_eq!((&said[0]["published"], &said[0]["known_before"]), (&json!(700), &json!(0)));
    let said = json_tool(&world.settings, &publish, 0);
    assert_eq!((&said[0]["published"], &said[0]["known_before"]), (&json!(0), &json!(700)), "it forgot the ids");
    let stored = world.stored(SOURCE).await;
    assert_eq!(stored.len(), 700);
    assert!(stored.iter().any(|event| serde_json::from_slice::<Value>(&event.payload).is_err()), "no poison");
    let (_, text, _) = tool(&world.settings, &["generate", "--publish", "--events", "5", "--seed", "4"]);
    assert!(text.starts_with("5 published into cdc_events_stream in "), "{text}");
}

#[tokio::test]
async fn what_the_stream_does_not_take_is_no_server_that_cannot_be_reached() {
    let world = World::new().await;
    let mut config = stream::Config {
        name: SOURCE.to_owned(),
        subjects: vec!["sequin.>".to_owned()],
        max_messages: 5,
        discard: stream::DiscardPolicy::New,
        ..Default::default()
    };
    world.jetstream().create_stream(config.clone()).await.unwrap();
    let (code, text, error) = tool(&world.settings, &["generate", "--publish", "--events", "20"]);
    assert!(
        code == 78 && error.contains("the stream does not take it") && error.contains("maximum messages"),
        "{error}"
    );
    assert!(text.starts_with("5 published"), "{text}");
    config.subjects = vec!["elsewhere.>".to_owned()];
    world.jetstream().update_stream(config).await.unwrap();
    let (code, _, error) = tool(&world.settings, &["generate", "--publish", "--events", "20"]);
    assert!(code == 78 && error.contains("do its subjects cover"), "{error}");
}

/// Applies events to tables, row by row: what is inserted is new, what is changed or deleted stands there as the event says it
/// did. Rows of the tables in `stood` may have been there before. Returns how many events had which action.
fn applied(events: &[Value], stood: &[&str]) -> BTreeMap<String, usize> {
    let (mut rows, mut counts) = (BTreeMap::new(), BTreeMap::new());
    for event in events {
        let Value::Object(event) = &event["event"] else { panic!("{event}") };
        let (record, table) = (&event["record"], event["metadata"]["table_name"].as_str().unwrap());
        let key = match table {
            "messages" => &record["message_id"],
            "chats" => &record["chat_id"],
            "agents" => &record["agent_id"],
            _ => &record["id"],
        };
        let row = (table, record["company_id"].to_string(), key.to_string());
        let action = event["action"].as_str().unwrap();
        *counts.entry(action.to_owned()).or_default() += 1;
        let there = rows.remove(&row);
        match action {
            "insert" | "read" => assert_eq!(there, None, "{event:?}"),
            "update" => {
                let changes = event["changes"].as_object().unwrap();
                assert!((1..=3).contains(&changes.len()), "{event:?}");
                let mut former = record.clone();
                for (name, value) in changes {
                    assert_ne!(former[name], *value, "{event:?}");
                    former[name] = value.clone();
                }
                assert!(
                    there.as_ref() == Some(&former) || there.is_none() && stood.contains(&table),
                    "{event:?} {there:?}"
                );
            }
            _ => assert!(
                there.as_ref() == Some(record) || there.is_none() && stood.contains(&table),
                "{event:?} {there:?}"
            ),
        }
        if action != "delete" {
            rows.insert(row, record.clone());
        }
    }
    counts
}

#[test]
fn what_is_changed_or_deleted_was_there_and_changes_are_what_it_held() {
    let generate = |events: &str, more: &[&str]| {
        let settings = Settings::from([("tables.contacts.enabled".to_owned(), "true".to_owned())]);
        let (code, text, error) = tool(&settings, &[&["generate", "--events", events], START, more].concat());
        assert_eq!(code, 0, "{error}");
        json_lines(&text)
    };
    let built_in = generate("4000", &["--mix", "insert=40,update=20,chat=20,agent=10,delete=15"]);
    let counts = applied(&built_in, &["chats", "agents"]);
    assert!(counts["update"] > 1_000 && counts["delete"] > 200, "{counts:?}");
    let declared = ["--mix", "insert=40,update=40,delete=20", "--config"];
    for (tables, file) in [("tickets", "everything.yaml"), ("contacts,messages,chats,agents", "typed.yaml")] {
        let file = format!("examples/tables/{file}");
        let events = generate("1500", &[&declared[..], &[file.as_str(), "--table", tables]].concat());
        let counts = applied(&events, &[]);
        assert!(counts["update"] > 500 && counts["delete"] > 150, "{tables}: {counts:?}");
    }
    // Where nothing is inserted, rows have been there.
    let tickets = ["--config", "examples/tables/everything.yaml", "--table", "tickets"];
    for kind in ["update", "delete"] {
        let mix = format!("{kind}=1");
        for more in [&[][..], &tickets] {
            let events = generate("60", &[&["--mix", mix.as_str()], more].concat());
            assert_eq!(applied(&events, &["messages", "tickets"]), BTreeMap::from([(kind.to_owned(), 60)]));
        }
    }
}
