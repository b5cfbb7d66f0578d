//! Which setting is read from which key, in which range.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::secret::Secret;

use super::reader::Reader;
use super::reload::{Digests, TableNames};
use super::tables;
use super::values::{self, ServerUrl, UnhandledFields};
use super::{
    ClientCertificate, Config, DeadLetter, Dedup, Guard, Http, InFlight, Log, Nats, NatsAuth, NatsTls, RedisTls, Retry,
    Shutdown, Source, StreamLimits, Table, Tables, Target,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Reads every setting.
pub(super) fn config(r: &mut Reader<'_>) -> Config {
    // An absent address has been reported as a problem; the configuration is then not used.
    let listen = r.address("http.listen").unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    Config {
        log: Log { level: r.choice("log.level"), format: r.choice("log.format") },
        http: Http { listen },
        nats: nats(r),
        source: source(r),
        target: target(r),
        dead_letter: DeadLetter {
            stream: r.text("dead_letter.stream", values::nats_name),
            subject_prefix: r.text("dead_letter.subject_prefix", values::subject_prefix),
            suspect_after: r.integer("dead_letter.suspect_after", 2..=1_000),
            limits: limits(r, "dead_letter"),
        },
        dedup: dedup(r),
        workers: r.integer("workers", 0..=1_024),
        in_flight: InFlight {
            messages: r.integer("in_flight.messages", 1..=1_000_000),
            bytes: r.size("in_flight.bytes", 2 * MIB..=TIB),
        },
        retry: Retry {
            initial: r.duration("retry.initial", Duration::from_millis(1)..=HOUR),
            max: r.duration("retry.max", Duration::from_millis(1)..=HOUR),
            refused_for: r.duration("retry.refused_for", SECOND..=DAY),
        },
        guard: Guard {
            max_consecutive_failures: r.integer("guard.max_consecutive_failures", 1..=i64::MAX.unsigned_abs()),
            min_duration: r.duration("guard.min_duration", Duration::ZERO..=DAY),
            max_duration: r.duration("guard.max_duration", Duration::ZERO..=7 * DAY),
        },
        shutdown: Shutdown { grace: r.duration("shutdown.grace", Duration::ZERO..=HOUR) },
        start_timeout: r.duration("start_timeout", SECOND..=HOUR),
        tables: Tables {
            messages: table(r, "messages"),
            chats: table(r, "chats"),
            agents: table(r, "agents"),
            declared: tables::declared(r),
        },
        warnings: Vec::new(),
        in_force: Vec::new(),
        digests: Digests::default(),
        names: TableNames::default(),
    }
}

fn nats(r: &mut Reader<'_>) -> Nats {
    let url = r.list("nats.url", values::nats_url);
    let tls = NatsTls {
        ca_file: r.file("nats.tls.ca_file"),
        client: client_certificate(r, "nats.tls"),
        required: r.flag("nats.tls.required"),
        first: r.flag("nats.tls.first"),
    };
    let inbox_prefix = r.optional_text("nats.inbox_prefix", values::subject_prefix);
    Nats { auth: nats_auth(r, &url), url, tls, inbox_prefix }
}

fn client_certificate(r: &mut Reader<'_>, section: &str) -> Option<ClientCertificate> {
    let (cert, key) = (format!("{section}.cert_file"), format!("{section}.key_file"));
    let (cert_file, key_file) = (r.file(&cert), r.file(&key));
    if r.sound(&[&cert, &key]) {
        match (&cert_file, &key_file) {
            (Some(_), None) => r.refuse(&key, format!("a file, since {cert} is set")),
            (None, Some(_)) => r.refuse(&cert, format!("a file, since {key} is set")),
            _ => {}
        }
    }
    Some(ClientCertificate { cert_file: cert_file?, key_file: key_file? })
}

fn nats_auth(r: &mut Reader<'_>, url: &[ServerUrl]) -> NatsAuth {
    let user = r.optional_text("nats.user", |_| Ok(()));
    let password = either(r, "nats.password", "nats.password_file");
    let token = either(r, "nats.token", "nats.token_file");
    let seed = r.secret_file("nats.nkey_seed_file");
    let credentials = r.secret_file("nats.credentials_file");

    let keys = ["nats.user", "nats.password", "nats.password_file", "nats.token", "nats.token_file"];
    if !r.sound(&keys) || !r.sound(&["nats.url", "nats.nkey_seed_file", "nats.credentials_file"]) {
        return NatsAuth::None;
    }
    let password_key = if user.is_none() { "nats.user" } else { "nats.password" };
    if user.is_some() != password.is_some() {
        r.refuse(password_key, "nats.user together with nats.password or nats.password_file");
    }
    let ways = [
        ("nats.user", user.is_some()),
        ("nats.token", token.is_some()),
        ("nats.nkey_seed_file", seed.is_some()),
        ("nats.credentials_file", credentials.is_some()),
        ("nats.url", url.iter().any(ServerUrl::has_credentials)),
    ];
    let mut used = ways.iter().filter(|(_, used)| *used).map(|(key, _)| *key);
    if let (Some(first), Some(second)) = (used.next(), used.next()) {
        r.refuse(second, format!("one way to authenticate, and {first} is set as well"));
    }
    match (user.zip(password), token, seed, credentials) {
        (Some((user, password)), ..) => NatsAuth::Password { user, password },
        (_, Some(token), ..) => NatsAuth::Token(token),
        (_, _, Some(seed), _) => NatsAuth::NkeySeed(seed),
        (_, _, _, Some(credentials)) => NatsAuth::Credentials(credentials),
        _ => NatsAuth::None,
    }
}

/// A secret that is given itself or in a file, not both.
fn either(r: &mut Reader<'_>, key: &str, file_key: &str) -> Option<Secret> {
    let (given, from_file) = (r.secret(key), r.secret_file(file_key));
    if given.is_some() && from_file.is_some() {
        r.refuse(file_key, format!("only one of {key} and {file_key}"));
    }
    given.or(from_file)
}

fn source(r: &mut Reader<'_>) -> Source {
    Source {
        stream: r.text("source.stream", values::nats_name),
        subjects: r.list("source.subjects", values::subject_filter),
        consumer: r.text("source.consumer", values::nats_name),
        ack_wait: r.duration("source.ack_wait", SECOND..=HOUR),
        max_ack_pending: r.integer("source.max_ack_pending", 1..=1_000_000),
        max_deliver: max_deliver(r),
        batch: r.integer("source.batch", 1..=10_000),
        stalled_after: r.optional_duration("source.stalled_after", 5 * SECOND..=DAY),
        create: r.flag("source.create"),
        retention: r.choice("source.retention"),
        limits: limits(r, "source"),
    }
}

fn max_deliver(r: &mut Reader<'_>) -> Option<i64> {
    match r.integer("source.max_deliver", -1..=1_000_000_000) {
        -1 => None,
        0 => {
            r.refuse("source.max_deliver", "-1 for no limit, or at least 1");
            None
        }
        limit => Some(limit),
    }
}

fn target(r: &mut Reader<'_>) -> Target {
    Target {
        stream: r.text("target.stream", values::nats_name),
        subject_prefix: r.text("target.subject_prefix", values::subject_prefix),
        duplicate_window: r.duration("target.duplicate_window", SECOND..=365 * DAY),
        create: r.flag("target.create"),
        unsafe_tokens: r.choice("target.unsafe_tokens"),
        limits: limits(r, "target"),
        discard: r.choice("target.discard"),
    }
}

fn limits(r: &mut Reader<'_>, section: &str) -> StreamLimits {
    StreamLimits {
        max_age: r.optional_duration(&format!("{section}.max_age"), SECOND..=36_500 * DAY),
        max_bytes: r.optional_size(&format!("{section}.max_bytes"), MIB..=i64::MAX.unsigned_abs()),
        replicas: r.integer(&format!("{section}.replicas"), 1..=5),
        storage: r.choice(&format!("{section}.storage")),
    }
}

fn dedup(r: &mut Reader<'_>) -> Dedup {
    let url = r.parsed("dedup.url", values::redis_url);
    let user = r.optional_text("dedup.user", |_| Ok(()));
    let password = either(r, "dedup.password", "dedup.password_file");
    if password.is_some() && url.has_password() {
        r.refuse("dedup.url", "a password either here or in dedup.password or dedup.password_file, not in both");
    }
    if user.is_some() && url.has_user() {
        r.refuse("dedup.url", "a user either here or in dedup.user, not in both");
    }
    let tls = RedisTls { ca_file: r.file("dedup.tls.ca_file"), client: client_certificate(r, "dedup.tls") };
    if (tls.ca_file.is_some() || tls.client.is_some()) && !url.expose().starts_with("rediss://") {
        r.refuse("dedup.url", "a rediss:// URL, since dedup.tls is set");
    }
    Dedup {
        store: r.choice("dedup.store"),
        url,
        user,
        password,
        tls,
        ttl: r.duration("dedup.ttl", SECOND..=365 * DAY),
        key_prefix: r.text("dedup.key_prefix", |prefix| {
            let printable = prefix.chars().all(|c| c.is_ascii_graphic()) && prefix.len() <= 64;
            if printable { Ok(()) } else { Err("at most 64 visible ASCII characters".to_owned()) }
        }),
        record_patience: r.duration("dedup.record_patience", Duration::ZERO..=HOUR),
        when_unavailable: r.choice("dedup.when_unavailable"),
        memory_max_entries: r.integer("dedup.memory_max_entries", 1..=1_000_000_000),
    }
}

fn table(r: &mut Reader<'_>, name: &str) -> Table {
    if r.is_declared(name) {
        return Table { enabled: false, unhandled_fields: UnhandledFields::default() };
    }
    Table {
        enabled: r.flag(&format!("tables.{name}.enabled")),
        unhandled_fields: r.choice(&format!("tables.{name}.unhandled_fields")),
    }
}
