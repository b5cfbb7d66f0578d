//! Streams whose subjects are not those that are needed: `check` says so before, and `run` does not start, or warns.

use async_nats::jetstream::stream::Config;
use serde_json::Value;

use crate::support::nats::nats_servers;
use crate::support::world::{SOURCE, TARGET, World};
use crate::{json_tool, tool};

async fn create(world: &World, name: &str, subjects: &[&str]) {
    let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
    let config = Config { name: name.to_owned(), subjects, ..Default::default() };
    world.jetstream().create_stream(config).await.unwrap();
}

/// What `check` finds wrong, each as `about: said`; it and `run` must end with 78 and tell the same.
fn refused(world: &World) -> String {
    let said = json_tool(&world.settings, &["check"], 78).remove(0);
    let findings = said["findings"].as_array().unwrap().iter().filter(|found| found["ok"] == false);
    let wrong: Vec<_> = findings.map(|found| (&found["about"], found["said"].as_str().unwrap())).collect();
    let [(about, why)] = wrong.as_slice() else { panic!("not one thing: {said}") };
    let (status, _, log) = tool(&world.settings, &["run"]);
    assert_eq!(status, 78, "{log}");
    let told = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    assert!(told.filter_map(|line| line["error"].as_str().map(|text| text.contains(why))).any(|it| it), "{why}: {log}");
    format!("{}: {why}", about.as_str().unwrap())
}

/// What `check` warns of; `run` must start and warn of it, too.
fn warned(world: &World) -> Vec<String> {
    let said = json_tool(&world.settings, &["check"], 0).remove(0);
    let warnings = said["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned());
    let warnings: Vec<_> = warnings.collect();
    let log = world.start().stop();
    for warning in &warnings {
        assert_eq!(log.find(warning).len(), 1, "{warning} is not warned of once: {}", log.text());
    }
    warnings
}

#[tokio::test]
async fn a_stream_that_another_is_in_the_way_of_is_refused() {
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        create(&world, "elsewhere", &["other.>", "sequin.*.public.>"]).await;
        create(&world, "bystander", &["sequin2.>"]).await;
        world.set("source.stream", "src9");
        let why = refused(&world);
        assert!(why.starts_with("stream src9: "), "{why}");
        assert!(why.contains("sequin.>") && why.contains("elsewhere") && !why.contains("bystander"), "{why}");
    }
}

#[tokio::test]
async fn a_target_that_stores_nothing_of_it_is_refused() {
    for server in nats_servers() {
        let world = World::on(&server).await;
        create(&world, TARGET, &["shop.>"]).await;
        let why = refused(&world);
        assert!(why.starts_with("stream wa_stream: "), "{why}");
        assert!(why.contains("shop.>") && why.contains("wa.*.*.chats"), "{why}");
    }
}

#[tokio::test]
async fn dead_letters_that_no_stream_stores_are_refused() {
    for server in nats_servers() {
        let world = World::on(&server).await;
        create(&world, "cdc_dead_letters", &["letters.>"]).await;
        let why = refused(&world);
        assert!(why.starts_with("stream cdc_dead_letters: ") && why.contains("cdc.dead_letters.*.*"), "{why}");
    }
}

#[tokio::test]
async fn a_source_that_has_nothing_of_what_is_asked_for_is_refused() {
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        create(&world, "src8", &["seq8.>"]).await;
        world.client.publish("seq8.x", "{}".into()).await.unwrap();
        world.set("source.stream", "src8");
        let why = refused(&world);
        assert!(why.starts_with("stream src8: ") && why.contains("seq8.>") && why.contains("sequin.>"), "{why}");
        create(&world, SOURCE, &["sequin.>"]).await;
        world.set("source.stream", SOURCE).set("source.subjects", "foo");
        let why = refused(&world);
        assert!(why.starts_with("stream cdc_events_stream: ") && why.contains("foo"), "{why}");
    }
}

#[tokio::test]
async fn what_is_left_out_in_part_is_warned_of() {
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        // One tenant of messages, all of chats, nothing of agents.
        create(&world, TARGET, &["wa.acme.*.messages.>", "wa.*.*.chats"]).await;
        let warnings = warned(&world);
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(warning.contains("wa_stream"), "{warning}");
        assert!(warning.ends_with("leave out some or all of wa.*.*.messages.*, wa.*.*.agents"), "{warning}");
        // What is switched off is not missed.
        world.set("tables.agents.enabled", "false").set("tables.messages.enabled", "false");
        assert_eq!(warned(&world), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_the_source_still_holds_can_be_given() {
    for server in nats_servers() {
        let world = World::on(&server).await;
        // The oldest server lets no consumer be made of subjects that a stream only had.
        world.start().stop();
        let jetstream = world.jetstream();
        jetstream.publish("sequin.db.public.invoices.insert", "{}".into()).await.unwrap().await.unwrap();
        let moved = Config { name: SOURCE.to_owned(), subjects: vec!["moved.>".to_owned()], ..Default::default() };
        jetstream.update_stream(moved).await.unwrap();
        let warnings = warned(&world);
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(warning.contains(SOURCE) && warning.contains("moved.>") && warning.contains("sequin.>"), "{warning}");
    }
}

#[tokio::test]
async fn what_a_source_takes_from_another_stream_is_not_known_by_its_subjects() {
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        world.create_source().await;
        let mirror = async_nats::jetstream::stream::Source { name: SOURCE.to_owned(), ..Default::default() };
        let config = Config { name: "copy".to_owned(), mirror: Some(mirror), ..Default::default() };
        world.jetstream().create_stream(config).await.unwrap();
        world.set("source.stream", "copy");
        assert_eq!(warned(&world), Vec::<String>::new());
    }
}
