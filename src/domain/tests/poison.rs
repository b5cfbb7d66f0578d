//! What can never be published, and the reason each gets.

use serde_json::{Value, json};

use super::*;

/// The reason when the value at `pointer` of an insert is replaced, or taken away where there is no value.
fn reason(pointer: &str, value: Option<Value>) -> Reason {
    let mut input = message("update");
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = input.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    match value {
        Some(value) => parent.insert(name.to_owned(), value),
        None => parent.remove(name),
    };
    let (_, reason, detail) = dead(decide(&input));
    assert!(!detail.contains("secret"), "{detail}");
    assert!(detail.chars().all(|c| !c.is_control()), "{detail}");
    reason
}

#[test]
fn bytes_that_are_no_json() {
    for payload in [&b""[..], b"\xff\xfe", b"{\"record\":", b"{} trailing", b"{\"record\":{\"id\":\"\xc3\"}}"] {
        let config = TransformConfig::default();
        let (_, reason, _) = dead(run(&config, &delivery(SUBJECT, Vec::new(), payload.to_vec())).1);
        assert_eq!(reason, Reason::NotJson, "{payload:?}");
    }
}

#[test]
fn json_that_is_no_change_event() {
    for event in
        [json!(1), json!([]), json!({}), json!("secret"), json!({"metadata": "secret"}), json!({"metadata": {}})]
    {
        let (table, reason, detail) = dead(decide(&event));
        assert_eq!((table, reason), (None, Reason::WrongShape), "{event}");
        assert!(!detail.contains("secret"), "{detail}");
    }
}

#[test]
fn fields_of_the_wrong_shape() {
    for pointer in [
        "/record",
        "/action",
        "/metadata/table_schema",
        "/metadata/table_name",
        "/metadata/database",
        "/metadata/database_name",
        "/metadata/idempotency_key",
        "/metadata/commit_lsn",
        "/metadata/commit_idx",
        "/metadata/commit_timestamp",
    ] {
        for wrong in [json!(["secret"]), json!(true), json!(1.5)] {
            assert_eq!(reason(pointer, Some(wrong.clone())), Reason::WrongShape, "{pointer} {wrong}");
        }
    }
    for pointer in ["/record", "/action", "/metadata/table_schema", "/metadata/table_name", "/metadata"] {
        assert_eq!(reason(pointer, None), Reason::WrongShape, "{pointer}");
        assert_eq!(reason(pointer, Some(Value::Null)), Reason::WrongShape, "{pointer}");
    }
    assert_eq!(reason("/changes", Some(json!("secret"))), Reason::WrongShape);
    assert_eq!(reason("/action", Some(json!("secret"))), Reason::WrongShape);
    assert_eq!(reason("/metadata/commit_lsn", Some(json!(-1))), Reason::WrongShape);
    for time in [json!("secret"), json!("2025-03-04 05:06"), json!(u64::MAX), json!(i64::MAX)] {
        assert_eq!(reason("/metadata/commit_timestamp", Some(time)), Reason::WrongShape);
    }
}

#[test]
fn columns_of_the_wrong_type() {
    for (column, wrong) in [
        ("id", json!(true)),
        ("message_id", json!(5)),
        ("company_id", json!(["secret"])),
        ("is_deleted", json!("secret")),
        ("message_timestamp", json!(1.5)),
        ("message_timestamp", json!("secret")),
        ("message_date", json!("secret")),
        ("created_at", json!({})),
    ] {
        assert_eq!(reason(&format!("/record/{column}"), Some(wrong)), Reason::WrongShape, "{column}");
    }
    let mut input = message("insert");
    input["record"]["is_deleted"] = json!("secret");
    let (table, _, detail) = dead(decide(&input));
    assert_eq!(table, Some("messages"));
    assert_eq!(detail, "record: is_deleted should be a boolean, found a string");
}

#[test]
fn names_that_come_twice_and_text_that_is_none() {
    let config = TransformConfig::default();
    let body = message("insert").to_string();
    for (from, to) in [
        ("\"company_id\"", "\"company_id\":\"other\",\"company_id\""),
        ("\"record\"", "\"record\":{},\"record\""),
        ("\"table_schema\"", "\"table_schema\":null,\"table_schema\""),
        ("\"acme\"", "\"\\ud800\""),
    ] {
        let changed = body.replacen(from, to, 1);
        assert_ne!(changed, body);
        let (_, reason, detail) = dead(run(&config, &delivery("any", Vec::new(), changed)).1);
        assert_eq!(reason, Reason::WrongShape, "{detail}");
    }
}

#[test]
fn key_and_routing_values_that_are_missing() {
    for nothing in [None, Some(Value::Null), Some(json!(""))] {
        assert_eq!(reason("/record/message_id", nothing.clone()), Reason::MissingKey);
        for column in ["company_id", "agent_id", "chat_id"] {
            assert_eq!(reason(&format!("/record/{column}"), nothing.clone()), Reason::MissingRouting, "{column}");
        }
    }
}

#[test]
fn key_and_routing_values_that_did_not_come() {
    for column in ["message_id", "company_id", "agent_id", "chat_id"] {
        let pointer = format!("/record/{column}");
        assert_eq!(reason(&pointer, Some(json!("unchanged_toast"))), Reason::UnchangedToast, "{column}");
    }
}

#[test]
fn a_delete_of_key_columns_alone_asks_for_the_full_replica_identity() {
    for (table, record) in [
        (
            "messages",
            json!({"id": 7, "message_date": "2025-03-04", "message_id": null, "chat_id": null, "extra": null}),
        ),
        ("messages", json!({"id": 7, "message_id": "M1"})),
        ("chats", json!({"id": "x", "chat_id": null, "company_id": null})),
        ("agents", json!({"agent_id": "a", "company_id": null})),
    ] {
        let input = json!({"record": record, "changes": null, "action": "delete", "metadata": metadata(table)});
        let (named, reason, detail) = dead(decide(&input));
        assert_eq!((named, reason), (Some(table), Reason::ReplicaIdentity));
        assert!(detail.contains("REPLICA IDENTITY FULL"), "{detail}");
    }
    let record = json!({"id": 7, "message_id": "M1", "status": "sent"});
    let input = json!({"record": record, "action": "delete", "metadata": metadata("messages")});
    assert_eq!(dead(decide(&input)).1, Reason::MissingRouting);
}

#[test]
fn a_subject_that_is_too_long() {
    assert_eq!(reason("/record/chat_id", Some(json!("c".repeat(5000)))), Reason::SubjectTooLong);
    let mut input = message("insert");
    input["record"]["chat_id"] = json!("c".repeat(1024 - "wa.acme.agent-1.messages.".len()));
    assert_eq!(published(decide(&input)).subject.len(), 1024);
}

#[test]
fn the_subject_names_the_table_where_the_event_cannot() {
    let config = TransformConfig::default();
    assert_eq!(dead(run(&config, &delivery(SUBJECT, Vec::new(), "[]")).1).0, Some("messages"));
    assert_eq!(dead(run(&config, &delivery("any", Vec::new(), "[]")).1).0, None);
}
