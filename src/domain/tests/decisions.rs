//! What is published or skipped, and how it looks.

use cdc_actors::message::{CommitPosition, OrderKey, Verdict};
use serde_json::{Value, json};

use super::*;
use crate::domain::{TableSettings, Tables, UnhandledFields, UnsafeTokens, explain};

fn unhandled(policy: UnhandledFields) -> TransformConfig {
    let messages = TableSettings { unhandled_fields: policy, ..TableSettings::default() };
    TransformConfig { tables: Tables { messages, ..Tables::default() }, ..TransformConfig::default() }
}

fn text(event: &Event) -> &str {
    std::str::from_utf8(&event.payload).expect("JSON is text")
}

#[test]
fn a_message_has_every_field_in_order() {
    let record =
        r#"{ "message_id":"M1", "chat_id":"c","agent_id":"a", "company_id":"co", "id":12345678901234567890123 }"#;
    let changes = r#"{ "status" : "sent" }"#;
    let metadata = metadata("messages");
    let payload = format!(r#"{{"record":{record},"changes":{changes},"action":"update","metadata":{metadata}}}"#);
    let event = published(run(&TransformConfig::default(), &delivery("any", Vec::new(), payload)).1);
    let expected = [
        r#"{"event_id":"26824376:messages:M1","table":"messages","schema":"daisi_acme","action":"update","#,
        r#""company_id":"co","agent_id":"a","chat_id":"c","message_id":"M1","commit_lsn":26824376,"commit_idx":3,"#,
        r#""commit_timestamp":"2025-03-04T05:06:07.123456Z","row_data":"#,
        record,
        r#","changes":"#,
        changes,
        "}",
    ];
    assert_eq!(text(&event), expected.concat());
    assert_eq!(event.event_id, "26824376:messages:M1");
    assert_eq!(event.key.as_str(), "db-1:daisi_acme:26824376:messages:M1:3");
    assert_eq!(event.subject, "wa.co.a.messages.c");
    assert_eq!(event.table, "messages");
    assert_eq!(event.position, Some(CommitPosition { lsn: 26_824_376, idx: 3 }));
    assert_eq!(event.committed, Some(1_741_064_767_123_456));
    assert!(event.headers.is_empty());
}

#[test]
fn chats_and_agents_have_their_subjects_and_ids() {
    let mut chat = message("insert");
    chat["metadata"] = metadata("chats");
    chat["record"] = json!({"id": "x", "chat_id": "c.1", "agent_id": "a", "company_id": "co", "is_group": true});
    let event = published(decide(&chat));
    assert_eq!(event.subject, "wa.co.a.chats");
    let body: Value = serde_json::from_slice(&event.payload).expect("JSON");
    assert_eq!((&body["chat_id"], body.get("message_id")), (&json!("c.1"), None));

    let mut agent = message("read");
    agent["metadata"] = metadata("agents");
    agent["record"] = json!({"id": 1, "agent_id": "a", "company_id": "co", "last_metadata": null});
    let event = published(decide(&agent));
    assert_eq!(event.subject, "wa.co.a.agents");
    assert_eq!(event.event_id, "26824376:agents:a");
    let body: Value = serde_json::from_slice(&event.payload).expect("JSON");
    assert_eq!(body.get("chat_id"), None);
}

#[test]
fn every_action_is_published_and_only_updates_have_changes() {
    for action in ["insert", "update", "delete", "read"] {
        let mut input = message(action);
        input["changes"] = json!({"status": null});
        let body: Value = serde_json::from_slice(&published(decide(&input)).payload).expect("JSON");
        assert_eq!(body["action"], action);
        assert_eq!(body.get("changes").is_some(), action == "update", "{action}");
    }
}

#[test]
fn a_backfill_without_position_prints_lsn_0_and_leaves_the_rest_out() {
    for absent in [Value::Null, json!("absent")] {
        let mut input = message("read");
        for field in ["commit_lsn", "commit_idx", "commit_timestamp"] {
            let metadata = input["metadata"].as_object_mut().expect("an object");
            match &absent {
                Value::Null => metadata.insert(field.to_owned(), Value::Null),
                _ => metadata.remove(field),
            };
        }
        let event = published(decide(&input));
        assert_eq!((event.position, event.committed), (None, None));
        assert_eq!(event.event_id, "0:messages:M1");
        assert_eq!(event.key.as_str(), "db-1:daisi_acme:0:messages:M1:MjY4MjQzNzY6Mw==");
        let body: Value = serde_json::from_slice(&event.payload).expect("JSON");
        assert_eq!(body["commit_lsn"], 0);
        assert!(body.get("commit_idx").is_none() && body.get("commit_timestamp").is_none());
    }
}

#[test]
fn the_place_in_the_key_falls_back_step_by_step() {
    let mut input = message("insert");
    let metadata = input["metadata"].as_object_mut().expect("an object");
    metadata.remove("commit_idx");
    metadata.remove("idempotency_key");
    let config = TransformConfig::default();
    let headers = vec![("nats-msg-id".to_owned(), "id:1".to_owned())];
    let with_header = published(run(&config, &delivery("any", headers, input.to_string())).1);
    assert_eq!(with_header.key.as_str(), "db-1:daisi_acme:26824376:messages:M1:id%3A1");
    assert_eq!(with_header.position, Some(CommitPosition { lsn: 26_824_376, idx: 0 }));
    let bare = published(decide(&input));
    let hash = crate::domain::event_key::sha256_hex(input.to_string().as_bytes());
    assert_eq!(bare.key.as_str(), format!("db-1:daisi_acme:26824376:messages:M1:{hash}"));
}

#[test]
fn the_database_is_its_id_else_a_name() {
    let key = |database: Value, name: Value| {
        let mut input = message("insert");
        input["metadata"]["database"] = database;
        input["metadata"]["database_name"] = name;
        published(decide(&input)).key.as_str().split(':').next().map(str::to_owned)
    };
    assert_eq!(key(json!({"id": "u-1", "name": "n"}), json!("d")).as_deref(), Some("u-1"));
    assert_eq!(key(json!({"id": 17}), json!("d")).as_deref(), Some("17"));
    assert_eq!(key(json!({"id": null, "name": "n"}), json!("d")).as_deref(), Some("d"));
    assert_eq!(key(json!({"name": "n"}), Value::Null).as_deref(), Some("n"));
    assert_eq!(key(Value::Null, Value::Null).as_deref(), Some(""));
}

#[test]
fn commit_times_come_as_text_or_microseconds() {
    for (given, shown) in [
        (json!("2025-03-04T05:06:07Z"), "2025-03-04T05:06:07.000000Z"),
        (json!("2025-03-04T07:06:07.5+02:00"), "2025-03-04T05:06:07.500000Z"),
        (json!(1_741_064_767_123_456_i64), "2025-03-04T05:06:07.123456Z"),
        (json!(-1), "1969-12-31T23:59:59.999999Z"),
    ] {
        let mut input = message("insert");
        input["metadata"]["commit_timestamp"] = given;
        let body: Value = serde_json::from_slice(&published(decide(&input)).payload).expect("JSON");
        assert_eq!(body["commit_timestamp"], shown);
    }
}

#[test]
fn tables_that_are_not_allowed_are_skipped_unparsed() {
    let config = TransformConfig::default();
    for subject in ["sequin.changes.d.s.orders.insert", "sequin.d.s.orders.delete"] {
        let decision = run(&config, &delivery(subject, Vec::new(), "not even JSON")).1;
        assert!(matches!(decision.verdict, Verdict::Skip { table: None }), "{subject}");
    }
    let mut input = message("insert");
    input["metadata"] = json!({"table_name": "orders"});
    assert!(matches!(decide(&input).verdict, Verdict::Skip { table: None }));
}

#[test]
fn a_table_that_is_switched_off_is_skipped() {
    let messages = TableSettings { enabled: false, ..TableSettings::default() };
    let config = TransformConfig { tables: Tables { messages, ..Tables::default() }, ..TransformConfig::default() };
    assert!(matches!(decide_with(&config, &message("insert")).verdict, Verdict::Skip { table: None }));
    assert!(matches!(run(&config, &delivery(SUBJECT, Vec::new(), "x")).1.verdict, Verdict::Skip { table: None }));
}

#[test]
fn metadata_decides_and_contradictions_are_remarked() {
    let config = TransformConfig::default();
    let body = message("insert").to_string();
    let agreed = run(&config, &delivery(SUBJECT, Vec::new(), body.clone())).1;
    assert_eq!(agreed.remarks.subject_mismatch, None);
    let subject = "sequin.other.daisi_acme.chats.insert";
    let decision = run(&config, &delivery(subject, Vec::new(), body)).1;
    assert_eq!(
        decision.remarks.subject_mismatch.as_deref(),
        Some(
            "database is other in the subject and daisi in the event, table is chats in the subject and messages in the event"
        )
    );
    assert_eq!(published(decision).table, "messages");
}

#[test]
fn trace_headers_travel_and_no_others() {
    let names = ["Nats-Msg-Id", "Traceparent", "tracestate", "Nats-Expected-Stream", "x-other"];
    let headers: Vec<_> = names.map(|name| (name.to_owned(), "v".to_owned())).into();
    let event = published(run(&TransformConfig::default(), &delivery("any", headers, message("insert").to_string())).1);
    assert_eq!(event.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["Traceparent", "tracestate"]);
}

#[test]
fn unhandled_fields_are_kept_or_dropped_and_always_named() {
    let mut input = message("update");
    input["record"]["a_new"] = json!({"big": 1});
    input["record"]["z_new"] = json!("unchanged_toast");
    input["changes"] = json!({"a_new": 1, "status": "sent"});
    let kept = decide(&input);
    assert_eq!(kept.remarks.unhandled_fields, ["a_new", "z_new"]);
    let body: Value = serde_json::from_slice(&published(kept).payload).expect("JSON");
    assert_eq!((&body["row_data"], &body["changes"]), (&input["record"], &input["changes"]));
    assert_eq!(body["unchanged"], json!(["z_new"]));

    let dropped = decide_with(&unhandled(UnhandledFields::Drop), &input);
    assert_eq!(dropped.remarks.unhandled_fields, ["a_new", "z_new"]);
    let body: Value = serde_json::from_slice(&published(dropped).payload).expect("JSON");
    assert_eq!((&body["row_data"], &body["changes"]), (&message("update")["record"], &json!({"status": "sent"})));
    assert_eq!(body.get("unchanged"), None);

    let (table, reason, detail) = dead(decide_with(&unhandled(UnhandledFields::Reject), &input));
    assert_eq!((table, reason), (Some("messages"), Reason::RejectedField));
    assert!(detail.contains("a_new"), "{detail}");
}

#[test]
fn unchanged_columns_are_named_on_updates_alone() {
    for action in ["update", "insert"] {
        let mut input = message(action);
        input["record"]["message_obj"] = json!("unchanged_toast");
        input["record"]["is_deleted"] = json!("unchanged_toast");
        let body: Value = serde_json::from_slice(&published(decide(&input)).payload).expect("JSON");
        let expected = json!(["is_deleted", "message_obj"]);
        assert_eq!(body.get("unchanged"), (action == "update").then_some(&expected));
    }
}

#[test]
fn unsafe_tokens_are_encoded_or_rejected() {
    assert_eq!(published(decide(&message("insert"))).subject, "wa.acme.agent-1.messages.6281@s%2Ewhatsapp%2Enet");
    let reject = TransformConfig { unsafe_tokens: UnsafeTokens::Reject, ..TransformConfig::default() };
    let (_, reason, detail) = dead(decide_with(&reject, &message("insert")));
    assert_eq!(reason, Reason::IllegalToken);
    assert!(detail.contains("chat_id") && !detail.contains("6281"), "{detail}");
    let mut input = message("insert");
    input["record"]["chat_id"] = json!("100%");
    assert_eq!(published(decide_with(&reject, &input)).subject, "wa.acme.agent-1.messages.100%");
}

#[test]
fn the_order_key_is_the_rows() {
    let order = |input: &Value| -> OrderKey {
        run(&TransformConfig::default(), &delivery("any", Vec::new(), input.to_string())).0
    };
    let (first, mut other) = (message("insert"), message("update"));
    other["metadata"]["commit_lsn"] = json!(1);
    assert_eq!(order(&first), order(&other));
    for pointer in ["/record/message_id", "/metadata/table_schema", "/metadata/database/id"] {
        let mut other = first.clone();
        *other.pointer_mut(pointer).expect("it is there") = json!("else");
        assert_ne!(order(&first), order(&other), "{pointer}");
    }
}

#[test]
fn explain_shows_what_the_service_does() {
    let config = TransformConfig::default();
    let body = message("insert").to_string();
    let shown =
        explain(&CdcTransform::new(config.clone()), SUBJECT, Vec::new(), body.clone().into(), "cdc.dead_letters");
    let event = published(run(&config, &delivery(SUBJECT, Vec::new(), body)).1);
    assert_eq!((shown.verdict, shown.reason, shown.detail), ("publish", None, None));
    assert_eq!(shown.payload.as_deref(), Some(text(&event)));
    assert_eq!(shown.headers.expect("headers")["Nats-Msg-Id"], event.key.as_str());
    assert_eq!((shown.subject, shown.event_id), (Some(event.subject.to_string()), Some(event.event_id.to_string())));

    let shown = explain(&CdcTransform::new(config.clone()), SUBJECT, Vec::new(), "{".into(), "cdc.dead_letters");
    assert_eq!(shown.subject.as_deref(), Some("cdc.dead_letters.messages.not_json"));
    assert_eq!((shown.payload.as_deref(), shown.event_key), (Some("{"), None));
    assert_eq!(shown.headers.expect("headers")["Cdc-Reason"], "not_json");
    let shown = explain(&CdcTransform::new(config.clone()), "any", Vec::new(), "{".into(), "dead");
    assert_eq!(shown.subject.as_deref(), Some("dead.unknown.not_json"));

    let shown = explain(&CdcTransform::new(config.clone()), "sequin.d.s.orders.insert", Vec::new(), "{".into(), "dead");
    let json = serde_json::to_value(&shown).expect("JSON");
    assert_eq!(json.as_object().map(serde_json::Map::len), Some(9));
    assert!(json.as_object().expect("an object").iter().all(|(name, value)| (name == "verdict") != value.is_null()));
}
