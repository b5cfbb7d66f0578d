//! What `explain` and `preview` say of an event is what `run` does with it: on real servers, over declared tables.

use std::collections::BTreeSet;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::events::{columns, event};
use crate::support::change::Input;
use crate::support::service::{Service, command, lines};
use crate::support::world::{SOURCE, Stored, World};

const CONFIG: &str = "examples/tables/everything.yaml";
const EVENTS: usize = 900;

/// Events of tickets, some made up by the program and more by anybody, and contacts.
fn inputs(world: &World) -> Vec<Input> {
    let yaml = std::fs::read_to_string(CONFIG).unwrap();
    let any_event = event("tickets", columns(&yaml, "tickets"));
    let mut runner = TestRunner::deterministic();
    let any = (0..EVENTS).map(|_| any_event.new_tree(&mut runner).unwrap().current());
    // The source stream takes the subjects of Sequin alone.
    let any = any.filter(|sent| sent.subject.starts_with("sequin."));
    let mut inputs: Vec<_> = any.map(|sent| Input::new(&sent.subject, sent.payload)).collect();
    let made = command(
        &world.settings,
        &["generate", "--config", CONFIG, "--table", "tickets,contacts", "--events", "400"],
        b"",
    );
    for line in lines(&made.stdout) {
        let line: Value = serde_json::from_str(&line).unwrap();
        let text = line["payload"].as_str().map_or_else(|| line["event"].to_string(), str::to_owned);
        inputs.push(Input::new(line["subject"].as_str().unwrap(), text));
    }
    inputs
}

/// A decision as far as it is seen in the streams: where it went, under which key, and the body.
type Seen = (String, String, Vec<u8>);

fn said(decision: &Value) -> Option<Seen> {
    let text = |name: &str| decision[name].as_str().unwrap_or_default().to_owned();
    match text("verdict").as_str() {
        "skip" => None,
        "publish" => Some((text("subject"), text("event_key"), text("payload").into_bytes())),
        // The key of a dead letter is not that of an event.
        _ => Some((text("subject"), String::new(), text("payload").into_bytes())),
    }
}

#[tokio::test]
async fn explain_preview_and_run_agree() {
    let mut world = World::new().await;
    world.settings.insert("tables.contacts.enabled".to_owned(), "true".to_owned());
    world.create_source().await;
    let inputs = inputs(&world);
    world.feed(&inputs).await;
    let json_lines = |output: std::process::Output| -> Vec<Value> {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        lines(&output.stdout).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let preview = ["preview", "--config", CONFIG, "--from", "1", "--each", "--output", "json"];
    let previewed: Vec<Value> = json_lines(command(&world.settings, &preview, b""));
    let previewed: Vec<_> = previewed.into_iter().map(|mut line| line["decision"].take()).collect();
    let around = inputs.iter().filter_map(|input| {
        let text = std::str::from_utf8(&input.payload).ok()?;
        Some(json!({ "subject": input.subject, "payload": text }).to_string())
    });
    let around: Vec<_> = around.collect();
    let mut explained =
        json_lines(command(&world.settings, &["explain", "--config", CONFIG], around.join("\n").as_bytes()));
    for (index, decision) in (1..).zip(&mut explained) {
        let input = decision.as_object_mut().unwrap().remove("input");
        assert_eq!(input, Some(json!({"index": index, "line": index})));
    }
    assert_eq!(previewed.len(), inputs.len());
    let is_text = |input: &&Input| std::str::from_utf8(&input.payload).is_ok();
    let of_text: Vec<_> =
        inputs.iter().zip(&previewed).filter(|(input, _)| is_text(input)).map(|(_, said)| said).collect();
    assert_eq!(explained.iter().collect::<Vec<_>>(), of_text);

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
    let expected: BTreeSet<Seen> = previewed.iter().filter_map(said).collect();
    let (published, letters): (Vec<_>, Vec<_>) = expected.iter().partition(|seen| !seen.1.is_empty());
    let contacts = published.iter().filter(|seen| seen.0.ends_with(".contacts")).count();
    assert!(contacts > 50, "the table that comes declared goes all the way: {contacts}");
    assert!(published.len() > 250 && letters.len() > 100, "{} {}", published.len(), letters.len());
    assert!(previewed.iter().filter(|decision| decision["verdict"] == "skip").count() > 50);
    let key = |stored: &Stored| stored.header("Nats-Msg-Id").unwrap_or_default().to_owned();
    let enriched =
        world.published().await.into_iter().map(|stored| (stored.subject.clone(), key(&stored), stored.payload));
    // A body that is no text is not told.
    let told = |payload: Vec<u8>| if std::str::from_utf8(&payload).is_ok() { payload } else { Vec::new() };
    let letters =
        world.dead_letters().await.into_iter().map(|stored| (stored.subject, String::new(), told(stored.payload)));
    let stored: BTreeSet<Seen> = enriched.chain(letters).collect();
    // Of two events with the same key one is published, whichever came first; every other one is there.
    let foreign: Vec<_> = stored.difference(&expected).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let keys: BTreeSet<_> = stored.iter().map(|seen| &seen.1).collect();
    let lacking: Vec<_> =
        expected.difference(&stored).filter(|seen| seen.1.is_empty() || !keys.contains(&seen.1)).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
    assert_eq!(world.stored(SOURCE).await.len(), inputs.len());
}
