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
