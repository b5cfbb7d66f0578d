//! The configuration, in the words of domain, actors and adapters.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use cdc_actors::guard::{GuardSettings, RestartLimit};
use cdc_actors::ports::Budget;
use cdc_actors::retry::Backoff;
use cdc_actors::shared::{Patience, Settings};

use crate::adapters::nats::{self, ConsumerSettings, NatsConfig, Purpose, StreamSettings, WayIn};
use crate::adapters::redis::{self, RedisSettings};
use crate::config::{
    ClientCertificate, Config, Discard, NatsAuth, Retention, Storage, StreamLimits, Table, UnsafeTokens,
    WhenUnavailable,
};
use crate::domain::{self, CdcTransform};

/// Rows whose newest position is remembered for `Cdc-Late`.
const REMEMBERED_ROWS: usize = 50_000;
/// Sequences back to which what is finished is acknowledged from memory when it comes again.
const REMEMBERED_DELIVERIES: usize = 32_768;
/// An actor that dies more often than this cannot be kept alive.
const RESTARTS: RestartLimit = RestartLimit { deaths: 10, window: Duration::from_secs(60) };

/// How the pipeline behaves, `largest_message` being the largest that the server accepts, in bytes.
pub fn pipeline(config: &Config, largest_message: usize) -> Settings {
    let Patience { backoff, refused_for, guard } = patience(config);
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    Settings {
        workers: if config.workers == 0 { cores.div_ceil(2) } else { config.workers },
        threads: cores,
        batch: config.source.batch,
        in_flight: Budget { messages: config.in_flight.messages, bytes: bytes(config.in_flight.bytes) },
        largest_message,
        max_ack_pending: usize::try_from(config.source.max_ack_pending).unwrap_or(usize::MAX),
        ack_wait: config.source.ack_wait,
        suspect_after: config.dead_letter.suspect_after,
        record_patience: config.dedup.record_patience,
        bypass_dedup: config.dedup.when_unavailable == WhenUnavailable::Bypass,
        backoff,
        refused_for,
        guard,
        restarts: RESTARTS,
        grace: config.shutdown.grace,
        remembered_rows: REMEMBERED_ROWS,
        remembered_deliveries: REMEMBERED_DELIVERIES,
    }
}

/// How long failures are borne.
pub fn patience(config: &Config) -> Patience {
    Patience {
        backoff: Backoff { initial: config.retry.initial, max: config.retry.max },
        refused_for: config.retry.refused_for,
        guard: GuardSettings {
            max_consecutive_failures: config.guard.max_consecutive_failures,
            min_duration: config.guard.min_duration,
            max_duration: config.guard.max_duration,
        },
    }
}

/// What the transform does.
pub fn transform(config: &Config) -> domain::TransformConfig {
    let table = |table: &Table| domain::TableSettings {
        enabled: table.enabled,
        unhandled_fields: table.unhandled_fields.into(),
    };
    domain::TransformConfig {
        subject_prefix: config.target.subject_prefix.clone(),
        unsafe_tokens: match config.target.unsafe_tokens {
            UnsafeTokens::Encode => domain::UnsafeTokens::Encode,
            UnsafeTokens::Reject => domain::UnsafeTokens::Reject,
        },
        tables: domain::Tables {
            messages: table(&config.tables.messages),
            chats: table(&config.tables.chats),
            agents: table(&config.tables.agents),
            declared: config.tables.declared.clone(),
        },
    }
}

/// How to reach NATS; `role` tells the connections apart in the server's monitoring.
pub fn nats(config: &Config, role: &str) -> NatsConfig {
    let from = &config.nats;
    let urls = from.url.iter().map(|url| url.expose().to_owned()).collect();
    NatsConfig {
        name: format!("daisi-cdc-consumer {role}"),
        auth: match &from.auth {
            NatsAuth::None => nats::Auth::None,
            NatsAuth::Password { user, password } => {
                nats::Auth::UserPassword { user: user.clone(), password: password.clone() }
            }
            NatsAuth::Token(token) => nats::Auth::Token(token.clone()),
            NatsAuth::NkeySeed(seed) => nats::Auth::NKey(seed.clone()),
            NatsAuth::Credentials(text) => nats::Auth::Credentials(text.clone()),
        },
        tls: nats::Tls {
            required: from.tls.required,
            first: from.tls.first,
            ca_file: from.tls.ca_file.clone(),
            client: files(from.tls.client.as_ref()),
        },
        inbox_prefix: from.inbox_prefix.clone(),
        ..NatsConfig::new(urls, config.in_flight.messages)
    }
}

/// The stream that change events come from.
pub fn source_stream(config: &Config) -> StreamSettings {
    let source = &config.source;
    StreamSettings {
        retention: match source.retention {
            Retention::Limits => nats::Retention::Limits,
            Retention::Workqueue => nats::Retention::WorkQueue,
            Retention::Interest => nats::Retention::Interest,
        },
        create: source.create,
        purpose: Purpose::Give(source.subjects.clone()),
        ..stream(&source.stream, source.subjects.clone(), &source.limits)
    }
}

/// The consumer of the source stream.
pub fn consumer(config: &Config) -> ConsumerSettings {
    let source = &config.source;
    ConsumerSettings {
        name: source.consumer.clone(),
        filters: source.subjects.clone(),
        ack_wait: source.ack_wait,
        max_ack_pending: u32::try_from(source.max_ack_pending).unwrap_or(u32::MAX),
        max_deliver: source.max_deliver.and_then(|limit| u32::try_from(limit).ok()),
        batch: source.batch,
    }
}

/// How messages come to the service.
pub fn way_in(config: &Config) -> WayIn {
    let source = &config.source;
    WayIn { stream: source.stream.clone(), consumer: source.consumer.clone(), subjects: source.subjects.clone() }
}

/// The stream that enriched events go to.
pub fn target_stream(config: &Config) -> StreamSettings {
    let target = &config.target;
    StreamSettings {
        discard: match target.discard {
            Discard::Old => nats::Discard::Old,
            Discard::New => nats::Discard::New,
        },
        duplicate_window: Some(target.duplicate_window),
        create: target.create,
        purpose: Purpose::Store(CdcTransform::new(transform(config)).subjects()),
        ..stream(&target.stream, vec![format!("{}.>", target.subject_prefix)], &target.limits)
    }
}

/// The stream for what cannot be published.
pub fn dead_letter_stream(config: &Config) -> StreamSettings {
    let letters = &config.dead_letter;
    StreamSettings {
        create: config.target.create,
        // Of a table, for a reason.
        purpose: Purpose::Store(vec![format!("{}.*.*", letters.subject_prefix)]),
        ..stream(&letters.stream, vec![format!("{}.>", letters.subject_prefix)], &letters.limits)
    }
}

/// Where records are kept.
pub fn redis(config: &Config) -> RedisSettings {
    RedisSettings {
        key_prefix: config.dedup.key_prefix.clone(),
        ttl: config.dedup.ttl,
        user: config.dedup.user.clone(),
        password: config.dedup.password.clone(),
        tls: redis::Tls { ca_file: config.dedup.tls.ca_file.clone(), client: files(config.dedup.tls.client.as_ref()) },
        ..RedisSettings::new(config.dedup.url.expose())
    }
}

fn stream(name: &str, subjects: Vec<String>, limits: &StreamLimits) -> StreamSettings {
    StreamSettings {
        max_age: limits.max_age,
        max_bytes: limits.max_bytes,
        replicas: usize::from(limits.replicas),
        storage: match limits.storage {
            Storage::File => nats::Storage::File,
            Storage::Memory => nats::Storage::Memory,
        },
        ..StreamSettings::new(name, subjects)
    }
}

fn files(certificate: Option<&ClientCertificate>) -> Option<(PathBuf, PathBuf)> {
    certificate.map(|pair| (pair.cert_file.clone(), pair.key_file.clone()))
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_say_the_same_on_both_sides() {
        let config = Config::load(None, []).expect("the defaults are valid");
        let mut transform = transform(&config);
        // What comes declared is there to be switched on.
        assert!(transform.tables.declared.drain(..).all(|table| !table.enabled()));
        assert_eq!(transform, domain::TransformConfig::default());
        let settings = pipeline(&config, 1024);
        assert!(settings.threads >= 1);
        assert_eq!(settings.workers, settings.threads.div_ceil(2), "one for two cores");
        assert_eq!(settings.in_flight, Budget { messages: 4096, bytes: 64 << 20 });
        assert_eq!(target_stream(&config).subjects, ["wa.>"]);
        assert_eq!(dead_letter_stream(&config).subjects, ["cdc.dead_letters.>"]);
    }
}
