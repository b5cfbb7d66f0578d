//! What declarations can say, and what becomes of events then.

use cdc_actors::message::{Event, OrderKey};
use serde_json::{Value, json};

use super::*;
use crate::domain::declaration::{ColumnDeclaration, Condition, Literal, Redaction, Source};
use crate::domain::scan::Scanner;
use crate::domain::subject::Action;
use crate::domain::table::Table;
use crate::domain::{Declaration, DeclaredTable, Tables, UnhandledFields, UnsafeTokens};

/// Orders of a shop, by tenant.
fn orders() -> Declaration {
    let column = |(name, kind): (&str, &str)| (name.to_owned(), ColumnDeclaration::parse(kind).expect("a type"));
    let columns = [
        ("id", "bigint not null"),
        ("company_id", "string"),
        ("chat_id", "string"),
        ("status", "string"),
        ("paid", "boolean"),
        ("due", "date"),
        ("ref", "uuid"),
        ("origin", "json"),
        ("email", "string"),
        ("labels", "array of string"),
    ];
    Declaration {
        columns: columns.map(column).to_vec(),
        key: vec!["id".to_owned()],
        routing: vec![("company_id".to_owned(), Source::Column("company_id".to_owned()))],
        subject: "{prefix}.{company_id}.orders".to_owned(),
        ..Declaration::new("orders")
    }
}

fn with(table: &DeclaredTable) -> TransformConfig {
    let tables = Tables { declared: vec![table.clone()], ..Tables::default() };
    TransformConfig { tables, ..TransformConfig::default() }
}

fn configured(declaration: &Declaration) -> TransformConfig {
    with(&declaration.compile().expect("a sound declaration"))
}

fn order(record: &Value) -> Value {
    json!({"record": record, "changes": null, "action": "insert", "metadata": metadata("orders")})
}

fn usual() -> Value {
    json!({
        "id": 7, "company_id": "acme", "chat_id": "c", "status": "open", "paid": false, "due": "2026-01-05",
        "ref": "018f3a00-5b6c-7d8e-9f00-112233445566", "origin": {"chat": [{"id": "c.9"}]}, "email": "a@b.c",
        "labels": ["x", null],
    })
}

/// An order with another value in one column.
fn but(column: &str, value: Value) -> Value {
    let mut record = usual();
    record[column] = value;
    order(&record)
}

#[test]
fn the_subjects_of_a_table_are_told_before_any_event_comes() {
    let subjects = |declaration: Declaration| {
        let mut told = CdcTransform::new(configured(&declaration)).subjects();
        told.retain(|subject| !["messages.*", "chats", "agents"].iter().any(|typed| subject.ends_with(typed)));
        told
    };
    assert_eq!(subjects(orders()), ["wa.*.orders"]);
    let mut declaration = orders();
    declaration.routing.push(("shop".to_owned(), Source::Constant("a.b".to_owned())));
    declaration.subject = "{prefix}.{company_id}.{shop}.{schema}.x.{action}".to_owned();
    declaration.actions = vec![Action::Insert, Action::Delete];
    assert_eq!(subjects(declaration.clone()), ["wa.*.a%2Eb.*.x.insert", "wa.*.a%2Eb.*.x.delete"]);
    declaration.enabled = false;
    assert_eq!(subjects(declaration), [""; 0]);
}

fn body(event: &Event) -> Value {
    serde_json::from_slice(&event.payload).expect("JSON")
}

/// Whether an event is skipped; what a table that is enabled leaves out is counted as that table's.
fn is_skipped(declaration: &Declaration, event: &Value) -> bool {
    let whose = declaration.enabled.then_some(declaration.name);
    match decide_with(&configured(declaration), event).verdict {
        Verdict::Skip { table } => {
            assert_eq!(table, whose);
            true
        }
        Verdict::Publish(_) | Verdict::DeadLetter { .. } => false,
    }
}

#[test]
fn a_declared_table_is_published_as_it_says() {
    let event = published(decide_with(&configured(&orders()), &order(&usual())));
    assert_eq!((event.table, &*event.subject, &*event.event_id), ("orders", "wa.acme.orders", "26824376:orders:7"));
    assert_eq!(event.key.as_str(), "db-1:daisi_acme:26824376:orders:7:3");
    assert_eq!((&body(&event)["company_id"], &body(&event)["row_data"]), (&json!("acme"), &usual()));
    let off = Declaration { enabled: false, ..orders() };
    assert!(is_skipped(&off, &order(&usual())));
}

#[test]
fn a_declaration_called_like_a_typed_row_replaces_it() {
    let declaration = Declaration { name: "messages", ..orders() };
    let mut event = order(&usual());
    event["metadata"] = metadata("messages");
    assert_eq!(published(decide_with(&configured(&declaration), &event)).subject, "wa.acme.orders");
    assert!(is_skipped(&Declaration { enabled: false, ..declaration }, &message("insert")));
}

#[test]
fn every_column_is_held_to_its_type() {
    let config = configured(&orders());
    for (column, wrong) in [
        ("id", json!("7")),
        ("id", json!(7.5)),
        ("company_id", json!(1)),
        ("paid", json!("no")),
        ("due", json!("2026-13-01")),
        ("ref", json!("018f3a00")),
        ("labels", json!([1])),
        ("labels", json!("x")),
    ] {
        let (table, reason, detail) = dead(decide_with(&config, &but(column, wrong)));
        assert_eq!((table, reason), (Some("orders"), Reason::WrongShape), "{detail}");
        assert!(detail.contains(column), "{detail}");
    }
    for null in [Value::Null, json!("absent")] {
        let mut event = but("id", Value::Null);
        if !null.is_null() {
            event["record"].as_object_mut().expect("an object").remove("id");
        }
        let (_, reason, detail) = dead(decide_with(&config, &event));
        assert_eq!(
            (reason, detail.as_str()),
            (Reason::WrongShape, "record: id should be an integer, found null or nothing")
        );
    }
    let twice = order(&usual()).to_string().replacen("\"paid\"", "\"paid\":null,\"paid\"", 1);
    assert!(dead(run(&config, &delivery("any", Vec::new(), twice)).1).2.contains("paid appears twice"));
    published(decide_with(&config, &but("labels", json!([["a"], ["b", null]]))));
}

#[test]
fn values_come_from_columns_places_in_json_the_schema_and_constants() {
    let mut declaration = orders();
    declaration.routing.extend([
        ("chat_id".to_owned(), Source::Pointer { column: "origin".to_owned(), pointer: "/chat/0/id".to_owned() }),
        ("region".to_owned(), Source::Constant("eu".to_owned())),
        ("tenant".to_owned(), Source::Schema("daisi_{tenant}".to_owned())),
    ]);
    declaration.subject = "{prefix}.{company_id}.{region}.{tenant}.{schema}.{table}.{chat_id}.{action}".to_owned();
    let config = configured(&declaration);
    let event = published(decide_with(&config, &order(&usual())));
    assert_eq!(event.subject, "wa.acme.eu.acme.daisi_acme.orders.c%2E9.insert");
    let ids = ["company_id", "chat_id", "region", "tenant"].map(|name| body(&event)[name].clone());
    assert_eq!(ids, [json!("acme"), json!("c.9"), json!("eu"), json!("acme")]);

    for (origin, wanted) in [
        (json!({"chat": []}), Reason::MissingRouting),
        (json!({"chat": [{"id": ""}]}), Reason::MissingRouting),
        (json!({"chat": [{"id": null}]}), Reason::MissingRouting),
        (json!("text"), Reason::MissingRouting),
        (Value::Null, Reason::MissingRouting),
        (json!({"chat": [{"id": {"a": 1}}]}), Reason::WrongShape),
        (json!({"chat": [{"id": 1.5}]}), Reason::WrongShape),
        (json!("unchanged_toast"), Reason::UnchangedToast),
    ] {
        let (_, reason, detail) = dead(decide_with(&config, &but("origin", origin.clone())));
        assert_eq!(reason, wanted, "{origin}: {detail}");
    }
    let twice = order(&usual()).to_string().replacen("\"id\":\"c.9\"", "\"id\":\"other\",\"id\":\"c.9\"", 1);
    assert_eq!(dead(run(&config, &delivery("any", Vec::new(), twice)).1).1, Reason::WrongShape);
    let mut elsewhere = order(&usual());
    elsewhere["metadata"]["table_schema"] = json!("public");
    let (_, reason, detail) = dead(decide_with(&config, &elsewhere));
    assert_eq!((reason, detail.contains("tenant")), (Reason::MissingRouting, true));
}

#[test]
fn several_columns_make_one_key_that_no_others_make() {
    let declaration = Declaration { key: vec!["id".to_owned(), "chat_id".to_owned()], ..orders() };
    let key = |record: Value| published(decide_with(&configured(&declaration), &record)).key;
    assert_eq!(key(order(&usual())).as_str(), "db-1:daisi_acme:26824376:orders:7,c:3");
    assert_eq!(key(but("chat_id", json!("a,b%"))).as_str(), "db-1:daisi_acme:26824376:orders:7,a%252Cb%2525:3");
    let (_, reason, detail) = dead(decide_with(&configured(&declaration), &but("chat_id", Value::Null)));
    assert_eq!((reason, detail.contains("chat_id")), (Reason::MissingKey, true));
}

#[test]
fn order_is_kept_by_row_or_by_a_value() {
    let of = |declaration: &Declaration, record: &Value| -> OrderKey {
        run(&configured(declaration), &delivery("any", Vec::new(), record.to_string())).0
    };
    let (mine, other) = (order(&usual()), but("id", json!(8)));
    assert_ne!(of(&orders(), &mine), of(&orders(), &other));
    let by_tenant = Declaration { order_by: "company_id".to_owned(), ..orders() };
    assert_eq!(of(&by_tenant, &mine), of(&by_tenant, &other));
    assert_ne!(of(&by_tenant, &mine), of(&by_tenant, &but("company_id", json!("else"))));
}

#[test]
fn actions_and_schemas_that_are_not_meant_are_skipped_whatever_they_hold() {
    let inserts = Declaration { actions: vec![Action::Insert, Action::Read], ..orders() };
    let mut deleted = but("id", json!("of the wrong type"));
    deleted["action"] = json!("delete");
    assert!(is_skipped(&inserts, &deleted) && !is_skipped(&inserts, &order(&usual())));
    for (pattern, skipped) in
        [("daisi_*", false), ("*_acme", false), ("daisi_acme", false), ("public", true), ("dais*x", true)]
    {
        let declaration = Declaration { schema: pattern.to_owned(), ..orders() };
        assert_eq!(is_skipped(&declaration, &order(&usual())), skipped, "{pattern}");
    }
}

#[test]
fn a_filter_decides_by_column_and_never_guesses() {
    let null = |column: &str| Condition::IsNull { column: column.to_owned() };
    let not = |condition| Condition::Not(Box::new(condition));
    let passes = |condition: &Condition, event: &Value| {
        let declaration = Declaration { filter: Some(condition.clone()), ..orders() };
        match decide_with(&configured(&declaration), event).verdict {
            Verdict::Publish(_) => Ok(true),
            Verdict::Skip { table } => Ok(table != Some("orders")),
            Verdict::DeadLetter { reason, .. } => Err(reason),
        }
    };
    let usual = order(&usual());
    for (condition, expected) in [
        (is_in("status", &["open", "waiting"]), true),
        (is_in("status", &["Open"]), false),
        (is_in("id", &["7"]), true),
        (is_in("paid", &["false"]), true),
        (is_in("due", &["2026-01-06"]), false),
        (is_in("ref", &["018F3A00-5B6C-7D8E-9F00-112233445566"]), true),
        (null("labels"), false),
        (not(null("labels")), true),
        (Condition::And(vec![is_in("id", &["7"]), is_in("id", &["8"])]), false),
        (Condition::Or(vec![is_in("id", &["8"]), is_in("id", &["7"])]), true),
    ] {
        assert_eq!(passes(&condition, &usual), Ok(expected), "{condition:?}");
        assert_eq!(passes(&not(condition.clone()), &usual), Ok(!expected), "not {condition:?}");
    }
    assert_eq!(passes(&null("status"), &but("status", Value::Null)), Ok(true));
    assert_eq!(passes(&is_in("status", &["open"]), &but("status", Value::Null)), Ok(false));
    assert_eq!(passes(&is_in("status", &[""]), &but("status", json!(""))), Ok(true), "empty is not null");
    // What did not come decides only where nothing else does.
    let toast = but("status", json!("unchanged_toast"));
    assert_eq!(passes(&is_in("status", &["open"]), &toast), Err(Reason::UnchangedToast));
    let open = Declaration { filter: Some(is_in("status", &["open"])), ..orders() };
    let (_, _, detail) = dead(decide_with(&configured(&open), &toast));
    assert!(detail.contains("whether the filter holds") && !detail.contains("subject"), "{detail}");
    assert_eq!(passes(&Condition::Or(vec![is_in("status", &["open"]), is_in("id", &["7"])]), &toast), Ok(true));
    assert_eq!(passes(&Condition::And(vec![is_in("status", &["open"]), is_in("id", &["8"])]), &toast), Ok(false));
    // A delete that carries its key alone tells nothing that a filter could go by.
    let mut deleted = order(&json!({"id": 7, "status": null}));
    deleted["action"] = json!("delete");
    assert_eq!(passes(&is_in("status", &["open"]), &deleted), Err(Reason::ReplicaIdentity));
}

fn is_in(column: &str, values: &[&str]) -> Condition {
    let values = values.iter().map(|value| Literal::Text((*value).to_owned())).collect();
    Condition::In { column: column.to_owned(), values }
}

/// A delete of these columns from a declared table.
fn deleted(record: &Value) -> Value {
    json!({"record": record, "changes": null, "action": "delete", "metadata": metadata("orders")})
}

#[test]
fn a_delete_of_the_key_alone_goes_out_where_that_is_all_it_takes() {
    let own = json!({"id": 7, "company_id": "acme"});
    let keyed = Declaration { key: vec!["id".to_owned(), "company_id".to_owned()], ..orders() };
    // With all other columns null a row under the full replica identity looks the same.
    for record in [own.clone(), json!({"id": 7, "company_id": "acme", "status": null, "email": null})] {
        let event = published(decide_with(&configured(&keyed), &deleted(&record)));
        assert_eq!((&*event.subject, &*event.event_id), ("wa.acme.orders", "26824376:orders:7,acme"));
    }
    let primary = vec!["id".to_owned(), "company_id".to_owned()];
    published(decide_with(&configured(&Declaration { primary_key: primary, ..orders() }), &deleted(&own)));
    // A filter that goes by the key can be answered.
    let by_key = is_in("id", &["8"]);
    assert!(is_skipped(&Declaration { filter: Some(by_key), ..keyed.clone() }, &deleted(&own)));

    let mut joined = keyed.clone();
    joined.columns.retain(|(name, _)| ["id", "company_id"].contains(&name.as_str()));
    published(decide_with(&configured(&joined), &deleted(&own)));
    // No replica identity brings columns that the table has not.
    for (record, reason) in [
        (json!({"id": 7, "company_id": null}), Reason::MissingKey),
        (json!({"id": null, "company_id": "acme"}), Reason::WrongShape),
    ] {
        assert_eq!(dead(decide_with(&configured(&joined), &deleted(&record))).1, reason, "{record}");
    }
}

#[test]
fn a_delete_of_the_key_alone_says_what_the_full_replica_identity_would_bring() {
    let own = json!({"id": 7, "company_id": "acme", "status": null});
    let keyed = Declaration { key: vec!["id".to_owned(), "company_id".to_owned()], ..orders() };
    let open = is_in("status", &["open"]);
    let mut strict = keyed.clone();
    strict.columns.push(("total".to_owned(), ColumnDeclaration::parse("numeric not null").expect("a type")));
    for (declaration, so) in [
        (orders(), "its subject is unknown"),
        (Declaration { filter: Some(open), ..keyed }, "what the filter would say"),
        (strict, "must not be null"),
    ] {
        let record = if declaration.key.len() == 1 { json!({"id": 7, "company_id": null}) } else { own.clone() };
        let (_, reason, detail) = dead(decide_with(&configured(&declaration), &deleted(&record)));
        assert_eq!(reason, Reason::ReplicaIdentity);
        assert!(detail.contains(so) && detail.contains("REPLICA IDENTITY FULL"), "{detail}");
    }
}

#[test]
fn columns_are_renamed_dropped_and_redacted_wherever_they_stand() {
    let mut declaration = Declaration { unhandled_fields: UnhandledFields::Keep, ..orders() };
    declaration.rename = vec![("status".to_owned(), "state".to_owned()), ("email".to_owned(), "mail".to_owned())];
    declaration.drop = vec!["origin".to_owned()];
    declaration.redact = vec![("email".to_owned(), Redaction::Hash), ("labels".to_owned(), Redaction::Mask)];
    let config = configured(&declaration);
    let mut update = but("origin", json!("unchanged_toast"));
    update["record"]["status"] = json!("unchanged_toast");
    update["action"] = json!("update");
    update["changes"] = json!({"origin": 1, "email": null, "labels": ["old"], "due": "2025-01-01"});
    let event = published(decide_with(&config, &update));
    let body = body(&event);
    let hash = format!("sha256:{}", crate::domain::event_key::sha256_hex(b"a@b.c"));
    let mut expected = usual();
    let row = expected.as_object_mut().expect("an object");
    row.retain(|name, _| !["origin", "status", "email"].contains(&name.as_str()));
    row.insert("labels".to_owned(), json!("***"));
    row.insert("mail".to_owned(), json!(hash));
    row.insert("state".to_owned(), json!("unchanged_toast"));
    assert_eq!(body["row_data"], expected);
    assert_eq!(body["changes"], json!({"mail": null, "labels": "***", "due": "2025-01-01"}));
    assert_eq!(body["unchanged"], json!(["state"]));
    assert!(!std::str::from_utf8(&event.payload).expect("text").contains("a@b.c"));
    // A field of that name that is not declared would stand there twice.
    let (_, reason, detail) = dead(decide_with(&config, &but("mail", json!(1))));
    assert_eq!((reason, detail.contains("mail is not declared, and a column")), (Reason::WrongShape, true));
    declaration.unhandled_fields = UnhandledFields::Drop;
    published(decide_with(&configured(&declaration), &but("mail", json!(1))));
}

#[test]
fn a_row_of_another_tenant_than_its_schemas_is_a_dead_letter() {
    let declaration = Declaration { tenant_guard: Some("daisi_{company_id}".to_owned()), ..orders() };
    let config = configured(&declaration);
    published(decide_with(&config, &order(&usual())));
    for (schema, company) in [("daisi_acme", "Acme"), ("daisi_acme2", "acme"), ("acme", "acme"), ("daisi_", "acme")] {
        let mut event = but("company_id", json!(company));
        event["metadata"]["table_schema"] = json!(schema);
        let (table, reason, detail) = dead(decide_with(&config, &event));
        assert_eq!((table, reason), (Some("orders"), Reason::TenantMismatch), "{schema} {company}");
        assert!(!detail.contains("acme") && detail.contains("tenant_guard"), "{detail}");
    }
}

#[test]
fn a_row_that_the_filter_leaves_out_is_held_against_its_schema_all_the_same() {
    let none = Condition::IsNull { column: "company_id".to_owned() };
    let guard = Some("daisi_{company_id}".to_owned());
    let declaration = Declaration { tenant_guard: guard, filter: Some(none), ..orders() };
    let config = configured(&declaration);
    assert!(matches!(decide_with(&config, &order(&usual())).verdict, Verdict::Skip { table: Some("orders") }));
    let (_, reason, _) = dead(decide_with(&config, &but("company_id", json!("evil"))));
    assert_eq!(reason, Reason::TenantMismatch);
}

#[test]
fn what_no_token_may_hold_is_encoded_or_rejected_wherever_it_comes_from() {
    let mut declaration = orders();
    declaration.routing.push(("region".to_owned(), Source::Constant("a.>".to_owned())));
    declaration.subject = "{prefix}.{company_id}.{region}.{schema}".to_owned();
    let mut event = but("company_id", json!("x.*"));
    event["metadata"]["table_schema"] = json!("s. >");
    let mut config = configured(&declaration);
    assert_eq!(published(decide_with(&config, &event)).subject, "wa.x%2E%2A.a%2E%3E.s%2E%20%3E");
    config.unsafe_tokens = UnsafeTokens::Reject;
    assert_eq!(dead(decide_with(&config, &event)).1, Reason::IllegalToken);
    event["metadata"]["table_schema"] = json!("");
    config.unsafe_tokens = UnsafeTokens::Encode;
    assert_eq!(dead(decide_with(&config, &event)).1, Reason::MissingRouting);
}

#[test]
fn what_was_read_by_one_configuration_is_decided_by_it_whatever_is_followed_meanwhile() {
    let by_row = configured(&orders());
    let by_company = configured(&Declaration { order_by: "company_id".to_owned(), ..orders() });
    let transform = CdcTransform::new(by_row.clone());
    let event = delivery("any", Vec::new(), order(&usual()).to_string());
    let (row, parsed) = transform.order(&event);
    // The declared table is the fourth of one and none of the other.
    transform.follow(TransformConfig::default());
    assert_eq!(transform.tables(), ["messages", "chats", "agents"]);
    assert_eq!(published(transform.decide(&event, parsed)).subject, "wa.acme.orders");
    let (_, parsed) = transform.order(&event);
    assert!(matches!(transform.decide(&event, parsed).verdict, Verdict::Skip { table: None }));
    transform.follow(by_company);
    assert_ne!(transform.order(&event).0, row);
    transform.follow(by_row);
    assert_eq!(transform.order(&event).0, row);
}

#[test]
fn a_place_within_something_that_holds_no_values_is_told_by_what_there_is() {
    let mut declaration = orders();
    let pointer = Source::Pointer { column: "origin".to_owned(), pointer: "/chat/0/id".to_owned() };
    declaration.routing.push(("chat_id".to_owned(), pointer));
    published(decide_with(&configured(&declaration), &but("origin", json!("text"))));
    declaration.subject = "{prefix}.{company_id}.{chat_id}".to_owned();
    let config = configured(&declaration);
    for (origin, told) in [
        (json!("{\"chat\": 1}"), "sought within a string, which"),
        (json!({"chat": 7}), "sought within an integer, which"),
        (json!({"chat": [{"id": ""}]}), "empty, null or absent"),
        (json!({"chat": null}), "empty, null or absent"),
        (json!({"chat": [{"id": null}]}), "empty, null or absent"),
        (Value::Null, "empty, null or absent"),
    ] {
        let (_, reason, detail) = dead(decide_with(&config, &but("origin", origin)));
        assert_eq!(reason, Reason::MissingRouting);
        assert!(detail.contains(told), "{detail}");
    }
}

#[test]
fn what_is_no_json_within_a_value_is_found_where_it_stands_in_the_payload() {
    let mut declaration = orders();
    let pointer = Source::Pointer { column: "origin".to_owned(), pointer: "/chat/0/id".to_owned() };
    declaration.routing.push(("chat_id".to_owned(), pointer));
    declaration.subject = "{prefix}.{company_id}.{chat_id}".to_owned();
    // Half of a pair is no text. Only who looks for a name within the value reads it.
    let payload = but("origin", json!("HERE")).to_string().replace("\"HERE\"", "\n{\"\\ud800\":1}");
    let (_, reason, detail) = dead(run(&configured(&declaration), &delivery("any", Vec::new(), payload)).1);
    assert_eq!(reason, Reason::NotJson);
    assert!(detail.ends_with("at line 2, column 2"), "{detail}");
}

#[test]
fn columns_are_found_in_any_order_whatever_the_last_one_was() {
    let read = |table: &DeclaredTable, record| table.read(&mut Scanner::new(record)).expect("JSON").expect("a row");
    let fresh = || orders().compile().expect("a sound declaration");
    let records = [
        r#"{"id":7,"company_id":"acme","status":"open","paid":true}"#,
        r#"{"company_id":"acme","paid":true,"new":1,"status":null,"id":7}"#,
        r#"{"paid":true,"id":7,"company_id":"acme"}"#,
        r#"{"status":"open","id":7,"other":2,"paid":false,"company_id":"acme"}"#,
    ];
    let used = fresh();
    for record in records.into_iter().cycle().take(9) {
        assert_eq!(read(&used, record), read(&fresh(), record), "{record}");
    }
}
