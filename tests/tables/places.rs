//! Where a trace says that an event is not as it should be: line, column and JSON pointer of exactly that value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::LazyLock;

use daisi_cdc_consumer::domain::{CdcTransform, Explanation, Place, trace};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::events::{Sent, columns, event};
use crate::{file, transform};

const EVERYTHING: &str = "examples/tables/everything.yaml";

/// Names that a pointer has to escape, places within columns, arrays, and another column where the wrong pointer would lead.
const HARD: &str = r##"
tables:
  t:
    key: id
    schema: daisi_*
    tenant_guard: daisi_{odd}
    routing:
      company_id: company
      chat: { column: doc, pointer: /chat/id }
      first: { column: "a/b~c", pointer: /0/x~1y }
      odd: "doc#/chat/id"
    subject: "{prefix}.{company_id}.{chat}"
    event_id: "{key}:{first}:{odd}"
    required: [first, odd]
    rename: { "n/o": flag }
    columns:
      id: integer not null
      company: string
      doc: json
      "doc#/chat/id": string
      a: json
      "a/b": integer
      "m~n": string not null
      "n/o": boolean
      "a/b~c": json
      scores: array of integer
      days: array of date
"##;

/// A row of it that is published.
const ROW: &str = r##"{"id":1,"company":"co","doc":{"chat":{"id":"c"}},"doc#/chat/id":"acme","a":{"b":1},
 "m~n":"m","a/b~c":[{"x/y":7}],"scores":[1,null]}"##;

/// An object with all of its members, also where a name comes twice.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(All)
    }
}

/// What stands directly below a value under a name: more than one value where the name comes twice.
fn below<'a>(raw: &'a str, step: &str) -> Vec<&'a str> {
    if let Ok(Members(members)) = serde_json::from_str(raw) {
        return members.into_iter().filter(|(name, _)| name == step).map(|(_, value)| value.get()).collect();
    }
    let place = step.parse::<usize>().ok().filter(|place| place.to_string() == step);
    let elements = serde_json::from_str::<Vec<&RawValue>>(raw).unwrap_or_default();
    place.and_then(|place| elements.get(place).map(|value| value.get())).into_iter().collect()
}

/// The values that a pointer leads to, or that the last of its steps leads to that are there, and how many are not.
fn sought<'a>(payload: &'a str, pointer: &str) -> (Vec<&'a str>, usize) {
    let steps: Vec<_> = pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let mut values = vec![payload];
    for (done, step) in steps.iter().enumerate() {
        let next: Vec<_> = values.iter().flat_map(|value| below(value, step)).collect();
        if next.is_empty() {
            return (values, steps.len() - done);
        }
        values = next;
    }
    (values, 0)
}

/// What stands where a place says.
fn standing_at<'a>(payload: &'a str, place: &Place) -> &'a str {
    let before: usize = payload.split_inclusive('\n').take(place.line - 1).map(str::len).sum();
    &payload[before + place.column - 1..]
}

/// The type of a value in the words of a detail.
fn is_a(raw: &str, found: &str) -> bool {
    let first = raw.as_bytes()[0];
    match found {
        "a string" => first == b'"',
        "a boolean" => matches!(first, b't' | b'f'),
        "an object" => first == b'{',
        "an array" => first == b'[',
        "null" => raw == "null",
        _ => first == b'-' || first.is_ascii_digit(),
    }
}

/// Whether a value deserves what is said of it; `lacking` of the steps to it are not there.
fn deserves(said: &Explanation, raw: &str, lacking: usize) -> bool {
    let detail = said.detail.as_deref().unwrap();
    let is_there = lacking == 0;
    match said.reason.unwrap() {
        "missing_key" | "missing_routing" if detail.contains("taken from the schema's name") => is_there,
        "missing_key" | "missing_routing" => !is_there || matches!(raw, "null" | "\"\""),
        "unchanged_toast" => raw == "\"unchanged_toast\"",
        "wrong_shape" if detail.contains("absent or null") => raw == "null" || lacking == 1,
        "wrong_shape" if detail.ends_with("found null or nothing") => raw == "null" || lacking == 1,
        "wrong_shape" if detail.ends_with("is not a JSON object") => is_there && !raw.starts_with('{'),
        "wrong_shape" if detail.contains("no Unicode character") => {
            is_there && raw.starts_with('"') && serde_json::from_str::<String>(raw).is_err()
        }
        "wrong_shape" => {
            let found = detail.rsplit_once(", found ").map(|(_, found)| found);
            is_there && found.is_none_or(|found| is_a(raw, found))
        }
        _ => is_there,
    }
}

/// Makes sure that the place of a dead letter is that of what its pointer names, and that this is what the detail speaks of.
pub fn is_exact(payload: &[u8], said: &Explanation, place: &Place) {
    let whole = String::from_utf8_lossy(payload);
    let Some(pointer) = &place.pointer else {
        assert_eq!(said.reason, Some("not_json"), "{whole}");
        let here = format!("at line {}, column {}", place.line, place.column);
        let detail = said.detail.as_ref().unwrap();
        assert!(detail.ends_with(&here) || detail.contains("not UTF-8"), "{here}: {detail}");
        return;
    };
    let text = std::str::from_utf8(payload).unwrap();
    let standing = standing_at(text, place);
    let (values, lacking) = sought(text, pointer);
    let is_second = said.detail.as_ref().unwrap().ends_with("appears twice") && values.len() > 1;
    let here =
        values.into_iter().skip(usize::from(is_second)).find(|value| value.trim_start().as_ptr() == standing.as_ptr());
    let here = here.unwrap_or_else(|| panic!("{place:?} points elsewhere:\n{said:?}\n{text}"));
    assert!(deserves(said, here.trim(), lacking), "{place:?} is not what is meant, {here}:\n{said:?}\n{text}");
}

fn traced(transform: &CdcTransform, sent: &Sent) -> (Explanation, Option<Place>) {
    let (said, trace) = trace(transform, &sent.subject, Vec::new(), &sent.payload.clone().into(), "dead");
    (said, trace.place)
}

/// Reason and detail of an event, its pointer, and what stands at its line and column.
#[track_caller]
fn wrong(transform: &CdcTransform, payload: &str) -> (&'static str, String, String, String) {
    let sent = Sent { subject: "any".to_owned(), payload: payload.as_bytes().to_vec() };
    let (said, place) = traced(transform, &sent);
    let place = place.unwrap_or_else(|| panic!("no dead letter: {said:?}"));
    is_exact(&sent.payload, &said, &place);
    let standing = standing_at(payload, &place).to_owned();
    (said.reason.unwrap(), said.detail.unwrap(), place.pointer.unwrap_or_default(), standing)
}

/// Makes sure that each change of `row`, in `table`, is told at its pointer, where this text stands.
#[track_caller]
fn told(transform: &CdcTransform, table: &str, row: &str, cases: &[(&str, &str, &str, &str, &str)]) {
    for (from, to, reason, pointer, standing) in cases {
        let changed = row.replacen(from, to, 1);
        assert_ne!(changed, row);
        let metadata = format!(
            r#"{{"table_schema":"daisi_acme","table_name":"{table}","commit_lsn":5,"commit_idx":0,"database_name":"d"}}"#
        );
        let payload =
            format!("{{\"record\":{changed},\n\"changes\":null,\"action\":\"insert\",\"metadata\":{metadata}}}");
        let found = wrong(transform, &payload);
        assert_eq!((found.0, found.2.as_str()), (*reason, *pointer), "{changed}: {}", found.1);
        assert!(found.3.starts_with(standing), "{changed}: {}", found.3);
    }
}

const TICKET: &str = r#"{"id":"018f3a00-5b6c-7d8e-9f00-112233445566","tenant_no":1,"ticket_no":7,"company_id":"acme",
"origin":{"chat":{"id":"c1"}},"status":"open","is_test":false,"labels":["a"],"created_at":"2026-01-05T08:00:00Z"}"#;

#[test]
fn what_a_place_within_a_column_lacks_or_holds_wrongly_is_told_there() {
    let tickets = transform(Some(Path::new(EVERYTHING)), &[("TARGET__UNSAFE_TOKENS", "reject")]);
    let chat = "/record/origin/chat/id";
    told(
        &tickets,
        "tickets",
        TICKET,
        &[
            ("\"c1\"", "\"\"", "missing_routing", chat, "\"\"}},\"status\""),
            ("\"c1\"", "null", "missing_routing", chat, "null}},\"status\""),
            ("\"id\":\"c1\"", "", "missing_routing", chat, "{}},\"status\""),
            ("{\"chat\":{\"id\":\"c1\"}}", "{\"chat\":[]}", "missing_routing", chat, "[]},\"status\""),
            ("{\"chat\":{\"id\":\"c1\"}}", "7", "missing_routing", chat, "7,\"status\""),
            ("\"origin\":{\"chat\":{\"id\":\"c1\"}},", "", "missing_routing", chat, "{\"id\":\"018f3a00"),
            (
                "{\"chat\":{\"id\":\"c1\"}}",
                "\"unchanged_toast\"",
                "unchanged_toast",
                chat,
                "\"unchanged_toast\",\"status\"",
            ),
            ("\"c1\"", "\"c.1\"", "illegal_token", chat, "\"c.1\"}}"),
            ("\"c1\"", "{}", "wrong_shape", chat, "{}}},\"status\""),
            ("\"c1\"", "\"\\ud800\"", "wrong_shape", chat, "\"\\ud800\"}}"),
            ("\"id\":\"c1\"", "\"id\":1, \"id\":2", "wrong_shape", chat, "2}}"),
            ("\"chat\":{", "\"chat\":null,\"chat\":{", "wrong_shape", "/record/origin/chat", "{\"id\":\"c1\"}}"),
            ("\"labels\":[\"a\"]", "\"labels\":[\"a\",5]", "wrong_shape", "/record/labels/1", "5]"),
            ("\"labels\":[\"a\"]", "\"labels\":\"a\"", "wrong_shape", "/record/labels", "\"a\",\"created_at\""),
        ],
    );
}

#[test]
fn names_are_escaped_and_no_other_column_is_taken_for_the_one_that_is_meant() {
    let hard = transform(Some(file(HARD).path()), &[("TARGET__UNSAFE_TOKENS", "reject")]);
    told(
        &hard,
        "t",
        ROW,
        &[
            ("\"m~n\"", "\"a/b\":\"no\",\"m~n\"", "wrong_shape", "/record/a~1b", "\"no\",\"m~n\""),
            ("\"m~n\"", "\"a/b\":1,\"a/b\":2,\"m~n\"", "wrong_shape", "/record/a~1b", "2,\"m~n\""),
            ("\"m~n\":\"m\",", "", "wrong_shape", "/record/m~0n", "{\"id\":1"),
            ("\"m~n\":\"m\"", "\"m~n\":null", "wrong_shape", "/record/m~0n", "null,"),
            ("\"c\"", "\"\"", "missing_routing", "/record/doc/chat/id", "\"\"}}"),
            ("\"acme\"", "\"\"", "missing_routing", "/record/doc#~1chat~1id", "\"\",\"a\""),
            ("\"acme\"", "\"\\udc00\"", "wrong_shape", "/record/doc#~1chat~1id", "\"\\udc00\","),
            ("\"x/y\":7", "\"x/y\":[7]", "wrong_shape", "/record/a~1b~0c/0/x~1y", "[7]}]"),
            ("\"x/y\":7", "\"x\":{\"y\":7}", "missing_routing", "/record/a~1b~0c/0/x~1y", "{\"x\":{"),
            ("[{\"x/y\":7}]", "[]", "missing_routing", "/record/a~1b~0c/0/x~1y", "[],\"scores\""),
            ("[1,null]", "[1,\"1\"]", "wrong_shape", "/record/scores/1", "\"1\"]"),
            ("[1,null]", "[[1], [null, 2 , 1.5]]", "wrong_shape", "/record/scores/1/2", "1.5]]"),
            (
                "[1,null]",
                "[1],\"days\":[\"2026-01-05\",\"2026-13-05\"]",
                "wrong_shape",
                "/record/days/1",
                "\"2026-13-05\"]",
            ),
            // Deeper than PostgreSQL nests.
            ("[1,null]", "[[[[[[[[true]]]]]]]]", "wrong_shape", "/record/scores/0/0/0/0/0/0", "[[true]]]]]]]]"),
            // A column goes out under this name.
            ("\"m~n\"", "\"flag\":1,\"m~n\"", "wrong_shape", "/record/flag", "1,\"m~n\""),
            // Of two values under one name the one that is wrong.
            ("\"m~n\"", "\"m~n\":\"m\",\"m~n\":5,\"m~n\"", "wrong_shape", "/record/m~0n", "5,"),
            ("\"id\":1", "\"id\":true,\"id\":1", "wrong_shape", "/record/id", "true,"),
            ("\"id\":1", "\"id\":null,\"id\":true", "wrong_shape", "/record/id", "true,"),
        ],
    );
    let (_, detail, ..) = wrong(
        &hard,
        &format!(
            r#"{{"record":{},"changes":null,"action":"insert","metadata":{{"table_schema":"daisi_acme","table_name":"t"}}}}"#,
            ROW.replace("[1,null]", "[1,\"1\"]")
        ),
    );
    assert_eq!(detail, "record: scores#/1 should be an integer, found a string");
}

#[test]
fn of_a_subject_that_is_too_long_the_longest_routing_value_is_told() {
    let hard = transform(Some(file(HARD).path()), &[]);
    let (long, longer) = ("x".repeat(600), "é ".repeat(200));
    let row = ROW.replace("\"co\"", &format!("\"{long}\""));
    // What counts is its length in the subject: what is encoded is longer than it looks.
    let to = format!("{{\"id\":\"{longer}\"}}");
    told(&hard, "t", &row, &[("{\"id\":\"c\"}", &to, "subject_too_long", "/record/doc/chat/id", "\"é é")]);
    let to = format!("{{\"id\":\"{long}\"}},\"x\":1");
    let row = ROW.replace("\"co\"", &format!("\"{long}{long}\""));
    told(&hard, "t", &row, &[("{\"id\":\"c\"}}", &format!("{to}}}"), "subject_too_long", "/record/company", "\"xxx")]);
}

#[test]
fn what_is_no_json_within_a_part_is_told_where_it_stands_in_the_event() {
    let hard = transform(Some(file(HARD).path()), &[]);
    // Names that are no Unicode show where names are read.
    told(&hard, "t", ROW, &[("\"id\":\"c\"", "\"\\ud800\":1", "not_json", "", "\"\\ud800\":1}}")]);
    let payload = format!(
        "{{\"record\":{ROW},\n \"changes\":{{\"\\ud800\":1}},\"action\":\"update\",\"metadata\":{}}}",
        r#"{"table_schema":"daisi_acme","table_name":"t"}"#
    );
    let (reason, _, _, standing) = wrong(&hard, &payload);
    assert!(reason == "not_json" && standing.starts_with("\"\\ud800\":1},\"action\""), "{standing}");
}

#[test]
fn parts_of_the_envelope_are_told_where_they_are_wrong() {
    let hard = transform(Some(file(HARD).path()), &[]);
    let metadata = r#"{"table_schema":"daisi_acme","table_name":"t"}"#;
    let event = format!("{{\"record\":{ROW},\"action\":\"insert\",\"metadata\":{metadata}}}");
    for (from, to, pointer, standing) in [
        (metadata, format!("{{\"database\":7}},\"metadata\":{metadata}"), "/metadata/database", "7},"),
        (metadata, format!("{metadata},\"metadata\":[]"), "/metadata", "[]}"),
        ("\"t\"", "\"t\",\"table_name\":\"u\",\"table_name\":\"v\"".to_owned(), "/metadata/table_name", "\"u\""),
        ("\"t\"", "null".to_owned(), "/metadata/table_name", "null}"),
        (",\"table_name\":\"t\"", String::new(), "/metadata/table_name", "{\"table_schema\""),
        ("\"action\":\"insert\"", "\"action\":\"upsert\"".to_owned(), "/action", "\"upsert\""),
        (event.as_str(), " \n [1]".to_owned(), "", "[1]"),
    ] {
        let payload = event.replacen(from, &to, 1);
        let found = wrong(&hard, &payload);
        assert_eq!((found.0, found.2.as_str()), ("wrong_shape", pointer), "{payload}: {}", found.1);
        assert!(found.3.starts_with(standing), "{payload}: {}", found.3);
    }
}

/// Events of the tables above and of a built-in one, with what they are decided by.
fn any_event() -> impl Strategy<Value = (usize, Sent)> {
    let everything = std::fs::read_to_string(EVERYTHING).unwrap();
    prop_oneof![
        event("tickets", columns(&everything, "tickets")).prop_map(|sent| (0, sent)),
        event("t", columns(HARD, "t")).prop_map(|sent| (1, sent)),
        event("messages", columns(&std::fs::read_to_string("examples/tables/typed.yaml").unwrap(), "messages"))
            .prop_map(|sent| (2, sent)),
    ]
}

/// What decides on events of each of them, most leniently and most strictly.
static TRANSFORMS: LazyLock<[[CdcTransform; 3]; 2]> = LazyLock::new(|| {
    [("encode", "keep"), ("reject", "reject")].map(|(tokens, fields)| {
        let set = [("TARGET__UNSAFE_TOKENS", tokens), ("TABLES__MESSAGES__UNHANDLED_FIELDS", fields)];
        [transform(Some(Path::new(EVERYTHING)), &set), transform(Some(file(HARD).path()), &set), transform(None, &set)]
    })
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
    #[test]
    fn the_place_of_any_dead_letter_is_that_of_what_is_wrong((table, sent) in any_event()) {
        for transforms in &*TRANSFORMS {
            let (said, place) = traced(&transforms[table], &sent);
            prop_assert_eq!(place.is_some(), said.verdict == "dead_letter");
            if let Some(place) = place {
                is_exact(&sent.payload, &said, &place);
            }
        }
    }
}

#[test]
fn the_dead_letters_are_of_every_kind() {
    let mut runner = TestRunner::deterministic();
    let (mut reasons, mut within) = (BTreeMap::<&str, u32>::new(), 0);
    let any_event = any_event();
    for _ in 0..6_000 {
        let (table, sent) = any_event.new_tree(&mut runner).unwrap().current();
        let (said, place) = traced(&TRANSFORMS[1][table], &sent);
        let Some(place) = place else { continue };
        *reasons.entry(said.reason.unwrap()).or_default() += 1;
        within += u32::from(place.pointer.is_some_and(|pointer| pointer.split('/').count() > 3));
    }
    for reason in [
        "not_json",
        "wrong_shape",
        "missing_key",
        "missing_routing",
        "tenant_mismatch",
        "replica_identity",
        "illegal_token",
        "subject_too_long",
        "unchanged_toast",
        "rejected_field",
    ] {
        assert!(reasons.get(reason).is_some_and(|times| *times > 3), "{reason}: {reasons:?}");
    }
    assert!(within > 100, "{within} within a column");
}
