//! The configuration: the built-in config.yaml, under a file, under the environment; typed, in range and consistent.
//!
//! [`Config::load`] reports everything that is wrong at once. No secret is ever printed, not even by `Debug`.

mod check;
mod layers;
mod problem;
mod reader;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

pub use layers::{DEFAULTS, ENV_PREFIX, Origin};
pub use problem::{ConfigError, Problem};
pub use values::{
    DedupKind, Discard, LogFormat, LogLevel, Retention, ServerUrl, Storage, UnhandledFields, UnsafeTokens,
    WhenUnavailable, redact_text, redact_url,
};

use layers::Layers;
use reader::Reader;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Every setting, validated. config.yaml says what each means; the fields here bear the same names.
#[derive(Debug, Clone)]
pub struct Config {
    /// Logging.
    pub log: Log,
    /// The HTTP endpoint.
    pub http: Http,
    /// The connection to NATS.
    pub nats: Nats,
    /// The stream that change events come from.
    pub source: Source,
    /// The stream that enriched events go to.
    pub target: Target,
    /// The stream for what can never be published.
    pub dead_letter: DeadLetter,
    /// The memory of what was published.
    pub dedup: Dedup,
    /// Transform actors; 0 is four per core.
    pub workers: usize,
    /// Bounds of what is in flight.
    pub in_flight: InFlight,
    /// Delays between attempts.
    pub retry: Retry,
    /// When to give up.
    pub guard: Guard,
    /// How to stop.
    pub shutdown: Shutdown,
    /// How long to wait for dependencies at the start.
    pub start_timeout: Duration,
    /// What to do with each table.
    pub tables: Tables,
    warnings: Vec<String>,
}

/// Logging.
#[derive(Debug, Clone)]
pub struct Log {
    /// Lines below are left out.
    pub level: LogLevel,
    /// How lines are written.
    pub format: LogFormat,
}

/// The HTTP endpoint.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
}

/// The connection to NATS.
#[derive(Debug, Clone)]
pub struct Nats {
    /// At least one server.
    pub url: Vec<ServerUrl>,
    /// Who we are.
    pub auth: NatsAuth,
    /// Encryption.
    pub tls: NatsTls,
    /// Prefix of reply subjects; `None` is `_INBOX`.
    pub inbox_prefix: Option<String>,
}

/// How the service proves who it is; URLs may carry credentials only if this is `None`.
#[derive(Debug, Clone, Default)]
pub enum NatsAuth {
    /// Not at all, or by what the URL carries.
    #[default]
    None,
    /// By password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// By token.
    Token(SecretString),
    /// By the seed of an NKey.
    NkeySeed(SecretString),
    /// By the content of a credentials file.
    Credentials(SecretString),
}

/// Encryption of the connection to NATS.
#[derive(Debug, Clone)]
pub struct NatsTls {
    /// Certificates of the authority to trust; `None` trusts the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate and key, if it has one.
    pub client: Option<ClientCertificate>,
    /// Whether to refuse servers without TLS.
    pub required: bool,
    /// Whether the handshake comes first.
    pub first: bool,
}

/// A client certificate.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The certificate, PEM.
    pub cert_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
}

/// What a stream is created with.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Age at which messages go; `None` is never.
    pub max_age: Option<Duration>,
    /// Bytes it may hold; `None` is unlimited.
    pub max_bytes: Option<u64>,
    /// Copies, 1 to 5.
    pub replicas: u8,
    /// Where it keeps them.
    pub storage: Storage,
}

/// The stream that change events come from, and the consumer on it.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name.
    pub stream: String,
    /// The stream's subjects at creation and the consumer's filter: at least one, none overlapping another.
    pub subjects: Vec<String>,
    /// The durable consumer's name.
    pub consumer: String,
    /// What is not acknowledged for this long is delivered again.
    pub ack_wait: Duration,
    /// Messages delivered and not acknowledged, over all replicas.
    pub max_ack_pending: i64,
    /// Deliveries of a message at most; `None` is no limit.
    pub max_deliver: Option<i64>,
    /// Messages asked for in one pull.
    pub batch: usize,
    /// Whether to create the stream when it is missing.
    pub create: bool,
    /// When the stream lets go of messages.
    pub retention: Retention,
    /// What it is created with.
    pub limits: StreamLimits,
}

/// The stream that enriched events go to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub stream: String,
    /// What every subject begins with.
    pub subject_prefix: String,
    /// How long it recognises a repeated event; at least twice `source.ack_wait`.
    pub duplicate_window: Duration,
    /// Whether to create the stream when it is missing.
    pub create: bool,
    /// What becomes of ids that are no subject tokens.
    pub unsafe_tokens: UnsafeTokens,
    /// What it is created with.
    pub limits: StreamLimits,
    /// What it does when it is full.
    pub discard: Discard,
}

/// The stream for what can never be published.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its name.
    pub stream: String,
    /// What every subject begins with.
    pub subject_prefix: String,
    /// Deliveries after which a message runs alone.
    pub suspect_after: u64,
    /// What it is created with.
    pub limits: StreamLimits,
}

/// The memory of what was published.
#[derive(Debug, Clone)]
pub struct Dedup {
    /// Where it is.
    pub store: DedupKind,
    /// The Redis server.
    pub url: ServerUrl,
    /// The password from `password_file`; the URL then carries none.
    pub password: Option<SecretString>,
    /// How long an event is remembered.
    pub ttl: Duration,
    /// What every key begins with.
    pub key_prefix: String,
    /// How long a failing record is retried.
    pub record_patience: Duration,
    /// What happens while the store is away.
    pub when_unavailable: WhenUnavailable,
    /// Events that the memory store remembers.
    pub memory_max_entries: usize,
}

/// Bounds of what is between pull and settlement.
#[derive(Debug, Clone, Copy)]
pub struct InFlight {
    /// Messages.
    pub messages: usize,
    /// Bytes.
    pub bytes: u64,
}

/// Delays between attempts.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Bound of the first delay.
    pub initial: Duration,
    /// Bound of every delay; at least `initial`.
    pub max: Duration,
    /// How long one subject may be refused.
    pub refused_for: Duration,
}

/// When to give up.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    /// Failures of one dependency in a row.
    pub max_consecutive_failures: u64,
    /// Least age of such a streak.
    pub min_duration: Duration,
    /// Age at which any streak counts; at least `min_duration`.
    pub max_duration: Duration,
}

/// How to stop.
#[derive(Debug, Clone, Copy)]
pub struct Shutdown {
    /// Time to finish what is in flight.
    pub grace: Duration,
}

/// What to do with each table.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    /// `messages`.
    pub messages: Table,
    /// `chats`.
    pub chats: Table,
    /// `agents`.
    pub agents: Table,
}

/// What to do with one table.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Whether its events are published; if not they are acknowledged and counted.
    pub enabled: bool,
    /// What becomes of fields that the typed row does not know.
    pub unhandled_fields: UnhandledFields,
}

/// The environment of this process, for [`Config::load`]: the variables that can be settings. What is not Unicode is
/// converted with replacement characters, so that it is reported as a bad value instead of being passed over.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .filter(|(name, _)| name.starts_with(ENV_PREFIX))
}

impl Config {
    /// Loads the configuration: defaults, under `file`, under the variables of `env` that begin with [`ENV_PREFIX`].
    /// Files that settings name for their secrets are read now.
    ///
    /// # Errors
    /// Everything that is wrong: unknown keys, wrong types, values out of range, impossible combinations.
    pub fn load(file: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        Self::load_noting_keys(file, env).0
    }

    /// What is allowed but probably not meant, one sentence each, for the log.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn load_noting_keys(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> (Result<Self, ConfigError>, BTreeSet<String>) {
        let mut problems = Vec::new();
        let layers = Layers::read(file, env, &mut problems);
        let mut reader = Reader::new(&layers, &mut problems);
        let mut config = read(&mut reader);
        check::combinations(&config, &mut reader);
        let keys = reader.seen().clone();
        config.warnings = check::warnings(&config);
        (
            if problems.is_empty() {
                Ok(config)
            } else {
                Err(ConfigError { problems })
            },
            keys,
        )
    }
}

fn read(r: &mut Reader<'_>) -> Config {
    // An absent address has been reported as a problem; the configuration is then not used.
    let listen = r
        .address("http.listen")
        .unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    Config {
        log: Log {
            level: r.choice("log.level"),
            format: r.choice("log.format"),
        },
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
        shutdown: Shutdown {
            grace: r.duration("shutdown.grace", Duration::ZERO..=HOUR),
        },
        start_timeout: r.duration("start_timeout", SECOND..=HOUR),
        tables: Tables {
            messages: table(r, "messages"),
            chats: table(r, "chats"),
            agents: table(r, "agents"),
        },
        warnings: Vec::new(),
    }
}

fn nats(r: &mut Reader<'_>) -> Nats {
    let url = r.list("nats.url", values::nats_url);
    let tls = NatsTls {
        ca_file: r.file("nats.tls.ca_file"),
        client: client_certificate(r),
        required: r.flag("nats.tls.required"),
        first: r.flag("nats.tls.first"),
    };
    let inbox_prefix = r.optional_text("nats.inbox_prefix", values::subject_prefix);
    Nats {
        auth: nats_auth(r, &url),
        url,
        tls,
        inbox_prefix,
    }
}

fn client_certificate(r: &mut Reader<'_>) -> Option<ClientCertificate> {
    let cert_file = r.file("nats.tls.cert_file");
    let key_file = r.file("nats.tls.key_file");
    if r.sound(&["nats.tls.cert_file", "nats.tls.key_file"]) {
        match (&cert_file, &key_file) {
            (Some(_), None) => r.refuse("nats.tls.key_file", "a file, since nats.tls.cert_file is set"),
            (None, Some(_)) => r.refuse("nats.tls.cert_file", "a file, since nats.tls.key_file is set"),
            _ => {}
        }
    }
    Some(ClientCertificate {
        cert_file: cert_file?,
        key_file: key_file?,
    })
}

fn nats_auth(r: &mut Reader<'_>, url: &[ServerUrl]) -> NatsAuth {
    let user = r.optional_text("nats.user", |_| Ok(()));
    let password = either(r, "nats.password", "nats.password_file");
    let token = either(r, "nats.token", "nats.token_file");
    let seed = r.secret_file("nats.nkey_seed_file");
    let credentials = r.secret_file("nats.credentials_file");

    let keys = [
        "nats.user",
        "nats.password",
        "nats.password_file",
        "nats.token",
        "nats.token_file",
    ];
    if !r.sound(&keys) || !r.sound(&["nats.url", "nats.nkey_seed_file", "nats.credentials_file"]) {
        return NatsAuth::None;
    }
    let password_key = if user.is_none() { "nats.user" } else { "nats.password" };
    if user.is_some() != password.is_some() {
        r.refuse(
            password_key,
            "nats.user together with nats.password or nats.password_file",
        );
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
fn either(r: &mut Reader<'_>, key: &str, file_key: &str) -> Option<SecretString> {
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
    let password = r.secret_file("dedup.password_file");
    if password.is_some() && url.has_password() {
        r.refuse(
            "dedup.password_file",
            "a password either here or in dedup.url, not in both",
        );
    }
    Dedup {
        store: r.choice("dedup.store"),
        url,
        password,
        ttl: r.duration("dedup.ttl", SECOND..=365 * DAY),
        key_prefix: r.text("dedup.key_prefix", |prefix| {
            let printable = prefix.chars().all(|c| c.is_ascii_graphic()) && prefix.len() <= 64;
            if printable {
                Ok(())
            } else {
                Err("at most 64 visible ASCII characters".to_owned())
            }
        }),
        record_patience: r.duration("dedup.record_patience", Duration::ZERO..=HOUR),
        when_unavailable: r.choice("dedup.when_unavailable"),
        memory_max_entries: r.integer("dedup.memory_max_entries", 1..=1_000_000_000),
    }
}

fn table(r: &mut Reader<'_>, name: &str) -> Table {
    Table {
        enabled: r.flag(&format!("tables.{name}.enabled")),
        unhandled_fields: r.choice(&format!("tables.{name}.unhandled_fields")),
    }
}
