//! Tools that are interrupted, by SIGINT or SIGTERM alike: they say how far they came, and end at once when asked twice.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, RetentionPolicy};
use serde_json::Value;

use crate::json_lines;
use crate::replay::{create_source, rejected, replays};
use crate::support::service::binary;
use crate::support::world::{DEAD_LETTERS, SOURCE, World};

/// So many lines that they do not fit into a pipe: a tool that writes one for each is held up until they are read.
const MANY: usize = 3_000;

struct Running(Child, BufReader<ChildStdout>);

impl Running {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let mut command = binary(&world.settings);
        let command = command.args(arguments).args(["--output", "json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self(child, said)
    }

    /// Waits until it has said something.
    fn has_begun(&mut self) -> &mut Self {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        assert!(line.starts_with('{'), "{line}");
        self
    }

    fn signal(&mut self, name: &str) -> &mut Self {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.0.id())]).status();
        assert!(status.unwrap().success());
        self
    }

    /// What it said in the end, on standard error, and its exit status.
    fn ended(self) -> (Value, String, Option<i32>) {
        let Self(mut child, said) = self;
        let lines: Vec<String> = said.lines().map(Result::unwrap).collect();
        let mut error = String::new();
        child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        let last = json_lines(&lines.join("\n")).pop().unwrap_or_default();
        (last, error, child.wait().unwrap().code())
    }
}

async fn count(world: &World, stream: &str) -> u64 {
    world.jetstream().get_stream(stream).await.unwrap().cached_info().state.messages
}

/// As many messages in a stream as do not fit.
async fn filled(world: &World, stream: &str, subject: &str) {
    for number in 0..MANY {
        world.client.publish(format!("{subject}.{number}"), "x".into()).await.unwrap();
    }
    world.client.flush().await.unwrap();
    while count(world, stream).await < MANY as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn with_letters() -> World {
    let world = World::new().await;
    create_source(&world, RetentionPolicy::Limits).await;
    let config =
        Config { name: DEAD_LETTERS.to_owned(), subjects: vec!["cdc.dead_letters.>".to_owned()], ..Default::default() };
    world.jetstream().create_stream(config).await.unwrap();
    filled(&world, DEAD_LETTERS, "cdc.dead_letters.agents").await;
    world
}

#[tokio::test]
async fn drop_says_what_it_dropped_and_what_it_did_not_try() {
    for (signal, more, done) in [("TERM", &[][..], "dropped"), ("INT", &["--dry-run"], "would_be_dropped")] {
        let world = with_letters().await;
        let mut running = Running::start(&world, &[&["dead-letters", "drop", "--all"], more].concat());
        let (last, error, status) = {
            running.has_begun().signal(signal);
            running
        }
        .ended();
        let told =
            |outcome: &str| last["summary"][outcome].as_u64().unwrap_or_else(|| panic!("{outcome}: {last} {error}"));
        assert!(told("not_tried") > 0 && told(done) > 0, "{last}");
        assert_eq!((told(done) + told("not_tried"), status), (MANY as u64, Some(1)));
        let left = if more.is_empty() { told("not_tried") } else { MANY as u64 };
        assert_eq!(count(&world, DEAD_LETTERS).await, left);
    }
}

#[tokio::test]
async fn replay_says_what_it_replayed_and_what_it_did_not_try() {
    const COUNT: u64 = 20;
    let mut world = World::new().await;
    rejected(&mut world, usize::try_from(COUNT).unwrap(), RetentionPolicy::Limits).await;
    let mut running = Running::start(&world, &["dead-letters", "replay", "--all", "--rate", "1"]);
    let (last, error, status) = {
        running.has_begun().signal("TERM");
        running
    }
    .ended();
    let told = |outcome: &str| last["summary"][outcome].as_u64().unwrap_or_else(|| panic!("{outcome}: {last} {error}"));
    assert!(told("not_tried") > 0 && told("replayed") + told("not_tried") == COUNT, "{last}");
    assert_eq!((replays(&world, COUNT).await.len() as u64, status), (told("replayed"), Some(1)));
}

#[tokio::test]
async fn replay_that_only_decides_says_what_it_did_not_try() {
    let world = with_letters().await;
    let mut running = Running::start(&world, &["dead-letters", "replay", "--all", "--dry-run"]);
    let (last, error, status) = {
        running.has_begun().signal("TERM");
        running
    }
    .ended();
    let told = |outcome: &str| last["summary"][outcome].as_u64().unwrap_or_else(|| panic!("{outcome}: {last} {error}"));
    assert!(told("not_tried") > 0 && told("would_stay") + told("not_tried") == MANY as u64, "{last}");
    assert_eq!(status, Some(1));
}

#[tokio::test]
async fn generate_says_what_it_published() {
    for signal in ["TERM", "INT"] {
        let world = World::new().await;
        create_source(&world, RetentionPolicy::Limits).await;
        let mut running = Running::start(&world, &["generate", "--publish", "--rate", "200", "--events", "100000"]);
        while count(&world, SOURCE).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (last, error, status) = {
            running.signal(signal);
            running
        }
        .ended();
        assert_eq!((status, &last["interrupted"]), (Some(1), &Value::Bool(true)), "{last} {error}");
        assert_eq!(last["published"].as_u64(), Some(count(&world, SOURCE).await), "{last}");
    }
}

#[tokio::test]
async fn preview_reports_what_it_saw() {
    let world = World::new().await;
    create_source(&world, RetentionPolicy::Limits).await;
    for signal in ["TERM", "INT"] {
        // It watches from its start on: messages come until it has seen one.
        let mut running = Running::start(&world, &["preview", "--live", "--each"]);
        let client = world.client.clone();
        let feeding = tokio::spawn(async move {
            loop {
                client.publish("sequin.d.s.agents.insert", "x".into()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let running = thread::spawn(move || {
            running.has_begun().signal(signal);
            running
        });
        while !running.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        feeding.abort();
        // That is how it is meant to end.
        assert_eq!(running.join().unwrap().ended().2, Some(0));
    }
    filled(&world, SOURCE, "sequin.d.s.agents").await;
    let mut running = Running::start(&world, &["preview", "--from", "1", "--each"]);
    let (_, error, status) = {
        running.has_begun().signal("TERM");
        running
    }
    .ended();
    assert_eq!(status, Some(1));
    assert!(error.contains("interrupted before the end"), "{error}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let world = with_letters().await;
    let mut running = Running::start(&world, &["dead-letters", "drop", "--all"]);
    running.has_begun();
    world.nats.stop();
    running.signal("TERM");
    let Running(mut child, mut said) = running;
    // What holds it up now is the server.
    let reading = thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    let mut hint = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut hint).unwrap();
    assert!(hint.contains("a second signal ends it at once"), "{hint}");
    let status = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(status.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    reading.join().unwrap().unwrap();
}
