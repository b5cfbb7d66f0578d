//! The durable pull consumer: created as configured, checked, brought up to date.

use std::fmt;
use std::time::Duration;

use cdc_actors::ports::{Failure, FailureClass};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::ApiError;
use super::connection::Connection;
use super::kept::Changed;
use super::lives::ConsumerLives;
use super::streams::{Plan, SetupError, nanos, parse_time};
use super::unreadable::Flaw;
use crate::domain::overlap;

/// The bound on unacknowledged deliveries, as the server names it.
const MAX_ACK_PENDING: &str = "max_ack_pending";
/// The bound on deliveries of one message, likewise; -1 for none.
const MAX_DELIVER: &str = "max_deliver";
/// What the names of those begin with that hold the filters, one or several.
const FILTER: &str = "filter_subject";
/// Whether messages are given without their bodies, likewise.
const HEADERS_ONLY: &str = "headers_only";

/// The durable pull consumer.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// Its name.
    pub name: String,
    /// Subjects it is to be given; empty for all.
    pub filters: Vec<String>,
    /// How long a delivery may stay unacknowledged before it is delivered again.
    pub ack_wait: Duration,
    /// Unacknowledged deliveries at most, over all replicas.
    pub max_ack_pending: u32,
    /// Deliveries of one message at most; `None` for no limit, which is the only safe choice.
    pub max_deliver: Option<u32>,
    /// Messages asked for in one request at most.
    pub batch: usize,
}

/// What was found that differs from the settings and was left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A setting of the consumer that the server would not change.
    NotUpdated {
        /// The consumer.
        consumer: String,
        /// The setting, as the server names it.
        setting: String,
        /// What it is.
        is: String,
        /// What it should be.
        wanted: String,
        /// Why the server refused.
        refused: String,
    },
    /// A consumer that stands still could not be deleted.
    NotDeleted {
        /// The consumer.
        consumer: String,
        /// Why the server refused.
        refused: String,
    },
    /// Somebody else has changed the consumer.
    Changed {
        /// The consumer.
        consumer: String,
        /// What was changed.
        changed: Changed,
    },
    /// A message that the client cannot read, and closes its connection over.
    Unreadable {
        /// Its sequence in the stream.
        sequence: u64,
        /// The subject it came under.
        subject: String,
        /// What is wrong with it.
        flaw: Flaw,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUpdated { consumer, setting, is, wanted, refused } => write!(
                f,
                "consumer {consumer} keeps {setting} {is}, {wanted} is configured: {refused}; have somebody who may change it, or delete it and create it anew"
            ),
            Self::NotDeleted { consumer, refused } => write!(
                f,
                "consumer {consumer} stands still and could not be deleted: {refused}; have somebody delete it who may, it is created anew"
            ),
            Self::Changed { consumer, changed } => write!(f, "consumer {consumer} {changed}"),
            Self::Unreadable { sequence, subject, flaw } => write!(
                f,
                "message {sequence} of the source ({subject}) ended the connection: {flaw}; it was read by another way, see to its publisher"
            ),
        }
    }
}

/// A consumer as the server describes it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ConsumerInfo {
    pub(super) created: String,
    pub(super) delivered: Delivered,
    pub(super) config: Map<String, Value>,
    pub(super) ack_floor: AckFloor,
    pub(super) num_ack_pending: u64,
    pub(super) num_pending: u64,
    /// Pull requests that wait.
    #[serde(default)]
    num_waiting: u64,
    /// By an operator, since 2.11.
    #[serde(default)]
    pub(super) paused: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Delivered {
    pub(super) consumer_seq: u64,
    pub(super) stream_seq: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct AckFloor {
    pub(super) stream_seq: u64,
}

/// What a consumer lets one pull request ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestLimits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    /// How long it may wait.
    pub(super) expires: Duration,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { messages: usize::MAX, bytes: usize::MAX, expires: Duration::MAX }
    }
}

impl ConsumerInfo {
    /// What it lets one pull request ask for.
    pub(super) fn request_limits(&self) -> RequestLimits {
        let set = |setting: &str| self.config.get(setting).and_then(Value::as_u64).filter(|limit| *limit > 0);
        let size = |setting: &str| set(setting).and_then(|limit| usize::try_from(limit).ok());
        RequestLimits {
            messages: size("max_batch").unwrap_or(usize::MAX),
            bytes: size("max_bytes").unwrap_or(usize::MAX),
            expires: set("max_expires").map_or(Duration::MAX, Duration::from_nanos),
        }
    }

    /// When it was created, nanoseconds since the Unix epoch.
    pub(super) fn created_at(&self, action: &str) -> Result<i64, Failure> {
        parse_time(&self.created).map_err(|cause| Failure::new(action, FailureClass::Protocol, cause))
    }

    /// Whether it lets go of messages that were delivered too often.
    pub(super) fn gives_up(&self) -> bool {
        self.config.get(MAX_DELIVER).and_then(Value::as_i64).is_some_and(|limit| limit > 0)
    }

    /// Whether messages and requests wait, and nothing keeps it from giving.
    pub(super) fn could_give(&self) -> bool {
        let bound = self.config.get(MAX_ACK_PENDING).and_then(Value::as_u64).unwrap_or(u64::MAX);
        self.num_pending > 0 && self.num_waiting > 0 && self.num_ack_pending < bound && !self.paused
    }

    /// The subjects it is given; empty for all.
    pub(super) fn filters(&self) -> Vec<String> {
        let one = self.config.get("filter_subject").and_then(Value::as_str).filter(|subject| !subject.is_empty());
        let many = self.config.get("filter_subjects").and_then(Value::as_array).into_iter().flatten();
        one.into_iter().chain(many.filter_map(Value::as_str)).map(str::to_owned).collect()
    }
}

/// Whether a consumer with these filters is given what comes under a subject. Without any it is given all.
pub fn gives(filters: &[String], subject: &str) -> bool {
    filters.is_empty() || filters.iter().any(|filter| overlap(filter, subject))
}

/// A setting of the consumer that is not as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The setting, as the server names it.
    pub setting: String,
    /// What it is.
    pub is: Value,
    /// What it is to be.
    pub wanted: Value,
}

impl Difference {
    /// Whether it decides which messages are given.
    pub(super) fn is_of_filters(&self) -> bool {
        self.setting.starts_with(FILTER)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Value| if value.is_null() { "none".to_owned() } else { value.to_string() };
        write!(f, "{} {} instead of {}", self.setting, shown(&self.is), shown(&self.wanted))
    }
}

/// Looks a consumer up; `None` if the server says that there is none.
pub(super) async fn find_consumer(
    connection: &Connection,
    stream: &str,
    name: &str,
) -> Result<Option<ConsumerInfo>, Failure> {
    let action = format!("look up consumer {name} of {stream}");
    match connection.api(&action, &format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await? {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.err_code == ApiError::CONSUMER_NOT_FOUND => Ok(None),
        Err(error) => Err(error.into_failure(&action)),
    }
}

/// Deletes a consumer that was created then, and creates it anew as it was, to be given all that its stream holds. One that is gone
/// already, or is another by now, is as good. Without the right to create it, which is tried first, it stays.
pub(super) async fn recreate_consumer(
    connection: &Connection,
    stream: &str,
    name: &str,
    created: &str,
    lives: &ConsumerLives,
) -> Result<(), Failure> {
    let action = format!("delete consumer {name} of {stream}");
    let Some(found) = find_consumer(connection, stream, name).await? else { return Ok(()) };
    // A server that answers at all lets it be asked. What stands against it may be the very thing that stands still.
    let anew = format!("create consumer {name} of {stream} anew");
    let now =
        put_consumer(connection, &anew, stream, name, &found.config).await?.map_or(found.created, |now| now.created);
    // Another replica may have been faster.
    if now != created {
        return Ok(());
    }
    lives.end();
    let deleted = async {
        match connection.api::<Value>(&action, &format!("CONSUMER.DELETE.{stream}.{name}"), &json!({})).await? {
            Err(error) if error.err_code != ApiError::CONSUMER_NOT_FOUND => Err(error.into_failure(&action)),
            _ => Ok(()),
        }
    };
    deleted.await.inspect_err(|_| lives.resume())?;
    let mut config = found.config;
    config.insert("deliver_policy".to_owned(), "all".into());
    for start in ["opt_start_seq", "opt_start_time"] {
        config.remove(start);
    }
    // If this fails the next pull creates it as configured.
    let _ = put_consumer(connection, &anew, stream, name, &config).await;
    Ok(())
}

/// Creates the durable pull consumer if it is missing, and brings one that exists up to date as far as the server allows.
///
/// # Errors
/// [`SetupError`].
pub async fn ensure_consumer(
    connection: &Connection,
    stream: &str,
    stream_subjects: &[String],
    settings: &ConsumerSettings,
) -> Result<Vec<Note>, SetupError> {
    let wanted = wanted_config(connection, stream_subjects, settings)?;
    let Some(found) = find_consumer(connection, stream, &settings.name).await? else {
        let config = created_config(settings, wanted);
        let action = format!("create consumer {} of {stream}", settings.name);
        return match put_consumer(connection, &action, stream, &settings.name, &config).await? {
            Ok(_) => Ok(Vec::new()),
            Err(cause) => match find_consumer(connection, stream, &settings.name).await? {
                Some(_) => Ok(Vec::new()),
                None => Err(SetupError::NotCreated { what: format!("consumer {} of {stream}", settings.name), cause }),
            },
        };
    };
    check_kind(connection, stream, settings, &found)?;
    let changes = differences(&found.config, &wanted);
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let mut config = found.config.clone();
    config.extend(changes.iter().map(|change| (change.setting.clone(), change.wanted.clone())));
    let named: Vec<&str> = changes.iter().map(|change| change.setting.as_str()).collect();
    let action = format!("change {} of consumer {} of {stream}", named.join(", "), settings.name);
    match put_consumer(connection, &action, stream, &settings.name, &config).await {
        Ok(Ok(_)) => Ok(Vec::new()),
        Ok(Err(_)) => update_one_by_one(connection, stream, &settings.name, found.config, changes).await,
        Err(failure) => match kept_for_want_of_rights(&settings.name, &changes, &failure) {
            Some(note) => Ok(vec![note]),
            None => Err(failure.into()),
        },
    }
}

/// What may stay as it is where this user must not change the consumer: a bound that costs throughput at worst. Everything
/// else decides which messages come, or when they come again, and has to be as configured.
fn kept_for_want_of_rights(consumer: &str, changes: &[Difference], failure: &Failure) -> Option<Note> {
    let [change] = changes else { return None };
    let may_stay = failure.class == FailureClass::Denied && change.setting == MAX_ACK_PENDING;
    may_stay.then(|| not_updated(consumer, change, failure.cause.to_string()))
}

fn not_updated(consumer: &str, change: &Difference, refused: String) -> Note {
    let Difference { setting, is, wanted } = change;
    let (consumer, setting) = (consumer.to_owned(), setting.clone());
    Note::NotUpdated { consumer, setting, is: is.to_string(), wanted: wanted.to_string(), refused }
}

/// Says what [`ensure_consumer`] would do to a consumer of a stream that exists; changes nothing.
///
/// # Errors
/// [`SetupError`].
pub async fn plan_consumer(
    connection: &Connection,
    stream: &str,
    stream_subjects: &[String],
    settings: &ConsumerSettings,
) -> Result<Plan, SetupError> {
    let wanted = wanted_config(connection, stream_subjects, settings)?;
    let Some(found) = find_consumer(connection, stream, &settings.name).await? else {
        return Ok(Plan::Create);
    };
    check_kind(connection, stream, settings, &found)?;
    let changes: Vec<String> =
        differences(&found.config, &wanted).into_iter().map(|difference| difference.setting).collect();
    Ok(if changes.is_empty() { Plan::Use } else { Plan::Update(changes) })
}

/// The settings that are kept up to date, as the server names them.
pub(super) fn wanted_config(
    connection: &Connection,
    stream_subjects: &[String],
    settings: &ConsumerSettings,
) -> Result<Map<String, Value>, SetupError> {
    let mut config = Map::new();
    config.insert("ack_wait".to_owned(), nanos(settings.ack_wait).into());
    config.insert(MAX_ACK_PENDING.to_owned(), settings.max_ack_pending.into());
    config.insert(MAX_DELIVER.to_owned(), settings.max_deliver.map_or(-1, i64::from).into());
    // A backoff list would override ack_wait.
    config.insert("backoff".to_owned(), Value::Null);
    // Without their bodies events would be taken for broken ones, and the only copy be acknowledged.
    config.insert(HEADERS_ONLY.to_owned(), false.into());
    let (one, many) = match settings.filters.as_slice() {
        [] => (Value::Null, Value::Null),
        [subject] => (Value::from(subject.as_str()), Value::Null),
        several if connection.client().is_server_compatible(2, 10, 0) => (Value::Null, Value::from(several.to_vec())),
        several if same_set(several, stream_subjects) => (Value::Null, Value::Null),
        several => {
            return Err(SetupError::Filters {
                consumer: settings.name.clone(),
                filters: several.len(),
                version: connection.client().server_info().version,
            });
        }
    };
    config.insert("filter_subject".to_owned(), one);
    config.insert("filter_subjects".to_owned(), many);
    Ok(config)
}

fn created_config(settings: &ConsumerSettings, wanted: Map<String, Value>) -> Map<String, Value> {
    let mut config: Map<String, Value> = wanted.into_iter().filter(|(_, value)| !value.is_null()).collect();
    for (setting, value) in [
        ("durable_name", settings.name.as_str()),
        ("deliver_policy", "all"),
        ("ack_policy", "explicit"),
        ("replay_policy", "instant"),
    ] {
        config.insert(setting.to_owned(), value.into());
    }
    config
}

fn same_set(a: &[String], b: &[String]) -> bool {
    a.iter().all(|x| b.contains(x)) && b.iter().all(|x| a.contains(x))
}

fn check_kind(
    connection: &Connection,
    stream: &str,
    settings: &ConsumerSettings,
    found: &ConsumerInfo,
) -> Result<(), SetupError> {
    let text = |key: &str| found.config.get(key).and_then(Value::as_str).unwrap_or_default();
    let grouped = found.config.get("priority_groups").is_some_and(|groups| !is_unset(groups));
    // As for in_flight.bytes: beside its payload a message has a subject and a reply.
    let roomy = found.request_limits().bytes / 2 >= connection.client().max_payload();
    let problem = if !text("deliver_subject").is_empty() {
        "is a push consumer"
    } else if text("ack_policy") != "explicit" {
        "does not ask for explicit acknowledgements"
    } else if grouped {
        "gives by priority groups (priority_groups), of which the service knows none"
    } else if !roomy {
        "lets no request ask for twice the server's max_payload (max_bytes), so that a large message would never come"
    } else {
        return Ok(());
    };
    Err(wrong(stream, &settings.name, problem))
}

fn wrong(stream: &str, consumer: &str, problem: &'static str) -> SetupError {
    SetupError::WrongConsumer { stream: stream.to_owned(), consumer: consumer.to_owned(), problem }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(set) => !set,
        _ => false,
    }
}

/// What differs in a consumer from what is wanted of it.
pub(super) fn differences(found: &Map<String, Value>, wanted: &Map<String, Value>) -> Vec<Difference> {
    let compared = wanted.iter().map(|(setting, wanted)| Difference {
        setting: setting.clone(),
        is: found.get(setting).cloned().unwrap_or(Value::Null),
        wanted: wanted.clone(),
    });
    compared.filter(|Difference { is, wanted, .. }| is != wanted && !(is_unset(is) && is_unset(wanted))).collect()
}

async fn put_consumer(
    connection: &Connection,
    action: &str,
    stream: &str,
    name: &str,
    config: &Map<String, Value>,
) -> Result<Result<ConsumerInfo, ApiError>, Failure> {
    let body = json!({ "stream_name": stream, "config": config });
    let operation = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
    connection.api(action, &operation, &body).await
}

async fn update_one_by_one(
    connection: &Connection,
    stream: &str,
    name: &str,
    mut config: Map<String, Value>,
    changes: Vec<Difference>,
) -> Result<Vec<Note>, SetupError> {
    let mut notes = Vec::new();
    for change in changes {
        let setting = change.setting.clone();
        let action = format!("change {setting} of consumer {name} of {stream}");
        config.insert(setting.clone(), change.wanted.clone());
        if let Err(error) = put_consumer(connection, &action, stream, name, &config).await? {
            if setting == HEADERS_ONLY {
                return Err(wrong(stream, name, "leaves bodies out (headers_only), and the server keeps it so"));
            }
            config.insert(setting, change.is.clone());
            notes.push(not_updated(name, &change, error.to_string()));
        }
    }
    Ok(notes)
}
