//! The configuration: the built-in config.yaml, under a file, under the environment; typed, in range and consistent.
//!
//! [`Config::load`] reports everything that is wrong at once. No secret is ever printed, not even by `Debug`.

mod check;
mod layers;
mod problem;
mod read;
mod reader;
mod reload;
mod schema;
mod shape;
mod tables;
mod values;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

pub use layers::{DEFAULTS, ENV_PREFIX, Origin};
pub use problem::{ConfigError, Problem};
pub use reload::Reload;
pub use schema::schema;
pub use values::{
    DedupKind, Discard, LogFormat, LogLevel, Retention, ServerUrl, Storage, UnhandledFields, UnsafeTokens,
    WhenUnavailable, redact_text, redact_url,
};

use crate::domain::DeclaredTable;
use crate::secret::Secret;
use layers::Layers;
use reader::Reader;
use reload::{Digests, TableNames};

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
    /// Transform actors; 0 is one for two cores.
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
    in_force: Vec<InForce>,
    digests: Digests,
    names: TableNames,
}

/// A setting as it is in force, fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InForce {
    /// The setting: `nats.url`.
    pub key: String,
    /// Its value, `***` in place of a secret.
    pub value: String,
    /// Where it was found: `default`, `file <path>` or `environment <variable>`.
    pub origin: String,
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

impl Nats {
    /// Whether any setting asks for TLS; then no server is talked to without.
    fn asks_for_tls(&self) -> bool {
        let tls = &self.tls;
        let certificates = tls.ca_file.is_some() || tls.client.is_some();
        tls.required || tls.first || certificates || self.url.iter().any(ServerUrl::is_encrypted)
    }
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
        password: Secret,
    },
    /// By token.
    Token(Secret),
    /// By the seed of an NKey.
    NkeySeed(Secret),
    /// By the content of a credentials file.
    Credentials(Secret),
}

/// Encryption of the connection to NATS.
#[derive(Debug, Clone)]
pub struct NatsTls {
    /// Certificates of the authority to trust; `None` trusts the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate and key, if it has one.
    pub client: Option<ClientCertificate>,
    /// Whether to refuse servers without TLS, even if no other setting asks for it.
    pub required: bool,
    /// Whether the handshake comes first.
    pub first: bool,
}

/// Certificates for the connection to Redis.
#[derive(Debug, Clone, Default)]
pub struct RedisTls {
    /// Certificates of the authority to trust; `None` trusts the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate and key, if it has one.
    pub client: Option<ClientCertificate>,
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
    /// How long the consumer may stand still before it is reported, or made anew; `None` for ever.
    pub stalled_after: Option<Duration>,
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
    /// Deliveries after which a message may be killing the process.
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
    /// The user; the URL then carries none.
    pub user: Option<String>,
    /// The password; the URL then carries none.
    pub password: Option<Secret>,
    /// Certificates, for a `rediss://` URL.
    pub tls: RedisTls,
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
#[derive(Debug, Clone)]
pub struct Tables {
    /// `messages`, as the others not enabled if a declaration has taken its place.
    pub messages: Table,
    /// `chats`.
    pub chats: Table,
    /// `agents`.
    pub agents: Table,
    /// The tables that are declared, by name.
    pub declared: Vec<DeclaredTable>,
}

/// What to do with one table that has a typed row.
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
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(ENV_PREFIX))
}

/// Whether the program runs where the service is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// There: every file that a setting names must be there.
    There,
    /// Elsewhere: secrets and certificates may be missing.
    Elsewhere,
}

impl Config {
    /// Loads the configuration: defaults, under `file`, under the variables of `env` that begin with [`ENV_PREFIX`].
    /// Files that settings name for their secrets are looked at now, and read again for every connection.
    ///
    /// # Errors
    /// Everything that is wrong: unknown keys, wrong types, values out of range, impossible combinations.
    pub fn load(file: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        Self::load_noting_keys(file, env, Whereabouts::There, &mut TableNames::default()).0
    }

    /// The same, to be looked at and not to be run: files of secrets and certificates that are not here are warnings.
    ///
    /// # Errors
    /// As of [`Self::load`], but for those.
    pub fn load_elsewhere(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::load_noting_keys(file, env, Whereabouts::Elsewhere, &mut TableNames::default()).0
    }

    /// What is allowed but probably not meant, one sentence each, for the log.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Every setting in force, by key.
    pub fn in_force(&self) -> &[InForce] {
        &self.in_force
    }

    fn load_noting_keys(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        whereabouts: Whereabouts,
        names: &mut TableNames,
    ) -> (Result<Self, ConfigError>, BTreeSet<String>) {
        let mut problems = Vec::new();
        let layers = Layers::read(file, env, &mut problems);
        let mut reader = Reader::new(&layers, whereabouts, names, &mut problems);
        let mut config = read::config(&mut reader);
        check::combinations(&config, &mut reader);
        let keys = reader.seen().clone();
        let absent = reader.absent().to_vec();
        config.in_force = reader.in_force();
        config.digests = reader.digests();
        config.names = names.clone();
        config.warnings = check::warnings(&config);
        config.warnings.extend(absent);
        (if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }, keys)
    }
}
