//! `test`: the cases of the built-in tables, and cases that do not hold.

use std::process::Command;

use serde_json::json;

use crate::support::service::{Settings, lines};
use crate::{json_lines, json_tool, tool};

#[test]
fn the_cases_of_the_built_in_tables_hold() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    let files: Vec<_> = files.iter().map(|path| path.to_str().unwrap()).collect();
    let (code, text, error) = tool(&Settings::new(), &[&["test"], &files[..]].concat());
    assert_eq!(code, 0, "{text}{error}");
    assert!(files.len() >= 4 && text.contains("passed, 0 failed") && !text.contains("FAIL"), "{text}");
    // What the tables do by default is what they are tested for.
    let other = Settings::from([("target.subject_prefix".to_owned(), "other".to_owned())]);
    assert_eq!(tool(&other, &[&["test"], &files[..]].concat()).0, 1);
}

#[test]
fn what_differs_is_shown_as_a_diff() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("cases.yaml");
    let file = path.to_str().unwrap();
    let event = r#"{record: {agent_id: a, company_id: acme, id: 1}, changes: null, action: insert,
        metadata: {table_schema: s, table_name: agents, commit_lsn: 7, commit_idx: 0, database_name: d}}"#;
    let cases = format!(
        "cases:\n\
         - name: holds\n  event: {event}\n  expect: {{verdict: publish, subject: wa.acme.a.agents}}\n\
         - name: does not\n  event: {event}\n  expect: {{verdict: publish, subject: wa.acme.b.agents, \
           payload: {{/row_data: {{agent_id: b, company_id: acme, id: 1}}, /none: 1}}, absent: [/table], headers: {{a: b}}}}\n"
    );
    std::fs::write(&path, cases).unwrap();
    let (code, text, _) = tool(&Settings::new(), &["test", file]);
    assert_eq!(code, 1);
    let expected = "ok    holds\nFAIL  does not\n  subject\n    - \"wa.acme.b.agents\"\n    + \"wa.acme.a.agents\"\n  \
                    header a\n    - \"b\"\n    + null\n  payload /none\n    - 1\n  payload /row_data/agent_id\n    - \"b\"\n    + \"a\"\n  \
                    payload /table\n    + \"agents\"\n1 passed, 1 failed\n";
    assert_eq!(text, expected);
    let (code, text, _) = tool(&Settings::new(), &["test", file, "--output", "json"]);
    let lines = json_lines(&text);
    assert_eq!((code, &lines[0]["passed"], &lines[0]["differences"]), (1, &json!(true), &json!([])));
    let first = json!({"what": "subject", "pointer": "", "expected": "wa.acme.b.agents", "found": "wa.acme.a.agents"});
    assert_eq!((&lines[1]["case"], &lines[1]["differences"][0]), (&json!("does not"), &first));

    std::fs::write(&path, "cases:\n- name: odd\n  event: {}\n  expects: {}\n").unwrap();
    let (code, text, error) = tool(&Settings::new(), &["test", file]);
    assert_eq!((code, text.as_str()), (65, "0 passed, 0 failed, 1 cannot be used\n"));
    assert!(error.contains("case 1 (odd): unknown field `expects`"), "{error}");
    assert_eq!(tool(&Settings::new(), &["test", "/none.yaml"]).0, 65);
}

#[test]
fn a_file_that_cannot_be_used_does_not_hide_the_others() {
    let directory = tempfile::TempDir::new().unwrap();
    let written = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let case =
        |name: &str, more: &str| format!("- {{name: {name}, {more}event: {{}}, expect: {{verdict: dead_letter}}}}\n");
    let broken = written("broken.yaml", "cases: [");
    let prefix = written("prefix.yaml", &format!("settings: {{target.subject_prefx: x}}\ncases:\n{}", case("a", "")));
    let misspelt = "- {name: misspelt, evnt: {}, expect: {verdict: skip}}\n";
    let own = format!("cases:\n{}{misspelt}{}", case("bad", "settings: {workers: many}, "), case("good", ""));
    let own = written("own.yaml", &own);
    let (code, text, error) = tool(&Settings::new(), &["test", &broken, "/none.yaml", &prefix, &own]);
    assert_eq!((code, text.as_str()), (65, "ok    good\n1 passed, 0 failed, 5 cannot be used\n"));
    for part in [
        format!("{broken}: "),
        "/none.yaml: it cannot be read".to_owned(),
        format!("{prefix}: settings: target.subject_prefx"),
        format!("{own}: case 1 (bad): settings: workers = \"many\": expected "),
        format!("{own}: case 2 (misspelt): unknown field `evnt`"),
    ] {
        assert!(error.contains(&part), "{part} is missing: {error}");
    }
    assert!(!error.contains("DAISI_CDC_"), "{error}");
    let said = json_tool(&Settings::new(), &["test", &own], 65);
    assert!(said[0]["error"].as_str().unwrap().contains("case 1 (bad)") && said[0]["passed"] == false, "{said:?}");
    assert_eq!((&said[2]["case"], &said[2]["passed"]), (&json!("good"), &json!(true)));
    // A configuration that cannot be used is told as such.
    let config = written("config.yaml", "workers: many\n");
    let (code, _, error) = tool(&Settings::new(), &["test", "--config", &config, &own]);
    assert!(code == 78 && error.contains("workers"), "{error}");
}

#[test]
fn a_pointer_that_leads_nowhere_by_its_form_is_refused() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("cases.yaml");
    let case = |name: &str, expect: &str| {
        let row = "{agent_id: a, company_id: acme, email: siti@example.com}";
        let metadata = "{table_schema: s, table_name: agents, commit_lsn: 7, commit_idx: 0, database_name: d}";
        format!(
            "- name: {name}\n  event: {{record: {row}, changes: null, action: insert, metadata: {metadata}}}\n  \
             expect: {{verdict: publish, {expect}}}\n"
        )
    };
    let cases = [
        case("leaks", "absent: [email, row_data/email]"),
        case("by dots", "absent: [row_data.email]"),
        case("no escape", "absent: [\"/row_data~2email\"]"),
        case("half an escape", "payload: {\"/row_data~\": 1}"),
        case("a name", "payload: {email: siti@example.com}"),
        case("found", "absent: [\"/row_data/email\"]"),
        case("holds", "absent: [\"/row_data/phone\", \"/a~0b~1c\"], payload: {\"/row_data/email\": siti@example.com}"),
    ];
    std::fs::write(&path, format!("cases:\n{}", cases.concat())).unwrap();
    let (code, text, error) = tool(&Settings::new(), &["test", path.to_str().unwrap()]);
    assert_eq!(code, 65, "{text}{error}");
    assert!(text.contains("FAIL  found") && text.ends_with("1 passed, 1 failed, 5 cannot be used\n"), "{text}");
    for part in [
        "case 1 (leaks): \"email\" is no JSON pointer",
        "case 2 (by dots): \"row_data.email\" is no JSON pointer",
        "case 3 (no escape): \"/row_data~2email\" is no JSON pointer",
        "case 4 (half an escape): \"/row_data~\" is no JSON pointer",
        "case 5 (a name): \"email\" is no JSON pointer: it begins with a slash, such as /row_data/status",
    ] {
        assert!(error.contains(part), "{part} is missing: {error}");
    }
}

#[test]
fn numbers_are_held_against_each_other_as_they_are_written() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("cases.yaml");
    let case = |name: &str, expect: &str| {
        let row = "agent_id: a, company_id: acme, id: 123456789012345678901234567890, z: 0.1234567890123456789, s: 1.10, e: 1e2, list: [1.0, -0.50]";
        let metadata = "{table_schema: s, table_name: agents, commit_lsn: 7, commit_idx: 0, database_name: d}";
        format!(
            "- name: {name}\n  event: {{record: {{{row}}}, changes: null, action: insert, metadata: {metadata}}}\n  \
             expect: {{verdict: publish, payload: {{{expect}}}}}\n"
        )
    };
    let cases = [
        case(
            "exact",
            "/row_data/id: 123456789012345678901234567890, /row_data/z: 0.1234567890123456789, /row_data/s: 1.10, /row_data/e: 1e2",
        ),
        case("within", "/row_data/list: [1.0, -0.50]"),
        case("another scale", "/row_data/s: 1.1"),
        case("rounded", "/row_data/id: 1.2345678901234568e+29, /row_data/z: 0.12345678901234568"),
        case("no number", "/row_data/z: .5"),
    ];
    std::fs::write(&path, format!("cases:\n{}", cases.concat())).unwrap();
    let (code, text, error) = tool(&Settings::new(), &["test", path.to_str().unwrap()]);
    let expected = "ok    exact\nok    within\nFAIL  another scale\n  payload /row_data/s\n    - 1.1\n    + 1.10\nFAIL  rounded\n  \
                    payload /row_data/id\n    - 1.2345678901234568e+29\n    + 123456789012345678901234567890\n  \
                    payload /row_data/z\n    - 0.12345678901234568\n    + 0.1234567890123456789\n\
                    2 passed, 2 failed, 1 cannot be used\n";
    assert_eq!((code, text.as_str()), (65, expected), "{error}");
    assert!(error.contains("case 5 (no number): expect.payload./row_data/z: .5 is no number of JSON"), "{error}");
    let (_, text, _) = tool(&Settings::new(), &["test", path.to_str().unwrap(), "--output", "json"]);
    let found = r#""pointer":"","expected":1.2345678901234568e+29,"found":123456789012345678901234567890}"#;
    assert!(text.contains(found), "{text}");
}

#[test]
fn a_list_is_a_setting_as_good_as_its_text() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("cases.yaml");
    let case = |name: &str, settings: &str| {
        let metadata = "{table_schema: s, table_name: contacts, commit_lsn: 7, commit_idx: 0, database_name: d}";
        format!(
            "- name: {name}\n  settings: {{tables.contacts.enabled: true, {settings}}}\n  \
             event: {{record: {{id: a}}, changes: null, action: insert, metadata: {metadata}}}\n  \
             expect: {{verdict: skip}}\n"
        )
    };
    let cases = [
        case("listed", "tables.contacts.actions: [update, delete]"),
        case("nested", "tables.contacts.actions: [[delete]]"),
        case("section", "tables.contacts.rename: {id: no}"),
        case("nothing", "tables.contacts.schema: null"),
        case("comma", "tables.contacts.actions: [\"update,delete\"]"),
    ];
    std::fs::write(&path, format!("cases:\n{}", cases.concat())).unwrap();
    let (code, text, error) = tool(&Settings::new(), &["test", path.to_str().unwrap()]);
    assert_eq!((code, text.as_str()), (65, "ok    listed\n1 passed, 0 failed, 4 cannot be used\n"), "{error}");
    for (case, setting, value) in [
        ("2 (nested)", "actions", "[[\"delete\"]]"),
        ("3 (section)", "rename", "{\"id\":\"no\"}"),
        ("4 (nothing)", "schema", "null"),
        ("5 (comma)", "actions", "[\"update,delete\"]"),
    ] {
        let told = format!(
            "case {case}: settings: tables.contacts.{setting} = {value}: expected a text, a number, true or false, or a list"
        );
        assert!(error.contains(&told), "{told} is missing: {error}");
    }
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, text, _) = tool(&Settings::new(), &["completions", shell]);
        assert_eq!(code, 0);
        for command in ["dead-letters", "preview", "generate", "explain", "test", "replay", "--against"] {
            assert!(text.contains(command.trim_start_matches("--")), "{shell} does not know {command}");
        }
    }
}

/// What bash offers for the last word of a line.
fn completed(script: &str, line: &[&str]) -> Vec<String> {
    let program = "source <(printf %s \"$1\"); shift
        words=(\"$@\"); last=$((${#words[@]} - 1))
        function=$(complete -p \"$1\" | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
        COMP_WORDS=(\"${words[@]}\"); COMP_CWORD=$last
        \"$function\" \"$1\" \"${words[last]}\" \"${words[last - 1]}\"
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let words = [&["daisi-cdc-consumer"], line].concat();
    let output = Command::new("bash").args(["--norc", "-c", program, "bash", script]).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lines(&output.stdout)
}

#[test]
fn bash_completes_behind_commands_too() {
    let (_, script, _) = tool(&Settings::new(), &["completions", "bash"]);
    for (line, expected) in [
        (&["prev"][..], &["preview"][..]),
        (&["preview", "--ag"], &["--against"]),
        (&["preview", "--output", ""], &["text", "json"]),
        (&["dead-letters", ""], &["list", "show", "replay", "drop"]),
        (&["dead-letters", "re"], &["replay"]),
        (&["dead-letters", "replay", "--dry"], &["--dry-run"]),
        (&["dead-letters", "list", "--reason", "not_"], &["not_json"]),
        (&["generate", "--se"], &["--seed"]),
        (&["completions", "z"], &["zsh"]),
    ] {
        let offered = completed(&script, line);
        for word in expected {
            assert!(offered.iter().any(|offer| offer == word), "{line:?}: {word} is not among {offered:?}");
        }
        // A prefix leaves nothing else.
        assert!(line.last() == Some(&"") || offered.len() == expected.len(), "{line:?}: {offered:?}");
    }
}

#[test]
fn a_number_or_a_time_that_is_none_is_told_with_what_is_allowed() {
    for (arguments, allowed) in [
        (&["preview", "--limit", "0", "--from", "1"][..], "a whole number from 1"),
        (&["generate", "--rate", "0"], "a whole number from 1 to 4294967295"),
        (&["generate", "--events", "0"], "a whole number from 1"),
        (&["generate", "--events", "many"], "a whole number from 1"),
        (&["demo", "--rate", "0"], "a whole number from 1 to 4294967295"),
        (&["dead-letters", "replay", "--all", "--rate", "0"], "a whole number from 1 to 4294967295"),
        (&["generate", "--start", "yesterday"], "a time such as 2026-01-05T08:00:00Z"),
    ] {
        let (code, _, error) = tool(&Settings::new(), arguments);
        assert!(code == 64 && error.contains(allowed), "{arguments:?}: {code} {error}");
    }
}

/// Commands that write neither text nor JSON of their own.
const WITHOUT_OUTPUT: [[&str; 1]; 6] =
    [["run"], ["demo"], ["healthcheck"], ["dead-letters"], ["completions"], ["schema"]];
/// Commands that print what they are made of.
const WITHOUT_STATUS: [[&str; 1]; 2] = [["completions"], ["schema"]];

#[test]
fn every_tool_has_help_with_examples() {
    for command in [
        &["run"][..],
        &["demo"],
        &["healthcheck"],
        &["dead-letters"],
        &["check"],
        &["explain"],
        &["preview"],
        &["generate"],
        &["test"],
        &["completions"],
        &["schema"],
        &["dead-letters", "list"],
        &["dead-letters", "show"],
        &["dead-letters", "replay"],
        &["dead-letters", "drop"],
    ] {
        let (code, text, _) = tool(&Settings::new(), &[command, &["--help"]].concat());
        assert_eq!(code, 0);
        assert!(text.contains("Examples:\n  daisi-cdc-consumer "), "{command:?}: {text}");
        assert!(
            text.contains("--output") || WITHOUT_OUTPUT.iter().any(|without| command == without),
            "{command:?}: {text}"
        );
        assert!(
            text.contains("Exit status 0") || WITHOUT_STATUS.iter().any(|without| command == without),
            "{command:?}: {text}"
        );
    }
}
