//! The binary's other commands and its exit status.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::change::{Change, Input, agent, chat};
use crate::support::nats::nats_servers;
use crate::support::service::{Settings, binary, command, lines};
use crate::support::world::{PATIENCE, SOURCE, Stored, TARGET, World};

fn settings(pairs: &[(&str, &str)]) -> Settings {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn explained(settings: &Settings, input: &Input) -> Value {
    let mut arguments = vec!["explain".to_owned(), "--subject".to_owned(), input.subject.clone()];
    for (name, value) in &input.headers {
        arguments.extend(["--header".to_owned(), format!("{name}: {value}")]);
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let output = command(settings, &arguments, &input.payload);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn sequence(letter: &Stored) -> &str {
    letter.header("Cdc-Sequence").unwrap()
}

#[tokio::test]
async fn explain_says_what_the_service_does() {
    let mut world = World::new().await;
    world.set("target.subject_prefix", "out").set("tables.chats.unhandled_fields", "drop");
    let service = world.start();
    let publish = [
        Change::message("m-1").at(1, 0).input().header("traceparent", "00-aa-bb-01").header("x-other", "1"),
        Change::message("m:2 é").column("chat_id", "6281@s.whatsapp.net").action("update").at(2, 0).input(),
        Change::new("chats", &chat("c-1")).column("added", 1).action("update").at(3, 0).input(),
        Change::new("agents", &agent("a-1")).action("delete").at(4, 0).input().header("Nats-Msg-Id", "abc"),
        Input::new("sequin.any", Change::message(&"k".repeat(400)).at(5, 0).action("read").payload()),
    ];
    let poison = [
        Change::message("m-1").column("company_id", Value::Null).input(),
        Input::new("sequin.any", "{"),
        Change::message("m-1").column("chat_id", "c".repeat(2_000)).input(),
    ];
    let skipped = Input::new("sequin.daisi_db.public.invoices.insert", "{}");
    world.feed(publish.iter().chain(&poison).chain([&skipped])).await;
    let (published, letters) = world.adds_up(publish.len(), poison.len()).await;
    for (lsn, input) in (1..).zip(&publish) {
        let event = published.iter().find(|event| event.position().0 == lsn).unwrap();
        let said = explained(&world.settings, input);
        assert_eq!(said["verdict"], "publish");
        assert_eq!(said["subject"], event.subject);
        assert_eq!(said["payload"], event.text());
        assert_eq!(said["event_id"], event.json()["event_id"]);
        assert_eq!(said["event_key"], event.header("Nats-Msg-Id").unwrap());
        let headers: serde_json::Map<_, _> =
            event.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        assert_eq!(said["headers"], Value::Object(headers));
        assert_eq!((&said["reason"], &said["detail"]), (&Value::Null, &Value::Null));
        assert_eq!(said["unhandled_fields"], if lsn == 3 { json!(["added"]) } else { json!([]) });
    }
    for (place, input) in (publish.len() + 1..).zip(&poison) {
        let letter = letters.iter().find(|letter| sequence(letter) == place.to_string()).unwrap();
        let said = explained(&world.settings, input);
        assert_eq!(said["verdict"], "dead_letter");
        assert_eq!(said["subject"], letter.subject);
        assert_eq!(said["payload"], letter.text());
        for (name, header) in [("reason", "Cdc-Reason"), ("detail", "Cdc-Detail")] {
            assert_eq!(said[name], letter.header(header).unwrap());
        }
        for (name, value) in said["headers"].as_object().unwrap() {
            assert_eq!(letter.header(name), value.as_str(), "{name}");
        }
    }
    let said = explained(&world.settings, &skipped);
    assert_eq!(said["verdict"], "skip");
    let said = said.as_object().unwrap();
    assert!(said.iter().all(|(name, value)| name == "verdict" || value.is_null()), "{said:?}");
    service.stop();
}

#[test]
fn explain_reads_a_file_and_says_65_when_it_cannot() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("event.json");
    std::fs::write(&file, Change::message("m-1").payload()).unwrap();
    let explain =
        |file: &std::path::Path| command(&Settings::new(), &["explain", "--subject", "s", file.to_str().unwrap()], b"");
    let output = explain(&file);
    assert_eq!(output.status.code(), Some(0));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["verdict"], lines(&output.stdout).len()), (&json!("publish"), 1));

    let output = explain(&directory.path().join("none.json"));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(65), 0));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("cannot read the event") && error.contains("none.json"), "{error}");
    assert_eq!(explain(directory.path()).status.code(), Some(65));
    for (text, told) in [(" \n", "is empty"), ("[{},\n{\"a\"}]", "line 2 column 5")] {
        std::fs::write(&file, text).unwrap();
        let output = explain(&file);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(65), 0), "{error}");
        assert!(error.contains("event.json") && error.contains(told), "{error}");
    }
}

#[test]
fn of_several_events_each_decision_says_whose_it_is() {
    let text = format!("{{}}\n\n{}\n", Change::message("m-1").payload());
    let said = command(&Settings::new(), &["explain"], text.as_bytes()).stdout;
    let said: Vec<Value> = lines(&said).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said[0]["input"], json!({"index": 1, "line": 1}));
    assert_eq!((&said[1]["input"], &said[1]["verdict"]), (&json!({"index": 2, "line": 3}), &json!("publish")));
    let told = command(&Settings::new(), &["explain", "--output", "text"], text.as_bytes()).stdout;
    assert!(String::from_utf8(told).unwrap().contains("event 2 (line 3)\npublish\n"));
    // The place of what is wrong counts from where the event begins.
    let array = command(&Settings::new(), &["explain", "--trace"], b"[\n{},\n  {\n  \"metadata\": 5}]").stdout;
    let second: Value = serde_json::from_str(&lines(&array)[1]).unwrap();
    assert_eq!(second["input"], json!({"index": 2, "line": 3}));
    let place = &second["trace"]["place"];
    assert_eq!((&place["line"], &place["column"], &place["pointer"]), (&json!(2), &json!(15), &json!("/metadata")));
}

#[test]
fn a_command_line_that_makes_no_sense_is_64() {
    for line in [&["explain", "--header"][..], &["walk"], &["run", "--config"], &["demo", "--events", "none"]] {
        let output = command(&Settings::new(), line, b"");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0), "{line:?}");
        assert!(!output.stderr.is_empty());
    }
    assert_eq!(command(&Settings::new(), &["--help"], b"").status.code(), Some(0));
}

#[test]
fn a_bad_configuration_is_78_and_names_every_problem_at_once() {
    let wrong = settings(&[
        ("source.ack_wait", "soon"),
        ("workers", "many"),
        ("target.unsafe_tokens", "maybe"),
        ("target.duplicate_windw", "2m"),
        ("nats.password", "s3cret"),
        ("retry.initial", "20s"),
    ]);
    for line in [&["run"][..], &["check"], &["explain", "--subject", "s"]] {
        let output = command(&wrong, line, b"{}");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0), "{line:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        for part in ["source.ack_wait", "soon", "workers", "many", "target.unsafe_tokens", "maybe", "encode", "reject"]
        {
            assert!(said.contains(part), "{part} is missing: {said}");
        }
        for part in ["duplicate_windw", "nats.password", "retry.initial"] {
            assert!(said.to_lowercase().contains(part), "{part} is missing: {said}");
        }
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[tokio::test]
async fn a_dependency_that_is_away_is_69_after_start_timeout() {
    let mut world = World::new().await;
    world.set("start_timeout", "1s");
    let away = |name: &str, url: &str| {
        let mut settings = world.settings.clone();
        settings.insert(name.to_owned(), url.to_owned());
        let run = command(&settings, &["run"], b"");
        let said = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(69), "{name}: {said}");
        assert!(said.contains("could not start"), "{said}");
        assert_eq!(command(&settings, &["check"], b"").status.code(), Some(69), "{name}");
    };
    // A port that nobody can listen on.
    away("nats.url", "nats://127.0.0.1:1");
    away("dedup.url", "redis://127.0.0.1:1");
}

/// Time beyond `shutdown.grace` in which the process ends whatever its servers do. `terminationGracePeriodSeconds` in k8s/
/// allows for as much (`CLOSING` in k8s/tests/policy.py), or the kubelet would kill it first.
const CLOSING: Duration = Duration::from_secs(10);

#[tokio::test]
async fn servers_that_hang_hold_the_end_up_for_no_longer_than_kubernetes_waits() {
    let mut world = World::new().await;
    let grace = Duration::from_secs(2);
    world.set("shutdown.grace", "2s");
    let mut service = world.start();
    let input = |lsn: u64| Change::message(&format!("m-{lsn}")).at(lsn, 0).input();
    world.feed(&[input(1)]).await;
    world.adds_up(1, 0).await;
    world.redis.stop();
    world.feed(&[input(2)]).await;
    let deadline = Instant::now() + PATIENCE;
    while service.metric("cdc_consumer_in_flight", &[]) == 0.0 {
        assert!(Instant::now() < deadline, "the event was never taken in");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.nats.stop();
    let asked = Instant::now();
    service.signal("TERM");
    let (status, took) = (service.wait(), asked.elapsed());
    world.nats.cont();
    world.redis.cont();
    assert_eq!(status, Some(0));
    assert!(took < grace + CLOSING, "{took:?}");
    assert_eq!(
        service.log().find("ended before the server had heard that everything in flight is settled: the source delivers the rest again").len(),
        1
    );
    println!("ended {took:?} after SIGTERM, with a grace of {grace:?}");
}

#[tokio::test]
async fn check_says_what_it_would_create_and_creates_nothing() {
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        let check = |world: &World, code: i32| {
            let output = command(&world.settings, &["check"], b"");
            let said = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(code), "{said}");
            said
        };
        let said = check(&world, 0);
        let streams = [SOURCE, TARGET, "cdc_dead_letters"];
        for stream in streams {
            assert!(said.contains(&format!("stream {stream}: would be created")), "{said}");
        }
        assert!(said.contains("consumer cdc_consumers: would be created"), "{said}");
        assert!(said.contains("configuration: valid") && said.contains("redis answers"), "{said}");
        for stream in streams {
            assert!(world.jetstream().get_stream(stream).await.is_err(), "{stream} was created");
        }
        assert_eq!(world.redis.command(&["DBSIZE"]), ":0");

        world.start().stop();
        let said = check(&world, 0);
        assert!(!said.contains("would be"), "{said}");
        let said = check(world.set_all(&[("source.ack_wait", "45s")]), 0);
        assert!(said.contains("consumer cdc_consumers: exists, would be changed: ack_wait"), "{said}");
        // Of a target that forgets within twice ack_wait nothing can be promised.
        let said = check(world.set_all(&[("source.ack_wait", "90s"), ("target.duplicate_window", "10m")]), 78);
        assert!(said.contains("error: "), "{said}");
        // What is missing and must not be created is wrong, too.
        let said = check(world.set_all(&[("target.create", "false"), ("target.stream", "other_stream")]), 78);
        assert!(said.contains("other_stream"), "{said}");
    }
}

#[test]
fn check_offline_needs_no_servers() {
    let mut away = settings(&[("nats.url", "nats://127.0.0.1:1"), ("dedup.url", "redis://127.0.0.1:1")]);
    let output = command(&away, &["check", "--offline"], b"");
    assert_eq!((output.status.code(), lines(&output.stdout)), (Some(0), vec!["configuration: valid".to_owned()]));
    away.insert("workers".to_owned(), "many".to_owned());
    assert_eq!(command(&away, &["check", "--offline"], b"").status.code(), Some(78));
}

#[tokio::test]
async fn healthcheck_asks_the_service_whether_it_is_alive() {
    let world = World::new().await;
    let service = world.start();
    let ask = |listen: &str| {
        let output = command(&settings(&[("http.listen", listen)]), &["healthcheck"], b"");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let port = service.http().rsplit_once(':').unwrap().1;
    // Where it listens, and as a container would be told.
    assert_eq!(ask(service.http()), (Some(0), String::new()));
    assert_eq!(ask(&format!("0.0.0.0:{port}")), (Some(0), String::new()));

    service.freeze();
    let (frozen, why) = ask(service.http());
    service.signal("CONT");
    assert_eq!(frozen, Some(1), "{why}");
    let address = service.http().to_owned();
    service.stop();
    let (gone, why) = ask(&address);
    assert_eq!(gone, Some(1));
    assert!(why.contains("not alive") && why.contains(&address), "{why}");

    // Somebody who answers, and not with 200.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut asked).unwrap();
            // Somebody may still look for whoever had this port before, and ask nothing.
            if !asked.is_empty() {
                stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap();
                return asked;
            }
        }
    });
    let (silent, why) = ask(&address);
    assert_eq!((silent, server.join().unwrap().as_str()), (Some(1), "GET /healthz HTTP/1.1\r\n"));
    assert!(why.contains("503 Service Unavailable"), "{why}");
}

#[test]
fn the_demo_ends_with_a_ledger_that_adds_up() {
    let output = command(&Settings::default(), &["demo", "--events", "3000", "--seed", "7"], b"");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for expected in ["/metrics", "3000 of 3000 events", "fed            3000", "P99", "the ledger adds up"] {
        assert!(said.contains(expected), "{expected} is missing in: {said}");
    }
}

#[test]
fn the_demo_without_nats_server_says_what_to_install() {
    let mut demo = binary(&Settings::default());
    let output = demo.arg("demo").env("PATH", "/nonexistent").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("apt-get install nats-server"), "{said}");
}
