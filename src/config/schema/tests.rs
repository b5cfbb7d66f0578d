use std::io::Write;

use boon::{Compiler, Schemas};

use super::super::yaml;
use super::*;
use crate::config::Config;

/// The schema, to hold documents against.
struct Schema(Schemas, boon::SchemaIndex);

impl Schema {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("config.json", schema()).unwrap();
        let index = compiler.compile("config.json", &mut schemas).unwrap_or_else(|error| panic!("{error}"));
        Self(schemas, index)
    }

    /// Why a document in YAML does not fit; `None` if it does.
    fn refuses(&self, text: &str) -> Option<String> {
        let document = json(&ValueKind::Table(yaml::load(text).unwrap().members));
        self.0.validate(&document, self.1).err().map(|error| format!("{error:#}"))
    }
}

fn json(value: &ValueKind) -> Value {
    match value {
        ValueKind::Nil => Value::Null,
        ValueKind::Boolean(flag) => json!(flag),
        ValueKind::I64(number) => json!(number),
        ValueKind::I128(number) => json!(*number as f64),
        ValueKind::Float(number) => json!(number),
        ValueKind::Array(items) => items.iter().map(|item| json(&item.kind)).collect(),
        ValueKind::Table(members) => members.iter().map(|(name, value)| (name.clone(), json(&value.kind))).collect(),
        text => json!(text.to_string()),
    }
}

fn is_loaded(text: &str) -> bool {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Config::load(Some(file.path()), []).is_ok()
}

#[test]
fn the_file_in_the_repository_is_what_the_program_prints() {
    let file = include_str!("../../../docs/config.schema.json");
    let made = format!("{:#}\n", schema());
    assert!(file == made, "make it anew: cargo run -- schema > docs/config.schema.json");
}

#[test]
fn what_ships_fits() {
    let schema = Schema::new();
    assert_eq!(schema.refuses(DEFAULTS), None);
    assert!(DEFAULTS.starts_with("# yaml-language-server: $schema=docs/config.schema.json\n"));
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let examples = std::fs::read_dir(format!("{root}examples/tables")).unwrap().map(|entry| entry.unwrap().path());
    let others = ["k8s/base", "k8s/overlays/dev", "k8s/overlays/production"];
    let files: Vec<_> = examples.chain(others.map(|path| format!("{root}{path}/config.yaml").into())).collect();
    assert!(files.len() >= 5);
    for file in files {
        assert_eq!(schema.refuses(&std::fs::read_to_string(&file).unwrap()), None, "{}", file.display());
    }
}

#[test]
fn every_setting_is_described_and_takes_its_default() {
    fn settings(section: &Value, around: &str, found: &mut BTreeSet<String>) {
        for (name, schema) in section["properties"].as_object().unwrap() {
            let key = format!("{around}{name}");
            if schema["properties"].is_object() {
                settings(schema, &format!("{key}."), found);
            } else {
                assert!(schema["description"].as_str().is_some_and(|about| !about.is_empty()), "{key}");
                found.insert(key);
            }
        }
    }
    let (mut schema, mut found) = (schema(), BTreeSet::new());
    let tables = schema["properties"].as_object_mut().unwrap().remove(TABLES).unwrap();
    settings(&schema, "", &mut found);
    for table in ["messages", "chats", "agents"] {
        settings(&tables["properties"][table]["else"], &format!("{TABLES}.{table}."), &mut found);
    }
    let known: BTreeSet<_> = Layers::read(None, [], &mut Vec::new()).defaults.into_keys().collect();
    assert_eq!(found, known);
    settings(&schema["definitions"]["table"], "", &mut BTreeSet::new());
}

/// Values of every kind, as they stand in a file.
const VALUES: [&str; 27] = [
    "null",
    "{}",
    "''",
    "true",
    "'false'",
    "0",
    "5",
    "-1",
    "3000",
    "' +7 '",
    "99999999999999999999",
    "1.5",
    "x",
    "30s",
    "1h 30m",
    "1.5h",
    "64MiB",
    "64 mb",
    "json",
    "memory",
    "[]",
    "[a, b]",
    "{a: b}",
    "'a, b'",
    "0.0.0.0:80",
    "'insert, read'",
    "nats://a",
];

#[test]
fn whatever_the_program_takes_fits() {
    let schema = Schema::new();
    let mut taken = 0;
    let mut agree = |text: &str| {
        if is_loaded(text) {
            taken += 1;
            assert_eq!(schema.refuses(text), None, "{text}");
        }
    };
    for nothing in [
        "tables: {contacts: }",
        "tables: {contacts: {}, messages: }",
        "tables: {agents: {}}",
        "nats: ",
        "nats: {tls: {}}",
        "tables: {}",
    ] {
        assert!(is_loaded(nothing), "{nothing}");
        agree(nothing);
    }
    for key in Layers::read(None, [], &mut Vec::new()).defaults.keys() {
        let depth = key.matches('.').count();
        for value in VALUES {
            agree(&format!("{}: {value}{}", key.replace('.', ": {"), "}".repeat(depth)));
        }
    }
    let conditions = [
        "{column: a, equals: 1}",
        "{column: a, in: [x, 2]}",
        "{column: a, is_null: 'true'}",
        "{and: [{or: [{not: {column: a, is_null: false}}]}]}",
    ];
    let entries = [
        "columns: {a: string, b: ' array  of  uuid not null'}",
        "routing: {a: a, b: {schema: 'x{b}'}, c: {constant: x}, d: {column: a}, e: {column: j, pointer: /k}}",
        "routing: 'a'",
        "rename: {a: b}",
        "redact: {j: hash}",
    ];
    let known = ENTRIES.iter().flat_map(|known| VALUES.map(|value| format!("{}: {value}", known.name)));
    let conditions = conditions.map(|condition| format!("filter: {condition}"));
    for entry in known.chain(conditions).chain(entries.map(str::to_owned)) {
        let sound = ["columns: {a: string, j: json}", "key: a", "routing: [a]", "subject: '{prefix}.{a}'"];
        let own = entry.split_once(':').unwrap().0;
        let others = sound.iter().filter(|line| line.split_once(':').unwrap().0 != own);
        let lines: Vec<_> = others.map(|line| (*line).to_owned()).chain([entry.clone()]).collect();
        agree(&format!("tables: {{t: {{{}}}}}", lines.join(", ")));
        agree(&format!("tables: {{contacts: {{{entry}}}}}"));
    }
    assert!(taken > 250, "{taken}");
}

#[test]
fn mistakes_do_not_fit() {
    let schema = Schema::new();
    let table = "tables: {t: {key: a, routing: [a], subject: '{prefix}.{a}', columns: {a: string}, ";
    assert_eq!(schema.refuses(&format!("{table} enabled: true}}}}")), None);
    for text in [
        "sourse: {batch: 1}",
        "source: {bach: 1}",
        "nats: {tls: {first: maybe}}",
        "log: {level: loud}",
        "source: 5",
        "source: {batch: 0}",
        "source: {batch: many}",
        "source: {batch: null}",
        "source: {stream: 7}",
        "source: {subjects: {a: b}}",
        "source: {ack_wait: 30}",
        "source: {ack_wait: soon}",
        "source: {max_age: [1]}",
        "in_flight: {bytes: lots}",
        "dedup: {store: disk}",
        "dedup: {password: 5}",
        "tables: {messages: {key: id}}",
        "tables: {messages: {unhandled_fields: ignore}}",
        "tables: {t: {enabled: true}}",
        "tables: {t: null}",
        "tables: {t: {}}",
        "tables: {contacts: {schema: 1.5}}",
        "tables: {messages: {columns: {a: string}}}",
        "tables: {contacts: {colums: {a: string}}}",
        "tables: {contacts: {colums: null}}",
    ] {
        assert!(!is_loaded(text), "{text}");
        assert!(schema.refuses(text).is_some(), "{text}");
    }
    for entry in [
        "subject: 5",
        "columns: {b: text}",
        "columns: [b]",
        "columns: {}",
        "colums: {}",
        "actions: [upsert]",
        "actions: 'insert upsert'",
        "redact: {a: sha}",
        "rename: [a]",
        "rename: {a: 5}",
        "routing: {a: {colum: a}}",
        "routing: {a: {column: a, pointer: 5}}",
        "filter: {column: a}",
        "filter: {and: []}",
        "filter: {column: a, equals: null}",
        "filter: {not: {column: a, like: x}}",
        "filter: {column: a, in: x}",
        "enabled: si",
    ] {
        let text = format!("{} {entry}}}}}", table.replace(&format!("{}:", entry.split(':').next().unwrap()), "x:"));
        assert!(schema.refuses(&text).is_some(), "{text}");
    }
}
