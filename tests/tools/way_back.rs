//! `dead-letters replay`, where a letter would not reach the service, or is gone before its turn: what could not arrive stays.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::RetentionPolicy;
use serde_json::{Value, json};

use crate::replay::{create_source, rejected, replay, replays, without_place};
use crate::support::nats::nats_servers;
use crate::support::service::binary;
use crate::support::world::{CONSUMER, DEAD_LETTERS, SOURCE, Stored, World};
use crate::{json_lines, json_tool, tool};

/// As many letters, of a source that keeps only what a consumer asks for.
async fn rejected_by_interest(world: &mut World, count: usize) {
    create_source(world, RetentionPolicy::Interest).await;
    world.set("tables.agents.unhandled_fields", "reject");
    let service = world.start();
    world.feed(&(0..count).map(without_place).collect::<Vec<_>>()).await;
    world.adds_up(0, count).await;
    service.stop();
    world.set("tables.agents.unhandled_fields", "keep");
}

/// Asserts that neither a replay nor its trial would bring a letter back, and that both say `why`.
async fn stays(world: &World, why: &str) {
    let before = world.dead_letters().await;
    let last = async || world.jetstream().get_stream(SOURCE).await.unwrap().cached_info().state.last_sequence;
    let sequence = last().await;
    for (more, status, outcome) in [(&["--all"][..], 1, "failed"), (&["--all", "--dry-run"], 0, "would_stay")] {
        let said = replay(world, more, status);
        assert_eq!(said.len(), before.len());
        for letter in said {
            assert_eq!(letter["outcome"], outcome, "{letter}");
            assert!(letter["error"].as_str().unwrap().contains(why), "{letter}");
        }
    }
    assert_eq!((world.dead_letters().await, last().await), (before, sequence));
}

#[tokio::test]
async fn what_nobody_would_be_given_stays() {
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        rejected_by_interest(&mut world, 2).await;
        let source = world.jetstream().get_stream(SOURCE).await.unwrap();
        source.delete_consumer(CONSUMER).await.unwrap();
        let filtered = pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            filter_subject: "sequin.changes.>".to_owned(),
            ..Default::default()
        };
        source.create_consumer(filtered).await.unwrap();
        stays(&world, "its consumer cdc_consumers asks for sequin.changes.> alone").await;
        source.delete_consumer(CONSUMER).await.unwrap();
        stays(&world, "its consumer cdc_consumers is not there").await;
        // Once the service has made its consumer, they come.
        world.start().stop();
        replay(&world, &["--all"], 0);
        let service = world.start();
        world.adds_up(2, 0).await;
        service.stop();
    }
}

#[tokio::test]
async fn what_the_service_does_not_listen_to_stays() {
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        rejected(&mut world, 1, RetentionPolicy::Limits).await;
        world.set("tables.agents.unhandled_fields", "keep").set("source.subjects", "sequin.changes.>");
        stays(&world, "source.subjects (sequin.changes.>) do not let sequin.daisi_db.daisi_acme.agents.insert through")
            .await;
        assert!(replays(&world, 1).await.is_empty());
    }
}

#[tokio::test]
async fn what_the_source_does_not_take_is_foreseen() {
    let mut world = World::new().await;
    rejected(&mut world, 1, RetentionPolicy::Limits).await;
    world.set("tables.agents.unhandled_fields", "keep");
    let jetstream = world.jetstream();
    let mut config = jetstream.get_stream(SOURCE).await.unwrap().cached_info().config.clone();
    config.max_message_size = 100;
    jetstream.update_stream(&config).await.unwrap();
    stays(&world, "more than the 100 that the source stream cdc_events_stream accepts").await;
    config.subjects = vec!["elsewhere.>".to_owned()];
    jetstream.update_stream(&config).await.unwrap();
    stays(&world, "its subjects are elsewhere.>").await;
    let other = async_nats::jetstream::stream::Config {
        name: "other".into(),
        subjects: vec!["sequin.>".into()],
        ..Default::default()
    };
    jetstream.create_stream(other).await.unwrap();
    world.set("source.stream", "other");
    stays(&world, "it came from stream cdc_events_stream, and source.stream is other").await;
}

/// A replay of all letters, one a second, that has just said what became of the first.
fn slowly(world: &World) -> (Child, BufReader<ChildStdout>) {
    let mut command = binary(&world.settings);
    let arguments = ["dead-letters", "replay", "--all", "--rate", "1", "--output", "json"];
    let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    said.read_line(&mut String::new()).unwrap();
    (child, said)
}

/// What it says in the end, and its exit status.
fn ended(mut child: Child, said: BufReader<ChildStdout>) -> (Value, Option<i32>) {
    let lines: Vec<String> = said.lines().map(Result::unwrap).collect();
    let summary = json_lines(&lines.join("\n")).pop().unwrap()["summary"].take();
    (summary, child.wait().unwrap().code())
}

#[tokio::test]
async fn what_somebody_else_took_away_is_not_counted_as_replayed() {
    let mut world = World::new().await;
    rejected(&mut world, 7, RetentionPolicy::Limits).await;
    // They go in the order of the source, so that the turn of this one comes after six seconds.
    let source = |letter: &Stored| letter.header("Cdc-Sequence").unwrap().parse::<u64>().unwrap();
    let last = world.dead_letters().await.into_iter().max_by_key(source).unwrap().sequence;
    let letters = world.jetstream().get_stream(DEAD_LETTERS).await.unwrap();
    let (child, said) = slowly(&world);
    letters.delete_message(last).await.unwrap();
    let expected =
        json!({"replayed": 6, "replayed_earlier": 0, "failed": 0, "gone": 1, "not_tried": 0, "not_there": 0});
    assert_eq!(ended(child, said), (expected, Some(0)));
    let (code, text, _) = tool(&world.settings, &["dead-letters", "replay", "--all"]);
    assert_eq!((code, text.as_str()), (0, "0 replayed, 0 stay\n"));
}

#[tokio::test]
async fn a_letter_that_says_nothing_of_itself_stays_for_its_damage() {
    let mut world = World::new().await;
    rejected(&mut world, 1, RetentionPolicy::Limits).await;
    world.client.publish("cdc.dead_letters.agents.x", "x".into()).await.unwrap();
    world.client.flush().await.unwrap();
    let listed = json_tool(&world.settings, &["dead-letters", "list"], 0).pop().unwrap();
    let (damage, sequence) = (listed["damage"].as_str().unwrap(), listed["sequence"].to_string());
    for (more, status) in [(&["--dry-run"][..], 0), (&[], 1)] {
        let said = replay(&world, &[&[sequence.as_str()], more].concat(), status).pop().unwrap();
        assert_eq!(said["error"], damage, "{said}");
    }
}

#[tokio::test]
async fn what_was_not_tried_is_not_said_to_stay() {
    const COUNT: u64 = 20;
    let mut world = World::new().await;
    rejected(&mut world, usize::try_from(COUNT).unwrap(), RetentionPolicy::Limits).await;
    let (child, said) = slowly(&world);
    let interrupted = std::process::Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(interrupted.unwrap().success());
    let (summary, status) = ended(child, said);
    let count = |outcome: &str| summary[outcome].as_u64().unwrap();
    assert!(count("not_tried") > 0 && count("replayed") + count("not_tried") == COUNT, "{summary}");
    assert_eq!((count("failed"), count("gone"), status), (0, 0, Some(1)));
    assert_eq!(world.dead_letters().await.len() as u64, count("not_tried"));
}
