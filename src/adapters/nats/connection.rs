//! One connection to NATS: how it is made, whether it stands, and how often it has been made anew.

use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::{
    AuthError, Client, ClientError, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError, Subject, rustls,
};
use bytestring::ByteString;
use cdc_actors::ports::{Failure, FailureClass};
use tokio::sync::watch;

use super::login::{Auth, LoginError};

/// Refusals remembered to tell a timeout from a missing permission.
const REFUSALS_KEPT: usize = 64;
/// The longest wait between two attempts to reconnect.
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(2);

/// How often the state of the connection is looked at without an event.
const SECOND_LOOK: Duration = Duration::from_millis(100);

/// How the connection is encrypted. A `tls://` URL needs none of this when the server's certificate is publicly trusted.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Refuse a connection without TLS, even if nothing else here and no URL asks for it.
    pub required: bool,
    /// Start with the TLS handshake instead of the server's greeting.
    pub first: bool,
    /// Certificates to trust, PEM.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and key, PEM.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Whether no server may be talked to without TLS. One sign that it is wanted is enough, for all of them: the client also connects to
    /// servers that another has told it of, whose addresses say nothing of TLS.
    fn is_asked_for(&self, servers: &[ServerAddr]) -> bool {
        let certificates = self.ca_file.is_some() || self.client.is_some();
        self.required || self.first || certificates || servers.iter().any(ServerAddr::tls_required)
    }
}

/// Where NATS is and how to connect.
#[derive(Debug, Clone)]
pub struct NatsConfig {
    /// Servers of one cluster, `nats://host:4222` or `tls://host:4222`; at least one.
    pub urls: Vec<String>,
    /// How the connection shows in the server's monitoring.
    pub name: String,
    /// How the service proves who it is.
    pub auth: Auth,
    /// How the connection is encrypted.
    pub tls: Tls,
    /// The longest a connection attempt to one server may take.
    pub connect_timeout: Duration,
    /// The longest a request of the JetStream API may take.
    pub request_timeout: Duration,
    /// What inboxes start with; `_INBOX` unless permissions ask for another.
    pub inbox_prefix: Option<String>,
    /// Messages a subscription holds until they are read; what exceeds it is dropped by the client, so it must be above
    /// what can be in flight.
    pub subscription_capacity: usize,
    /// Commands that wait for the connection to write them, at most.
    pub client_capacity: usize,
}

impl NatsConfig {
    /// A configuration without credentials, sized for `in_flight` messages.
    pub fn new(urls: Vec<String>, in_flight: usize) -> Self {
        Self {
            urls,
            name: "daisi-cdc-consumer".to_owned(),
            auth: Auth::None,
            tls: Tls::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            inbox_prefix: None,
            subscription_capacity: in_flight.saturating_mul(2).max(65_536),
            client_capacity: in_flight.max(2048),
        }
    }
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server was named.
    #[error("no NATS server is configured: name at least one URL, such as nats://localhost:4222")]
    NoServer,
    /// A URL cannot be read. It is named by its place, since it may hold a password.
    #[error("NATS URL number {place} is not valid: write it as nats://host:4222 or tls://host:4222")]
    BadUrl {
        /// Its place in the list, from 1.
        place: usize,
        /// What is wrong.
        #[source]
        cause: io::Error,
    },
    /// The credentials cannot be used.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// No server accepted the connection.
    #[error("no connection to NATS at {servers}: {cause}{}", question(cause))]
    Refused {
        /// Host and port of those tried, without credentials.
        servers: String,
        /// What the client said.
        #[source]
        cause: async_nats::ConnectError,
    },
}

/// What to look at, where what was said does not tell it.
fn question(cause: &async_nats::ConnectError) -> &'static str {
    // The client wraps what TLS says in an I/O error.
    let of_tls = cause.source().and_then(|error| error.downcast_ref::<io::Error>()).and_then(io::Error::get_ref);
    match of_tls.and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::InvalidMessage(_)) => ": does that server speak TLS?",
        _ if cause.kind() == ConnectErrorKind::TimedOut => {
            ": is that the port of a nats-server for clients, and does it begin with TLS as configured (nats.tls.first)?"
        }
        _ => "",
    }
}

impl ConnectError {
    /// Whether trying again later can help, and how the failure is classed then; `None` for a mistake in the configuration.
    pub fn class(&self) -> Option<FailureClass> {
        use ConnectErrorKind as Kind;
        match self {
            Self::NoServer | Self::BadUrl { .. } | Self::Login(_) => None,
            Self::Refused { cause, .. } => Some(match cause.kind() {
                Kind::Authentication | Kind::AuthorizationViolation => FailureClass::Denied,
                Kind::TimedOut => FailureClass::Timeout,
                _ => FailureClass::Disconnected,
            }),
        }
    }
}

/// What happened to a connection, for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// It stands (again).
    Connected,
    /// It broke; the client is trying to reconnect.
    Disconnected,
    /// The server is about to shut down and asks its clients to go elsewhere.
    LameDuck,
    /// It was closed for good.
    Closed,
    /// A subscription was full and messages were dropped.
    SlowConsumer,
    /// The server refused something or complained.
    ServerError(String),
    /// The client could not do something, such as reconnecting.
    ClientError(String),
}

/// There is no connection at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not connected to NATS; the client keeps trying to reconnect")]
pub struct NotConnected;

#[derive(Debug, Default)]
struct Refusals(Mutex<VecDeque<(Instant, String)>>);

impl Refusals {
    fn add(&self, text: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == REFUSALS_KEPT {
            kept.pop_front();
        }
        kept.push_back((Instant::now(), text.to_owned()));
    }

    fn since(&self, start: Instant, subject: &str) -> Option<String> {
        let quoted = format!("\"{subject}\"");
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(at, text)| *at >= start && text.contains(&quoted)).map(|(_, text)| text.clone())
    }
}

/// A connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Connection {
    client: Client,
    refusals: Arc<Refusals>,
    changes: watch::Receiver<u64>,
    request_timeout: Duration,
}

impl Connection {
    /// Connects, or says why not; does not wait for servers to come up. `on_event` must not block.
    ///
    /// # Errors
    /// [`ConnectError`]; its [`class`](ConnectError::class) tells a mistake in the configuration from a server that is away.
    pub async fn connect(
        config: &NatsConfig,
        on_event: impl Fn(ConnectionEvent) + Send + Sync + 'static,
    ) -> Result<Self, ConnectError> {
        let servers = servers(&config.urls)?;
        let names: Vec<String> = servers.iter().map(|s| format!("{}:{}", s.host(), s.port())).collect();
        let refusals = Arc::new(Refusals::default());
        let (changed, changes) = watch::channel(0_u64);
        let on_event = Arc::new(on_event);
        let seen = refusals.clone();
        let options = options(config, &servers, on_event.clone())?.event_callback(move |event| {
            let event = translate(event);
            if let Some(ConnectionEvent::ServerError(text)) = &event {
                seen.add(text);
            }
            changed.send_modify(|count| *count += 1);
            event.into_iter().for_each(&*on_event);
            std::future::ready(())
        });
        let client = options
            .connect(servers)
            .await
            .map_err(|cause| ConnectError::Refused { servers: names.join(", "), cause })?;
        Ok(Self { client, refusals, changes, request_timeout: config.request_timeout })
    }

    /// The client behind it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How often the connection has been made, the first time included.
    pub fn epoch(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Acquire)
    }

    /// Whether the connection stands now.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// The epoch of the connection that stands now.
    ///
    /// # Errors
    /// A [`Failure`] of class `Disconnected` for `action` if there is none.
    pub fn standing(&self, action: &str) -> Result<u64, Failure> {
        let epoch = self.epoch();
        if self.is_connected() { Ok(epoch) } else { Err(self.broken(action)) }
    }

    /// Returns as soon as the connection of `epoch` no longer stands.
    pub async fn gone(&self, epoch: u64) {
        let mut changes = self.changes.clone();
        while self.is_connected() && self.epoch() == epoch {
            // The client sends the event a moment before it changes its state, hence the second look.
            if let Ok(Err(_)) = tokio::time::timeout(SECOND_LOOK, changes.changed()).await {
                return;
            }
        }
    }

    /// The longest a request may take.
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// What the server said if it has refused `subject` for lack of permission since `start`. The protocol says this only
    /// in a text of its own, which is why this one place reads a text.
    pub(super) fn refused_since(&self, start: Instant, subject: &str) -> Option<String> {
        self.refusals.since(start, subject)
    }

    pub(super) fn broken(&self, action: &str) -> Failure {
        Failure::new(action, FailureClass::Disconnected, NotConnected)
    }

    /// Closes the connection and returns when it is closed, or after `patience`. What was handed to it before is written first.
    pub async fn close(&self, patience: Duration) {
        let mut changes = self.changes.clone();
        let closed = async {
            let _ = self.client.flush().await;
            if self.client.drain().await.is_ok() {
                // The sender of changes lives in the client's tasks, which end with the connection.
                while changes.changed().await.is_ok() {}
            }
        };
        let _ = tokio::time::timeout(patience, closed).await;
    }
}

/// A subject for the client, in the same memory.
pub(super) fn subject_of(text: &ByteString) -> Subject {
    Subject::from_utf8(text.as_bytes().clone()).unwrap_or_else(|_| Subject::from(&**text))
}

fn servers(urls: &[String]) -> Result<Vec<ServerAddr>, ConnectError> {
    if urls.is_empty() {
        return Err(ConnectError::NoServer);
    }
    urls.iter()
        .enumerate()
        .map(|(i, url)| ServerAddr::from_str(url.trim()).map_err(|cause| ConnectError::BadUrl { place: i + 1, cause }))
        .collect()
}

/// `on_event` hears what the client keeps to itself: why a file cannot be used, and what was wrong with which server.
fn options(
    config: &NatsConfig,
    servers: &[ServerAddr],
    on_event: Arc<impl Fn(ConnectionEvent) + Send + Sync + 'static>,
) -> Result<ConnectOptions, ConnectError> {
    let auth = match &config.auth {
        Auth::None => Auth::of_urls(servers),
        given => given.clone(),
    };
    // What can never work is found now; what stops working is found by the callback.
    auth.login(b"")?;
    let report = on_event.clone();
    let login = move |nonce: Vec<u8>| {
        // The files are small and mostly in memory: reading them takes no longer than handing them to another thread.
        std::future::ready(auth.login(&nonce).map_err(|error| {
            report(ConnectionEvent::ClientError(error.to_string()));
            AuthError::new(error)
        }))
    };
    let mut options = ConnectOptions::with_auth_callback(login)
        .name(&config.name)
        .connection_timeout(config.connect_timeout)
        .request_timeout(Some(config.request_timeout))
        .subscription_capacity(config.subscription_capacity)
        .client_capacity(config.client_capacity)
        .ping_interval(Duration::from_secs(10))
        .reconnect_delay_callback(|attempt| {
            let doubled = Duration::from_millis(25 << attempt.min(10));
            if attempt <= 1 { Duration::ZERO } else { doubled.min(RECONNECT_DELAY_MAX) }
        })
        .reconnect_to_server_callback(move |pool, _| {
            if let Some(text) = failures_of(&pool) {
                on_event(ConnectionEvent::ClientError(text));
            }
            std::future::ready(None)
        })
        .require_tls(config.tls.is_asked_for(servers));
    if config.tls.first {
        options = options.tls_first();
    }
    // The client reads these files for every connection it makes.
    if let Some(file) = &config.tls.ca_file {
        options = options.add_root_certificates(file.clone());
    }
    if let Some((certificate, key)) = &config.tls.client {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    if let Some(prefix) = &config.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    Ok(options)
}

/// What the last attempts to connect came to, server by server; `None` if none has failed.
fn failures_of(pool: &[async_nats::Server]) -> Option<String> {
    let failures: Vec<String> = pool
        .iter()
        .filter_map(|server| Some((&server.addr, server.last_error.as_ref()?)))
        .map(|(server, error)| format!("{}:{}: {error}", server.host(), server.port()))
        .collect();
    (!failures.is_empty()).then(|| failures.join("; "))
}

/// What an event of the client means; `None` for one that says less than what [`options`] report of the same failure.
fn translate(event: Event) -> Option<ConnectionEvent> {
    Some(match event {
        Event::Connected => ConnectionEvent::Connected,
        Event::Disconnected => ConnectionEvent::Disconnected,
        Event::LameDuckMode => ConnectionEvent::LameDuck,
        Event::Draining | Event::Closed => ConnectionEvent::Closed,
        Event::SlowConsumer(_) => ConnectionEvent::SlowConsumer,
        Event::ServerError(ServerError::Other(text)) => ConnectionEvent::ServerError(text),
        Event::ServerError(error) => ConnectionEvent::ServerError(error.to_string()),
        Event::ClientError(ClientError::Other(kind)) if is_failed_attempt(&kind) => return None,
        Event::ClientError(error) => ConnectionEvent::ClientError(error.to_string()),
    })
}

/// Whether the text is all that the client says of an attempt to reconnect: the kind of its failure.
fn is_failed_attempt(text: &str) -> bool {
    use ConnectErrorKind as Kind;
    let kinds = [Kind::Dns, Kind::Authentication, Kind::AuthorizationViolation, Kind::TimedOut, Kind::Tls, Kind::Io];
    kinds.iter().any(|kind| kind.to_string() == text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_named_by_its_place_and_not_shown() {
        let error = servers(&["nats://ok:4222".to_owned(), "nats://user:s3cret@[bad".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("number 2"), "{error}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        assert!(error.class().is_none());
    }
}
