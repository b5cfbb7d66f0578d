//! What holds for any event.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::domain::decode_token;

/// Any JSON value, as text that no parser has touched: large numbers, long decimals, white space.
fn raw_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?[1-9][0-9]{0,40}",
        "-?[0-9]\\.[0-9]{1,40}([eE][+-]?[0-9]{1,3})?",
        ".*".prop_map(|text| json!(text).to_string()),
        Just("\"\\u00e9\\/\\ud83d\\ude00\"".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{} ]", items.join(" ,"))),
            prop::collection::btree_map("[a-z]{1,6}|.{1,3}", inner, 0..4).prop_map(|members| {
                let members: Vec<_> = members.iter().map(|(name, raw)| format!("{} : {raw}", json!(name))).collect();
                format!("{{ {}}}", members.join(","))
            }),
        ]
    })
}

/// A value of a column, by its type, as raw JSON; now and then null.
fn value_of(kind: char) -> BoxedStrategy<String> {
    let value = match kind {
        't' => ".*".prop_map(|text| json!(text).to_string()).boxed(),
        'i' => "-?[1-9][0-9]{0,30}".boxed(),
        'b' => any::<bool>().prop_map(|b| b.to_string()).boxed(),
        'd' => Just("\"2025-03-04\"".to_owned()).boxed(),
        's' => prop_oneof!["[1-9][0-9]{0,25}", Just("\"a-1\"".to_owned()), Just("1.25".to_owned())].boxed(),
        _ => raw_json().boxed(),
    };
    prop_oneof![8 => value, 1 => Just("null".to_owned())].boxed()
}

/// The columns beside ids, with their types.
const COLUMNS: [(&str, &[(&str, char)]); 3] = [
    (
        "messages",
        &[
            ("id", 's'),
            ("from", 't'),
            ("to", 't'),
            ("flow", 't'),
            ("message_obj", 'j'),
            ("key", 'j'),
            ("is_deleted", 'b'),
            ("message_timestamp", 'i'),
            ("message_date", 'd'),
            ("created_at", 's'),
            ("type", 't'),
        ],
    ),
    (
        "chats",
        &[
            ("id", 's'),
            ("jid", 't'),
            ("is_group", 'b'),
            ("unread_count", 'i'),
            ("last_message", 'j'),
            ("not_spam", 'b'),
        ],
    ),
    ("agents", &[("id", 'i'), ("qr_code", 't'), ("version", 't'), ("last_metadata", 'j'), ("updated_at", 's')]),
];

#[derive(Debug, Clone)]
struct Sample {
    table: &'static str,
    action: &'static str,
    /// company_id, agent_id, chat_id, message_id.
    ids: Vec<String>,
    record: String,
    changes: String,
    lsn: Option<u64>,
    idx: Option<u64>,
    schema: String,
}

impl Sample {
    fn payload(&self) -> String {
        let metadata = json!({
            "table_name": self.table, "table_schema": self.schema, "commit_lsn": self.lsn, "commit_idx": self.idx,
            "commit_timestamp": 1_741_064_767_123_456_i64, "database": {"id": "db"}, "new_field": [1],
        });
        let (record, changes, action) = (&self.record, &self.changes, self.action);
        format!("{{ \"record\": {record} ,\"changes\":{changes}, \"action\":\"{action}\",\"metadata\":{metadata}}}\n")
    }
}

/// Any event that Sequin can send of a table that is allowed, with full replica identity.
fn sample() -> impl Strategy<Value = Sample> {
    let id = || prop_oneof![3 => "[a-z0-9@.%*> -]{1,20}", 1 => ".{1,30}", 1 => "\\PC{1,30}"];
    let event = (select(&COLUMNS[..]), select(&["insert", "update", "delete", "read"][..]));
    let rest = (any::<Option<u64>>(), any::<Option<u64>>(), "daisi_[a-z]{1,8}|.{1,8}", raw_json());
    (event, prop::collection::vec(id(), 4), rest).prop_flat_map(
        |((columns, action), ids, (lsn, idx, schema, extra))| {
            let (table, columns) = columns;
            let values: Vec<_> = columns.iter().map(|(_, kind)| value_of(*kind)).collect();
            (values, Just(()), raw_json()).prop_map(move |(values, (), old)| {
                let names = ["company_id", "agent_id", "chat_id", "message_id"];
                let own = match table {
                    "messages" => 4,
                    "chats" => 3,
                    _ => 2,
                };
                let mut members: Vec<_> =
                    columns.iter().zip(values).map(|((name, _), raw)| format!("\"{name}\": {raw}")).collect();
                members.push(format!("\"x_new\" :{extra}"));
                for (name, id) in names.iter().zip(&ids).take(own) {
                    members.insert(members.len() / 2, format!("\"{name}\":{}", json!(id)));
                }
                let changes = if action == "update" { format!("{{\"status\" : {old}}}") } else { "null".to_owned() };
                let record = format!("{{ {} }}", members.join(" , "));
                let ids = ids.iter().take(own).cloned().collect();
                Sample { table, action, ids, record, changes, lsn, idx, schema: schema.clone() }
            })
        },
    )
}

/// The raw text of a member of the enriched event.
fn raw_member(event: &Event, name: &str) -> Option<String> {
    let members: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_slice(&event.payload).expect("the payload is an object");
    members.get(name).map(|raw| raw.get().to_owned())
}

proptest! {
    #[test]
    fn any_event_is_published_with_its_row_byte_for_byte(sample in sample()) {
        let config = TransformConfig::default();
        let decision = run(&config, &delivery("any", Vec::new(), sample.payload())).1;
        prop_assert_eq!(&decision.remarks.unhandled_fields, &["x_new".to_owned()]);
        let event = match decision.verdict {
            Verdict::Publish(event) => event,
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        let row_data = raw_member(&event, "row_data");
        prop_assert_eq!(row_data.as_deref(), Some(sample.record.as_str()));
        let changes = raw_member(&event, "changes");
        prop_assert_eq!(changes.as_deref(), (sample.action == "update").then_some(sample.changes.as_str()));
        let tokens: Vec<_> = event.subject.split('.').map(|token| decode_token(token).expect("UTF-8")).collect();
        let mut expected = vec!["wa", &sample.ids[0], &sample.ids[1], sample.table];
        if sample.table == "messages" {
            expected.push(&sample.ids[2]);
        }
        prop_assert_eq!(tokens, expected);
        let key = sample.ids.last().expect("a key");
        prop_assert_eq!(&event.event_id, &format!("{}:{}:{key}", sample.lsn.unwrap_or(0), sample.table));
        prop_assert!(event.key.as_str().bytes().all(|b| b.is_ascii_graphic()));
        prop_assert_eq!(event.position.map(|position| position.lsn), sample.lsn);
    }

    #[test]
    fn dropping_takes_the_unknown_field_and_nothing_else(sample in sample()) {
        let mut config = TransformConfig::default();
        for table in [&mut config.tables.messages, &mut config.tables.chats, &mut config.tables.agents] {
            table.unhandled_fields = crate::domain::UnhandledFields::Drop;
        }
        let event = published(run(&config, &delivery("any", Vec::new(), sample.payload())).1);
        let members = |raw: &str| -> Vec<(String, String)> {
            let members: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
                serde_json::from_str(raw).expect("an object");
            members.into_iter().map(|(name, raw)| (name, raw.get().to_owned())).collect()
        };
        let mut expected = members(&sample.record);
        expected.retain(|(name, _)| name != "x_new");
        prop_assert_eq!(members(&raw_member(&event, "row_data").expect("a row")), expected);
    }

    #[test]
    fn order_and_key_follow_row_and_place(a in sample(), lsn in any::<u64>(), idx in any::<u64>()) {
        let config = TransformConfig::default();
        let b = Sample { lsn: Some(lsn), idx: Some(idx), ..a.clone() };
        let (order_a, decision_a) = run(&config, &delivery("any", Vec::new(), a.payload()));
        let (order_b, decision_b) = run(&config, &delivery("other", Vec::new(), b.payload()));
        prop_assert_eq!(order_a, order_b);
        let same = a.lsn == b.lsn && a.idx == b.idx;
        prop_assert_eq!(published(decision_a).key == published(decision_b).key, same);
    }

    #[test]
    fn no_bytes_make_it_panic(subject in select(&[SUBJECT, "any", ""][..]), bytes in any::<Vec<u8>>()) {
        run(&TransformConfig::default(), &delivery(subject, Vec::new(), bytes));
    }

    #[test]
    fn no_damaged_event_makes_it_panic(
        sample in sample(),
        damage in prop::collection::vec((any::<Index>(), any::<u8>(), 0..3u8), 1..6),
        drop_unknown in any::<bool>(),
    ) {
        let mut bytes = sample.payload().into_bytes();
        for (at, byte, how) in damage {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                _ => bytes.insert(at, byte),
            }
        }
        let mut config = TransformConfig::default();
        if drop_unknown {
            config.tables.messages.unhandled_fields = crate::domain::UnhandledFields::Drop;
        }
        let (_, decision) = run(&config, &delivery(SUBJECT, Vec::new(), bytes));
        if let Verdict::DeadLetter { detail, .. } = decision.verdict {
            prop_assert!(detail.chars().all(|c| !c.is_control()));
        }
    }
}
