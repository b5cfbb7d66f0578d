//! `dead-letters` under the rights that deploy/least-privilege gives to whoever looks after them.

use serde_json::{Value, json};

use crate::shipped::{Accounts, World, shipped, until};
use crate::support::nats::nats_servers;
use crate::support::service::command;

const USER: &str = "DEAD_LETTERS_NKEY";

impl World {
    /// Four letters: two of events that a setting rejected and that could be published now, and two of what is no JSON.
    async fn with_letters(&self) {
        let rejects = [("tables.messages.unhandled_fields", "reject"), ("tables.chats.unhandled_fields", "reject")];
        let service = self.service_with(&shipped("config.yaml"), &rejects).started();
        self.feed().await;
        self.feed().await;
        until("the letters are there", async || self.count("cdc_dead_letters").await == 4).await;
        service.stop();
    }

    /// What `dead-letters` says with the settings of production: exit status and everything it wrote.
    fn letters(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let config = shipped("../../k8s/overlays/production/config.yaml");
        let with_config = [&["dead-letters"], arguments, &["--config", config.to_str().unwrap()]].concat();
        let done = command(&self.letters_settings(), &with_config, b"");
        (done.status.code(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
    }

    /// The sequences of the letters put aside for this reason.
    fn put_aside(&self, reason: &str) -> Vec<String> {
        let (status, said) = self.letters(&["list", "--reason", reason, "--output", "json"]);
        assert_eq!(status, Some(0), "{said}");
        said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["sequence"].to_string()).collect()
    }

    /// Lets the target take only small messages, so that a replay would be too large.
    async fn narrow_target(&self) {
        let answer = self.operator.request("$JS.API.STREAM.INFO.wa_stream", "".into()).await.unwrap();
        let mut config = serde_json::from_slice::<Value>(&answer.payload).unwrap()["config"].take();
        config["max_msg_size"] = json!(100);
        self.create("STREAM.UPDATE.wa_stream", config).await;
    }
}

#[tokio::test]
async fn with_these_rights_letters_are_listed_shown_replayed_and_dropped() {
    for binary in nats_servers() {
        let world = World::new(&binary).await;
        world.with_letters().await;
        let (events, poison) = (world.put_aside("rejected_field"), world.put_aside("not_json"));
        assert_eq!((events.len(), poison.len()), (2, 2));
        for (arguments, expected) in [
            (vec!["show", &events[0]], "rejected_field"),
            (vec!["replay", "--dry-run", &events[0]], "would be published"),
            (vec!["replay", &events[0]], "replayed to cdc_events_stream"),
            (vec!["drop", &poison[0]], "1 dropped"),
        ] {
            let (status, said) = world.letters(&arguments);
            assert!(status == Some(0) && said.contains(expected), "{arguments:?}: {status:?} {said}");
            assert!(!said.contains("Permissions Violation"), "{arguments:?}: {said}");
        }
        assert_eq!((world.count("cdc_dead_letters").await, world.count("cdc_events_stream").await), (2, 5));
        assert_eq!(world.count("cdc_dead_letters_replays").await, 0);
    }
}

#[tokio::test]
async fn without_any_one_right_some_command_says_which() {
    let mut rights = Accounts::rights(USER);
    rights.sort();
    for binary in nats_servers() {
        let mut world = World::new(&binary).await;
        world.with_letters().await;
        let (events, poison) = (world.put_aside("rejected_field"), world.put_aside("not_json"));
        let (one, other) = (events[0].as_str(), events[1].as_str());
        let dry_run = ["replay", "--dry-run", one];
        world.narrow_target().await;
        assert!(world.letters(&dry_run).1.contains("too_large"));
        // In this order: a replay that could not take its letter away is what the next one has to look for in the source.
        let cases = [
            ("$JS.API.STREAM.INFO.cdc_dead_letters", vec!["list"]),
            ("$JS.API.STREAM.MSG.GET.cdc_dead_letters", vec!["list"]),
            ("$JS.API.STREAM.INFO.cdc_dead_letters_replays", vec!["replay", one]),
            ("cdc.dead_letters_replays.>", vec!["replay", one]),
            ("$JS.API.STREAM.INFO.cdc_events_stream", vec!["replay", one]),
            ("sequin.>", vec!["replay", one]),
            ("$JS.API.STREAM.MSG.DELETE.cdc_dead_letters", vec!["replay", one]),
            ("$JS.API.STREAM.MSG.GET.cdc_events_stream", vec!["replay", one]),
            ("$JS.API.STREAM.MSG.GET.cdc_dead_letters_replays", vec!["replay", one]),
            ("$JS.API.STREAM.MSG.DELETE.cdc_dead_letters_replays", vec!["replay", other]),
            ("$JS.API.STREAM.MSG.DELETE.cdc_dead_letters", vec!["drop", &poison[0]]),
        ];
        for (right, arguments) in &cases {
            let config = world.accounts.config(Some((USER, right)));
            world.nats.reload(&config);
            world.nats.restart();
            let (status, said) = world.letters(arguments);
            let named = said.contains("Permissions Violation") && said.contains(right.trim_end_matches('>'));
            assert!(status != Some(0) && named, "{right}, {arguments:?}: {status:?} {said}");
        }
        // Without these two nothing is refused in words: no answer is heard, or what is too large is not foreseen.
        let (inbox, target) = ("_INBOX_letters.>", "$JS.API.STREAM.INFO.wa_stream");
        let mut tried: Vec<_> = cases.iter().map(|(right, _)| *right).chain([inbox, target]).collect();
        tried.sort_unstable();
        tried.dedup();
        assert_eq!(tried, rights);
        world.nats.reload(&world.accounts.config(Some((USER, inbox))));
        world.nats.restart();
        let (status, said) = world.letters(&["list"]);
        assert_ne!(status, Some(0), "{said}");
        world.nats.reload(&world.accounts.config(Some((USER, target))));
        world.nats.restart();
        let (status, said) = world.letters(&dry_run);
        assert!(status == Some(0) && !said.contains("too_large"), "{status:?} {said}");
    }
}
