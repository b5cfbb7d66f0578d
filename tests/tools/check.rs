//! `check` for CI: the same in JSON, and statuses that its help tells.

use std::path::Path;

use serde_json::json;

use crate::support::service::Settings;
use crate::support::world::World;
use crate::{fed_tool, json_tool, tool};

#[test]
fn every_problem_is_told_with_its_place() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("wrong.yaml");
    std::fs::write(&path, "workers: many\nlog:\n  level: loud\n").unwrap();
    let path = path.to_str().unwrap();
    let settings = Settings::from([("retry.max".to_owned(), "soon".to_owned())]);
    let said = json_tool(&settings, &["check", "--offline", "--config", path], 78);
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0]["valid"], false);
    let mut problems = said[0]["problems"].as_array().unwrap().clone();
    problems.sort_by_key(|problem| problem["key"].as_str().map(str::to_owned));
    let places: Vec<_> = problems
        .iter()
        .map(|problem| json!([problem["key"], problem["value"], problem["file"], problem["line"], problem["origin"]]))
        .collect();
    let expected = [
        json!(["log.level", "\"loud\"", path, 3, format!("file {path}")]),
        json!(["retry.max", "\"soon\"", null, null, "environment DAISI_CDC_RETRY__MAX"]),
        json!(["workers", "\"many\"", path, 1, format!("file {path}")]),
    ];
    assert_eq!(places, expected);
    assert!(problems[0]["expected"].as_str().unwrap().contains("one of trace, debug"), "{problems:?}");
}

#[test]
fn what_is_fine_is_told_with_its_warnings() {
    let settings = Settings::from([("dedup.store".to_owned(), "memory".to_owned())]);
    let said = json_tool(&settings, &["check", "--offline"], 0).remove(0);
    assert_eq!((&said["valid"], &said["problems"], &said["findings"]), (&json!(true), &json!([]), &json!([])));
    assert!(said["warnings"][0].as_str().unwrap().contains("dedup.store is memory"), "{said}");
}

#[test]
fn what_is_shipped_can_be_checked_away_from_its_secrets() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (config, files) in [("k8s/overlays/production/config.yaml", 4), ("deploy/least-privilege/config.yaml", 4)] {
        let config = root.join(config);
        let config = config.to_str().unwrap();
        let said = json_tool(&Settings::new(), &["check", "--offline", "--config", config], 0).remove(0);
        let warnings: Vec<_> = said["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        let missing: Vec<_> = warnings.iter().filter(|text| text.contains("no such file here")).collect();
        assert_eq!(missing.len(), files, "{warnings:#?}");
        let seed = missing.iter().find(|text| text.starts_with("nats.nkey_seed_file = \"/")).unwrap();
        assert!(seed.contains(config) && seed.contains("line ") && seed.contains("`run`"), "{seed}");
        // What decides about events needs no secret either; whatever connects does.
        let (status, _, error) = fed_tool(&Settings::new(), &["explain", "--config", config], b"{}");
        assert_eq!(status, 0, "{error}");
        for refused in [&["check", "--config", config][..], &["run", "--config", config]] {
            assert_eq!(tool(&Settings::new(), refused).0, 78, "{refused:?}");
        }
    }
}

#[test]
fn a_file_of_a_secret_that_is_there_must_be_sound_offline_too() {
    let directory = tempfile::TempDir::new().unwrap();
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    // The secret itself, in the place of its file, is no file of another machine.
    for path in [empty.to_str().unwrap(), directory.path().to_str().unwrap(), "hunter2"] {
        let settings = Settings::from([("nats.token_file".to_owned(), path.to_owned())]);
        let said = json_tool(&settings, &["check", "--offline"], 78).remove(0);
        assert_eq!(said["problems"][0]["key"], "nats.token_file");
        assert!(!said.to_string().contains("hunter2"), "{said}");
    }
}

#[tokio::test]
async fn what_run_would_find_is_told_one_by_one() {
    let mut world = World::new().await;
    let said = json_tool(&world.settings, &["check"], 0).remove(0);
    let create = json!({"about": "stream wa_stream", "said": "would be created", "ok": true});
    assert!(said["findings"].as_array().unwrap().contains(&create), "{said}");
    world.set("dedup.url", "redis://127.0.0.1:1");
    let said = json_tool(&world.settings, &["check"], 69).remove(0);
    let failed: Vec<_> = said["findings"].as_array().unwrap().iter().filter(|found| found["ok"] == false).collect();
    assert!(failed.len() == 1 && failed[0]["about"] == "dedup", "{said}");
    assert_eq!(said["valid"], true, "the configuration is");
}

#[test]
fn help_tells_the_statuses_as_they_are() {
    let (_, help, _) = tool(&Settings::new(), &["--help"]);
    for part in ["explain, test: the input cannot be read", "the other commands at the first try"] {
        assert!(help.contains(part), "{part} is missing: {help}");
    }
}
