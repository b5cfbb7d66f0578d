//! The tools for operators on declared tables: traces, generated traffic, cases.

use serde_json::{Value, json};

use crate::support::service::{Settings, command};

const CONFIG: [&str; 2] = ["--config", "examples/tables/everything.yaml"];

fn run(arguments: &[&str], input: &str) -> (i32, String) {
    let output = command(&Settings::new(), arguments, input.as_bytes());
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A ticket that is published.
fn ticket() -> Value {
    json!({
        "record": {
            "id": "018f3a00-5b6c-7d8e-9f00-112233445566", "tenant_no": 1, "ticket_no": 7, "company_id": "acme",
            "origin": {"chat": {"id": "c1"}}, "status": "open", "is_test": false, "priority": 1, "email": "a@example.com",
            "note": "n", "internal_score": 1.5, "created_at": "2026-01-05T08:00:00Z", "added": 1,
        },
        "changes": null, "action": "insert",
        "metadata": {"table_schema": "daisi_acme", "table_name": "tickets", "commit_lsn": 5, "commit_idx": 0, "database_name": "d"},
    })
}

fn traced(event: &Value, output: &str) -> String {
    let arguments = [&["explain", "--trace", "--output", output], &CONFIG[..]].concat();
    let (code, text) = run(&arguments, &event.to_string());
    assert_eq!(code, 0, "{text}");
    text
}

#[test]
fn a_trace_tells_types_sources_filter_edits_and_order() {
    let text = traced(&ticket(), "text");
    for part in [
        "publish\n",
        "status: string, fits string not null\n",
        "priority: integer, fits integer\n",
        "email: string, fits string; a hash in its place\n",
        "note: string, fits string; renamed to remark\n",
        "internal_score: number, fits numeric; dropped\n",
        "added: integer, not declared; dropped, since it is not declared\n",
        "company_id = \"acme\", from /record/company_id\n",
        "agent_id = \"desk\", a constant\n",
        "chat_id = \"c1\", from /record/origin/chat/id\n",
        "tenant = \"acme\", from /metadata/table_schema by daisi_{tenant}\n",
        "holds: (status is one of [\"open\", \"waiting\", \"closed\"] and not is_test is \"true\" and (closed_on is null or priority is \"1\"))\n",
        "does not hold: is_test is \"true\"\n",
        ", by chat_id = \"c1\"\n",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
}

#[test]
fn a_trace_tells_why_an_event_is_skipped_and_what_does_not_fit() {
    let why = |change: fn(&mut Value)| {
        let mut event = ticket();
        change(&mut event);
        lines(&traced(&event, "json")).remove(0)
    };
    let said = why(|event| event["record"]["status"] = json!("spam"));
    assert_eq!((&said["verdict"], &said["trace"]["skipped"]), (&json!("skip"), &json!("the filter does not hold")));
    assert_eq!(said["trace"]["filter"]["holds"], false);
    let said = why(|event| event["metadata"]["table_schema"] = json!("public"));
    assert_eq!(said["trace"]["skipped"], "schema public does not fit daisi_*");
    let said = why(|event| event["metadata"]["table_name"] = json!("invoices"));
    assert_eq!(said["trace"]["skipped"], "table invoices is not enabled");
    // What routes is shown of a row that cannot be read, too.
    let said = why(|event| event["record"]["priority"] = json!("high"));
    let field =
        |name: &str| said["trace"]["fields"].as_array().unwrap().iter().find(|field| field["name"] == name).unwrap();
    assert_eq!((&said["reason"], &field("priority")["fits"]), (&json!("wrong_shape"), &json!(false)));
    assert_eq!((&field("status")["fits"], &field("status")["declared"]), (&json!(true), &json!("string not null")));
    let chat = json!({"name": "chat_id", "value": "c1", "source": "pointer", "from": "/record/origin/chat/id", "pattern": null});
    assert!(said["trace"]["routing"].as_array().unwrap().contains(&chat), "{said}");
    let said = why(|event| event["record"]["origin"] = json!({}));
    assert_eq!(said["reason"], "missing_routing");
    assert!(said["trace"]["order_by"].as_str().unwrap().starts_with("nothing but the delivery"), "{said}");
    // A filter that a column decides which was not sent.
    let said = why(|event| event["record"]["status"] = json!("unchanged_toast"));
    assert_eq!((&said["reason"], &said["trace"]["filter"]["holds"]), (&json!("unchanged_toast"), &Value::Null));
}

#[test]
fn traffic_of_a_declared_table_is_of_its_types_and_passes_its_filter() {
    let generate = |more: &[&str]| {
        let fixed = ["generate", "--events", "600", "--start", "2026-01-05T08:00:00Z", "--table", "tickets"];
        run(&[&fixed[..], &CONFIG, more].concat(), "")
    };
    let (code, text) = generate(&[]);
    assert_eq!((code, text.lines().count()), (0, 600), "{text}");
    assert_eq!(text, generate(&["--seed", "1"]).1);
    assert_ne!(text, generate(&["--seed", "2"]).1);
    let (code, told) = run(&[&["explain"][..], &CONFIG].concat(), &text);
    assert_eq!(code, 0);
    let told = lines(&told);
    let count = |verdict: &str| told.iter().filter(|said| said["verdict"] == verdict).count();
    assert!(
        count("publish") > 540 && (1..60).contains(&count("dead_letter")),
        "{} {}",
        count("publish"),
        count("dead_letter")
    );
    let events = lines(&text);
    for action in ["insert", "update", "delete", "read"] {
        assert!(events.iter().any(|event| event["event"]["action"] == action), "{action}");
    }
    // Columns come in the order of the declaration, values by their names and types.
    assert!(text.lines().next().unwrap().contains("\"record\":{\"id\":\"018f3a00-"), "{text}");
    let phones = events.iter().filter_map(|event| event["event"]["record"]["phone"].as_str());
    assert!(phones.clone().count() > 300 && phones.clone().all(|phone| phone.starts_with("62812")));
    let tenants: std::collections::BTreeSet<_> =
        told.iter().filter_map(|said| said["subject"].as_str()?.split('.').nth(1)).collect();
    assert!(tenants.len() >= 3, "{tenants:?}");

    let (code, text) = run(&[&["generate", "--table", "contacts"][..], &CONFIG].concat(), "");
    assert!(code == 78 && text.contains("\"contacts\" is no table") && text.contains("tickets"), "{text}");
    let (code, text) = run(&["generate", "--table", "contacts"], "");
    assert!(code == 78 && text.contains("there is none") && text.contains("tables.contacts.enabled"), "{text}");
    assert_eq!(generate(&["--mix", "chat=1,other=1"]).0, 64);
    let deletes = lines(&generate(&["--mix", "delete=1"]).1);
    assert!(deletes.iter().all(|event| event["event"]["action"] == "delete"));
}

#[test]
fn traffic_of_every_table_that_ships_is_published() {
    let tables = "contacts,messages,chats,agents";
    let settings = Settings::from([("tables.contacts.enabled".to_owned(), "true".to_owned())]);
    let config = ["--config", "examples/tables/typed.yaml"];
    let run = |arguments: &[&str], input: &[u8]| command(&settings, &[arguments, &config].concat(), input).stdout;
    let events = run(&["generate", "--table", tables, "--events", "400"], b"");
    let told = String::from_utf8(run(&["explain"], &events)).unwrap();
    let told = lines(&told);
    let published: Vec<_> = told.iter().filter(|said| said["verdict"] == "publish").collect();
    assert!(told.len() == 400 && published.len() > 360, "{} of {}", published.len(), told.len());
    for table in tables.split(',') {
        assert!(
            published.iter().any(|said| said["subject"].as_str().unwrap().contains(&format!(".{table}"))),
            "{table}"
        );
    }
}

#[test]
fn cases_of_a_declared_table_hold() {
    let (code, text) = run(&[&["test"][..], &CONFIG, &["examples/cases/tickets.yaml"]].concat(), "");
    assert!(code == 0 && text.contains("6 passed, 0 failed"), "{text}");
    // They are cases of this declaration, and of no other.
    let (code, text) = run(&["test", "examples/cases/tickets.yaml"], "");
    assert!(code == 65 && text.contains("examples/cases/tickets.yaml: case "), "{text}");
}
