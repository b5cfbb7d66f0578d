//! Any declaration that is accepted decides on any event, and says how in words that fit the decision.

use std::collections::BTreeMap;

use daisi_cdc_consumer::bootstrap::settings;
use daisi_cdc_consumer::config::Config;
use daisi_cdc_consumer::demo::declared::TableTraffic;
use daisi_cdc_consumer::demo::traffic::{Expected, Mix};
use daisi_cdc_consumer::domain::{CdcTransform, Explanation, Routing, Trace, explain, trace};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use serde_json::value::RawValue;

use crate::events::{KINDS, Sent, event};
use crate::places::is_exact;
use crate::{file, transform};

/// A table in YAML, below `tables:`, and its columns with their types.
#[derive(Debug, Clone)]
pub struct Declared {
    pub yaml: String,
    pub columns: Vec<(String, &'static str)>,
}

/// What the entries below call the columns that they use, and names for these: plain ones, and such as JSON, YAML or a pointer
/// have to escape.
const NAMES: [(&str, [&str; 2]); 7] = [
    ("ID", ["id", "i/d"]),
    ("PART", ["part", "p~1t"]),
    ("COMPANY", ["company", "doc#/id"]),
    ("DOC", ["doc", "d \"o\" ~c"]),
    ("FLAG", ["flag", "flág\\/"]),
    ("NOTE", ["note", "no'te"]),
    ("MAIL", ["mail", "~0mail"]),
];

/// One of these as a rule, and something that is wrong now and then.
fn mostly(good: &'static [&'static str], bad: &'static str) -> BoxedStrategy<String> {
    prop_oneof![60 => select(good).prop_map(str::to_owned), 1 => Just(bad.to_owned())].boxed()
}

fn columns() -> impl Strategy<Value = Vec<(String, &'static str, bool)>> {
    let own = (select(&["string", "bigint", "uuid"][..]), select(&["string", "integer", "date"][..]));
    let others = prop::collection::vec((select(&KINDS[..]), prop::bool::weighted(0.2)), 0..8);
    (own, select(&["string", "integer"][..]), others).prop_map(|((id, part), company, others)| {
        let fixed = [
            ("ID", id, true),
            ("PART", part, true),
            ("COMPANY", company, false),
            ("DOC", "json", false),
            ("FLAG", "boolean", false),
            ("NOTE", "string", false),
            ("MAIL", "scalar", false),
        ];
        let fixed = fixed.map(|(name, kind, not_null)| (name.to_owned(), kind, not_null));
        let others =
            others.into_iter().zip(0..).map(|((kind, not_null), number)| (format!("c/{number}~"), kind, not_null));
        fixed.into_iter().chain(others).collect()
    })
}

fn condition() -> BoxedStrategy<String> {
    let leaf = mostly(
        &[
            "{column: FLAG, equals: true}",
            "{column: FLAG, in: [true, false]}",
            "{column: DOC, is_null: false}",
            "{column: COMPANY, is_null: false}",
            "{column: ID, is_null: true}",
            "{column: ID, equals: OF_ID}",
            "{column: PART, equals: OF_PART}",
            "{not: {column: PART, in: [OF_PART]}}",
            "{column: COMPANY, in: [OF_COMPANY]}",
            "{column: NOTE, in: [acme, open, '7', \"\"]}",
            "{not: {column: NOTE, equals: x}}",
        ],
        "{column: nowhere, equals: 1}",
    );
    leaf.prop_recursive(3, 8, 3, |inner| {
        let several = prop::collection::vec(inner.clone(), 1..3).prop_map(|inner| inner.join(", "));
        prop_oneof![
            several.clone().prop_map(|inner| format!("{{and: [{inner}]}}")),
            several.prop_map(|inner| format!("{{or: [{inner}]}}")),
            inner.prop_map(|inner| format!("{{not: {inner}}}")),
        ]
    })
    .boxed()
}

/// The entries that may be left out, each there or not.
fn entries() -> impl Strategy<Value = Vec<String>> {
    let line = |name: &'static str, value: BoxedStrategy<String>| {
        value.prop_map(move |value| format!("{name}: {value}")).boxed()
    };
    let all = vec![
        line("unhandled_fields", mostly(&["keep", "drop", "reject"], "ignore")),
        line("tenant_guard", mostly(&["daisi_{company_id}", "daisi_{fixed}", "daisi_{place}"], "daisi")),
        line("schema", mostly(&["'*'", "daisi_*", "daisi_acme"], "'a*b*'")),
        line("primary_key", mostly(&["ID", "[ID, PART]", "[COMPANY, ID, DOC]"], "nowhere")),
        line("required", mostly(&["[company_id]", "[fixed]", "[place]"], "[nobody]")),
        line(
            "event_id",
            mostly(
                &["'{key}'", "'{commit_lsn}:{commit_idx}:{table}:{key}:{action}'", "'{company_id}/{key}@{schema}'"],
                "'{commit_lsn}'",
            ),
        ),
        line("actions", mostly(&["[insert, update, delete, read]", "[insert, update]", "read"], "[upsert]")),
        line("order_by", mostly(&["row", "company_id", "fixed"], "nobody")),
        line("rename", mostly(&["{FLAG: is_flag}", "{DOC: document, FLAG: f}"], "{FLAG: DOC}")),
        line("drop", mostly(&["[NOTE]", "[NOTE, PART]", "[NOTE, ID]"], "[nowhere]")),
        line("redact", mostly(&["{FLAG: mask}", "{MAIL: hash}", "{FLAG: hash, MAIL: mask}"], "{COMPANY: mask}")),
        line("filter", condition()),
    ];
    let count = prop_oneof![2 => 0..5_usize, 1 => 5..=all.len()];
    let chosen = count.prop_flat_map({
        let all = all.len();
        move |count| subsequence((0..all).collect::<Vec<_>>(), count)
    });
    chosen.prop_flat_map(move |chosen| chosen.into_iter().map(|entry| all[entry].clone()).collect::<Vec<_>>())
}

/// Any declaration of a table that is called so.
pub fn declared(table: &'static str) -> impl Strategy<Value = Declared> {
    prop_oneof![6 => of_many_columns(table), 1 => of_key_columns(table)]
}

/// A table that joins others: it has no column but those of its key.
fn of_key_columns(table: &'static str) -> impl Strategy<Value = Declared> {
    let kinds = (select(&["string", "bigint", "uuid"][..]), select(&["string", "integer", "date"][..]));
    let key = mostly(&["[id, part, company]", "[company, id, part]", "[company, part]"], "[id, no]");
    let filter =
        mostly(&["", "filter: {column: company, is_null: false}", "filter: {column: id, in: [OF_ID]}"], "filter: 5");
    (kinds, key, filter, any::<bool>()).prop_map(move |((id, part), key, filter, by_company)| {
        let order = if by_company { "company_id" } else { "row" };
        let yaml = format!(
            "  {table}:\n    key: {key}\n    primary_key: [id, part, company]\n    routing: {{company_id: company, part: part}}\n    \
             subject: \"{{prefix}}.{{company_id}}.{{table}}.{{part}}\"\n    order_by: {order}\n    {}\n    \
             columns:\n      id: {id} not null\n      part: {part}\n      company: string\n",
            filter.replace("OF_ID", literal(id)),
        );
        let columns = [("id", id), ("part", part), ("company", "string")];
        Declared { yaml, columns: columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec() }
    })
}

/// A value to compare a column of this type with.
fn literal(kind: &str) -> &'static str {
    match kind {
        "string" => "acme",
        "integer" | "bigint" => "7",
        "date" => "2026-01-05",
        _ => "018f3a00-5b6c-7d8e-9f00-112233445566",
    }
}

fn of_many_columns(table: &'static str) -> impl Strategy<Value = Declared> {
    let key = mostly(&["ID", "[ID]", "[PART, ID]", "[ID, PART]"], "DOC");
    let tenant = mostly(&["COMPANY", "{column: COMPANY}", "{constant: acme}", "{schema: 'daisi_{company_id}'}"], "DOC");
    let place = mostly(
        &[
            "{column: DOC, pointer: /chat/id}",
            "{column: DOC, pointer: /id}",
            "{column: DOC, pointer: /0/x~1y}",
            "ID",
            "{schema: 'daisi_{place}'}",
        ],
        "{column: ID, pointer: /a}",
    );
    let tokens = subsequence(vec!["t", "{table}", "{action}", "{schema}", "{fixed}", "x-y"], 0..4);
    (columns(), key, tenant, place, tokens, any::<[bool; 2]>(), entries()).prop_map(move |(columns, key, tenant, place, tokens, [shows_place, is_hard], entries)| {
        let mut yaml = format!(
            "  {table}:\n    key: {key}\n    routing:\n      company_id: {tenant}\n      place: {place}\n      fixed: {{constant: f}}\n"
        );
        let place = if shows_place { ".{place}" } else { "" };
        let tokens: String = tokens.iter().map(|token| format!(".{token}")).collect();
        yaml += &format!("    subject: \"{{prefix}}.{{company_id}}{place}{tokens}\"\n");
        entries.iter().for_each(|entry| yaml += &format!("    {entry}\n"));
        yaml += "    columns:\n";
        for (name, kind, not_null) in &columns {
            let name = if NAMES.iter().any(|(mark, _)| mark == name) { name.clone() } else { json!(name).to_string() };
            yaml += &format!("      {name}: {kind}{}\n", if *not_null { " not null" } else { "" });
        }
        for (mark, (_, kind, _)) in ["OF_ID", "OF_PART", "OF_COMPANY"].iter().zip(&columns) {
            yaml = yaml.replace(mark, literal(kind));
        }
        let mut columns: Vec<_> = columns.into_iter().map(|(name, kind, _)| (name, kind)).collect();
        for ((mark, names), (column, _)) in NAMES.iter().zip(&mut columns) {
            let name = names[usize::from(is_hard)];
            yaml = yaml.replace(mark, &json!(name).to_string());
            *column = name.to_owned();
        }
        Declared { yaml, columns }
    })
}

/// The configuration, if the declaration is accepted.
pub fn accepted(declared: &Declared) -> Option<Config> {
    Config::load(Some(file(&format!("tables:\n{}", declared.yaml)).path()), []).ok()
}

fn decided(transform: &CdcTransform, sent: &Sent) -> (Explanation, Trace) {
    let payload = sent.payload.clone().into();
    let (said, trace) = trace(transform, &sent.subject, Vec::new(), &payload, "dead");
    assert_eq!(said, explain(transform, &sent.subject, Vec::new(), payload, "dead"));
    (said, trace)
}

/// The trace of a decision does not contradict it.
fn is_consistent(sent: &Sent, said: &Explanation, trace: &Trace) {
    match said.verdict {
        "publish" => {
            assert!(trace.fields.iter().all(|field| field.fits != Some(false)), "{trace:?}");
            assert!(trace.filter.as_ref().is_none_or(|filter| filter.whole.holds == Some(true)), "{trace:?}");
            assert_eq!((&trace.skipped, &trace.place), (&None, &None));
            // What is carried on as it came may hold texts that are no Unicode.
            let event: BTreeMap<String, Box<RawValue>> = serde_json::from_str(said.payload.as_ref().unwrap()).unwrap();
            for Routing { name, value, .. } in &trace.routing {
                let found = event.get(name).map(|raw| serde_json::from_str::<String>(raw.get()).unwrap());
                assert_eq!((name, &found), (name, value));
            }
        }
        "skip" => assert!(trace.skipped.is_some()),
        _ => {
            assert_eq!(trace.skipped, None);
            is_exact(&sent.payload, said, trace.place.as_ref().unwrap());
        }
    }
}

fn with_events() -> impl Strategy<Value = (Declared, Vec<Sent>)> {
    declared("t").prop_flat_map(|declared| {
        let events = prop::collection::vec(event("t", declared.columns.clone()), 12);
        (Just(declared), events)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn an_accepted_declaration_decides_on_any_event((declared, events) in with_events(), seed in any::<u64>()) {
        if let Some(config) = accepted(&declared) {
            let transform = CdcTransform::new(settings::transform(&config));
            for sent in &events {
                let (said, trace) = decided(&transform, sent);
                is_consistent(sent, &said, &trace);
            }
            let table = config.tables.declared.iter().filter(|table| table.enabled()).cloned().collect();
            for made in TableTraffic::new(table, transform.clone(), Mix::default(), seed, 1_767_600_000_000_000).take(10) {
                let sent = Sent { subject: made.subject, payload: made.payload };
                let (said, trace) = decided(&transform, &sent);
                is_consistent(&sent, &said, &trace);
            }
        }
    }
}

#[test]
fn most_declarations_are_accepted_and_many_events_published() {
    let mut runner = TestRunner::deterministic();
    let (mut declarations, mut events, mut published, mut made, mut good) = (0, 0, 0, 0, 0);
    for _ in 0..150 {
        let (declared, sent) = with_events().new_tree(&mut runner).unwrap().current();
        let Some(config) = accepted(&declared) else { continue };
        declarations += 1;
        let transform = CdcTransform::new(settings::transform(&config));
        for sent in &sent {
            events += 1;
            published += u32::from(decided(&transform, sent).0.verdict == "publish");
        }
        let table = config.tables.declared.iter().filter(|table| table.enabled()).cloned().collect();
        for event in TableTraffic::new(table, transform, Mix::default(), 7, 1_767_600_000_000_000).take(10) {
            made += 1;
            good += u32::from(matches!(event.expected, Expected::Published | Expected::Duplicate));
        }
    }
    assert!(declarations > 100, "{declarations} of 150 are accepted");
    assert!(published * 8 > events, "{published} of {events} are published");
    // Filters that nothing passes, and actions that are not published, are among the declarations.
    assert!(good * 2 > made, "{good} of {made} that were made up are published");
}

/// The values that route stand in the enriched event in the order of the file, wherever each comes from.
#[test]
fn routing_values_keep_the_order_of_the_file() {
    let file = file(
        "tables:
  orders:
    key: id
    routing:
      company_id: company_id
      zone: id
      area: {column: origin, pointer: /a}
      shop: {constant: main}
      part: {column: origin, pointer: /p}
      city: {schema: 'daisi_{city}'}
    subject: '{prefix}.{company_id}.orders'
    columns: {id: bigint not null, company_id: string, origin: json}
",
    );
    let transform = transform(Some(file.path()), &[]);
    let event = r#"{"record":{"id":1,"company_id":"c","origin":{"a":"A","p":"P"}},"changes":null,"action":"insert","metadata":{"table_schema":"daisi_x","table_name":"orders","commit_lsn":1,"commit_idx":0,"database_name":"d"}}"#;
    let said = explain(&transform, "sequin.d.daisi_x.orders.insert", Vec::new(), event.into(), "dead");
    let payload = said.payload.unwrap();
    let values = r#""company_id":"c","zone":"1","area":"A","shop":"main","part":"P","city":"x","commit_lsn""#;
    assert!(payload.contains(values), "{payload}");
}
