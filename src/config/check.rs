//! Settings held against each other.

use super::reader::{Reader, Tenant};
use super::values::written_duration;
use super::{Config, DedupKind, NatsAuth, ServerUrl, Tables, WhenUnavailable};
use crate::domain::overlap;

/// Refuses what cannot work together, naming the setting that is most likely to be changed.
pub(super) fn combinations(config: &Config, r: &mut Reader<'_>) {
    duplicate_window(config, r);
    order(config, r);
    streams(config, r);
    subjects(config, r);
    tables(&config.tables, r);
}

/// Tables that may be enabled at once: each has series of its own.
const MOST_TABLES: usize = 64;

fn tables(tables: &Tables, r: &mut Reader<'_>) {
    let typed = [tables.messages, tables.chats, tables.agents].iter().filter(|table| table.enabled).count();
    let mut enabled = r.tenants();
    enabled.retain(|tenant| tenant.enabled);
    if typed + enabled.len() == 0 {
        r.refuse("tables.messages.enabled", "at least one table to be enabled, or every event would be thrown away");
    }
    let mut tenant = (typed > 0).then_some(("company_id", "the tables with typed rows"));
    for (number, Tenant { table: name, value, .. }) in enabled.iter().enumerate() {
        let subject = format!("tables.{name}.subject");
        if typed + number >= MOST_TABLES {
            r.refuse(&format!("tables.{name}.enabled"), format!("at most {MOST_TABLES} enabled tables"));
        }
        match (tenant, value.as_deref()) {
            (Some((tenant, whose)), Some(own)) if own != tenant => {
                let expected = format!(
                    "{{{tenant}}} behind {{prefix}}, as in the subjects of {whose}: \
                     it tells tenants apart, and a row must not reach the subjects of another"
                );
                r.refuse(&subject, expected);
            }
            (None, Some(own)) => tenant = Some((own, name)),
            _ => {}
        }
    }
}

fn duplicate_window(config: &Config, r: &mut Reader<'_>) {
    let (window, wait) = (config.target.duplicate_window, config.source.ack_wait);
    if r.sound(&["target.duplicate_window", "source.ack_wait"]) && window < 2 * wait {
        let (least, wait) = (written_duration(2 * wait), written_duration(wait));
        r.refuse(
            "target.duplicate_window",
            format!("at least {least}, twice source.ack_wait ({wait}): a redelivery must find its first attempt"),
        );
    }
    if let Some(age) = config.target.limits.max_age
        && r.sound(&["target.duplicate_window", "target.max_age"])
        && window > age
    {
        r.refuse("target.duplicate_window", format!("at most target.max_age ({})", written_duration(age)));
    }
}

fn order(config: &Config, r: &mut Reader<'_>) {
    if r.sound(&["retry.initial", "retry.max"]) && config.retry.initial > config.retry.max {
        r.refuse("retry.initial", format!("at most retry.max ({})", written_duration(config.retry.max)));
    }
    let guard = config.guard;
    if r.sound(&["guard.min_duration", "guard.max_duration"]) && guard.min_duration > guard.max_duration {
        r.refuse(
            "guard.min_duration",
            format!("at most guard.max_duration ({})", written_duration(guard.max_duration)),
        );
    }
}

fn streams(config: &Config, r: &mut Reader<'_>) {
    let names = [
        ("source.stream", &config.source.stream),
        ("target.stream", &config.target.stream),
        ("dead_letter.stream", &config.dead_letter.stream),
    ];
    for (at, (key, name)) in names.iter().enumerate() {
        let twin = names[..at].iter().find(|(other, same)| same == name && r.sound(&[key, other]));
        if let Some((other, _)) = twin {
            r.refuse(key, format!("a stream of its own, not the one of {other}"));
        }
    }
}

/// A server refuses streams and consumers whose subjects overlap, and a service that reads what it writes never ends.
fn subjects(config: &Config, r: &mut Reader<'_>) {
    if r.sound(&["source.subjects"]) {
        let subjects = &config.source.subjects;
        let twice = subjects.iter().enumerate().find_map(|(at, subject)| {
            subjects[..at].iter().find(|other| overlap(subject, other)).map(|other| (subject, other))
        });
        if let Some((subject, other)) = twice {
            r.refuse("source.subjects", format!("subjects that do not overlap; {other} and {subject} do"));
        }
    }
    let mut taken: Vec<(&str, Vec<String>)> = Vec::new();
    // The filter on an existing stream may be as wide as it likes; the subjects of one that we create may not.
    if config.source.create {
        taken.push(("source.subjects", config.source.subjects.clone()));
    }
    taken.push(("target.subject_prefix", vec![format!("{}.>", config.target.subject_prefix)]));
    taken.push(("dead_letter.subject_prefix", vec![format!("{}.>", config.dead_letter.subject_prefix)]));
    for at in 1..taken.len() {
        let (key, mine) = &taken[at];
        let clash = taken[..at].iter().find(|(other, theirs)| {
            r.sound(&[key, other]) && mine.iter().any(|a| theirs.iter().any(|b| overlap(a, b)))
        });
        if let Some((other, _)) = clash {
            r.refuse(key, format!("subjects that do not overlap those of {other}"));
        }
    }
}

/// What works, but probably not as intended.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |applies: bool, text: &str| {
        if applies {
            warnings.push(text.to_owned());
        }
    };
    let (source, dedup, in_flight) = (&config.source, &config.dedup, &config.in_flight);
    warn(
        dedup.ttl < config.target.duplicate_window,
        "dedup.ttl is shorter than target.duplicate_window: events are forgotten while the target still knows them",
    );
    warn(
        in_flight.messages < source.batch,
        "in_flight.messages is below source.batch: pulls are cut down to what may be in flight",
    );
    warn(
        usize::try_from(source.max_ack_pending).is_ok_and(|pending| pending < in_flight.messages),
        "source.max_ack_pending is below in_flight.messages: the server stops delivering before that many are in flight",
    );
    warn(
        source.max_deliver.is_some(),
        "source.max_deliver is limited: after an outage the server may stop delivering messages, and nothing will tell; -1 is safe",
    );
    warn(
        dedup.store == DedupKind::Memory,
        "dedup.store is memory: it is not shared with other replicas and forgets when the process ends",
    );
    warn(
        dedup.when_unavailable == WhenUnavailable::Bypass,
        "dedup.when_unavailable is bypass: while the store is away only target.duplicate_window prevents duplicates",
    );
    warn(
        password_in_clear(config),
        "a password or token for NATS is sent unencrypted unless the server asks for TLS: use tls:// or nats.tls.required",
    );
    warn(
        dedup.store == DedupKind::Redis
            && (dedup.password.is_some() || dedup.url.has_password())
            && !(dedup.url.is_encrypted() || dedup.url.stays_here()),
        "the password for Redis is sent unencrypted: use rediss://",
    );
    warnings
}

/// Whether what logs in to NATS is shown to everybody on the way. An NKey or a JWT only signs what the server asks.
fn password_in_clear(config: &Config) -> bool {
    let nats = &config.nats;
    let shown = match nats.auth {
        NatsAuth::Password { .. } | NatsAuth::Token(_) => true,
        NatsAuth::None => nats.url.iter().any(ServerUrl::has_credentials),
        NatsAuth::NkeySeed(_) | NatsAuth::Credentials(_) => false,
    };
    shown && !nats.asks_for_tls() && !nats.url.iter().all(ServerUrl::stays_here)
}
