//! Where the records are kept, and how the service proves to Redis who it is.

use std::path::PathBuf;
use std::time::Duration;

use deadpool_redis::redis::RedisError;
use secrecy::SecretString;

use crate::secret::{Secret, SecretError};

/// Certificates of a connection with TLS.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Certificates to trust, PEM; `None` trusts the system's, or those of `SSL_CERT_FILE`.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and key, PEM.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Where the records are kept and how long.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://`, `rediss://` (TLS) or `redis+unix://`, with or without user and password.
    pub url: SecretString,
    /// The user, if the URL does not hold it.
    pub user: Option<String>,
    /// The password, if the URL does not hold it.
    pub password: Option<Secret>,
    /// Certificates, for a `rediss://` URL.
    pub tls: Tls,
    /// Goes before every key.
    pub key_prefix: String,
    /// How long a record is kept; at least a millisecond.
    pub ttl: Duration,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub response_timeout: Duration,
}

impl RedisSettings {
    /// The given address with `dedup:` before every key, five minutes of ttl, and limits of 1 s to connect and 500 ms to answer.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: SecretString::from(url.into()),
            user: None,
            password: None,
            tls: Tls::default(),
            key_prefix: "dedup:".to_owned(),
            ttl: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_millis(500),
        }
    }
}

/// The settings make no usable store. Shows no part of the URL.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRedis {
    /// The URL is not understood.
    #[error(
        "dedup.url is not a usable Redis URL ({0}): write redis://[user:password@]host:port[/db], rediss://... or redis+unix:///path"
    )]
    Url(String),
    /// Certificates were given, but the URL does not ask for TLS.
    #[error("dedup.tls is set, but dedup.url is not a rediss:// URL")]
    TlsWithoutTls,
    /// A certificate or key cannot be used.
    #[error("cannot read {}: {cause}", file.display())]
    Certificate {
        /// Its file.
        file: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The password cannot be read.
    #[error(transparent)]
    Password(#[from] SecretError),
    /// The ttl is too short to be kept.
    #[error("dedup.ttl must be at least one millisecond")]
    Ttl,
    /// The pool could not be built.
    #[error("the connection pool could not be built: {0}")]
    Pool(#[from] deadpool_redis::BuildError),
}

impl InvalidRedis {
    /// Keeps the client's reason, but not the detail, which quotes from the URL.
    pub(super) fn url(error: RedisError) -> Self {
        let mut reason = error.to_string();
        if let Some(without) = error.detail().and_then(|detail| reason.strip_suffix(detail)) {
            reason = without.trim_end_matches([':', ' ']).to_owned();
        }
        Self::Url(reason)
    }
}
