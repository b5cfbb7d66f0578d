//! The declared equivalents of the three tables do what the typed rows do, on any event.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use cdc_actors::message::{Delivery, DeliveryId, OrderKey, Receipt};
use cdc_actors::ports::Transform;
use daisi_cdc_consumer::domain::tables::{AgentRow, ChatRow, MessageRow};
use daisi_cdc_consumer::domain::{CdcTransform, Explanation, explain};
use proptest::prelude::*;

use crate::events::{Sent, columns, event};
use crate::transform;

const TYPED: &str = "examples/tables/typed.yaml";

/// What stands in the example.
static YAML: LazyLock<String> = LazyLock::new(|| std::fs::read_to_string(TYPED).unwrap());

/// Typed rows and their declarations, under every setting that changes a decision.
static PAIRS: LazyLock<Vec<[CdcTransform; 2]>> = LazyLock::new(|| {
    let settings = [("encode", "keep"), ("encode", "drop"), ("reject", "drop"), ("reject", "reject")];
    let pair = |(tokens, fields): (&str, &str)| {
        let set = [
            ("TARGET__UNSAFE_TOKENS", tokens),
            ("TABLES__MESSAGES__UNHANDLED_FIELDS", fields),
            ("TABLES__CHATS__UNHANDLED_FIELDS", fields),
            ("TABLES__AGENTS__UNHANDLED_FIELDS", fields),
        ];
        [transform(None, &set), transform(Some(Path::new(TYPED)), &set)]
    };
    settings.map(pair).into()
});

/// Everything that an event comes to.
fn decided(transform: &CdcTransform, sent: &Sent) -> (OrderKey, Explanation) {
    let id = DeliveryId { stream_created: 1, sequence: 1, timestamp: 1 };
    let delivery = Delivery {
        receipt: Receipt { id, consumer: 0, reply: "reply".into() },
        subject: sent.subject.as_str().into(),
        headers: Vec::new(),
        payload: sent.payload.clone().into(),
        deliveries: 1,
        received: std::time::Instant::now(),
    };
    let said = explain(transform, &sent.subject, Vec::new(), sent.payload.clone().into(), "dead");
    (transform.order(&delivery).0, said)
}

fn any_event() -> impl Strategy<Value = Sent> {
    let of = |table: &'static str| event(table, columns(&YAML, table));
    prop_oneof![2 => of("messages"), 1 => of("chats"), 1 => of("agents")]
}

proptest! {
    #[test]
    fn a_declaration_decides_as_its_typed_row_does(sent in any_event()) {
        for [typed, declared] in PAIRS.iter() {
            prop_assert_eq!(decided(typed, &sent), decided(declared, &sent));
        }
    }
}

/// What the events above are made of is what the typed rows are made of.
#[test]
fn the_declarations_have_the_columns_of_the_typed_rows() {
    for (table, typed) in
        [("messages", MessageRow::COLUMNS), ("chats", ChatRow::COLUMNS), ("agents", AgentRow::COLUMNS)]
    {
        let declared: BTreeSet<String> = columns(&YAML, table).into_iter().map(|(name, _)| name).collect();
        assert_eq!(declared, typed.iter().map(|name| (*name).to_owned()).collect(), "{table}");
    }
}

#[test]
fn the_events_are_of_every_kind() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut found = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..1_500 {
        let sent = any_event().new_tree(&mut runner).unwrap().current();
        let (_, said) = decided(&PAIRS[3][1], &sent);
        *found.entry(said.reason.unwrap_or(said.verdict).to_owned()).or_default() += 1;
        let (_, said) = decided(&PAIRS[0][1], &sent);
        *found.entry(said.reason.unwrap_or(said.verdict).to_owned()).or_default() += 1;
    }
    let kinds = [
        "publish",
        "skip",
        "not_json",
        "wrong_shape",
        "missing_key",
        "missing_routing",
        "replica_identity",
        "illegal_token",
        "unchanged_toast",
        "rejected_field",
    ];
    for kind in kinds {
        assert!(found.get(kind).is_some_and(|times| *times > 1), "{kind}: {found:?}");
    }
}
