//! What `explain` and `preview` say of an event is what `run` does with it: on real servers, over declared tables.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::declarations::{Declared, accepted, declared};
use crate::events::{Sent, columns, event};
use crate::file;
use crate::support::change::Input;
use crate::support::service::{Service, command, lines};
use crate::support::world::{SOURCE, Stored, World};

const CONFIG: &str = "examples/tables/everything.yaml";
const EVENTS: usize = 900;

/// Names of tables that are declared at random, side by side.
const TABLES: [&str; 3] = ["t", "u", "contacts"];
/// Random configurations, each on servers of its own, and events of each of their tables.
const CASES: usize = 3;
const EVENTS_EACH: usize = 120;
/// The variable that has a run take the random choices of another.
const SEED: &str = "AGREEMENT_SEED";

/// Events as anybody might send them that the source stream takes: the subjects of Sequin alone.
fn any(runner: &mut TestRunner, events: &BoxedStrategy<Sent>, count: usize) -> Vec<Input> {
    let any = (0..count).map(|_| events.new_tree(runner).unwrap().current());
    any.filter(|sent| sent.subject.starts_with("sequin.")).map(|sent| Input::new(&sent.subject, sent.payload)).collect()
}

/// Events that the program makes up.
fn made_up(world: &World, config: &str, tables: &str, count: &str) -> Vec<Input> {
    let made = ["generate", "--config", config, "--table", tables, "--events", count];
    let made = command(&world.settings, &made, b"");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let input = |line: String| {
        let line: Value = serde_json::from_str(&line).unwrap();
        let text = line["payload"].as_str().map_or_else(|| line["event"].to_string(), str::to_owned);
        Input::new(line["subject"].as_str().unwrap(), text)
    };
    lines(&made.stdout).into_iter().map(input).collect()
}

/// A decision as far as it is seen in the streams: where it went, under which key, and the body as text.
type Seen = (String, String, String);

fn said(decision: &Value) -> Option<Seen> {
    let text = |name: &str| decision[name].as_str().unwrap_or_default().to_owned();
    match text("verdict").as_str() {
        "skip" => None,
        "publish" => Some((text("subject"), text("event_key"), text("payload"))),
        // The key of a dead letter is not that of an event.
        _ => Some((text("subject"), String::new(), text("payload"))),
    }
}

fn json_lines(output: &std::process::Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lines(&output.stdout).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What `preview` says of every event, which is what `explain` says.
async fn foretold(world: &World, config: &str, inputs: &[Input]) -> Vec<Value> {
    world.create_source().await;
    world.feed(inputs).await;
    let preview = ["preview", "--config", config, "--from", "1", "--each", "--output", "json"];
    let previewed = json_lines(&command(&world.settings, &preview, b""));
    let previewed: Vec<_> = previewed.into_iter().map(|mut line| line["decision"].take()).collect();
    let around = inputs.iter().filter_map(|input| {
        let text = std::str::from_utf8(&input.payload).ok()?;
        Some(json!({ "subject": input.subject, "payload": text }).to_string())
    });
    let around: Vec<_> = around.collect();
    let mut explained =
        json_lines(&command(&world.settings, &["explain", "--config", config], around.join("\n").as_bytes()));
    for (index, decision) in (1..).zip(&mut explained) {
        let input = decision.as_object_mut().unwrap().remove("input");
        assert_eq!(input, Some(json!({"index": index, "line": index})));
    }
    assert_eq!(previewed.len(), inputs.len());
    let is_text = |input: &&Input| std::str::from_utf8(&input.payload).is_ok();
    let of_text: Vec<_> =
        inputs.iter().zip(&previewed).filter(|(input, _)| is_text(input)).map(|(_, said)| said).collect();
    assert_eq!(explained.iter().collect::<Vec<_>>(), of_text);
    previewed
}

/// How often each is there.
fn counted(all: impl IntoIterator<Item = Seen>) -> BTreeMap<Seen, usize> {
    let mut counted = BTreeMap::new();
    all.into_iter().for_each(|seen| *counted.entry(seen).or_default() += 1);
    counted
}

/// Holds the streams against what was foretold: every dead letter as often as it was, and of all events with one key one.
async fn came_true(world: &World, previewed: &[Value]) {
    let (events, letters): (Vec<_>, Vec<_>) =
        previewed.iter().filter_map(said).partition(|(_, key, _)| !key.is_empty());
    // A body that is no text is not told.
    let told = |payload: Vec<u8>| String::from_utf8(payload).unwrap_or_default();
    let stored = world.dead_letters().await.into_iter();
    let stored = counted(stored.map(|stored| (stored.subject, String::new(), told(stored.payload))));
    let letters = counted(letters);
    let differ = |one: &BTreeMap<Seen, usize>, other: &BTreeMap<Seen, usize>| -> Vec<_> {
        one.iter()
            .filter(|(seen, times)| other.get(*seen) != Some(*times))
            .map(|(seen, n)| (seen.clone(), *n))
            .collect()
    };
    assert!(stored == letters, "{:?} stored, {:?} foretold", differ(&stored, &letters), differ(&letters, &stored));

    let key = |stored: &Stored| stored.header("Nats-Msg-Id").unwrap_or_default().to_owned();
    let stored = world.published().await.into_iter();
    let stored: Vec<Seen> = stored.map(|stored| (stored.subject.clone(), key(&stored), told(stored.payload))).collect();
    let foretold: BTreeSet<&Seen> = events.iter().collect();
    let foreign: Vec<_> = stored.iter().filter(|seen| !foretold.contains(seen)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let mut keys: Vec<_> = stored.iter().map(|(_, key, _)| key).collect();
    keys.sort_unstable();
    let all: BTreeSet<_> = events.iter().map(|(_, key, _)| key).collect();
    assert_eq!(keys, all.into_iter().collect::<Vec<_>>(), "each key once");
}

#[tokio::test]
async fn explain_preview_and_run_agree() {
    let mut world = World::new().await;
    world.set("tables.contacts.enabled", "true");
    let yaml = std::fs::read_to_string(CONFIG).unwrap();
    let of_tickets = event("tickets", columns(&yaml, "tickets"));
    let mut inputs = any(&mut TestRunner::deterministic(), &of_tickets, EVENTS);
    inputs.extend(made_up(&world, CONFIG, "tickets,contacts", "400"));
    let previewed = foretold(&world, CONFIG, &inputs).await;

    let service = Service::spawn(&world.settings, &["run", "--config", CONFIG]).started();
    world.settled().await;
    // Operators are alarmed by this count: whoever finds rows of other tenants wants to know of every one.
    let foreign = previewed.iter().filter(|decision| decision["reason"] == "tenant_mismatch").count();
    let counted =
        service.metric("cdc_consumer_dead_letters_total", &[r#"table="tickets""#, r#"reason="tenant_mismatch""#]);
    assert!(foreign > 20 && counted == foreign as f64, "{counted} of {foreign}");
    let skipped =
        |labels: &[&str]| service.metric("cdc_consumer_events_total", &[&[r#"result="skipped""#], labels].concat());
    let left_out = previewed.iter().filter(|decision| decision["verdict"] == "skip").count();
    // Whoever wonders where the rows of a table are finds those that it leaves out under its name.
    let of_tickets = skipped(&[r#"table="tickets""#]);
    assert!(of_tickets > 30.0 && skipped(&[]) == left_out as f64, "{of_tickets} of {} of {left_out}", skipped(&[]));
    service.stop();

    let (published, letters): (BTreeSet<_>, BTreeSet<_>) =
        previewed.iter().filter_map(said).partition(|seen| !seen.1.is_empty());
    let contacts = published.iter().filter(|seen| seen.0.ends_with(".contacts")).count();
    assert!(contacts > 50, "the table that comes declared goes all the way: {contacts}");
    assert!(published.len() > 250 && letters.len() > 100, "{} {}", published.len(), letters.len());
    assert!(left_out > 50, "{left_out}");
    came_true(&world, &previewed).await;
    assert_eq!(world.stored(SOURCE).await.len(), inputs.len());
}

/// Declarations that are accepted, one of each name, as one configuration.
fn configuration(runner: &mut TestRunner) -> (String, Vec<Declared>) {
    let one = |table: &'static str, runner: &mut TestRunner| {
        let any = declared(table);
        std::iter::from_fn(|| Some(any.new_tree(runner).unwrap().current()))
            .find(|one| accepted(one).is_some())
            .unwrap()
    };
    let tables = TABLES.map(|table| one(table, runner));
    let yaml: String = tables.iter().map(|table| table.yaml.as_str()).collect();
    (format!("tables:\n{yaml}"), tables.into())
}

#[tokio::test]
async fn they_agree_whatever_is_declared() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().to_string();
    let seed = std::env::var(SEED).unwrap_or_else(|_| now());
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(seed.bytes()).for_each(|(to, from)| *to = from);
    // A test that fails shows what it printed.
    println!("{SEED}={seed}");
    let mut runner =
        TestRunner::new_with_rng(ProptestConfig::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    for _ in 0..CASES {
        let (yaml, tables) = configuration(&mut runner);
        println!("{yaml}");
        let (world, config) = (World::new().await, file(&yaml));
        let path = config.path().to_str().unwrap();
        let mut inputs = made_up(&world, path, &TABLES.join(","), "150");
        for (name, table) in TABLES.iter().zip(tables) {
            inputs.extend(any(&mut runner, &event(name, table.columns), EVENTS_EACH));
        }
        let previewed = foretold(&world, path, &inputs).await;
        let service = Service::spawn(&world.settings, &["run", "--config", path]).started();
        world.settled().await;
        service.stop();
        came_true(&world, &previewed).await;
        assert_eq!(world.stored(SOURCE).await.len(), inputs.len());
    }
}
