//! Replays what the fuzzer has kept: see `fuzz/properties.rs`.

use std::path::Path;

#[path = "../fuzz/properties.rs"]
mod properties;

fn replay(name: &str, property: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).expect("the corpus is in the repository") {
        let path = entry.expect("a file of the corpus").path();
        println!("{}", path.display());
        property(&std::fs::read(path).expect("a file of the corpus"));
        count += 1;
    }
    assert!(count > 0, "{} is empty", directory.display());
}

#[test]
fn events() {
    replay("event", properties::event);
}

#[test]
fn subjects() {
    replay("subject", properties::subject);
}

#[test]
fn tokens() {
    replay("token", properties::token);
}

#[test]
fn json() {
    replay("json", properties::json);
}

#[test]
fn configurations() {
    replay("config", properties::config);
}

#[test]
fn requests() {
    replay("http", properties::http);
}
