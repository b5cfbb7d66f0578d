//! Everything that is wrong with a declaration is found at once, with its line.

use daisi_cdc_consumer::config::{Config, Origin, Problem};

use crate::file;
use crate::support::service::{Settings, command};

const SOUND: &str = "tables:
  orders:
    key: id
    routing: [company_id]
    subject: \"{prefix}.{company_id}.orders\"
    columns:
      id: bigint not null
      company_id: string
      origin: json
      labels: array of string
      total: numeric
      at: timestamp
      day: date
      ref: uuid
";

/// The problems of the sound file with one text replaced.
fn problems(from: &str, to: &str) -> Vec<Problem> {
    let text = SOUND.replacen(from, to, 1);
    assert_ne!(text, SOUND, "{from}");
    let file = file(&text);
    match Config::load(Some(file.path()), []) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems,
    }
}

#[track_caller]
fn refused(from: &str, to: &str, key: &str, line: usize, expected: &str) {
    let problems = problems(from, to);
    let [problem] = &problems[..] else { panic!("{to}: {problems:#?}") };
    assert_eq!((problem.key.as_str(), problem.line), (key, Some(line)), "{problem}");
    assert!(problem.expected.contains(expected), "{problem}");
}

#[test]
fn the_sound_one_is_sound() {
    Config::load(Some(file(SOUND).path()), []).unwrap();
    for example in ["typed", "everything"] {
        let path = format!("examples/tables/{example}.yaml");
        Config::load(Some(path.as_ref()), []).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

#[test]
fn each_mistake_names_key_line_and_what_is_allowed() {
    let more = |text: &str| format!("    key: id\n    {text}\n");
    let key = "    key: id\n";
    for (from, to, at, line, expected) in [
        ("key: id", "key: no", "key", 3, "declared under columns"),
        ("key: id", "key: [id, id]", "key", 3, "once"),
        ("key: id", "key: [id, id, id]", "key", 3, "once"),
        ("[company_id]", "[company_id, company_id]", "routing", 4, "once"),
        ("    key: id\n", "", "key", 2, "at least one column"),
        ("key: id", "key: total", "key", 3, "written in one way"),
        ("key: id", "key: {a: b}", "key", 3, "a list of texts"),
        ("[company_id]", "{company_id: nowhere}", "routing.company_id", 4, "declared under columns"),
        ("[company_id]", "{company_id: origin}", "routing.company_id", 4, "neither json"),
        ("[company_id]", "{company_id: {column: id, pointer: /a}}", "routing.company_id.column", 4, "a json column"),
        ("[company_id]", "{company_id: {column: origin, pointer: a}}", "routing.company_id.pointer", 4, "JSON pointer"),
        ("[company_id]", "{company_id: {schema: daisi_}}", "routing.company_id.schema", 4, "{company_id}"),
        ("[company_id]", "{company_id: {constant: ''}}", "routing.company_id.constant", 4, "not empty"),
        ("[company_id]", "{company_id: {colum: id}}", "routing.company_id", 4, "{constant: …}"),
        ("[company_id]", "{company_id: company_id, Row: id}", "routing.Row", 4, "small letters"),
        ("[company_id]", "{company_id: company_id, event_id: id}", "routing.event_id", 4, "none of event_id"),
        ("{prefix}.{company_id}.orders", "{company_id}.orders", "subject", 5, "{prefix}"),
        ("{prefix}.{company_id}.orders", "{prefix}.{company}.orders", "subject", 5, "{company} is none"),
        ("{prefix}.{company_id}.orders", "{prefix}.orders.{company_id}", "subject", 5, "tells tenants apart"),
        ("{prefix}.{company_id}.orders", "{prefix}.{company_id}..orders", "subject", 5, "tokens joined by dots"),
        ("{prefix}.{company_id}.orders", "{prefix}.{company_id}.*", "subject", 5, "tokens joined by dots"),
        ("{prefix}.{company_id}.orders", "{prefix}.{company_id}.a b", "subject", 5, "tokens joined by dots"),
        ("{prefix}.{company_id}.orders", "{prefix}.{company_id}{company_id}", "subject", 5, "tokens joined by dots"),
        ("{prefix}.{company_id}.orders", "{prefix}.{company_id}.{", "subject", 5, "tokens joined by dots"),
        ("id: bigint not null", "id: bigint not nul", "columns.id", 7, "one of string, integer"),
        ("id: bigint not null", "id: 5", "columns.id", 7, "one of string, integer"),
        ("orders:\n", "or.ders:\n", "or.ders", 0, "a table's name"),
        ("orders:\n", "Ördérs:\n", "rdérs", 0, "letters A to Z and a to z"),
        (key, &more("primary_key: no"), "primary_key", 4, "declared"),
        (key, &more("required: [agent_id]"), "required", 4, "one of company_id"),
        (key, &more("event_id: \"{commit_lsn}\""), "event_id", 4, "{key}"),
        (key, &more("event_id: \"{key}{x}\""), "event_id", 4, "{x} is none"),
        (key, &more("event_id: \"{key\""), "event_id", 4, "every { has its }"),
        (key, &more("actions: [insert, upsert]"), "actions", 4, "insert, update, delete, read"),
        (key, &more("actions: []"), "actions", 4, "at least one"),
        (key, &more("order_by: chat_id"), "order_by", 4, "row or one of company_id"),
        (key, &more("schema: daisi_*_*"), "schema", 4, "one *"),
        (key, &more("tenant_guard: daisi_company_id"), "tenant_guard", 4, "one value in braces"),
        (key, &more("tenant_guard: daisi_{agent_id}"), "tenant_guard", 4, "of company_id"),
        (key, &more("tenant_guard: \"da*_{company_id}\""), "tenant_guard", 4, "without *"),
        (key, &more("tenant_guard: \"daisi_{company_id}*\""), "tenant_guard", 4, "without *"),
        (key, &more("schema: foo_*\n    tenant_guard: \"daisi_{company_id}\""), "tenant_guard", 5, "fit foo_*"),
        (key, &more("schema: public\n    tenant_guard: \"daisi_{company_id}\""), "tenant_guard", 5, "fit public"),
        (key, &more("schema: daisi_\n    tenant_guard: \"daisi_{company_id}\""), "tenant_guard", 5, "fit daisi_"),
        (key, &more("schema: \"*_eu\"\n    tenant_guard: \"daisi_{company_id}_us\""), "tenant_guard", 5, "fit *_eu"),
        ("[company_id]", "{company_id: {schema: \"da*_{company_id}\"}}", "routing.company_id.schema", 4, "without *"),
        (
            "[company_id]",
            "{company_id: {schema: \"daisi_{company_id}\"}}\n    schema: foo_*",
            "routing.company_id.schema",
            4,
            "fit foo_*",
        ),
        (key, &more("unhandled_fields: ignore"), "unhandled_fields", 4, "keep, drop, reject"),
        (key, &more("enabled: perhaps"), "enabled", 4, "true or false"),
        (key, &more("rename: {origin: company_id}"), "rename.origin", 4, "no other column"),
        (key, &more("rename: {nowhere: x}"), "rename.nowhere", 4, "declared"),
        (key, &more("rename: {origin: origin}"), "rename.origin", 4, "no other column"),
        (key, &more("drop: [origin, nowhere]"), "drop", 4, "declared"),
        (key, &more("redact: {origin: blur}"), "redact.origin", 4, "hash, mask"),
        (key, &more("redact: {company_id: hash}"), "redact.company_id", 4, "neither key nor routing value"),
        (key, &more("redact: {id: mask}"), "redact.id", 4, "neither key nor routing value"),
        (key, &more("filter: {column: status, equals: x}"), "filter.column", 4, "declared"),
        (key, &more("filter: {column: id, equals: x}"), "filter", 4, "an integer"),
        (key, &more("filter: {column: id, in: []}"), "filter", 4, "at least one value"),
        (key, &more("filter: {column: id, equals: null}"), "filter.equals", 4, "is_null"),
        (key, &more("filter: {column: total, equals: 1}"), "filter", 4, "only is_null"),
        (key, &more("filter: {column: labels, equals: 1}"), "filter", 4, "no array"),
        (key, &more("filter: {column: company_id, equals: +6281234}"), "filter", 4, "a text; put it in quotes"),
        (key, &more("filter: {column: company_id, in: ['1', 0812345]}"), "filter", 4, "a text; put it in quotes"),
        (key, &more("filter: {column: company_id, equals: 0x1F}"), "filter", 4, "a text; put it in quotes"),
        (key, &more("filter: {column: company_id, equals: True}"), "filter", 4, "a text; put it in quotes"),
        (key, &more("filter: {column: day, equals: 20260105}"), "filter", 4, "a text; put it in quotes"),
        (key, &more("filter: {column: ref, equals: 7}"), "filter", 4, "a text; put it in quotes"),
        (key, &more("filter: {colum: id, equals: 1}"), "filter", 4, "{not: …}"),
        (key, &more("filter: {and: []}"), "filter.and", 4, "at least one condition"),
        (
            key,
            &more("filter: {and: [{column: id, equals: 1}, {column: no, equals: 1}]}"),
            "filter.and.1.column",
            4,
            "declared",
        ),
        (key, &more("colums: {}"), "colums", 4, "a known entry of a table: enabled"),
        (key, &more("key: company_id"), "key", 4, "the first is on line 3"),
    ] {
        if line == 0 {
            let found = problems(from, to);
            assert!(found[0].key.ends_with(at) && found[0].expected.contains(expected), "{found:#?}");
            continue;
        }
        refused(from, to, &format!("tables.orders.{at}"), line, expected);
    }
}

#[test]
fn a_guard_that_some_schema_meets_is_sound() {
    for (schema, guard) in [
        ("'*'", "daisi_{company_id}"),
        ("daisi_*", "daisi_{company_id}"),
        ("daisi_a*", "daisi_{company_id}"),
        ("da*", "daisi_{company_id}_eu"),
        ("'*_eu'", "daisi_{company_id}_eu"),
        ("daisi_acme", "daisi_{company_id}"),
        ("daisi_*_eu", "{company_id}_eu"),
    ] {
        let found =
            problems("    key: id\n", &format!("    key: id\n    schema: {schema}\n    tenant_guard: \"{guard}\"\n"));
        assert!(found.is_empty(), "{schema}, {guard}: {found:#?}");
    }
}

#[test]
fn where_nothing_routes_no_value_is_offered() {
    let problems = problems("[company_id]", "[]");
    let subject = problems.iter().find(|problem| problem.key == "tables.orders.subject").unwrap();
    assert_eq!(subject.expected, "in braces one of table, schema, action; {company_id} is none");
}

#[test]
fn a_variable_reaches_a_table_whose_name_has_capitals() {
    let file = file(&SOUND.replacen("orders:", "Orders:", 1));
    let loaded = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(Some(file.path()), variables).map(|config| config.tables.declared[0].enabled())
    };
    assert!(loaded(&[]).unwrap());
    assert!(!loaded(&[("DAISI_CDC_TABLES__ORDERS__ENABLED", "false")]).unwrap());
    assert!(loaded(&[("DAISI_CDC_TABLES__ORDER__ENABLED", "false")]).is_err());
}

#[test]
fn what_is_named_twice_is_told_once() {
    for (from, to) in [("key: id", "key: [no, no]"), ("[company_id]", "[nowhere, nowhere, company_id]")] {
        let problems = problems(from, to);
        let told = problems.iter().filter(|problem| problem.expected.contains("declared under columns")).count();
        assert_eq!((told, problems.len()), (1, 2), "{problems:#?}");
    }
}

#[test]
fn a_condition_that_cannot_be_read_hides_no_mistake_of_the_others() {
    let filter = "key: id\n    filter: {and: [{colum: id}, {column: no, equals: 1}, {not: {column: id, equals: x}}]}";
    let mut places: Vec<_> = problems("key: id", filter).into_iter().map(|problem| problem.key).collect();
    places.sort_unstable();
    assert_eq!(places, ["0", "1.column", "2.not"].map(|at| format!("tables.orders.filter.and.{at}")));
}

/// The problems of the sound file with one text replaced, each as its place below the table and a part of what is expected.
#[track_caller]
fn refused_for(from: &str, to: &str, expected: &[(&str, &str)]) {
    let problems = problems(from, to);
    let fits = |problem: &Problem, (at, expected): &(&str, &str)| {
        problem.key == format!("tables.orders{at}") && problem.expected.contains(expected) && problem.line.is_some()
    };
    for one in expected {
        assert_eq!(problems.iter().filter(|problem| fits(problem, one)).count(), 1, "{one:?} in {problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn what_cannot_be_read_hides_nothing_of_the_rest() {
    let key = "    key: id\n";
    let more = |text: &str| format!("    key: id\n    {text}\n");
    let several =
        "    key: no\n    order_by: company_id\n    event_id: 5\n    actions: [upsert]\n    redact: {origin: blur}\n";
    refused_for(
        key,
        several,
        &[(".key", "declared"), (".event_id", "quotes"), (".actions", "insert"), (".redact.origin", "hash, mask")],
    );
    // Whatever the values are called, they are none of these mistakes.
    let routing = SOUND[SOUND.find("    routing").unwrap()..].split_once("    columns").unwrap().0;
    refused_for(
        routing,
        "    routing: 5\n    subject: \"{prefix}.{company_id}..orders\"\n    required: [agent_id]\n    tenant_guard: \"{x}\"\n    drop: [no]\n",
        &[(".routing", "a list of columns"), (".subject", "tokens joined"), (".drop", "declared")],
    );
    let columns = SOUND[SOUND.find("    columns").unwrap()..].to_owned();
    refused_for(
        &columns,
        "    columns: [id, c]\n    drop: [origin]\n    filter: {column: x, in: []}\n    order_by: nobody\n",
        &[(".columns", "names, each with its type"), (".filter", "at least one value"), (".order_by", "row or one of")],
    );
    refused_for(
        &columns,
        "    kolumns: {id: string}\n    order_by: nobody\n    enabled: perhaps\n",
        &[
            ("", "columns that declare one"),
            (".kolumns", "a known entry"),
            (".order_by", "row or one of"),
            (".enabled", "true"),
        ],
    );
    refused_for("key: id", "key: [id, 5, no]", &[(".key", "quotes"), (".key", "declared")]);
    refused_for(key, &more("actions: [upsert, delete, delete]"), &[(".actions", "a list of"), (".actions", "once")]);
    refused_for(
        key,
        &more("redact: {total: blur, zip: blur}\n    drop: total"),
        &[
            (".redact.total", "hash, mask"),
            (".redact.total", "not dropped as well"),
            (".redact.zip", "hash, mask"),
            (".redact.zip", "declared"),
        ],
    );
    refused_for(
        key,
        &more("rename: {missing: 5, total: 6}\n    drop: [total]"),
        &[
            (".rename.missing", "quotes"),
            (".rename.missing", "declared"),
            (".rename.total", "quotes"),
            (".rename.total", "dropped"),
        ],
    );
    let long = "n".repeat(64);
    refused_for(
        "total: numeric",
        &format!("{long}: float"),
        &[(&format!(".columns.{long}"), "one of string"), (&format!(".columns.{long}"), "63 bytes")],
    );
    // What a column of a type that cannot be read may be used for, nobody knows.
    refused_for("id: bigint not null", "id: 5", &[(".columns.id", "one of string")]);
}

#[test]
fn of_a_routing_value_and_of_a_template_every_mistake_is_told() {
    refused_for(
        "[company_id]",
        "{company_id: {column: gone, pointer: bad}}",
        &[(".routing.company_id.column", "declared"), (".routing.company_id.pointer", "JSON pointer")],
    );
    refused_for(
        "[company_id]",
        "{company_id: {column: gone, pointer: 5}}",
        &[(".routing.company_id", "each a text in quotes"), (".routing.company_id", "declared")],
    );
    let subject = "{prefix}.{company_id}.orders";
    refused_for(
        subject,
        "wa.{nobody}..a*",
        &[
            (".subject", "begins with {prefix}"),
            (".subject", "{nobody} is none"),
            (".subject", "\"\" is neither"),
            (".subject", "\"a*\" is neither"),
        ],
    );
    refused_for(
        subject,
        "{prefix}.orders.{nobody}",
        &[(".subject", "tells tenants"), (".subject", "{nobody} is none")],
    );
    refused_for(subject, "{prefix}", &[(".subject", "begins with {prefix}")]);
    refused_for(
        "    key: id\n",
        "    key: id\n    event_id: \"{commit_lsn}:{nobody}:{table\"\n",
        &[(".event_id", "every { has its }"), (".event_id", "{nobody} is none"), (".event_id", "{key} in it")],
    );
}

#[test]
fn of_a_condition_that_cannot_be_read_the_rest_is_told() {
    let of = |filter: &str| format!("key: id\n    filter: {filter}");
    let nix = "{column: nix, equals: 1}";
    refused_for(
        "key: id",
        &of("{and: [{column: nix, equals: [1]}, {column: id, equals: [1]}]}"),
        &[
            (".filter.and.0.equals", "a text, a number"),
            (".filter.and.0.column", "declared"),
            (".filter.and.1.equals", "a text, a number"),
        ],
    );
    refused_for(
        "key: id",
        &of("{column: id, in: [1, null, {a: b}, x]}"),
        &[(".filter.in", "null is"), (".filter.in", "true or false"), (".filter", "an integer")],
    );
    refused_for(
        "key: id",
        &of("{column: nix, is_null: x}"),
        &[(".filter.is_null", "true"), (".filter.column", "declared")],
    );
    refused_for("key: id", &of("{column: nix, like: x}"), &[(".filter", "{not: …}"), (".filter.column", "declared")]);
    refused_for(
        "key: id",
        &of(&format!("{{and: [{nix}], or: [{nix}], not: {nix}}}")),
        &[
            (".filter", "{not: …}"),
            (".filter.and.0.column", "declared"),
            (".filter.or.0.column", "declared"),
            (".filter.not.column", "declared"),
        ],
    );
    refused_for("key: id", &of("{and: {a: b}}"), &[(".filter.and", "a list of conditions")]);
}

/// Tables hold no secrets: what is unknown there is shown, as what stands below no known section is not.
#[test]
fn what_is_unknown_is_shown_where_it_is_no_secret() {
    for (from, to, value) in [
        ("    key: id\n", "    key: id\n    colour: {a: red}\n", "\"{a: red}\""),
        ("orders:\n", "messages:\n    colour: red\n  orders:\n", "\"red\""),
        ("tables:\n", "pasword: red\ntables:\n", "(not shown)"),
        ("tables:\n", "nats: {pasword: red}\ntables:\n", "(not shown)"),
    ] {
        let problems = problems(from, to);
        let [problem] = &problems[..] else { panic!("{problems:#?}") };
        assert_eq!(problem.value, value, "{problem}");
    }
    let variable = ("DAISI_CDC_TABLES__ORDERS__REDACT__ORIGIN".to_owned(), "mask".to_owned());
    let error = Config::load(Some(file(SOUND).path()), [variable]).unwrap_err();
    assert_eq!(error.problems[0].value, "\"mask\"");
}

#[test]
fn columns_that_are_too_many_are_declared_all_the_same() {
    let columns: String = (0..257).map(|n| format!("      c{n}: string\n")).collect();
    let many = format!("      id: bigint not null\n{columns}");
    let text = SOUND.replacen("      id: bigint not null\n", &many, 1).replacen(
        "key: id",
        "key: id\n    redact: {c256: mask}",
        1,
    );
    let error = Config::load(Some(file(&text).path()), []).unwrap_err();
    let [problem] = &error.problems[..] else { panic!("{error}") };
    assert!(problem.key == "tables.orders.columns" && problem.expected.contains("256 columns"), "{problem}");
}

#[test]
fn a_table_that_cannot_be_used_is_held_against_the_others_all_the_same() {
    refused_for(
        "    key: id\n    routing: [company_id]\n    subject: \"{prefix}.{company_id}.orders\"\n",
        "    key: no\n    routing: {owner: company_id}\n    subject: \"{prefix}.{owner}.orders\"\n",
        &[(".key", "declared"), (".subject", "{company_id} behind {prefix}")],
    );
}

#[test]
fn mistakes_further_in_have_their_own_lines() {
    let filter = "    key: id\n    filter:\n      or:\n        - {column: id, equals: 1}\n        - not:\n            column: no\n            equals: 2\n";
    refused("    key: id\n", filter, "tables.orders.filter.or.1.not.column", 8, "declared");
    let routing = "{\n      company_id: company_id,\n      chat_id: nowhere}";
    refused("[company_id]", routing, "tables.orders.routing.chat_id", 6, "declared");
    refused("key: id", "key:\n      - id\n      - nowhere", "tables.orders.key", 5, "declared");
    // A section in the place of a text is on the line of its name, be it of one line or of several.
    for section in ["origin: {type: json}", "origin:\n        type: json"] {
        refused("origin: json", section, "tables.orders.columns.origin", 9, "one of string, integer");
    }
    let routing = "{\n      company_id: company_id,\n      chat_id: {colum: id}}";
    refused("[company_id]", routing, "tables.orders.routing.chat_id", 6, "{constant: …}");
    let redact = "    key: id\n    redact:\n      labels: mask\n      origin: {by: mask}\n";
    refused("    key: id\n", redact, "tables.orders.redact.origin", 6, "hash, mask");
}

/// What the variables have to do with it is told by their names, not blamed on the file.
#[test]
fn what_no_variable_can_say_is_told_by_the_variables_name() {
    let text =
        SOUND.replacen("key: id", "key: id\n    redact: {origin: mask}\n    filter: {column: id, is_null: false}", 1);
    let file = file(&text);
    let problem = |variable: &str, value: &str| {
        let variable = format!("DAISI_CDC_TABLES__{variable}");
        let error = Config::load(Some(file.path()), [(variable.clone(), value.to_owned())]).unwrap_err();
        let [problem] = &error.problems[..] else { panic!("{error}") };
        assert_eq!((&problem.origin, problem.line), (&Origin::Environment(variable), None), "{problem}");
        problem.clone()
    };
    for (variable, key) in [
        ("REDACT__EMAIL", "redact.email"),
        ("REDACT__ORIGIN", "redact.origin"),
        ("COLUMNS__ID", "columns.id"),
        ("COLUMNS__EXTRA", "columns.extra"),
        ("RENAME__ORIGIN", "rename.origin"),
        ("ROUTING__COMPANY_ID", "routing.company_id"),
        ("FILTER__AND__COLUMN", "filter.and.column"),
    ] {
        let problem = problem(&format!("ORDERS__{variable}"), "string");
        assert_eq!(problem.key, format!("tables.orders.{key}"));
        assert!(problem.expected.contains("in a file: a variable cannot say what is below"), "{problem}");
    }
    for entry in ["REDACT", "COLUMNS", "RENAME", "FILTER"] {
        let problem = problem(&format!("ORDERS__{entry}"), "mask");
        assert_eq!(problem.key, format!("tables.orders.{}", entry.to_ascii_lowercase()));
        assert!(problem.expected.contains("in a file: a variable cannot say what is below"), "{problem}");
    }
    let of_text = problem("ORDERS__KEY__FIRST", "id");
    assert!(of_text.expected.contains("nothing below key"), "{of_text}");
    let unknown = problem("ORDERS__COLOR", "red");
    assert!(unknown.expected.contains("a known entry of a table: enabled"), "{unknown}");
    let no_table = problem("ITEMS__COLUMNS__ID", "bigint");
    assert!(no_table.expected.contains("columns that declare one, in a file"), "{no_table}");
}

#[test]
fn tables_that_contradict_each_other_are_refused() {
    let twice = format!("{SOUND}{}", SOUND.replacen("tables:\n", "", 1));
    let file_twice = file(&twice);
    let error = Config::load(Some(file_twice.path()), []).unwrap_err();
    assert_eq!((error.problems[0].key.as_str(), error.problems[0].line), ("tables.orders", Some(15)), "{error}");
    // The second value behind the prefix would reach the subjects of the tenant that is called so.
    refused(
        "{prefix}.{company_id}.orders",
        "{prefix}.{schema}.{company_id}",
        "tables.orders.subject",
        5,
        "{company_id}",
    );
    let unknown = file("tables: {ordres: {enabled: true}}\n");
    let error = Config::load(Some(unknown.path()), []).unwrap_err().to_string();
    assert!(error.contains("tables.ordres = {enabled} (file") && error.lines().count() == 1, "{error}");
    assert!(error.contains("line 1") && error.contains("agents, chats, contacts, messages"), "{error}");
    for nothing in ["tables:\n  ordres:\n", "tables:\n  ordres: {}\n"] {
        let error = Config::load(Some(file(nothing).path()), []).unwrap_err().to_string();
        assert!(error.contains("tables.ordres") && error.contains("line 2"), "{error}");
    }
    let none = file("tables:\n  ordres:\n");
    let error = Config::load(Some(none.path()), []).unwrap_err().to_string();
    assert!(error.contains("tables.ordres") && error.contains("agents, chats, contacts, messages"), "{error}");
    let list = file("tables:\n  orders:\n    columns: [id, c]\n");
    let error = Config::load(Some(list.path()), []).unwrap_err().to_string();
    assert!(error.contains("tables.orders.columns") && error.contains("line 3"), "{error}");
    // Nor does it hide what is missing beside it: key, values and subject.
    assert!(error.contains("names, each with its type") && error.lines().count() == 4, "{error}");
    let more = file("tables: {messages: {redact: {text: mask}}}\n");
    let error = Config::load(Some(more.path()), []).unwrap_err().to_string();
    assert!(error.contains("tables.messages.redact") && error.contains("examples/tables/typed.yaml"), "{error}");
    let deep = file("tables: {messages: {enabled: {x: 1}}}\n");
    assert!(Config::load(Some(deep.path()), []).unwrap_err().to_string().contains("true or false"));
}

#[test]
fn all_of_them_are_told_at_once_by_check_and_by_run() {
    let text = SOUND
        .replacen("key: id", "key: no", 1)
        .replacen("[company_id]", "{company_id: none}", 1)
        .replacen("orders\"", "{x}\"", 1)
        .replacen("numeric", "float", 1);
    let file = file(&format!("workers: many\n{text}"));
    for arguments in [&["check", "--offline"][..], &["run"]] {
        let path = file.path().to_str().unwrap();
        let output = command(&Settings::new(), &[arguments, &["--config", path]].concat(), b"");
        assert_eq!(output.status.code(), Some(78));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let at = |line: usize| format!("(file {path}, line {line}): expected");
        for part in [
            format!("workers = \"many\" {}", at(1)),
            format!("tables.orders.key = \"no\" {}", at(4)),
            format!("tables.orders.routing.company_id = \"none\" {}", at(5)),
            format!("tables.orders.subject = \"{{prefix}}.{{company_id}}.{{x}}\" {}", at(6)),
            format!("tables.orders.columns.total = \"float\" {}", at(12)),
        ] {
            assert!(told.contains(&part), "{part} is missing:\n{told}");
        }
    }
}

#[test]
fn a_table_that_ships_is_switched_on_by_one_variable_and_changed_entry_by_entry() {
    let set = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| (format!("DAISI_CDC_{n}"), (*v).to_owned())).collect();
    let env: Vec<_> = set(&[("TABLES__CONTACTS__ENABLED", "true"), ("TABLES__CONTACTS__ACTIONS", "insert, update")]);
    let config = Config::load(None, env).unwrap();
    assert!(config.tables.declared[0].enabled());
    let in_force = |key: &str| config.in_force().iter().find(|setting| setting.key == key).unwrap().clone();
    assert_eq!(in_force("tables.contacts.enabled").value, "true");
    assert_eq!(in_force("tables.contacts.actions").origin, "environment DAISI_CDC_TABLES__CONTACTS__ACTIONS");
    assert_eq!(in_force("tables.contacts.key").origin, "default");
    let wrong: Vec<_> = set(&[("TABLES__CONTACTS__KEY", "phone")]);
    let problem = Config::load(None, wrong).unwrap_err().problems.remove(0);
    assert_eq!((problem.key.as_str(), problem.value.as_str()), ("tables.contacts.key", "\"phone\""));
    // Columns declare the table anew: nothing of the one that ships is left.
    let anew = file(&SOUND.replacen("orders:", "contacts:", 1));
    let config = Config::load(Some(anew.path()), []).unwrap();
    assert!(config.tables.declared[0].enabled());
    assert!(!config.in_force().iter().any(|setting| setting.key == "tables.contacts.unhandled_fields"));
}
