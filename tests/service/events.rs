//! What comes out for what went in.

use serde_json::{Value, json};

use crate::support::change::{Change, Input, agent, chat, message};
use crate::support::nats::nats_servers;
use crate::support::service::Service;
use crate::support::world::{Stored, World};

const ACTIONS: [&str; 4] = ["insert", "update", "delete", "read"];

/// Every action of every table, in both forms of Sequin's subjects by turns.
fn every_kind() -> Vec<(Change, Input)> {
    let rows = [("messages", message("m-1")), ("chats", chat("chat-1")), ("agents", agent("agent-1"))];
    let mut all = Vec::new();
    for (table, row) in rows {
        for action in ACTIONS {
            let change = Change::new(table, &row).action(action).at(1_000 + all.len() as u64, 3);
            let subject = if all.len() % 2 == 0 { change.subject() } else { change.old_subject() };
            all.push((change.clone(), Input::new(subject, change.payload())));
        }
    }
    all
}

fn names(object: &str) -> Vec<String> {
    // serde_json sorts the names of a map, so the order is read off the text.
    let value: Value = serde_json::from_str(object).unwrap();
    let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    let place = |name: &String| object.find(&format!("\"{name}\":")).unwrap();
    names.sort_by_key(place);
    names
}

fn is_what_the_change_says(change: &Change, event: &Stored) {
    let row: Value = serde_json::from_str(&change.record).unwrap();
    let (table, action, lsn) = (change.table.as_str(), change.action.as_str(), change.lsn);
    let (subject, key, ids): (_, _, &[&str]) = match table {
        "messages" => ("wa.acme.agent-1.messages.chat-1", "m-1", &["company_id", "agent_id", "chat_id", "message_id"]),
        "chats" => ("wa.acme.agent-1.chats", "chat-1", &["company_id", "agent_id", "chat_id"]),
        _ => ("wa.acme.agent-1.agents", "agent-1", &["company_id", "agent_id"]),
    };
    assert_eq!(event.subject, subject);
    let id = format!("daisi_db:daisi_acme:{lsn}:{table}:{key}:3");
    assert_eq!(event.headers, [("Nats-Msg-Id".to_owned(), id)]);

    let mut expected = json!({
        "event_id": format!("{lsn}:{table}:{key}"), "table": table, "schema": "daisi_acme", "action": action,
        "commit_lsn": lsn, "commit_idx": 3, "commit_timestamp": "2026-01-05T08:00:00.123456Z", "row_data": row,
    });
    for name in ids {
        expected[*name] = row[*name].clone();
    }
    if action == "update" {
        expected["changes"] = json!({"status": "before"});
    }
    assert_eq!(event.json(), expected, "{table} {action}");

    let mut order = vec!["event_id", "table", "schema", "action"];
    order.extend(ids);
    order.extend(["commit_lsn", "commit_idx", "commit_timestamp", "row_data"]);
    order.extend((action == "update").then_some("changes"));
    // The row has names of its own; what is around it counts.
    let around = event.text().replacen(&change.record, "0", 1);
    assert_eq!(names(&around), order);
}

async fn the_three_tables_and_every_action(world: &World, service: Service) {
    let all = every_kind();
    world.feed(all.iter().map(|(_, input)| input)).await;
    let (published, _) = world.adds_up(all.len(), 0).await;
    for (change, _) in &all {
        let event = published.iter().find(|event| event.json()["commit_lsn"] == change.lsn).unwrap();
        is_what_the_change_says(change, event);
    }
    service.until_told(all.len());
    for table in ["messages", "chats", "agents"] {
        let labels = [format!("table=\"{table}\""), "result=\"processed\"".to_owned()];
        let labels = labels.each_ref().map(String::as_str);
        assert_eq!(service.metric("cdc_consumer_events_total", &labels), 4.0, "{table}");
    }
    // A line per change of state, none per event.
    let log = service.stop().text();
    let said: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut said: Vec<_> = said.iter().map(|line| line["msg"].as_str().unwrap()).collect();
    // Actors are under way before it is said that they have started.
    said[1..3].sort_by_key(|msg| *msg != "started");
    let drained = "drained: everything in flight is settled and the server has heard of it";
    assert_eq!(
        said,
        ["answering over HTTP", "started", "intake resumed", "shutting down", "intake paused", drained],
        "{log}"
    );
}

#[tokio::test]
async fn the_three_tables_and_every_action_through_the_binary() {
    for server in nats_servers() {
        let world = World::on(&server).await;
        let service = world.start();
        the_three_tables_and_every_action(&world, service).await;
    }
}

#[tokio::test]
async fn the_three_tables_and_every_action_in_process() {
    for server in nats_servers() {
        let world = World::on(&server).await;
        let service = world.start_in_process();
        the_three_tables_and_every_action(&world, service).await;
    }
}

#[tokio::test]
async fn both_forms_of_sequins_subjects_and_any_other_under_the_filter() {
    let world = World::new().await;
    let service = world.start();
    let change = |lsn| Change::message("m-1").at(lsn, 0);
    let inputs = [
        Input::new(change(1).subject(), change(1).payload()),
        Input::new(change(2).old_subject(), change(2).payload()),
        // Neither form: the metadata decides.
        Input::new("sequin.something.else", change(3).payload()),
        // A form that contradicts the metadata: they decide, too, and it is counted.
        Input::new("sequin.daisi_db.daisi_acme.chats.insert", change(4).payload()),
    ];
    world.feed(&inputs).await;
    let (published, _) = world.adds_up(4, 0).await;
    let lsns: Vec<_> = published.iter().map(|event| event.position().0).collect();
    assert_eq!(lsns, [1, 2, 3, 4]);
    assert!(published.iter().all(|event| event.subject == "wa.acme.agent-1.messages.chat-1"));
    assert_eq!(service.metric("cdc_consumer_subject_mismatch_total", &[]), 1.0);
    service.stop();
}

#[tokio::test]
async fn numbers_come_out_byte_for_byte() {
    let world = World::new().await;
    let service = world.start();
    let record = concat!(
        r#"{ "id" : 9007199254740993, "message_id":"m-1","chat_id":"chat-1","agent_id":"agent-1", "company_id":"acme","#,
        r#""message_timestamp":9223372036854775807,"score":0.1000000000000000055511151231257827021181583404541015625,"#,
        r#""tiny":1E-400,"minus":-0.0,"huge":123456789012345678901234567890.123456789,"text":"\u00e9\/é \ud83c\udf3a","#,
        "\"key\":{\"b\":1.10,\"a\":18446744073709551616,\t\"b\":2}}",
    );
    let changes = r#"{"score": 1.000000000000000000000000000000000001, "id":9007199254740992.0}"#;
    let mut change = Change::message("m-1").action("update").record(record);
    change.changes = Some(changes.to_owned());
    world.feed([&change.input()]).await;
    let (published, _) = world.adds_up(1, 0).await;
    let expected = format!(r#","row_data":{record},"changes":{changes}}}"#);
    assert!(published[0].text().ends_with(&expected), "{}", published[0].text());
    service.stop();
}

#[tokio::test]
async fn ids_that_are_no_subject_tokens_are_encoded_and_reach_no_other_tenant() {
    let world = World::new().await;
    let service = world.start();
    let cases = [
        ("6281@s.whatsapp.net", "6281@s%2Ewhatsapp%2Enet"),
        ("x.y", "x%2Ey"),
        ("*", "%2A"),
        (">", "%3E"),
        ("a b\tc", "a%20b%09c"),
        ("100%", "100%25"),
        ("a%2Eb", "a%252Eb"),
        ("é🌺", "é🌺"),
        ("line\r\nCdc-Late: true", "line%0D%0ACdc-Late:%20true"),
        ("nbsp\u{a0}", "nbsp%C2%A0"),
    ];
    let inputs: Vec<_> = (1..)
        .zip(cases)
        .flat_map(|(lsn, (raw, _))| {
            let chat = Change::message(raw).column("chat_id", raw).at(lsn, 0);
            let company = Change::new("agents", &agent(raw)).column("company_id", raw).at(lsn, 1);
            [chat.input(), company.input()]
        })
        .collect();
    world.feed(&inputs).await;
    let (published, _) = world.adds_up(2 * cases.len(), 0).await;
    for (lsn, (raw, token)) in (1..).zip(cases) {
        let event = |idx| published.iter().find(|event| event.position() == (lsn, idx)).unwrap();
        assert_eq!(event(0).subject, format!("wa.acme.agent-1.messages.{token}"));
        assert_eq!(event(1).subject, format!("wa.{token}.{token}.agents"));
        assert_eq!(event(0).json()["chat_id"], raw);
        assert_eq!(event(0).json()["message_id"], raw);
        assert_eq!(event(1).json()["company_id"], raw);
        for idx in [0, 1] {
            let names: Vec<_> = event(idx).headers.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["Nats-Msg-Id"], "{raw:?}");
        }
    }
    service.stop();
}

#[tokio::test]
async fn the_trace_travels_on_and_no_other_header_does() {
    let world = World::new().await;
    let service = world.start();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let input = Change::message("m-1").at(5, 6).input();
    let input = input
        .header("Nats-Msg-Id", "bHNuOmlkeA==")
        .header("Nats-Expected-Stream", "cdc_events_stream")
        .header("traceparent", trace)
        .header("tracestate", "vendor=1")
        .header("Cdc-Late", "true")
        .header("x-private", "1");
    world.feed([&input]).await;
    let (published, _) = world.adds_up(1, 0).await;
    let headers: Vec<_> = published[0].headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let id = ("Nats-Msg-Id", "daisi_db:daisi_acme:5:messages:m-1:6");
    assert_eq!(headers, [id, ("traceparent", trace), ("tracestate", "vendor=1")]);
    service.stop();
}

#[tokio::test]
async fn a_table_that_is_not_allowed_is_acknowledged_and_counted() {
    let mut world = World::new().await;
    let service = world.set("tables.agents.enabled", "false").start();
    let unread = Input::new("sequin.daisi_db.public.invoices.insert", "not even JSON");
    let read = Input::new("sequin.other", Change::new("invoices", &json!({"id": 1})).payload());
    let disabled = Change::new("agents", &agent("agent-1")).input();
    let wanted = Change::message("m-1").input();
    world.feed([&unread, &read, &disabled, &wanted]).await;
    let (published, _) = world.adds_up(1, 0).await;
    assert_eq!(published[0].subject, "wa.acme.agent-1.messages.chat-1");
    service.until_told(4);
    assert_eq!(service.metric("cdc_consumer_events_total", &[r#"result="skipped""#]), 3.0);
    service.stop();
}

#[tokio::test]
async fn equal_rows_of_two_schemas_and_changes_of_one_transaction_are_all_events_of_their_own() {
    let world = World::new().await;
    let service = world.start();
    let mut inputs = Vec::new();
    for schema in ["daisi_acme", "daisi_zeta"] {
        for (idx, status) in (0..).zip(["pending", "delivered", "read"]) {
            let change = Change::message("m-1").schema(schema).at(77, idx).column("status", status);
            inputs.push(change.action(if idx == 0 { "insert" } else { "update" }).input());
        }
    }
    world.feed(&inputs).await;
    let (published, _) = world.adds_up(6, 0).await;
    for schema in ["daisi_acme", "daisi_zeta"] {
        let events: Vec<_> = published.iter().map(Stored::json).filter(|event| event["schema"] == schema).collect();
        let statuses: Vec<_> = events.iter().map(|event| event["row_data"]["status"].clone()).collect();
        assert_eq!(statuses, ["pending", "delivered", "read"], "{schema}");
        assert!(events.iter().all(|event| event["event_id"] == "77:messages:m-1"));
    }
    service.until_told(6);
    assert_eq!(service.metric("cdc_consumer_events_total", &[r#"result="duplicate""#]), 0.0);
    service.stop();
}

#[tokio::test]
async fn columns_that_did_not_come_are_named() {
    let mut world = World::new().await;
    let service = world.set("tables.messages.unhandled_fields", "drop").start();
    let change = Change::message("m-1").action("update").column("message_obj", "unchanged_toast");
    world.feed([&change.column("added_later", 1).input()]).await;
    let (published, _) = world.adds_up(1, 0).await;
    let event = published[0].json();
    assert_eq!(event["unchanged"], json!(["message_obj"]));
    assert_eq!(event["row_data"]["message_obj"], "unchanged_toast");
    assert!(event["row_data"].get("added_later").is_none(), "{event}");
    let labels = [r#"table="messages""#, r#"field_name="added_later""#];
    assert_eq!(service.metric("cdc_consumer_unhandled_fields_total", &labels), 1.0);
    service.stop();
}
