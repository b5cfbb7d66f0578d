//! Streams: created as configured, and checked.

use std::time::Duration;

use cdc_actors::ports::{Failure, FailureClass};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::api::ApiError;
use super::connection::Connection;
use super::fit::{Misfit, Purpose, fit, in_the_way, listed};

/// Where a stream keeps its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory.
    Memory,
}

/// When a stream lets go of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retention {
    /// When a limit is reached.
    #[default]
    Limits,
    /// When it is acknowledged.
    WorkQueue,
    /// When every consumer has acknowledged it.
    Interest,
}

/// What a stream does at its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Discard {
    /// Drops the oldest messages.
    #[default]
    Old,
    /// Refuses new messages.
    New,
}

/// A stream as it is created if it is missing.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// Its name.
    pub name: String,
    /// The subjects it stores.
    pub subjects: Vec<String>,
    /// What one that exists must be good for.
    pub purpose: Purpose,
    /// The oldest a message may get; `None` for no limit.
    pub max_age: Option<Duration>,
    /// The most bytes it may hold; `None` for no limit.
    pub max_bytes: Option<u64>,
    /// Copies of each message in a cluster, 1 to 5.
    pub replicas: usize,
    /// Where it keeps its messages.
    pub storage: Storage,
    /// When it lets go of a message.
    pub retention: Retention,
    /// What it does at its limits.
    pub discard: Discard,
    /// How long it remembers message ids; `None` leaves it to the server (2 minutes).
    pub duplicate_window: Option<Duration>,
    /// Whether a newer message of a subject takes the place of the older one.
    pub newest_per_subject: bool,
    /// Whether a missing stream is created.
    pub create: bool,
}

impl StreamSettings {
    /// A stream on disk without limits that is created if it is missing.
    pub fn new(name: impl Into<String>, subjects: Vec<String>) -> Self {
        Self {
            name: name.into(),
            purpose: Purpose::Store(subjects.clone()),
            subjects,
            max_age: None,
            max_bytes: None,
            replicas: 1,
            storage: Storage::File,
            retention: Retention::Limits,
            discard: Discard::Old,
            duplicate_window: None,
            newest_per_subject: false,
            create: true,
        }
    }

    fn to_json(&self) -> Value {
        let mut config = json!({
            "name": self.name,
            "subjects": self.subjects,
            "retention": match self.retention {
                Retention::Limits => "limits", Retention::WorkQueue => "workqueue", Retention::Interest => "interest",
            },
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": self.max_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            "max_age": self.max_age.map_or(0, nanos),
            "storage": match self.storage { Storage::File => "file", Storage::Memory => "memory" },
            "discard": match self.discard { Discard::Old => "old", Discard::New => "new" },
            "num_replicas": self.replicas.max(1),
        });
        if let Some(window) = self.duplicate_window {
            config["duplicate_window"] = nanos(window).into();
        }
        if self.newest_per_subject {
            config["max_msgs_per_subject"] = 1.into();
        }
        config
    }
}

/// What would be done about a stream or consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// It is there and is used as it is.
    Use,
    /// It is missing and would be created.
    Create,
    /// The consumer is there; these settings would be changed.
    Update(Vec<String>),
}

/// Why a stream or consumer cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SetupError {
    /// The server could not be asked.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// It is missing and must not be created.
    #[error("stream {0} does not exist and is not to be created: create it, or allow it with the setting `create`")]
    MissingStream(String),
    /// It is missing, and this is not what creates it.
    #[error("stream {0} does not exist: is its name right? `run` creates what is missing")]
    NoStream(String),
    /// The duplicate window is too short for the delivery protocol.
    #[error(
        "stream {stream} remembers message ids for {window:?}, less than {needed:?} (twice ack_wait): raise its duplicate window or lower ack_wait"
    )]
    DuplicateWindow {
        /// The stream.
        stream: String,
        /// Its window.
        window: Duration,
        /// The shortest that is allowed.
        needed: Duration,
    },
    /// Several filters on a server that knows one.
    #[error(
        "consumer {consumer} needs {filters} filter subjects, but nats-server {version} knows one: upgrade it to 2.10, or configure the stream's own subjects"
    )]
    Filters {
        /// The consumer.
        consumer: String,
        /// How many.
        filters: usize,
        /// The server's version.
        version: String,
    },
    /// The consumer that has the name cannot be used.
    #[error("consumer {consumer} of stream {stream} {problem}: delete it or configure another name")]
    WrongConsumer {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Nothing that is published to it would be stored.
    #[error(
        "stream {stream} stores nothing of what is published to it: its subjects are {subjects}, and what is published comes under {needed}; \
         add these to its subjects, or configure another stream or subject prefix"
    )]
    StoresNothing {
        /// The stream.
        stream: String,
        /// What it stores.
        subjects: String,
        /// What is published.
        needed: String,
    },
    /// Nothing that is asked of it would ever come.
    #[error(
        "stream {stream} has nothing of what is asked of it: its subjects are {subjects}, and source.subjects are {wanted}: \
         configure those of the stream, or another stream"
    )]
    GivesNothing {
        /// The stream.
        stream: String,
        /// What it stores.
        subjects: String,
        /// What is asked for.
        wanted: String,
    },
    /// Other streams have subjects of its own.
    #[error(
        "stream {stream} cannot be created: its subjects {subjects} overlap with those of stream {others}, which exists: \
         configure that one, or other subjects"
    )]
    Overlaps {
        /// The stream.
        stream: String,
        /// What it would store.
        subjects: String,
        /// Those in its way.
        others: String,
    },
    /// The server would not create it.
    #[error("{what} could not be created: {cause}")]
    NotCreated {
        /// What.
        what: String,
        /// What the server said.
        #[source]
        cause: ApiError,
    },
}

impl SetupError {
    /// Whether trying again later, with nothing changed in configuration and server, can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    /// The failure that a running service treats it as.
    pub fn into_failure(self, action: &str) -> Failure {
        let class = match self {
            Self::Failed(failure) => return failure,
            Self::MissingStream(_) | Self::NoStream(_) => FailureClass::Missing,
            Self::NotCreated { ref cause, .. } => cause.class(),
            _ => FailureClass::Unavailable,
        };
        Failure::new(action, class, self)
    }
}

/// A stream as the server describes it: what the adapters need of it.
#[derive(Debug, Clone)]
pub struct StreamInfo {
    /// When it was created, nanoseconds since the Unix epoch.
    pub created: i64,
    /// The sequence of the first message it holds, or the one after the last it held.
    pub first_sequence: u64,
    /// The last sequence it has given out.
    pub last_sequence: u64,
    /// Messages it holds.
    pub messages: u64,
    /// Bytes it holds.
    pub bytes: u64,
    /// Its subjects.
    pub subjects: Vec<String>,
    /// Whether it holds messages under subjects that are not its own: of other streams, or transformed.
    pub takes_others: bool,
    /// When it lets go of a message.
    pub retention: Retention,
    /// Whether newer messages of a subject push older ones out.
    pub limited_per_subject: bool,
    /// Whether single messages can be deleted from it.
    pub deletes: bool,
    /// How long it remembers message ids.
    pub duplicate_window: Duration,
    /// The largest message it accepts, if it has a limit of its own.
    pub max_message_size: Option<usize>,
    /// Why it accepts no message now, if so.
    pub refuses: Option<&'static str>,
}

#[derive(Deserialize)]
struct RawStream {
    created: String,
    config: RawStreamConfig,
    state: RawState,
}

#[derive(Deserialize)]
struct RawStreamConfig {
    #[serde(default)]
    subjects: Vec<String>,
    #[serde(default)]
    retention: String,
    #[serde(default)]
    max_msgs_per_subject: i64,
    #[serde(default)]
    deny_delete: bool,
    #[serde(default)]
    duplicate_window: u64,
    #[serde(default)]
    max_msg_size: i64,
    #[serde(default)]
    max_msgs: i64,
    #[serde(default)]
    max_bytes: i64,
    #[serde(default)]
    discard: String,
    #[serde(default)]
    sealed: bool,
    mirror: Option<IgnoredAny>,
    sources: Option<IgnoredAny>,
    /// Since 2.10.
    subject_transform: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawState {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
}

impl RawStream {
    fn read(self, action: &str) -> Result<StreamInfo, Failure> {
        let Self { created, config, state } = self;
        let reached = |limit: i64, now: u64| u64::try_from(limit).is_ok_and(|limit| limit > 0 && now >= limit);
        let full = reached(config.max_msgs, state.messages) || reached(config.max_bytes, state.bytes);
        let refuses = if config.sealed {
            Some("it is sealed")
        } else if config.discard == "new" && full {
            Some("it is at its limits and discards new messages")
        } else {
            None
        };
        Ok(StreamInfo {
            created: parse_time(&created).map_err(|cause| Failure::new(action, FailureClass::Protocol, cause))?,
            first_sequence: state.first_seq,
            last_sequence: state.last_seq,
            messages: state.messages,
            bytes: state.bytes,
            subjects: config.subjects,
            takes_others: [config.mirror, config.sources, config.subject_transform].iter().any(Option::is_some),
            retention: match config.retention.as_str() {
                "workqueue" => Retention::WorkQueue,
                "interest" => Retention::Interest,
                _ => Retention::Limits,
            },
            limited_per_subject: config.max_msgs_per_subject > 0,
            deletes: !config.deny_delete && !config.sealed,
            duplicate_window: Duration::from_nanos(config.duplicate_window),
            max_message_size: usize::try_from(config.max_msg_size).ok().filter(|size| *size > 0),
            refuses,
        })
    }
}

/// Nanoseconds since the Unix epoch of an RFC 3339 time.
pub(super) fn parse_time(text: &str) -> Result<i64, jiff::Error> {
    let time: jiff::Timestamp = text.parse()?;
    Ok(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX))
}

pub(super) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Looks a stream up; `None` if there is none.
///
/// # Errors
/// A [`Failure`] if the server cannot be asked.
pub async fn find_stream(connection: &Connection, name: &str) -> Result<Option<StreamInfo>, Failure> {
    let action = format!("look up stream {name}");
    match connection.api::<RawStream>(&action, &format!("STREAM.INFO.{name}"), &json!({})).await? {
        Ok(raw) => raw.read(&action).map(Some),
        Err(error) if error.err_code == ApiError::STREAM_NOT_FOUND => Ok(None),
        Err(error) => Err(error.into_failure(&action)),
    }
}

/// Creates a stream that is missing; one that exists is used as it is.
///
/// # Errors
/// [`SetupError`].
pub async fn ensure_stream(connection: &Connection, settings: &StreamSettings) -> Result<StreamInfo, SetupError> {
    if let Some(found) = find_stream(connection, &settings.name).await? {
        return Ok(found);
    }
    if !settings.create {
        return Err(SetupError::MissingStream(settings.name.clone()));
    }
    let what = format!("stream {}", settings.name);
    let action = format!("create {what}");
    let operation = format!("STREAM.CREATE.{}", settings.name);
    match connection.api::<RawStream>(&action, &operation, &settings.to_json()).await? {
        Ok(raw) => Ok(raw.read(&action)?),
        // Another replica may have been faster, with another configuration.
        Err(cause) => match find_stream(connection, &settings.name).await? {
            Some(found) => Ok(found),
            None if cause.err_code == ApiError::SUBJECTS_OVERLAP => {
                let others = in_the_way(connection, settings).await.unwrap_or_default();
                if others.is_empty() {
                    Err(SetupError::NotCreated { what, cause })
                } else {
                    Err(overlaps(settings, &others))
                }
            }
            None => Err(SetupError::NotCreated { what, cause }),
        },
    }
}

fn overlaps(settings: &StreamSettings, others: &[String]) -> SetupError {
    let (stream, subjects) = (settings.name.clone(), listed(&settings.subjects));
    SetupError::Overlaps { stream, subjects, others: listed(others) }
}

/// Like [`ensure_stream`], for the target: its duplicate window must be at least twice `ack_wait`.
///
/// # Errors
/// [`SetupError`].
pub async fn ensure_target(
    connection: &Connection,
    settings: &StreamSettings,
    ack_wait: Duration,
) -> Result<StreamInfo, SetupError> {
    let info = ensure_stream(connection, settings).await?;
    check_duplicate_window(&settings.name, &info, ack_wait)?;
    Ok(info)
}

/// Refuses a target whose duplicate window is shorter than twice `ack_wait`.
fn check_duplicate_window(stream: &str, info: &StreamInfo, ack_wait: Duration) -> Result<(), SetupError> {
    let needed = ack_wait * 2;
    if info.duplicate_window < needed {
        return Err(SetupError::DuplicateWindow { stream: stream.to_owned(), window: info.duplicate_window, needed });
    }
    Ok(())
}

/// Says what [`ensure_stream`] would do and [`fit`] find; changes nothing.
///
/// # Errors
/// [`SetupError`].
pub async fn plan_stream(
    connection: &Connection,
    settings: &StreamSettings,
) -> Result<(Plan, Option<Misfit>), SetupError> {
    match find_stream(connection, &settings.name).await? {
        Some(found) => Ok((Plan::Use, fit(connection, settings, &found).await?)),
        None if settings.create => plan_creation(connection, settings).await,
        None => Err(SetupError::MissingStream(settings.name.clone())),
    }
}

/// Like [`plan_stream`], of [`ensure_target`].
///
/// # Errors
/// [`SetupError`].
pub async fn plan_target(
    connection: &Connection,
    settings: &StreamSettings,
    ack_wait: Duration,
) -> Result<(Plan, Option<Misfit>), SetupError> {
    if let Some(found) = find_stream(connection, &settings.name).await? {
        check_duplicate_window(&settings.name, &found, ack_wait)?;
    }
    plan_stream(connection, settings).await
}

async fn plan_creation(
    connection: &Connection,
    settings: &StreamSettings,
) -> Result<(Plan, Option<Misfit>), SetupError> {
    match in_the_way(connection, settings).await {
        Ok(others) if others.is_empty() => Ok((Plan::Create, None)),
        Ok(others) => Err(overlaps(settings, &others)),
        // Whoever may create streams need not have the right to list them.
        Err(failure) => Ok((Plan::Create, Some(Misfit::Unknown { stream: settings.name.clone(), failure }))),
    }
}
