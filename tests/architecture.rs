//! Enforces the direction of dependencies: the actor system knows ports and nothing behind them, the domain is pure.

use std::fs;
use std::path::{Path, PathBuf};

/// Parts of crate names that the actor system must not depend on.
const FOREIGN_TO_ACTORS: &[&str] =
    &["nats", "redis", "prometheus", "metrics", "actix-web", "actix-http", "hyper", "http", "config", "slog", "daisi"];

/// Words of Daisi's tables that the actor system must not know. (`messages` alone is also what streams carry.)
const TABLE_WORDS: &[&str] = &["chats", "agents", "chat_id", "agent_id", "company_id", "message_id", "Chats", "Agents"];

/// Paths that nothing in `src/domain` may name: it neither talks to the world nor knows who does.
const FOREIGN_TO_DOMAIN: &[&str] = &[
    "crate::adapters",
    "crate::config",
    "crate::bootstrap",
    "crate::cli",
    "actix",
    "async_nats",
    "deadpool_redis",
    "metrics::",
    "metrics_exporter_prometheus",
    "slog",
    "tokio::",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `dir`, with its text freed of line comments.
fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                found.push((path, without_comments(&text)));
            }
        }
    }
    found
}

fn without_comments(text: &str) -> String {
    let kept = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    kept.fold(String::new(), |mut all, line| {
        all.push_str(line);
        all.push('\n');
        all
    })
}

/// Names of the crates that a manifest depends on, in whatever kind of dependency table.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut in_table = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            in_table = table.ends_with("dependencies");
            // `[dependencies.name]` is one dependency by itself.
            if let Some((_, name)) = table.split_once("dependencies.") {
                names.push(name.trim_matches('"').to_owned());
            }
        } else if in_table && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            names.push(name.trim_matches('"').to_owned());
            // A renamed dependency gives its real name here.
            if let Some((_, package)) = line.split_once("package = \"") {
                names.push(package.split('"').next().unwrap_or_default().to_owned());
            }
        }
    }
    names
}

/// Whether `text` holds `word` with no part of an identifier on either side.
fn holds_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(part) && !text[at + word.len()..].chars().next().is_some_and(part)
    })
}

#[test]
fn actors_depend_on_nothing_behind_the_ports() {
    let manifest = fs::read_to_string(root().join("actors/Cargo.toml")).unwrap();
    let names = dependencies(&manifest);
    assert!(names.iter().any(|name| name == "actix"), "the manifest was not understood: {names:?}");
    for name in &names {
        for foreign in FOREIGN_TO_ACTORS {
            assert!(!name.contains(foreign), "actors/Cargo.toml depends on {name}: that belongs into src/adapters");
        }
    }
}

#[test]
fn actors_know_no_table_of_daisi() {
    let sources = sources(&root().join("actors/src"));
    assert!(!sources.is_empty());
    for (path, text) in sources {
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for word in TABLE_WORDS {
            assert!(!holds_word(text, word), "{} names `{word}`: tables belong into src/domain", path.display());
        }
        assert!(!text.contains("\"messages\""), "{} names the table \"messages\"", path.display());
    }
}

#[test]
fn the_domain_is_pure() {
    let sources = sources(&root().join("src/domain"));
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert_eq!(library.contains("mod domain;"), !sources.is_empty(), "the domain is not where this test looks for it");
    for (path, text) in sources {
        for foreign in FOREIGN_TO_DOMAIN {
            assert!(!text.contains(foreign), "{} names `{foreign}`: the domain is pure", path.display());
        }
    }
}

#[test]
fn the_manifest_is_read_in_every_notation() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na = \"1\"\nb.workspace = true\nc = { package = \"d\" }\n# e = \"1\"\n\
                    [dev-dependencies]\nf={ version = \"1\" }\n[target.'cfg(unix)'.dependencies]\ng = \"1\"\n[dependencies.h]\nversion = \"1\"\n";
    assert_eq!(dependencies(manifest), ["a", "b", "c", "d", "f", "g", "h"]);
}

#[test]
fn words_are_told_from_parts_of_words() {
    assert!(holds_word("let chats = 1;", "chats") && holds_word("\"chats\"", "chats"));
    assert!(!holds_word("snapchats", "chats") && !holds_word("chats_seen", "chats"));
}

#[test]
fn the_proof_shares_no_code_with_what_it_judges() {
    let manifest = fs::read_to_string(root().join("tests/proof/Cargo.toml")).expect("the proof has a manifest");
    let (_, dependencies) = manifest.split_once("[dependencies]").expect("it has dependencies");
    for name in ["daisi-cdc-consumer", "cdc-actors", "path ="] {
        assert!(!dependencies.contains(name), "tests/proof depends on {name}");
    }
}

#[test]
fn what_is_shipped_knows_nothing_of_the_saboteur() {
    let all: Vec<_> = ["src", "actors/src"].into_iter().flat_map(|dir| sources(&root().join(dir))).collect();
    assert!(all.len() > 20, "the sources are not where this test looks for them");
    for (path, text) in all {
        assert!(!text.to_lowercase().contains("sabot"), "{} knows of the saboteur", path.display());
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the service has a manifest");
    assert!(!dependencies(&manifest).iter().any(|name| name.contains("saboteur")), "the service depends on it");
    assert!(!manifest.contains("[features]"), "a feature could switch something on in what is shipped");
}

/// What stands between backticks in a document.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn files_and_tests_that_documents_name_exist() {
    let roots = ["src", "actors", "tests", "benches", "fuzz"];
    let code: Vec<_> = roots.iter().flat_map(|dir| sources(&root().join(dir))).collect();
    let mut wrong = Vec::new();
    for document in
        ["README.md", "SECURITY.md", "ARCHITECTURE.md", "docs/reliability.md", "docs/tables.md", "docs/tools.md"]
    {
        let text = fs::read_to_string(root().join(document)).unwrap_or_else(|e| panic!("{document}: {e}"));
        for name in quoted(&text) {
            let is_path =
                roots.iter().any(|dir| name.starts_with(&format!("{dir}/"))) && !name.contains(['*', '{', ' ']);
            let is_test = name.len() > 24 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            let function = format!("fn {name}(");
            let missing = (is_path && !root().join(name).exists())
                || (is_test && !name.starts_with("cdc_") && !code.iter().any(|(_, text)| text.contains(&function)));
            if missing {
                wrong.push(format!("{document} names {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether the map names a module: its file, or a folder that it is in and of which the map says what is there.
fn is_on_the_map(map: &str, module: &Path) -> bool {
    let file = module.file_name().unwrap_or_default().to_string_lossy();
    let folders = module.iter().map(|part| part.to_string_lossy()).filter(|part| part != "src");
    let mut words = map.split_whitespace().map(|word| word.trim_matches(['(', ')', ',', ';']));
    words.any(|word| word == file || word.ends_with(&format!("/{file}")))
        || folders.into_iter().any(|folder| map.contains(&format!("{folder}/  ")))
}

#[test]
fn every_module_is_on_the_map() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the document is there");
    let (_, map) = text.split_once("## Where things live\n").expect("it has a map");
    let map = map.split("\n## ").next().unwrap_or_default();
    let mut missing = Vec::new();
    for (path, _) in ["src", "actors/src"].into_iter().flat_map(|dir| sources(&root().join(dir))) {
        let module = path.strip_prefix(root()).expect("it is in the tree");
        let is_test = module.iter().any(|part| part == "tests" || part == "tests.rs");
        if !is_test && !module.ends_with("mod.rs") && !is_on_the_map(map, module) {
            missing.push(module.display().to_string());
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md, \"Where things live\": {missing:#?}");
}
