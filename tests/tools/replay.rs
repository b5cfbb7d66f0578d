//! `dead-letters replay`: back to the source, once, with everything they were.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream;
use serde_json::{Value, json};

use crate::support::change::{Input, agent};
use crate::support::nats::{NatsServer, nats_servers};
use crate::support::service::binary;
use crate::support::world::{DEAD_LETTERS, PATIENCE, SOURCE, Stored, World};
use crate::{json_tool, tool};

/// How long the source remembers an id, or twice as long.
const WINDOW: Duration = Duration::from_millis(100);

/// An update whose key needs the id it came under: it has no place in its transaction.
pub(super) fn without_place(number: usize) -> Input {
    let record = agent(&format!("a-{number}")).to_string();
    let payload = format!(
        r#"{{"record":{},"changes":null,"action":"insert","metadata":{{"table_schema":"daisi_acme","table_name":"agents","commit_timestamp":"2026-01-05T08:00:00Z","commit_lsn":7,"database_name":"daisi_db"}}}}"#,
        record.replacen('{', r#"{"added":1,"#, 1)
    );
    Input::new("sequin.daisi_db.daisi_acme.agents.insert", payload)
        .header("Nats-Msg-Id", &format!("source-{number}"))
        .header("x-trace", "t1")
        .header("Nats-Expected-Stream", SOURCE)
}

pub(super) async fn create_source(world: &World, retention: stream::RetentionPolicy) {
    let config = stream::Config {
        name: SOURCE.to_owned(),
        subjects: vec!["sequin.>".to_owned()],
        retention,
        // So short that it protects nobody here.
        duplicate_window: WINDOW,
        ..Default::default()
    };
    world.jetstream().create_stream(config).await.unwrap();
}

/// As many letters, put aside for a field that is rejected.
pub(super) async fn rejected(world: &mut World, count: usize, retention: stream::RetentionPolicy) {
    create_source(world, retention).await;
    world.set("tables.agents.unhandled_fields", "reject");
    world.feed(&(0..count).map(without_place).collect::<Vec<_>>()).await;
    let service = world.start();
    world.adds_up(0, count).await;
    service.stop();
}

/// What the source holds beyond what it was fed.
pub(super) async fn replays(world: &World, fed: u64) -> Vec<Stored> {
    world.stored(SOURCE).await.into_iter().filter(|message| message.sequence > fed).collect()
}

/// What is said of each letter; what they come to in the end is left out.
pub(super) fn replay(world: &World, more: &[&str], status: i32) -> Vec<Value> {
    let mut said = json_tool(&world.settings, &[&["dead-letters", "replay"], more].concat(), status);
    let summary = said.pop().unwrap();
    assert!(summary["summary"].is_object(), "{summary}");
    said
}

#[tokio::test]
async fn after_a_fix_letters_are_published_as_they_would_have_been() {
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        rejected(&mut world, 3, stream::RetentionPolicy::Limits).await;
        let before = world.dead_letters().await;
        let would = replay(&world, &["--all", "--dry-run"], 0);
        assert!(would.iter().all(|letter| letter["outcome"] == "would_fail"), "{would:?}");
        world.set("tables.agents.unhandled_fields", "keep");
        let would = replay(&world, &["--all", "--dry-run"], 0);
        assert!(would.iter().all(|letter| letter["outcome"] == "would_publish"), "{would:?}");
        assert_eq!((world.dead_letters().await, replays(&world, 3).await.len()), (before, 0));

        let said = replay(&world, &["2", "9"], 1);
        assert_eq!((&said[0]["outcome"], &said[1]["outcome"]), (&json!("not_there"), &json!("replayed")));
        let (code, text, error) =
            tool(&world.settings, &["dead-letters", "replay", "--table", "agents", "--rate", "1000"]);
        assert_eq!(code, 0, "{text}{error}");
        assert!(text.contains("2 replayed, 0 stay"), "{text}");
        assert_eq!(world.dead_letters().await, []);
        let replayed = replays(&world, 3).await;
        for number in 0..3 {
            let input = without_place(number);
            let message = replayed.iter().find(|message| message.payload == input.payload).unwrap();
            assert_eq!(message.subject, input.subject);
            assert_eq!(message.header("x-trace"), Some("t1"));
            assert_ne!(message.header("Nats-Msg-Id"), Some(format!("source-{number}").as_str()));
        }
        let service = world.start();
        let (published, _) = world.adds_up(3, 0).await;
        for (number, event) in published.iter().map(|event| (event.json()["row_data"]["agent_id"].clone(), event)) {
            let number = number.as_str().unwrap().replace("a-", "source-");
            let key = format!("daisi_db:daisi_acme:7:agents:{}:{number}", number.replace("source-", "a-"));
            assert_eq!(event.header("Nats-Msg-Id"), Some(key.as_str()), "the event's own key, not one of the replay");
        }
        service.stop();
    }
}

#[tokio::test]
async fn no_more_letters_go_back_in_a_second_than_is_said() {
    let mut world = World::new().await;
    rejected(&mut world, 6, stream::RetentionPolicy::Limits).await;
    world.set("tables.agents.unhandled_fields", "keep");
    let begun = Instant::now();
    let said = replay(&world, &["--all", "--rate", "5"], 0);
    // Six letters have five pauses of a fifth of a second between them.
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(said.iter().filter(|letter| letter["outcome"] == "replayed").count(), 6, "{said:?}");
}

#[tokio::test]
async fn what_fails_again_comes_back_with_its_history() {
    let mut world = World::new().await;
    rejected(&mut world, 1, stream::RetentionPolicy::Limits).await;
    for round in 1..=3_u64 {
        replay(&world, &["--all"], 0);
        let service = world.start();
        world.adds_up(0, 1).await;
        service.stop();
        let sequence = world.dead_letters().await[0].sequence.to_string();
        let shown = json_tool(&world.settings, &["dead-letters", "show", &sequence], 0).remove(0);
        assert_eq!(shown["replays"], round);
        assert_eq!(shown["payload"].as_str().unwrap().as_bytes(), without_place(0).payload);
        assert_eq!(shown["headers"]["Cdc-Original-Id"], "source-0");
        let history = shown["history"].as_array().unwrap();
        assert_eq!(history.len() as u64, round, "{history:?}");
        assert!(history.iter().all(|past| past["reason"] == "rejected_field"), "{history:?}");
        assert_eq!(history[0]["sequence"], 1);
        let (_, text, _) = tool(&world.settings, &["dead-letters", "show", &sequence]);
        assert_eq!(text.matches("rejected_field").count() as u64, round + 1, "{text}");
    }
    assert_eq!(json_tool(&world.settings, &["dead-letters", "list"], 0)[0]["replays"], 3);
}

#[tokio::test]
async fn letters_that_were_enveloped_compressed_or_split_go_back_whole() {
    const LIMIT: usize = 64 << 10;
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        world.nats = NatsServer::start_with(&server, &format!("max_payload: {LIMIT}"));
        world.client = async_nats::connect(world.nats.url()).await.unwrap();
        let url = world.nats.url();
        world.set("nats.url", &url);
        create_source(&world, stream::RetentionPolicy::Limits).await;
        let mut random = fastrand::Rng::with_seed(7);
        let noise: Vec<u8> = (0..LIMIT - 450).map(|_| random.u8(..)).collect();
        let text = "a".repeat(LIMIT - 450);
        let inputs = [
            Input::new("sequin.any", "enveloped").header("x-long", &"é".repeat(9_000)).header("a", "b: c"),
            Input::new("sequin.any", text.as_str()),
            Input::new("sequin.any", noise.as_slice()),
            Input::new("sequin.any", noise.as_slice()).header("x-short", "v"),
        ];
        world.feed(&inputs).await;
        let service = world.start();
        world.settled().await;
        service.stop();
        let stored = world.dead_letters().await;
        let has = |name: &str| stored.iter().any(|message| message.header(name).is_some());
        assert!(has("Cdc-Envelope") && has("Cdc-Encoding") && has("Cdc-Part"), "the test does not test what it says");
        let listed = json_tool(&world.settings, &["dead-letters", "list"], 0);
        assert_eq!(listed.len(), inputs.len(), "{listed:?}");
        // Any part names the letter, and one alone is no letter.
        let part = stored.iter().rev().find(|message| message.header("Cdc-Part").is_some()).unwrap().sequence;
        let shown = json_tool(&world.settings, &["dead-letters", "show", &part.to_string()], 0).remove(0);
        assert!(shown["damage"].is_null() && shown["parts"].as_u64() > Some(1), "{}", shown["damage"]);
        assert_eq!(replay(&world, &["--all"], 0).len(), inputs.len());
        assert_eq!(world.dead_letters().await, []);
        let replayed = replays(&world, inputs.len() as u64).await;
        assert_eq!(replayed.len(), inputs.len());
        for (place, input) in (1..).zip(&inputs) {
            let history = format!("\"sequence\":{place}");
            let is_it = |message: &&Stored| message.header("Cdc-History").is_some_and(|text| text.contains(&history));
            let message = replayed.iter().find(is_it).unwrap();
            assert_eq!((&message.subject, &message.payload), (&input.subject, &input.payload));
            for (name, value) in &input.headers {
                assert_eq!(message.header(name), Some(value.as_str()));
            }
        }
    }
}

#[tokio::test]
async fn a_letter_that_lacks_a_part_stays() {
    let mut world = World::new().await;
    rejected(&mut world, 1, stream::RetentionPolicy::Limits).await;
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in
        [("Cdc-Reason", "not_json"), ("Cdc-Part", "2/2"), ("Cdc-Stream", SOURCE), ("Nats-Msg-Id", "1-2-3-not_json-2-2")]
    {
        headers.insert(name, value);
    }
    let subject = "cdc.dead_letters.unknown.not_json";
    world.jetstream().publish_with_headers(subject, headers, "x".into()).await.unwrap().await.unwrap();
    let said = replay(&world, &["2"], 1);
    assert_eq!(said[0]["outcome"], "failed");
    assert!(said[0]["error"].as_str().unwrap().contains("1 of its 2 parts"), "{said:?}");
    assert_eq!((world.dead_letters().await.len(), replays(&world, 1).await.len()), (2, 0));
}

/// A server on which the service may not do what is denied.
fn denying(denied: &str) -> String {
    let denied = if denied.is_empty() { String::new() } else { format!("deny: [{denied:?}]") };
    format!(
        "authorization {{ users: [ {{ user: all, password: all }}, {{ user: tool, password: tool, permissions: {{ publish: {{ {denied} }} }} }} ] }}"
    )
}

async fn guarded(denied: &str) -> World {
    let mut world = World::new().await;
    world.nats = NatsServer::start_with(&nats_servers()[0], &denying(denied));
    let url = |user: &str| world.nats.url().replace("://", &format!("://{user}:{user}@"));
    let (tool, all) = (url("tool"), url("all"));
    world.client =
        async_nats::ConnectOptions::new().user_and_password("all".into(), "all".into()).connect(&all).await.unwrap();
    world.set("nats.url", &tool);
    world
}

async fn may_do_everything(world: &mut World) {
    world.nats.reload(&denying(""));
    let deadline = Instant::now() + PATIENCE;
    // The server says nothing when it has read its configuration again: what was denied is tried until it works.
    while !may_delete(&world.settings["nats.url"]).await {
        assert!(Instant::now() < deadline, "it is still denied");
    }
}

/// Whether the service may delete letters by now. While the server reads its configuration, it also sends clients away.
async fn may_delete(url: &str) -> bool {
    let options = async_nats::ConnectOptions::new().user_and_password("tool".into(), "tool".into());
    let Ok(client) = options.connect(url).await else { return false };
    let Ok(stream) = async_nats::jetstream::new(client).get_stream(DEAD_LETTERS).await else { return false };
    // There is no such message; permitted, the server says so, otherwise nothing is heard.
    let asked = tokio::time::timeout(Duration::from_millis(300), stream.delete_message(9_999)).await;
    matches!(asked, Ok(Err(told)) if matches!(told.kind(), stream::DeleteMessageErrorKind::JetStream(_)))
}

const NO_DELETE: &str = "$JS.API.STREAM.MSG.DELETE.cdc_dead_letters";

#[tokio::test]
async fn a_replay_interrupted_before_the_letter_was_removed_is_not_published_again() {
    let mut world = guarded(NO_DELETE).await;
    rejected(&mut world, 2, stream::RetentionPolicy::Limits).await;
    let said = replay(&world, &["1"], 1);
    assert!(said[0]["error"].as_str().unwrap().contains("could not be removed"), "{said:?}");
    assert_eq!((world.dead_letters().await.len(), replays(&world, 2).await.len()), (2, 1));
    may_do_everything(&mut world).await;
    // The source has long forgotten the id.
    let said = replay(&world, &["--all"], 0);
    let mut outcomes: Vec<_> = said.iter().map(|letter| letter["outcome"].as_str().unwrap()).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["replayed", "replayed_earlier"]);
    assert_eq!((world.dead_letters().await.len(), replays(&world, 2).await.len()), (0, 2));
}

#[tokio::test]
async fn where_nobody_can_tell_a_letter_stays_until_an_operator_decides() {
    let mut world = guarded(NO_DELETE).await;
    rejected(&mut world, 1, stream::RetentionPolicy::WorkQueue).await;
    world.set("tables.agents.unhandled_fields", "keep");
    replay(&world, &["1"], 1);
    may_do_everything(&mut world).await;
    // The service takes the replay off the queue, and the source forgets its id.
    let service = world.start();
    world.adds_up(1, 1).await;
    tokio::time::sleep(3 * WINDOW).await;
    let said = replay(&world, &["1"], 1);
    assert!(said[0]["error"].as_str().unwrap().contains("--again"), "{said:?}");
    world.adds_up(1, 1).await;
    replay(&world, &["1", "--again"], 0);
    // Even so the records know the event.
    world.adds_up(1, 0).await;
    service.stop();
}

#[tokio::test]
async fn killed_and_run_again_by_two_at_once_each_is_published_once() {
    const COUNT: usize = 400;
    let mut world = World::new().await;
    rejected(&mut world, COUNT, stream::RetentionPolicy::Limits).await;
    for kill_at in [50, 150] {
        let mut first = binary(&world.settings)
            .args(["dead-letters", "replay", "--all"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        while replays(&world, COUNT as u64).await.len() < kill_at {
            assert!(Instant::now() < deadline);
        }
        first.kill().unwrap();
        first.wait().unwrap();
    }
    let both: Vec<_> = (0..2)
        .map(|_| {
            let settings = world.settings.clone();
            std::thread::spawn(move || tool(&settings, &["dead-letters", "replay", "--all"]))
        })
        .collect();
    for operator in both {
        let (code, text, error) = operator.join().unwrap();
        assert_eq!(code, 0, "{text}{error}");
    }
    assert_eq!(world.dead_letters().await, []);
    let replayed = replays(&world, COUNT as u64).await;
    let mut bodies: Vec<_> = replayed.iter().map(|message| &message.payload).collect();
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!((replayed.len(), bodies.len()), (COUNT, COUNT));
    // No claim is left behind.
    assert_eq!(world.stored("cdc_dead_letters_replays").await, []);
}

#[tokio::test]
async fn a_letter_the_source_does_not_take_stays() {
    let mut world = World::new().await;
    rejected(&mut world, 1, stream::RetentionPolicy::Limits).await;
    let jetstream = world.jetstream();
    let mut config = jetstream.get_stream(SOURCE).await.unwrap().cached_info().config.clone();
    config.subjects = vec!["elsewhere.>".to_owned()];
    jetstream.update_stream(&config).await.unwrap();
    let said = replay(&world, &["--all"], 1);
    let told = "the source stream cdc_events_stream does not take sequin.daisi_db.daisi_acme.agents.insert: its subjects are elsewhere.>";
    assert!(said[0]["error"].as_str().unwrap().contains(told), "{said:?}");
    // Nor may another stream take it.
    let other = stream::Config { name: "other".into(), subjects: vec!["sequin.>".into()], ..Default::default() };
    jetstream.create_stream(other).await.unwrap();
    replay(&world, &["--all"], 1);
    assert_eq!(world.stored("other").await, []);
    // A service with another source has no business with it.
    world.set("source.stream", "other");
    let said = replay(&world, &["--all"], 1);
    assert!(said[0]["error"].as_str().unwrap().contains("it came from stream cdc_events_stream"), "{said:?}");
    assert_eq!(world.dead_letters().await.len(), 1);
}
