//! Secrets and values of rows are planted everywhere, things go wrong in every way, and nothing that the process emits shows them.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daisi_cdc_consumer::privacy;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::bench::event;
use crate::support::nats::{NatsServer, nats_servers};
use crate::support::redis::RedisServer;
use crate::support::service::{Service, Settings, command};

/// How long anything may take that should happen soon.
const PATIENCE: Duration = Duration::from_secs(40);
/// What every secret and every value of a row here begins with.
const PLANTED: &str = "pl4nted";
const PASSWORD: &str = "pl4nted-password";

fn settings(pairs: &[(&str, &str)]) -> Settings {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn hidden(what: &str, text: &str) {
    assert!(!text.contains(PLANTED), "{what} shows a secret: {text}");
}

/// Runs the real binary to its end: its exit status and all that it said, which shows no secret.
fn said(what: &str, settings: &Settings, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(settings, arguments, b"");
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    hidden(what, &text);
    (output.status.code(), text)
}

#[test]
fn no_failed_start_shows_a_secret() {
    let (directory, open) = (TempDir::new().unwrap(), NatsServer::start(&nats_servers()[0]));
    let closed = NatsServer::start_with(&nats_servers()[0], "authorization { user: cdc, password: other }");
    let redis = RedisServer::start_with(&["--requirepass", "other"]);
    let file = directory.path().join("secret");
    std::fs::write(&file, PASSWORD).unwrap();
    let (file, nats, closed) = (file.to_str().unwrap(), open.url(), closed.url());
    let within = |url: &str, login: &str| url.replacen("://", &format!("://{login}@"), 1);
    let (password, token) = (format!("cdc:{PASSWORD}"), PASSWORD.to_owned());
    let cases: Vec<(&str, Vec<(&str, String)>)> = vec![
        (
            "a wrong password",
            vec![("nats.url", closed.clone()), ("nats.user", "cdc".into()), ("nats.password", token.clone())],
        ),
        (
            "a wrong password in a file",
            vec![("nats.url", closed.clone()), ("nats.user", "cdc".into()), ("nats.password_file", file.into())],
        ),
        ("a wrong password in the URL", vec![("nats.url", within(&closed, &password))]),
        ("a wrong token", vec![("nats.url", closed.clone()), ("nats.token", token.clone())]),
        ("a wrong token in the URL", vec![("nats.url", within(&closed, &token))]),
        ("a seed that is none", vec![("nats.url", closed.clone()), ("nats.nkey_seed_file", file.into())]),
        ("credentials that are none", vec![("nats.url", closed), ("nats.credentials_file", file.into())]),
        ("no server", vec![("nats.url", format!("nats://{password}@127.0.0.1:1"))]),
        (
            "a wrong password of Redis",
            vec![("nats.url", nats.clone()), ("dedup.url", redis.url()), ("dedup.password", token)],
        ),
        ("a wrong user of Redis", vec![("nats.url", nats.clone()), ("dedup.url", within(&redis.url(), &password))]),
        ("no Redis", vec![("nats.url", nats.clone()), ("dedup.url", format!("redis://{password}@127.0.0.1:1"))]),
        (
            "no socket",
            vec![
                ("nats.url", nats.clone()),
                ("dedup.url", "redis+unix:///no".into()),
                ("dedup.password_file", file.into()),
            ],
        ),
        ("no TLS", vec![("nats.url", nats), ("dedup.url", within(&redis.url().replace("redis", "rediss"), &password))]),
    ];
    std::thread::scope(|threads| {
        for (what, pairs) in &cases {
            threads.spawn(move || {
                let mut settings: Settings =
                    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
                let common = [("http.listen", "127.0.0.1:0"), ("start_timeout", "1s"), ("log.level", "trace")];
                settings.extend(common.map(|(name, value)| (name.to_owned(), value.to_owned())));
                for (command, format) in [("run", "json"), ("run", "terminal"), ("check", "json")] {
                    settings.insert("log.format".to_owned(), format.to_owned());
                    let (status, text) = said(what, &settings, &[command]);
                    assert!(matches!(status, Some(69 | 78)), "{what}: {status:?} {text}");
                    assert!(!text.is_empty(), "{what}: not a word");
                }
                // The tools need not all of the servers, so some of them may succeed.
                said(what, &settings, &["dead-letters", "list"]);
                said(what, &settings, &["preview"]);
                said(what, &settings, &["healthcheck"]);
            });
        }
    });
}

#[test]
fn no_bad_configuration_shows_a_secret() {
    for pair in [
        ("nats.url", "nats://cdc:pl4nted@host:port"),
        ("nats.url", "nats://host:pl4nted"),
        ("nats.url", "nats://cdc:pl4nted#@host"),
        ("nats.pasword", "pl4nted"),
        ("nats.password", "pl4nted"),
        ("nats.password_file", "pl4nted"),
        ("nats.nkey_seed_file", "pl4nted"),
        ("dedup.password_file", "pl4nted"),
        ("dedup.url", "redis://:pl4nted@"),
        ("dedup.url", "redis+unix:///socket?pass=pl4nted"),
        ("dedup.url", "rediss://:pl4nted@host/#insecure"),
    ] {
        let (status, text) = said(pair.0, &settings(&[pair]), &["run"]);
        assert_eq!(status, Some(78), "{pair:?}: {text}");
    }
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("config.yaml");
    for yaml in [
        "nats: {user: u, password: 'pl4nted",
        "nats:\n  user: u\n  password: *pl4nted\n",
        "nats:\n  user: u\n  password: @pl4nted\n",
        "nats:\n  user: u\n  password: \"pl4nted\\q\"\n",
        "nats:\n  user: u\n password: pl4nted\n",
        "nats:\n  user: u\n  password: [pl4nted]\n",
        "nats:\n  user: u\n  password: {pl4nted: 1}\n",
        "nats:\n  user: u\n  password: {pl4nted}\n",
        "nats:\n  user: u\n  password: {a: {pl4nted: x}}\n",
        "nats:\n  password: pl4nted\n  password: pl4nted\n",
        "nats:\n  token: !pl4nted pl4nted\n",
        "pl4nted",
    ] {
        std::fs::write(&file, yaml).unwrap();
        let settings = settings(&[("nats.url", "nats://127.0.0.1:1"), ("start_timeout", "1s")]);
        let (status, text) = said(yaml, &settings, &["run", "--config", file.to_str().unwrap()]);
        // Some of it may be YAML after all: then it is the server that cannot be reached.
        assert!(matches!(status, Some(69 | 78)), "{yaml}: {text}");
    }
}

/// Events with planted values that are published, and others that can never be.
fn events() -> Vec<Vec<u8>> {
    let (_, payload) = event(1, "CID1");
    let good: Value = serde_json::from_slice(&payload).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut event = good.clone();
        event["record"]["status"] = format!("{PLANTED}-value").into();
        event["changes"]["status"] = format!("{PLANTED}-old").into();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        event.pointer_mut(parent).unwrap()[field] = value;
        event.to_string().into_bytes()
    };
    let planted = json!(format!("{PLANTED}-odd"));
    let mut events = vec![
        with("/record/message_obj", json!({ "text": format!("{PLANTED}-text") })),
        with("/record/unknown_column", planted.clone()),
        with("/record/is_deleted", planted.clone()),
        with("/record/unread_count", json!([planted])),
        with("/record/message_timestamp", planted.clone()),
        with("/record/message_date", planted.clone()),
        with("/record/company_id", Value::Null),
        with("/record/message_id", json!({ PLANTED: planted })),
        with("/metadata/commit_timestamp", planted.clone()),
        with("/metadata/commit_lsn", planted.clone()),
        with("/metadata/commit_idx", planted.clone()),
        with("/action", planted.clone()),
        with("/record", planted.clone()),
        with("/changes", planted.clone()),
        with("/metadata", planted),
    ];
    let whole = events[0].clone();
    events.push(whole[..whole.len() / 2].to_vec());
    events.push([&whole[..], PLANTED.as_bytes()].concat());
    events.push([PLANTED.as_bytes(), b"\xff\xfe"].concat());
    events
}

/// A service in trouble, and everything it shows to whoever asks.
struct Watched(Service);

impl Watched {
    fn look(&self) {
        for path in ["/", "/status.json", "/readyz", "/healthz", "/metrics", "/no/such/page"] {
            hidden(path, &self.0.get(path).1);
        }
        hidden("the log", &self.0.log().text());
    }

    /// Looks until the log says so often enough.
    fn until(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.0.log().text().contains(text) {
            assert!(Instant::now() < deadline, "never said {text:?}");
            self.look();
            std::thread::yield_now();
        }
        self.look();
    }

    fn until_ready(&self, ready: bool) {
        let deadline = Instant::now() + PATIENCE;
        while (self.0.get("/readyz").0 == 200) != ready {
            assert!(Instant::now() < deadline, "readiness never was {ready}");
            self.look();
        }
    }
}

#[tokio::test]
async fn no_trouble_shows_a_secret_or_a_value() {
    let logins = |password: &str| {
        format!(
            "authorization {{ users: [ {{user: cdc, password: \"{password}\"}}, {{user: test, password: test}} ] }}"
        )
    };
    let mut nats = NatsServer::start_with(&nats_servers()[0], &logins(PASSWORD));
    let mut redis = RedisServer::start_with(&["--requirepass", PASSWORD]);
    let (at, redis_at) = (nats.url().replace("://", &format!("://cdc:{PASSWORD}@")), redis.url());
    let service = Watched(Service::start(&settings(&[
        ("nats.url", &at),
        ("dedup.url", &redis_at),
        ("dedup.password", PASSWORD),
        ("http.listen", "127.0.0.1:0"),
        ("log.level", "trace"),
        ("retry.max", "200ms"),
    ])));
    let test = async_nats::ConnectOptions::with_user_and_password("test".to_owned(), "test".to_owned());
    let test = test.connect(nats.url()).await.unwrap();
    let feed = async || {
        for payload in events() {
            test.publish("sequin.changes.daisi_db.daisi.messages.update", payload.into()).await.unwrap();
        }
        test.flush().await.unwrap();
    };
    feed().await;
    for reason in ["not_json", "wrong_shape", "missing_routing"] {
        service.until(reason);
    }
    redis.kill();
    feed().await;
    service.until_ready(false);
    redis.restart();
    service.until_ready(true);
    nats.reload(&logins("another"));
    service.until("authorization violation");
    nats.reload(&logins(PASSWORD));
    service.until_ready(true);
    nats.kill();
    service.until_ready(false);
    nats.restart();
    service.until_ready(true);
    hidden("the log of the whole life", &service.0.stop().text());
}

#[tokio::test]
async fn no_tripped_guard_shows_a_secret() {
    let (nats, mut redis) =
        (NatsServer::start(&nats_servers()[0]), RedisServer::start_with(&["--requirepass", PASSWORD]));
    let (at, redis_at) = (nats.url(), redis.url());
    let mut service = Watched(Service::start(&settings(&[
        ("nats.url", &at),
        ("dedup.url", &redis_at),
        ("dedup.password", PASSWORD),
        ("http.listen", "127.0.0.1:0"),
        ("log.level", "trace"),
        ("retry.max", "100ms"),
        ("guard.max_consecutive_failures", "3"),
        ("guard.min_duration", "0s"),
    ])));
    service.until_ready(true);
    redis.kill();
    let test = async_nats::connect(nats.url()).await.unwrap();
    for payload in events() {
        test.publish("sequin.changes.daisi_db.daisi.messages.update", payload.into()).await.unwrap();
    }
    test.flush().await.unwrap();
    assert_eq!(service.0.wait(), Some(70));
    hidden("the log", &service.0.log().text());
}

/// Run by the next test in a process of its own.
#[test]
#[ignore = "panics"]
fn panics() {
    privacy::tell_panics_on_standard_error();
    let text = format!("é{PASSWORD}");
    match std::env::var("PANIC").as_deref() {
        Ok("slice") => drop(text[1..].to_owned()),
        Ok("unwrap") => assert_eq!(text.parse::<u8>().map_err(|_| text), Ok(1)),
        _ => panic!("a fixed text"),
    }
}

#[test]
fn no_panic_shows_a_value() {
    for (how, told) in [("slice", "withheld"), ("unwrap", "withheld"), ("text", "a fixed text")] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "secrets::panics", "--nocapture"])
            .envs([("PANIC", how), ("RUST_BACKTRACE", "1")])
            .output()
            .unwrap();
        let text = [&child.stdout[..], &child.stderr].map(String::from_utf8_lossy).concat();
        hidden(how, &text);
        assert!(text.contains("panicked at tests/security/secrets.rs:") && text.contains(told), "{text}");
    }
}

#[test]
fn no_core_is_dumped() {
    let directory = TempDir::new().unwrap();
    let program = env!("CARGO_BIN_EXE_daisi-cdc-consumer");
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -c unlimited; exec {program}")])
        .current_dir(directory.path())
        .envs([("DAISI_CDC_NATS__URL", "nats://127.0.0.1:1"), ("DAISI_CDC_HTTP__LISTEN", "127.0.0.1:0")])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let limits = format!("/proc/{}/limits", child.id());
    let deadline = Instant::now() + PATIENCE;
    // Name, soft limit, hard limit, unit.
    let forbidden = |line: &str| {
        line.strip_prefix("Max core file size").is_some_and(|rest| rest.split_whitespace().eq(["0", "0", "bytes"]))
    };
    while !std::fs::read_to_string(&limits).unwrap().lines().any(forbidden) {
        assert!(Instant::now() < deadline, "core dumps are never forbidden");
        std::thread::yield_now();
    }
    let status = Command::new("sh").args(["-c", &format!("kill -ABRT {}", child.id())]).status().unwrap();
    assert!(status.success());
    let ended = child.wait().unwrap();
    assert_eq!(ended.signal(), Some(6));
    assert!(!ended.core_dumped() && std::fs::read_dir(directory.path()).unwrap().next().is_none(), "{ended:?}");
}
