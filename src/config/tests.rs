use std::io::Write;

use secrecy::ExposeSecret;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const MIB: u64 = 1 << 20;

/// Variables without their prefix.
type Variables = &'static [(&'static str, &'static str)];

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| (format!("DAISI_CDC_{name}"), (*value).to_owned())).collect()
}

fn load(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(None, env(pairs))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// The only problem of this environment, as (key, value, expected).
fn problem(pairs: &[(&str, &str)]) -> Problem {
    let mut problems = load(pairs).unwrap_err().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn the_file_in_the_repository_is_valid_and_holds_the_defaults_of_the_contract() {
    let config = load(&[]).unwrap();
    assert_eq!(config.nats.url[0].expose(), "nats://localhost:4222");
    assert_eq!(config.source.stream, "cdc_events_stream");
    assert_eq!(config.source.subjects, ["sequin.>"]);
    assert_eq!(config.source.consumer, "cdc_consumers");
    assert_eq!((config.source.ack_wait, config.source.max_ack_pending), (30 * SECOND, 5_000));
    assert_eq!((config.source.max_deliver, config.source.batch), (None, 500));
    assert_eq!(config.source.limits.max_age, Some(7 * DAY));
    assert_eq!((config.target.stream.as_str(), config.target.subject_prefix.as_str()), ("wa_stream", "wa"));
    assert_eq!(config.target.duplicate_window, 120 * SECOND);
    assert_eq!(config.dead_letter.subject_prefix, "cdc.dead_letters");
    assert_eq!(config.dead_letter.suspect_after, 5);
    assert_eq!((config.dedup.ttl, config.dedup.key_prefix.as_str()), (300 * SECOND, "dedup:"));
    assert_eq!((config.workers, config.in_flight.messages, config.in_flight.bytes), (0, 4_096, 64 * MIB));
    assert_eq!(config.retry.initial, Duration::from_millis(50));
    assert_eq!((config.guard.max_consecutive_failures, config.guard.max_duration), (100, 900 * SECOND));
    assert_eq!((config.shutdown.grace, config.start_timeout), (25 * SECOND, 60 * SECOND));
    assert_eq!(config.tables.agents.unhandled_fields, UnhandledFields::Keep);
    assert_eq!(config.warnings(), &[] as &[String]);
}

#[test]
fn every_setting_is_in_the_file_with_a_comment_and_is_read() {
    let (_, read) = Config::load_noting_keys(None, [], Whereabouts::There, &mut TableNames::default());
    let mut problems = Vec::new();
    let known: BTreeSet<String> = Layers::read(None, [], &mut problems).all().into_keys().collect();
    assert_eq!(known, read);
    for line in DEFAULTS.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim_end().ends_with(':')) {
        assert!(line.trim().is_empty() || line.contains(" # "), "no comment: {line}");
    }
}

#[test]
fn the_environment_overrides_the_file_and_the_file_the_defaults() {
    let file = file(
        "workers: 3\nsource:\n  batch: 7\n  subjects: [a.>, b.*]\nnats:\n  # all commented out\ntarget:\n  max_age: ~\n",
    );
    let set =
        env(&[("SOURCE__BATCH", "9"), ("TABLES__MESSAGES__UNHANDLED_FIELDS", "drop"), ("IN_FLIGHT__BYTES", "64MB")]);
    let config = Config::load(Some(file.path()), set).unwrap();
    assert_eq!((config.workers, config.source.batch), (3, 9));
    assert_eq!(config.source.subjects, ["a.>", "b.*"]);
    assert_eq!(config.tables.messages.unhandled_fields, UnhandledFields::Drop);
    assert_eq!(config.tables.chats.unhandled_fields, UnhandledFields::Keep);
    assert_eq!(config.in_flight.bytes, 64_000_000);
    assert_eq!(config.target.limits.max_age, None);
    let lists = load(&[("NATS__URL", "nats://a:1, tls://b"), ("SOURCE__SUBJECTS", "x,y.>")]).unwrap();
    assert_eq!(lists.nats.url.iter().map(ServerUrl::expose).collect::<Vec<_>>(), ["nats://a:1", "tls://b"]);
    assert_eq!(lists.source.subjects, ["x", "y.>"]);
}

#[test]
fn every_problem_is_reported_at_once_with_key_value_origin_and_what_is_allowed() {
    let file = file("workers: many\nlog: {level: loud}\nsourse: {batch: 1}\n");
    let error = Config::load(Some(file.path()), env(&[("RETRY__MAX", "-1s"), ("RETRY__MIX", "1s")])).unwrap_err();
    let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 5, "{lines:#?}");
    let has =
        |parts: &[&str]| assert!(lines.iter().any(|l| parts.iter().all(|p| l.contains(p))), "{parts:?} {lines:#?}");
    let path = file.path().display().to_string();
    has(&["workers = \"many\"", &path, "a whole number from 0 to 1024"]);
    has(&["log.level = \"loud\"", "trace, debug, info"]);
    has(&["sourse.batch", "source", "target"]);
    has(&["retry.max = \"-1s\"", "environment DAISI_CDC_RETRY__MAX", "from 1ms to 1h"]);
    has(&["retry.mix", "DAISI_CDC_RETRY__MIX", "retry has initial, max, refused_for"]);
}

#[test]
fn a_mapping_with_nothing_in_it_is_a_value_like_any_other() {
    for key in Layers::read(None, [], &mut Vec::new()).defaults.into_keys() {
        let depth = key.matches('.').count();
        let file = file(&format!("{}: {{}}{}", key.replace('.', ": {"), "}".repeat(depth)));
        let problems = Config::load(Some(file.path()), []).expect_err(&key).problems;
        assert!(matches!(&problems[..], [only] if only.key == key && only.line == Some(1)), "{key}: {problems:?}");
    }
    for (text, key) in [
        ("foo: {}", "foo"),
        ("tabels: {orders: {}}", "tabels.orders"),
        ("nats: {tokn: {}}", "nats.tokn"),
        ("nats: {password: {x: {}}}", "nats.password"),
        ("tables: {orders: {}}", "tables.orders"),
        ("tables: {messages: {colums: {}}}", "tables.messages.colums"),
        ("tables: {contacts: {renam: {}}}", "tables.contacts.renam"),
    ] {
        let problems = Config::load(Some(file(text).path()), []).expect_err(text).problems;
        assert!(matches!(&problems[..], [only] if only.key == key), "{text}: {problems:?}");
    }
    // A section in which every line is commented out says nothing.
    for text in ["{}", "nats: {}", "nats: {tls: {}}", "tables: {}", "tables: {messages: {}, contacts: {}}"] {
        let loaded = Config::load(Some(file(text).path()), []);
        assert!(loaded.is_ok(), "{text}: {}", loaded.unwrap_err());
    }
}

#[test]
fn each_kind_of_bad_value_names_its_key() {
    let cases = [
        ("LOG__FORMAT", "xml", "json, terminal"),
        ("HTTP__LISTEN", "localhost", "IP address and port"),
        ("NATS__URL", "http://x", "nats://host"),
        ("NATS__URL", "", "at least one"),
        ("NATS__URL", "nats://h:port", "nats://host"),
        ("NATS__TLS__REQUIRED", "perhaps", "true or false"),
        ("NATS__TLS__CA_FILE", "/no/such/file", "readable file"),
        ("NATS__CREDENTIALS_FILE", "/no/such/file", "readable file"),
        ("NATS__INBOX_PREFIX", "a.*", "no wildcards"),
        ("SOURCE__STREAM", "a.b", "without"),
        ("SOURCE__STREAM", "", "1 to 255"),
        ("SOURCE__CONSUMER", "a b", "white space"),
        ("SOURCE__SUBJECTS", "a..b", "tokens"),
        ("SOURCE__SUBJECTS", "a.>.b", "tokens"),
        ("SOURCE__SUBJECTS", "a.>,a.b", "do not overlap"),
        ("SOURCE__ACK_WAIT", "30", "duration"),
        ("SOURCE__BATCH", "0", "from 1 to 10000"),
        ("SOURCE__BATCH", "1.5", "whole number"),
        ("SOURCE__MAX_DELIVER", "0", "-1"),
        ("SOURCE__MAX_BYTES", "64MX", "size"),
        ("SOURCE__REPLICAS", "6", "from 1 to 5"),
        ("SOURCE__STORAGE", "disk", "file, memory"),
        ("SOURCE__RETENTION", "none", "workqueue"),
        ("TARGET__SUBJECT_PREFIX", "wa.>", "no wildcards"),
        ("TARGET__UNSAFE_TOKENS", "maybe", "encode, reject"),
        ("TARGET__DISCARD", "all", "old, new"),
        ("DEAD_LETTER__SUSPECT_AFTER", "1", "from 2"),
        ("DEDUP__STORE", "disk", "redis, memory"),
        ("DEDUP__URL", "redis://h/abc", "redis://host"),
        ("DEDUP__KEY_PREFIX", "a\nb", "visible ASCII"),
        ("IN_FLIGHT__BYTES", "1MiB", "from 2MiB"),
        ("TABLES__CHATS__ENABLED", "2", "true or false"),
        ("START_TIMEOUT", "never", "duration"),
    ];
    for (name, value, expected) in cases {
        let found = problem(&[(name, value)]);
        assert_eq!(found.key, name.to_lowercase().replace("__", "."));
        assert_eq!(found.origin, Origin::Environment(format!("DAISI_CDC_{name}")));
        assert!(found.expected.contains(expected), "{name}={value}: {}", found.expected);
    }
}

#[test]
fn impossible_combinations_are_refused() {
    let cases: &[(Variables, &str, &str)] = &[
        (&[("SOURCE__ACK_WAIT", "61s")], "target.duplicate_window", "twice source.ack_wait"),
        (&[("TARGET__MAX_AGE", "1m")], "target.duplicate_window", "at most target.max_age (1m)"),
        (&[("RETRY__INITIAL", "11s")], "retry.initial", "at most retry.max"),
        (&[("GUARD__MIN_DURATION", "16m")], "guard.min_duration", "at most guard.max_duration"),
        (&[("TARGET__STREAM", "cdc_events_stream")], "target.stream", "a stream of its own"),
        (&[("DEAD_LETTER__SUBJECT_PREFIX", "wa.dead")], "dead_letter.subject_prefix", "do not overlap"),
        (&[("TARGET__SUBJECT_PREFIX", "sequin.out")], "target.subject_prefix", "source.subjects"),
        (&[("NATS__USER", "u")], "nats.password", "together"),
        (&[("NATS__PASSWORD", "p")], "nats.user", "together"),
        (&[("NATS__TOKEN", "t"), ("NATS__URL", "nats://u:p@h")], "nats.url", "one way to authenticate"),
        (
            &[
                ("TABLES__MESSAGES__ENABLED", "false"),
                ("TABLES__CHATS__ENABLED", "false"),
                ("TABLES__AGENTS__ENABLED", "false"),
            ],
            "tables.messages.enabled",
            "at least one table",
        ),
    ];
    for (pairs, key, expected) in cases {
        let found = problem(pairs);
        assert_eq!(found.key, *key, "{pairs:?}");
        assert!(found.expected.contains(expected), "{}", found.expected);
    }
    // An existing stream may be filtered as widely as wanted.
    load(&[("SOURCE__SUBJECTS", ">"), ("SOURCE__CREATE", "false")]).unwrap();
}

#[test]
fn a_setting_that_is_wrong_by_itself_causes_no_further_problems() {
    assert_eq!(problem(&[("SOURCE__ACK_WAIT", "9h")]).key, "source.ack_wait");
    assert_eq!(problem(&[("RETRY__MAX", "x"), ("RETRY__INITIAL", "1m")]).key, "retry.max");
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let secret = file("hunter2\n");
    let path = secret.path().to_str().unwrap();
    let config = load(&[
        ("NATS__USER", "svc"),
        ("NATS__PASSWORD_FILE", path),
        ("DEDUP__URL", "rediss://user:hunter2@cache:6380/1"),
    ])
    .unwrap();
    let NatsAuth::Password { user, password } = &config.nats.auth else { panic!("{:?}", config.nats.auth) };
    assert_eq!((user.as_str(), password.read().unwrap().expose_secret()), ("svc", "hunter2"));
    assert_eq!(config.dedup.url.expose(), "rediss://user:hunter2@cache:6380/1");
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.dedup.url.to_string(), "rediss://***@cache:6380/1");

    let both = load(&[("NATS__USER", "u"), ("NATS__PASSWORD", "hunter2"), ("NATS__PASSWORD_FILE", path)]).unwrap_err();
    assert!(both.to_string().contains("only one of nats.password and nats.password_file"), "{both}");
    let twice = problem(&[("DEDUP__URL", "redis://:hunter2@h"), ("DEDUP__PASSWORD_FILE", path)]);
    assert_eq!(twice.key, "dedup.url");
    let twice = problem(&[("DEDUP__URL", "redis://me@h"), ("DEDUP__USER", "me")]);
    assert_eq!(twice.key, "dedup.url");
    for (name, value) in [
        ("NATS__URL", "nats://a:hunter2@h:x"),
        ("NATS__URL", "nats://u:12,hunter2@h"),
        ("NATS__URL", "hunter2@h"),
        ("DEDUP__URL", "redis://:hunter2"),
        ("DEDUP__URL", "redis://:a hunter2@h"),
        ("DEDUP__URL", "reddis://h?password=hunter2"),
        ("NATS__PASWORD", "hunter2"),
        ("NATS", "hunter2"),
        ("NATS__PASSWORD__X", "hunter2"),
        ("NATS__PASSWORD", "hunter2"),
    ] {
        let error = load(&[(name, value)]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let numeric = file("nats: {user: u, password: 8675309}\n");
    let error = Config::load(Some(numeric.path()), []).unwrap_err().to_string();
    assert!(error.contains("quotes") && !error.contains("8675309"), "{error}");
}

#[test]
fn every_way_to_authenticate_is_understood() {
    let secret = file("SECRET\r\n");
    let path = secret.path().to_str().unwrap();
    let auth = |name: &str| load(&[(name, path)]).unwrap().nats.auth;
    assert!(matches!(auth("NATS__TOKEN_FILE"), NatsAuth::Token(t) if t.read().unwrap().expose_secret() == "SECRET"));
    assert!(
        matches!(auth("NATS__NKEY_SEED_FILE"), NatsAuth::NkeySeed(t) if t.read().unwrap().expose_secret() == "SECRET")
    );
    assert!(
        matches!(auth("NATS__CREDENTIALS_FILE"), NatsAuth::Credentials(t) if t.read().unwrap().expose_secret() == "SECRET")
    );
    let empty = file("\n");
    let found = problem(&[("NATS__TOKEN_FILE", empty.path().to_str().unwrap())]);
    assert!(found.expected.contains("not empty"));
    let pair = load(&[("NATS__TLS__CERT_FILE", path), ("NATS__TLS__KEY_FILE", path)]).unwrap();
    assert!(pair.nats.tls.client.is_some());
    assert_eq!(problem(&[("NATS__TLS__CERT_FILE", path)]).key, "nats.tls.key_file");
    assert_eq!(problem(&[("NATS__TLS__KEY_FILE", path)]).key, "nats.tls.cert_file");
}

#[test]
fn redis_is_reached_by_tcp_tls_and_unix_socket() {
    let certificate = file("PEM");
    let path = certificate.path().to_str().unwrap();
    for url in ["redis://h", "rediss://me:hunter2@h:1/2", "redis+unix:///run/redis.sock", "redis+unix:///s?db=3"] {
        assert_eq!(load(&[("DEDUP__URL", url)]).unwrap().dedup.url.expose(), url);
    }
    for url in ["unix:///s", "redis+unix://s", "redis+unix:///s?pass=x", "redis+unix:///", "rediss://h#insecure"] {
        assert_eq!(problem(&[("DEDUP__URL", url)]).key, "dedup.url", "{url}");
    }
    let tls = [("DEDUP__TLS__CA_FILE", path), ("DEDUP__TLS__CERT_FILE", path), ("DEDUP__TLS__KEY_FILE", path)];
    let config = load(&[&tls[..], &[("DEDUP__URL", "rediss://h")]].concat()).unwrap();
    assert!(config.dedup.tls.ca_file.is_some() && config.dedup.tls.client.is_some());
    assert!(problem(&tls[..1]).expected.contains("rediss://"), "certificates ask for TLS");
    assert_eq!(problem(&[("DEDUP__URL", "rediss://h"), tls[1]]).key, "dedup.tls.key_file");
}

#[test]
fn a_file_that_cannot_be_used_is_a_problem() {
    let missing = Config::load(Some(Path::new("/no/such/config.yaml")), []).unwrap_err().to_string();
    assert!(missing.contains("/no/such/config.yaml") && missing.contains("readable file"), "{missing}");
    for text in ["a: [", "- a\n- b\n", "just text", "a: 1\n---\nb: 2\n"] {
        let broken = file(text);
        let error = Config::load(Some(broken.path()), []).unwrap_err();
        assert_eq!(error.problems[0].key, "configuration", "{error}");
        assert!(!error.to_string().contains("just text"), "may be a secret: {error}");
    }
    for text in ["", "# nothing\n\n", "---\n# nothing\n"] {
        let empty = file(text);
        Config::load(Some(empty.path()), []).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    }
}

#[test]
fn variables_that_kubernetes_makes_for_services_are_no_settings() {
    load(&[
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "8080"),
        ("CONSUMER_SERVICE_PORT_HTTP", "8080"),
        ("CONSUMER_PORT", "tcp://10.0.0.1:8080"),
        ("CONSUMER_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("CONSUMER_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ])
    .unwrap();
    assert_eq!(problem(&[("WORKER", "1")]).key, "worker");
    assert_eq!(problem(&[("NATS_URL", "nats://h")]).origin, Origin::Environment("DAISI_CDC_NATS_URL".into()));
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let warned = |pairs: &[(&str, &str)], text: &str| {
        let config = load(pairs).unwrap();
        assert!(config.warnings().iter().any(|w| w.contains(text)), "{:?}", config.warnings());
    };
    warned(&[("DEDUP__TTL", "1m")], "dedup.ttl");
    warned(&[("IN_FLIGHT__MESSAGES", "100")], "source.batch");
    warned(&[("SOURCE__MAX_ACK_PENDING", "100")], "source.max_ack_pending");
    warned(&[("SOURCE__MAX_DELIVER", "3")], "source.max_deliver");
    warned(&[("DEDUP__STORE", "memory")], "memory");
    warned(&[("DEDUP__WHEN_UNAVAILABLE", "bypass")], "bypass");
    warned(&[("NATS__URL", "nats://h"), ("NATS__TOKEN", "t")], "NATS is sent unencrypted");
    warned(&[("NATS__URL", "nats://localhost,nats://t@h")], "NATS is sent unencrypted");
    warned(&[("DEDUP__URL", "redis://h"), ("DEDUP__PASSWORD", "p")], "Redis is sent unencrypted");
    for encrypted in [
        [("NATS__URL", "nats://a,tls://b"), ("NATS__TOKEN", "t")],
        [("NATS__URL", "nats://127.0.0.1"), ("NATS__TOKEN", "t")],
        [("DEDUP__URL", "rediss://h"), ("DEDUP__PASSWORD", "p")],
        [("DEDUP__URL", "redis+unix:///s"), ("DEDUP__PASSWORD", "p")],
    ] {
        assert!(load(&encrypted).unwrap().warnings().is_empty(), "{encrypted:?}");
    }
}

#[test]
fn sizes_are_binary_or_decimal_and_never_guessed() {
    for (text, bytes) in [("0", 0), ("12", 12), ("1kB", 1_000), ("1 KiB", 1_024), ("2MiB", 2 << 20), ("3tib", 3 << 40)]
    {
        assert_eq!(values::size(text), Some(bytes), "{text}");
    }
    for text in ["", "MiB", "-1", "1.5MiB", "1M", "99999999999TiB", "1 2"] {
        assert_eq!(values::size(text), None, "{text}");
    }
}

#[test]
fn urls_are_shown_without_secrets() {
    for (url, shown) in [
        ("nats://localhost:4222", "nats://localhost:4222"),
        ("nats://token@h:1", "nats://***@h:1"),
        ("redis://:p@ss/w?rd@h:1/0", "redis://***@h:1/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://h/0?password=x", "redis://h/0?***"),
    ] {
        assert_eq!(redact_url(url), shown);
    }
    assert_eq!(redact_text("cannot reach redis://:x@h: refused"), "cannot reach redis://***@h: refused");
}

#[test]
fn what_is_in_force_is_shown_with_its_origin_and_without_secrets() {
    let file = file("nats:\n  user: svc\n  password: s3cret1\nsource:\n  subjects: [a.>, b.*]\n");
    let set = env(&[("DEDUP__URL", "redis://app:s3cret2@redis:6379/1"), ("WORKERS", "3")]);
    let config = Config::load(Some(file.path()), set).unwrap();
    let shown = |key: &str| {
        let found = config.in_force().iter().find(|setting| setting.key == key).unwrap();
        (found.value.as_str(), found.origin.as_str())
    };
    let from_file = format!("file {}", file.path().display());
    assert_eq!(shown("nats.password"), ("***", from_file.as_str()));
    assert_eq!(shown("nats.user"), ("svc", from_file.as_str()));
    assert_eq!(shown("source.subjects"), ("a.>,b.*", from_file.as_str()));
    assert_eq!(shown("dedup.url"), ("redis://***@redis:6379/1", "environment DAISI_CDC_DEDUP__URL"));
    assert_eq!(shown("workers"), ("3", "environment DAISI_CDC_WORKERS"));
    assert_eq!((shown("nats.token"), shown("source.batch")), (("null", "default"), ("500", "default")));
    assert!(!format!("{:?}", config.in_force()).contains("s3cret"));
    let (_, known) = Config::load_noting_keys(None, [], Whereabouts::There, &mut TableNames::default());
    assert!(config.in_force().iter().map(|setting| &setting.key).eq(&known), "every setting, by key");
}
