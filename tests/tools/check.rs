//! `check` for CI: the same in JSON, and statuses that its help tells.

use serde_json::json;

use crate::support::service::Settings;
use crate::support::world::World;
use crate::{json_tool, tool};

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
