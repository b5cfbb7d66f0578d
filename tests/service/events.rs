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
    for table in ["messages", "chats", "agents"] {
        let labels = [format!("table=\"{table}\""), "result=\"processed\"".to_owned()];
        let labels = labels.each_ref().map(String::as_str);
        assert_eq!(service.metric("cdc_consumer_events_total", &labels), 4.0, "{table}");
    }
    let log = service.stop();
    assert_eq!(log.find("drained: everything in flight is settled and the server has heard of it").len(), 1);
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
