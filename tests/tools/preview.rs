//! `preview`: what would become of the real messages, which are left as they are.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{self, RetentionPolicy};
use serde_json::{Value, json};

use crate::support::change::{Change, Input, agent};
use crate::support::nats::nats_servers;
use crate::support::world::{CONSUMER, PATIENCE, SOURCE, World};
use crate::{fed_tool, json_lines, json_tool, tool};

async fn source(world: &World, retention: RetentionPolicy) {
    let config = stream::Config {
        name: SOURCE.to_owned(),
        subjects: vec!["sequin.>".to_owned(), "other.>".to_owned()],
        retention,
        ..Default::default()
    };
    world.jetstream().create_stream(config).await.unwrap();
}

/// Everything the server says of stream and consumers, apart from what time it is there.
async fn state(world: &World) -> Vec<String> {
    let mut all = Vec::new();
    for operation in [
        format!("STREAM.INFO.{SOURCE}"),
        format!("CONSUMER.INFO.{SOURCE}.{CONSUMER}"),
        format!("CONSUMER.LIST.{SOURCE}"),
        "STREAM.LIST".to_owned(),
    ] {
        let answer = world.client.request(format!("$JS.API.{operation}"), "".into()).await.unwrap();
        let mut answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        without_time(&mut answer);
        all.push(answer.to_string());
    }
    all
}

fn without_time(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("ts");
            fields.values_mut().for_each(without_time);
        }
        Value::Array(values) => values.iter_mut().for_each(without_time),
        _ => {}
    }
}

fn good(number: u64) -> Input {
    Change::new("agents", &agent("a")).column("added", 1).at(number, 0).input()
}

/// Some messages acknowledged, some not, some not even delivered.
async fn half_done(world: &World, retention: RetentionPolicy) {
    source(world, retention).await;
    let service = world.start();
    world.feed(&(0..5).map(good).collect::<Vec<_>>()).await;
    world.adds_up(5, 0).await;
    service.stop();
    world.feed(&(5..15).map(good).collect::<Vec<_>>()).await;
    let consumer = world.jetstream().get_stream(SOURCE).await.unwrap();
    let consumer: async_nats::jetstream::consumer::PullConsumer = consumer.get_consumer(CONSUMER).await.unwrap();
    let mut batch = consumer.fetch().max_messages(3).messages().await.unwrap();
    while let Some(message) = futures::StreamExt::next(&mut batch).await {
        message.unwrap();
    }
    let poison = Change::message("m").column("company_id", Value::Null).at(20, 0).input();
    let others = [poison, Input::new("sequin.d.s.invoices.insert", "{}"), Input::new("other.x", "not for us")];
    world.feed(&others).await;
}

#[tokio::test]
async fn nothing_is_touched_whatever_the_retention() {
    for server in nats_servers() {
        for retention in [RetentionPolicy::Limits, RetentionPolicy::WorkQueue, RetentionPolicy::Interest] {
            let mut world = World::on(&server).await;
            world.set("source.ack_wait", "60s");
            half_done(&world, retention).await;
            let before = state(&world).await;
            let report = json_tool(&world.settings, &["preview"], 0).remove(0);
            let kept = if retention == RetentionPolicy::Limits { 15 } else { 10 };
            assert_eq!(report["verdicts"], json!({"publish": kept, "skip": 1, "dead_letter": 1}), "{retention:?}");
            assert_eq!(report["reasons"], json!({"missing_routing": 1}));
            assert_eq!(report["subjects"]["wa.acme.a.agents"], kept);
            assert_eq!(report["unhandled_fields"], json!({"added": kept}));
            assert_eq!(report["samples"]["publish"].as_array().unwrap().len(), 2);
            json_tool(&world.settings, &["preview", "--from", "3", "--each"], 0);
            json_tool(&world.settings, &["preview", "--live", "--for", "100ms"], 0);
            assert_eq!(before, state(&world).await, "{retention:?}");
        }
    }
}

#[tokio::test]
async fn the_last_ones_those_from_a_sequence_and_those_to_come() {
    let world = World::new().await;
    source(&world, RetentionPolicy::Limits).await;
    world.feed(&(1..=300).map(good).collect::<Vec<_>>()).await;
    // A gap longer than any chunk, and a message that is not for the service at the end.
    let stream = world.jetstream().get_stream(SOURCE).await.unwrap();
    for sequence in 10..290 {
        stream.delete_message(sequence).await.unwrap();
    }
    world.feed(&[Input::new("other.x", "not for us")]).await;
    let each = |more: &[&str]| {
        let lines = json_tool(&world.settings, &[&["preview", "--each"], more].concat(), 0);
        lines.iter().map(|line| line["sequence"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(each(&["--last", "3"]), [298, 299, 300]);
    assert_eq!(each(&["--last", "13"]), [&[8, 9][..], &(290..=300).collect::<Vec<_>>()].concat());
    assert_eq!(each(&["--last", "5000"]).len(), 20);
    assert_eq!(each(&["--from", "8", "--limit", "4"]), [8, 9, 290, 291]);
    let (code, text, _) = tool(&world.settings, &["preview", "--last", "2"]);
    assert_eq!(code, 0);
    for part in ["2 messages of cdc_events_stream, sequence 299 to 300", "publish", "wa.acme.a.agents", "added"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
}

#[tokio::test]
async fn what_comes_is_shown_as_it_comes() {
    for retention in [RetentionPolicy::Limits, RetentionPolicy::WorkQueue] {
        let world = World::new().await;
        source(&world, retention).await;
        let settings = world.settings.clone();
        let watching =
            std::thread::spawn(move || json_tool(&settings, &["preview", "--live", "--each", "--limit", "3"], 0));
        // It is not known when it begins to look, so it is fed until it has seen enough.
        let started = Instant::now();
        for number in 1.. {
            world.feed(&[good(number)]).await;
            if watching.is_finished() {
                break;
            }
            assert!(started.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let lines = watching.join().unwrap();
        assert!(lines.len() == 3 && lines.iter().all(|line| line["decision"]["verdict"] == "publish"), "{lines:?}");
    }
}

#[tokio::test]
async fn a_look_for_a_time_ends_with_it_whatever_still_comes() {
    for retention in [RetentionPolicy::Limits, RetentionPolicy::WorkQueue] {
        let world = World::new().await;
        source(&world, retention).await;
        let settings = world.settings.clone();
        let looking = std::thread::spawn(move || {
            let report = json_tool(&settings, &["preview", "--live", "--for", "3s"], 0).remove(0);
            report["messages"].as_u64().unwrap()
        });
        // More than can be read one by one, for longer than is looked.
        let batch: Vec<_> = (1..=2_000).map(good).collect();
        let begun = Instant::now();
        while !looking.is_finished() {
            assert!(begun.elapsed() < PATIENCE, "{retention:?}: it looks as long as there is anything to see");
            world.feed(&batch).await;
        }
        assert!(looking.join().unwrap() > 0, "{retention:?}");
    }
}

#[tokio::test]
async fn a_change_of_configuration_is_reviewed() {
    let mut world = World::new().await;
    source(&world, RetentionPolicy::Limits).await;
    let plain = Change::new("agents", &agent("b")).input();
    world.feed(&[good(1), good(2), plain, Change::message("m").input()]).await;
    let directory = tempfile::TempDir::new().unwrap();
    let old = written(&directory, "old.yaml", "tables: {messages: {enabled: true}}");
    let new = written(&directory, "new.yaml", "tables: {messages: {enabled: false}, agents: {unhandled_fields: drop}}");
    let said = json_tool(&world.settings, &["preview", "--config", &new, "--against", &old], 0).remove(0);
    assert_eq!((&said["messages"], &said["same"], &said["different"]), (&json!(4), &json!(1), &json!(3)));
    assert_eq!(said["changes"], json!({"publish -> skip": 1, "publish, other payload": 2}));
    let sample = &said["samples"]["publish, other payload"][0];
    assert!(sample["fields"]["payload"]["old"].as_str().unwrap().contains("added"), "{sample}");
    let (code, text, _) = tool(&world.settings, &["preview", "--config", &new, "--against", &old]);
    assert_eq!(code, 0);
    assert!(text.contains("3 of 4 messages") && text.contains("payload/row_data/added\n    - 1\n"), "{text}");
    let same = json_tool(&world.settings, &["preview", "--config", &old, "--against", &old], 0).remove(0);
    assert_eq!(same["different"], 0);
    world.set("nats.url", "nats://127.0.0.1:1");
    assert_eq!(tool(&world.settings, &["preview"]).0, 69);
}

/// A configuration in a file of its own.
fn written(directory: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What only one of two configurations receives is a difference, whichever it is and whatever becomes of it.
#[tokio::test]
async fn what_a_filter_keeps_away_is_a_difference() {
    let world = World::new().await;
    source(&world, RetentionPolicy::Limits).await;
    let skipped = Input::new("sequin.d.s.invoices.insert", "{}");
    world.feed(&[good(1), good(2), Change::message("m").input(), skipped, Input::new("other.x", "for nobody")]).await;
    let subject = good(1).subject;
    let directory = tempfile::TempDir::new().unwrap();
    let wide = written(&directory, "wide.yaml", "source: {subjects: sequin.>}");
    let narrow = written(&directory, "narrow.yaml", &format!("source: {{subjects: '{subject}'}}"));
    let compared = |new: &str, old: &str, more: &[&str]| {
        let arguments = ["preview", "--config", new, "--against", old];
        json_tool(&world.settings, &[&arguments, more].concat(), 0).remove(0)
    };
    for more in [&[][..], &["--from", "1"]] {
        let said = compared(&narrow, &wide, more);
        assert_eq!(said["changes"], json!({"publish -> not_received": 1, "skip -> not_received": 1}));
        assert_eq!((&said["messages"], &said["same"], &said["different"]), (&json!(4), &json!(2), &json!(2)));
        assert_eq!(said["not_received"], 1, "what is for neither is counted");
        let sample = &said["samples"]["publish -> not_received"][0];
        assert_eq!(sample["sequence"], 3);
        assert_eq!(sample["fields"]["verdict"], json!({"old": "publish", "new": "not_received"}));
        assert_eq!(sample["fields"]["payload"]["new"], Value::Null);
    }
    let said = compared(&wide, &narrow, &["--last", "2"]);
    assert_eq!(said["changes"], json!({"not_received -> publish": 1, "not_received -> skip": 1}));
    assert_eq!(compared(&narrow, &narrow, &[])["messages"], 2);
    let alone = json_tool(&world.settings, &["preview", "--config", &narrow], 0).remove(0);
    assert_eq!((&alone["messages"], &alone["not_received"]), (&json!(2), &json!(3)));
    let (_, text, _) = tool(&world.settings, &["preview", "--config", &narrow, "--against", &wide]);
    for part in ["2 of 4 messages", "1  publish -> not_received", "1  not received by either"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
}

#[tokio::test]
async fn two_streams_are_not_taken_for_one() {
    let world = World::new().await;
    source(&world, RetentionPolicy::Limits).await;
    world.feed(&[good(1)]).await;
    let directory = tempfile::TempDir::new().unwrap();
    let here = written(&directory, "here.yaml", "");
    let elsewhere = written(&directory, "elsewhere.yaml", "source: {stream: elsewhere}");
    let arguments = ["preview", "--config", &here, "--against", &elsewhere];
    let said = json_tool(&world.settings, &arguments, 0).remove(0);
    assert_eq!((&said["stream"], &said["against_stream"]), (&json!(SOURCE), &json!("elsewhere")));
    let told = "--against reads the stream elsewhere; both are shown on cdc_events_stream";
    let (_, text, _) = tool(&world.settings, &arguments);
    assert!(text.contains(told), "{text}");
    let (_, text, _) = tool(&world.settings, &["preview", "--config", &here, "--against", &here]);
    assert!(!text.contains("both are shown"), "{text}");
}

#[tokio::test]
async fn another_order_is_a_difference() {
    let world = World::new().await;
    source(&world, RetentionPolicy::Limits).await;
    let skipped = Input::new("sequin.d.s.invoices.insert", "{}");
    world.feed(&[good(1), good(2), skipped]).await;
    let directory = tempfile::TempDir::new().unwrap();
    let declared = |order: &str| {
        let columns = "{agent_id: string not null, company_id: string not null}";
        let agents = format!(
            "{{key: agent_id, routing: [company_id, agent_id], order_by: {order}, columns: {columns}, \
             subject: '{{prefix}}.{{company_id}}.{{agent_id}}.agents'}}"
        );
        written(&directory, &format!("{order}.yaml"), &format!("tables: {{agents: {agents}}}"))
    };
    let (rows, tenants) = (declared("row"), declared("company_id"));
    let said = json_tool(&world.settings, &["preview", "--config", &tenants, "--against", &rows], 0).remove(0);
    assert_eq!(said["changes"], json!({"publish, other order_key": 2}), "{said}");
    let key = |side: &str| said["samples"]["publish, other order_key"][0]["fields"]["order_key"][side].clone();
    // The key is the one that explain tells.
    let event = String::from_utf8(good(1).payload.to_vec()).unwrap();
    for (file, side) in [(&rows, "old"), (&tenants, "new")] {
        let explain = ["explain", "--trace", "--config", file, "--subject", &good(1).subject];
        let (_, told, _) = fed_tool(&world.settings, &explain, event.as_bytes());
        assert_eq!(json_lines(&told)[0]["trace"]["order_key"], key(side));
    }
    // A table that is switched off has no order.
    let off = written(&directory, "off.yaml", "tables: {agents: {enabled: false}}");
    let filtered = written(
        &directory,
        "filtered.yaml",
        &std::fs::read_to_string(&rows).unwrap().replace("key: ", "filter: {column: agent_id, equals: nobody}, key: "),
    );
    let said = json_tool(&world.settings, &["preview", "--config", &filtered, "--against", &off], 0).remove(0);
    assert_eq!(said["different"], 0, "{said}");
}

/// The service's own figures: what fits to the byte is published, one byte more is a dead letter.
#[tokio::test]
async fn what_is_too_large_for_the_target_is_foretold() {
    let world = World::new().await;
    world.create_source().await;
    world.start().stop();
    let limit = async |bytes: i32| {
        let target = world.jetstream().get_stream("wa_stream").await.unwrap();
        let mut config = target.cached_info().config.clone();
        config.max_message_size = bytes;
        world.jetstream().update_stream(&config).await.unwrap();
    };
    let sized = |length: usize| Change::message(&"k".repeat(length)).input();
    world.feed(&[sized(20), sized(21), Change::message("m").column("chat_id", Value::Null).input()]).await;
    let decisions = || {
        let said = json_tool(&world.settings, &["preview", "--each"], 0);
        said.into_iter().map(|mut said| said["decision"].take()).collect::<Vec<_>>()
    };
    let verdicts = |decisions: &[Value]| decisions.iter().map(|said| said["verdict"].clone()).collect::<Vec<_>>();
    assert_eq!(verdicts(&decisions()), ["publish", "publish", "dead_letter"]);
    limit(100).await;
    let said = decisions();
    assert_eq!((&said[0]["reason"], &said[2]["reason"]), (&json!("too_large"), &json!("missing_routing")));
    let size = said[0]["detail"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
    limit(size).await;
    let said = decisions();
    assert_eq!(verdicts(&said), ["publish", "dead_letter", "dead_letter"]);

    let service = world.start();
    let (_, letters) = world.adds_up(1, 2).await;
    service.stop();
    let letter = letters.iter().find(|letter| letter.header("Cdc-Sequence") == Some("2")).unwrap();
    let told = (&said[1]["subject"], &said[1]["detail"], &said[1]["payload"]);
    assert_eq!(told, (&json!(letter.subject), &json!(letter.header("Cdc-Detail")), &json!(letter.text())));
    let again = || json_tool(&world.settings, &["dead-letters", "replay", "--reason", "too_large", "--dry-run"], 0);
    let would = again().remove(0);
    assert_eq!((&would["outcome"], &would["decision"]["detail"]), (&json!("would_fail"), told.1));
    limit(2 * size).await;
    assert_eq!(again()[0]["outcome"], "would_publish");
}

/// `explain`, `preview` and `run` agree on every event.
#[tokio::test]
async fn all_say_the_same() {
    const EVENTS: usize = 1_500;
    let mut world = World::new().await;
    world.set("tables.chats.unhandled_fields", "drop").set("target.unsafe_tokens", "reject");
    world.create_source().await;
    // No duplicates: they are a matter of what was published before, not of the event.
    let mix = "insert=30,update=20,chat=12,agent=12,delete=8,other=8,poison=10";
    let events = EVENTS.to_string();
    json_tool(&world.settings, &["generate", "--publish", "--events", &events, "--mix", mix], 0);
    let previewed = json_tool(&world.settings, &["preview", "--each", "--last", &events], 0);
    let mut lines = String::new();
    for event in world.stored("cdc_events_stream").await {
        let headers: serde_json::Map<_, _> =
            event.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let payload = String::from_utf8(event.payload).unwrap();
        lines += &format!("{}\n", json!({"subject": event.subject, "headers": headers, "payload": payload}));
    }
    let mut explained = json_lines(&fed_tool(&world.settings, &["explain"], lines.as_bytes()).1);
    assert_eq!((previewed.len(), explained.len()), (EVENTS, EVENTS));
    // Whose decision it is stands beside the decision.
    for (line, explain) in (1..).zip(&mut explained) {
        assert_eq!(explain.as_object_mut().unwrap().remove("input"), Some(json!({"index": line, "line": line})));
    }
    let service = world.start();
    world.settled().await;
    service.stop();
    let (published, letters) = (world.published().await, world.dead_letters().await);
    let mut expected = (0, 0);
    for (sequence, (preview, explain)) in (1_u64..).zip(previewed.iter().zip(&explained)) {
        assert_eq!((&preview["sequence"], &preview["decision"]), (&json!(sequence), explain));
        match explain["verdict"].as_str().unwrap() {
            "publish" => {
                expected.0 += 1;
                let key = explain["event_key"].as_str().unwrap();
                let event = published.iter().find(|event| event.header("Nats-Msg-Id") == Some(key)).unwrap();
                assert_eq!((&explain["subject"], &explain["payload"]), (&json!(event.subject), &json!(event.text())));
            }
            "dead_letter" => {
                expected.1 += 1;
                let place = sequence.to_string();
                let letter = letters.iter().find(|letter| letter.header("Cdc-Sequence") == Some(&place)).unwrap();
                assert_eq!((&explain["subject"], &explain["payload"]), (&json!(letter.subject), &json!(letter.text())));
                assert_eq!(explain["detail"], letter.header("Cdc-Detail").unwrap());
            }
            _ => {}
        }
    }
    assert_eq!((published.len(), letters.len()), expected);
    assert!(expected.0 > 0 && expected.1 > 0);
}
