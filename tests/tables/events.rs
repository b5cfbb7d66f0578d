//! Events that a producer might send, and that it never should.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

/// An event and the subject it comes under.
#[derive(Debug, Clone)]
pub struct Sent {
    pub subject: String,
    pub payload: Vec<u8>,
}

/// Every type that a column may be declared of.
pub const KINDS: [&str; 20] = [
    "string",
    "integer",
    "bigint",
    "numeric",
    "boolean",
    "date",
    "timestamp",
    "uuid",
    "json",
    "scalar",
    "array of string",
    "array of integer",
    "array of bigint",
    "array of numeric",
    "array of boolean",
    "array of date",
    "array of timestamp",
    "array of uuid",
    "array of json",
    "array of scalar",
];

/// Raw JSON of every type, some of it hostile.
fn any_value() -> BoxedStrategy<String> {
    const FIXED: [&str; 27] = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "7",
        "-9223372036854775809",
        "1.5",
        "1e9",
        "\"\"",
        "\"unchanged_toast\"",
        "\"2026-01-05\"",
        "\"2026-13-05\"",
        "\"\\ud800\"",
        "\"\\u0061\"",
        "\"a.b\"",
        "\"*\"",
        "\">\"",
        "\"a b\\r\\nCdc-Late: true\"",
        "[]",
        "[1,\"x\",null]",
        "[[1,\"x\"], [[[[[[{}]]]]]]]",
        "{\"\\ud800\":1}",
        "{}",
        "{\"id\":\"x\",\"a\":{\"b\":[1]}}",
        "{\"id\":1,\"id\":2}",
        "\"018f3a00-5b6c-7d8e-9f00-112233445566\"",
    ];
    let text = "\\PC{0,12}|[a-z0-9@.%*>: -]{1,20}".prop_map(|text| json!(text).to_string());
    prop_oneof![3 => select(&FIXED[..]).prop_map(str::to_owned), 2 => text, 1 => "-?[1-9][0-9]{0,30}"].boxed()
}

/// A document in which routing values are sought: most hold them.
fn document() -> BoxedStrategy<String> {
    const GOOD: &str = "{\"id\": \"x\" ,\"chat\":{\"id\":\"c\"}, \"0\":{\"x/y\":7}}";
    const OTHERS: [&str; 12] = [
        "{\"id\":\"x\",\"chat\":{\"id\":\"\"}}",
        "{\"id\":null,\"chat\":{\"id\":{}}}",
        "{\"id\":[],\"chat\":{\"id\":[\"c\"]}}",
        "{\"id\":\"\\udc00\", \"chat\":{\"id\": \"\\ud800\"}}",
        "{\"id\":1,\"id\":2,\"chat\":{\"id\":1,\"id\":2}}",
        "{\"chat\":{},\"chat\":{\"id\":\"c\"}}",
        "{\"id\":\"x. >\",\"chat\":{\"id\":\"c.*\"}}",
        "{\"\\ud800\":1,\"chat\":{\"\\ud800\":1}}",
        "{\"id\":true,\"chat\":7}",
        "[{\"x/y\":\"z\"}]",
        "[]",
        "\"unchanged_toast\"",
    ];
    prop_oneof![30 => Just(GOOD.to_owned()), 4 => select(&OTHERS[..]).prop_map(str::to_owned)].boxed()
}

/// A value that fits a column of this type, as a rule.
fn value(kind: &'static str) -> BoxedStrategy<String> {
    let quoted = |pattern: &'static str| pattern.prop_map(|text: String| json!(text).to_string()).boxed();
    let fitting = match kind {
        "string" => prop_oneof![
            30 => quoted("[a-zA-Z0-9@._-]{1,12}|\\PC{1,12}|acme|x|open"),
            // More than a subject holds.
            1 => Just(json!("l".repeat(1_030)).to_string()),
        ]
        .boxed(),
        "integer" | "bigint" => prop_oneof![6 => "-?[1-9][0-9]{0,18}", 1 => Just("7".to_owned())].boxed(),
        "boolean" => any::<bool>().prop_map(|flag| flag.to_string()).boxed(),
        "date" => quoted("20[0-9]{2}-0[1-9]-[12][0-9]|2026-01-05|0044-03-15 BC|infinity|12026-01-05"),
        "uuid" => {
            quoted("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|018F3a00-5b6c-7d8e-9f00-112233445566")
        }
        "timestamp" => quoted("2026-01-0[1-9]T08:00:00Z"),
        "numeric" => "-?[1-9][0-9]{0,12}\\.[0-9]{1,9}".boxed(),
        "json" => document(),
        "scalar" => prop_oneof!["[1-9][0-9]{0,25}".boxed(), quoted("[a-z0-9-]{1,12}")].boxed(),
        array => elements(array.strip_prefix("array of ").unwrap()),
    };
    prop_oneof![100 => fitting, 2 => Just("null".to_owned()), 1 => Just("\"unchanged_toast\"".to_owned()), 1 => any_value()].boxed()
}

/// An array, now and then of two dimensions.
fn elements(kind: &'static str) -> BoxedStrategy<String> {
    let array = |elements: Vec<String>| format!("[{} ]", elements.join(", "));
    let element = prop_oneof![12 => value(kind), 1 => any_value()];
    let one = prop::collection::vec(element, 0..3).prop_map(array).boxed();
    prop_oneof![4 => one.clone(), 1 => prop::collection::vec(one, 1..3).prop_map(array)].boxed()
}

/// The columns of a table with their types, from a declaration in YAML.
pub fn columns(yaml: &str, table: &str) -> Vec<(String, &'static str)> {
    let of_table = yaml.split_once(&format!("\n  {table}:")).unwrap().1;
    let columns = of_table.split_once("\n    columns:").unwrap().1;
    let lines = columns.lines().skip(1).take_while(|line| line.starts_with("      "));
    let known = |kind: &str| KINDS.into_iter().find(|known| *known == kind).unwrap();
    lines
        .map(|line| {
            let (name, kind) = line.split(" #").next().unwrap().trim().split_once(": ").unwrap();
            (name.trim_matches('"').to_owned(), known(kind.trim_end_matches(" not null")))
        })
        .collect()
}

/// A record of these columns, in order or not, whole or not, with fields that nobody knows.
fn record(columns: Vec<(String, &'static str)>) -> BoxedStrategy<String> {
    let fields: Vec<_> = columns
        .into_iter()
        .map(|(name, kind)| {
            (Just(name), value(kind), prop_oneof![200 => Just(1_usize), 8 => Just(0), 1 => Just(2)]).boxed()
        })
        .collect();
    let unknown = ("x_new|message_date|remark|a b", any_value(), 0..2_usize);
    (fields, prop::collection::vec(unknown, 0..3), any::<bool>(), any::<u64>())
        .prop_map(|(mut fields, unknown, in_order, seed)| {
            fields.extend(unknown);
            if !in_order {
                let length = fields.len();
                fields.rotate_left(usize::try_from(seed % length as u64).unwrap());
                fields.swap(0, length - 1);
            }
            let members = fields
                .iter()
                .flat_map(|(name, raw, times)| std::iter::repeat_n(format!("{}: {raw}", json!(name)), *times));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(" ,"))
        })
        .boxed()
}

/// Any event of a table: most could be published, some hold what must never go out, some are damaged.
pub fn event(table: &'static str, columns: Vec<(String, &'static str)>) -> BoxedStrategy<Sent> {
    let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    let keys_alone = prop_oneof![
        3 => select(names).prop_map(|name| format!("{{\"id\": 7, {}: \"m\"}}", json!(name))),
        1 => Just("{\"id\": 7}".to_owned()),
    ];
    let record = prop_oneof![20 => record(columns.clone()), 4 => keys_alone, 1 => any_value()];
    let action = prop_oneof![20 => select(&["insert", "update", "delete", "read"][..]), 1 => Just("upsert")];
    let changes = prop_oneof![3 => Just("null".to_owned()), 8 => self::record(columns), 1 => any_value()];
    let lsn = prop_oneof![20 => "[1-9][0-9]{0,18}", 2 => Just("null".to_owned()), 1 => any_value()];
    let idx = prop_oneof![4 => "[0-9]", 1 => Just("null".to_owned())];
    let schema =
        prop_oneof![12 => Just("\"daisi_acme\"".to_owned()), 6 => Just("\"daisi_x\"".to_owned()), 1 => any_value()];
    let hint = select(
        &[
            "sequin.d.daisi_acme.T.insert",
            "sequin.changes.d.daisi_x.T.update",
            "any",
            "sequin.d.s.chats.read",
            "sequin.d.s.orders.read",
        ][..],
    );
    let damage = prop_oneof![12 => Just(None), 1 => any::<(prop::sample::Index, u8)>().prop_map(Some)];
    (record, action, changes, lsn, idx, schema, hint, damage)
        .prop_map(move |(record, action, changes, lsn, idx, schema, hint, damage)| {
            let metadata = format!(
                "{{\"table_name\":\"{table}\",\"table_schema\":{schema},\"commit_lsn\":{lsn},\"commit_idx\":{idx},\"database_name\":\"d\",\"idempotency_key\":\"k\"}}"
            );
            let mut payload =
                format!("{{\"record\":{record},\"changes\":{changes},\"action\":\"{action}\",\"metadata\":{metadata}}}")
                    .into_bytes();
            if let Some((at, byte)) = damage {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
            Sent { subject: hint.replace('T', table), payload }
        })
        .boxed()
}
