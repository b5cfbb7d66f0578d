//! The publisher: pipelined, confirmed publishes on one connection.
//!
//! Acknowledgements come to one long-lived inbox, told apart by a counter, and one task answers for all that is pending:
//! the client's request multiplexer keeps a slot for every request that is never answered, and needs a timer for each.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Message, Subject, Subscriber};
use bytestring::ByteString;
use cdc_actors::message::{Answer, Attempt, Stored};
use cdc_actors::ports::{Failure, FailureClass, PublishError, Publisher, Target};
use foldhash::HashMap;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde::Deserialize;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::api::ApiError;
use super::connection::{Connection, subject_of};
use super::limit::{SizeLimit, message_size, wire_headers};
use super::progress::Progress;
use super::streams::{SetupError, StreamInfo, find_stream};

/// How often what is pending is looked through.
const TICK: Duration = Duration::from_millis(50);
/// How long the look at the stream is trusted while nothing hints at a change.
const FACTS_TRUSTED: Duration = Duration::from_secs(30);

/// The target.
#[derive(Debug, Clone)]
pub struct PublisherSettings {
    /// The stream that must store what is published.
    pub stream: String,
    /// How long an acknowledgement is waited for; the outcome is unknown afterwards.
    pub ack_timeout: Duration,
}

impl PublisherSettings {
    /// A target with the default of 5 s for acknowledgements.
    pub fn new(stream: impl Into<String>) -> Self {
        Self { stream: stream.into(), ack_timeout: Duration::from_secs(5) }
    }
}

/// What is known of the stream.
#[derive(Debug, Clone, Copy)]
struct Facts {
    epoch: u64,
    created: i64,
    max_message_size: Option<usize>,
    taken: Instant,
}

#[derive(Debug)]
struct Pending {
    ticket: u64,
    subject: ByteString,
    size: usize,
    sent: Instant,
    epoch: u64,
    answers: UnboundedSender<Answer>,
}

impl Pending {
    fn answer(self, outcome: Result<Stored, PublishError>) {
        // Whoever no longer listens has given the attempt up.
        let _ = self.answers.send(Answer { ticket: self.ticket, outcome });
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum PublishProblem {
    #[error("no stream listens on this subject: does stream {0} exist, and do its subjects cover it?")]
    NoStream(String),
    #[error("stored in stream {stored} instead: its subjects overlap with those of {stream}")]
    OtherStream { stored: String, stream: String },
    #[error("stream {stream} cannot store anything: {why}")]
    Refuses { stream: String, why: &'static str },
}

struct Core {
    connection: Connection,
    settings: PublisherSettings,
    inbox: String,
    next: AtomicU64,
    /// What has been sent and not answered, by token.
    pending: StdMutex<HashMap<u64, Pending>>,
    facts: StdMutex<Option<Facts>>,
    progress: StdMutex<Progress>,
    action: Arc<str>,
}

/// The [`Publisher`] port on JetStream.
pub struct JetStreamPublisher {
    core: Arc<Core>,
    task: JoinHandle<()>,
}

impl Drop for JetStreamPublisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl JetStreamPublisher {
    /// Subscribes to the inbox for acknowledgements and starts the task that reads them, on the runtime of the caller.
    ///
    /// # Errors
    /// A [`Failure`] if the connection is closed.
    pub async fn new(connection: Connection, settings: PublisherSettings) -> Result<Self, Failure> {
        let action: Arc<str> = format!("publish to {}", settings.stream).into();
        let inbox = connection.client().new_inbox();
        let subscriber = connection
            .client()
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|cause| Failure::new(action.clone(), FailureClass::Disconnected, cause))?;
        let core = Arc::new(Core {
            connection,
            settings,
            inbox,
            next: AtomicU64::new(0),
            pending: StdMutex::default(),
            facts: StdMutex::default(),
            progress: StdMutex::default(),
            action,
        });
        let task = tokio::spawn(read_acks(core.clone(), subscriber));
        Ok(Self { core, task })
    }

    /// Bytes of headers and payload that the target accepts, as far as is known.
    pub fn size_limit(&self) -> usize {
        self.core.size_limit().bytes()
    }

    /// Looks the target up if what is known of it may be out of date.
    pub(super) async fn refresh(&self) -> Result<(), Failure> {
        let epoch = self.core.connection.standing(&self.core.action)?;
        self.core.facts_for(epoch).await.map(drop)
    }
}

impl Publisher for JetStreamPublisher {
    fn publish(&self, batch: Vec<Attempt>, answers: UnboundedSender<Answer>) -> BoxFuture<'_, ()> {
        self.core.publish(batch, answers).boxed()
    }

    fn target(&self) -> BoxFuture<'_, Result<Target, Failure>> {
        self.core.target().boxed()
    }

    fn connection_epoch(&self) -> u64 {
        self.core.connection.epoch() + self.core.progress().setbacks()
    }
}

impl Core {
    fn pending(&self) -> MutexGuard<'_, HashMap<u64, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn facts(&self) -> MutexGuard<'_, Option<Facts>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the stream; with the last sequence to go by.
    async fn look(&self, epoch: u64, action: &str) -> Result<StreamInfo, Failure> {
        let (stream, then) = (&self.settings.stream, self.progress().known());
        let missing = || SetupError::MissingStream(stream.clone()).into_failure(action);
        let mut info = find_stream(&self.connection, stream).await?.ok_or_else(missing)?;
        info.last_sequence = self.progress().seen(epoch, info.created, then, info.last_sequence, Instant::now());
        Ok(info)
    }

    fn size_limit(&self) -> SizeLimit {
        SizeLimit::new(self.facts().and_then(|facts| facts.max_message_size), &self.connection)
    }

    /// Asks for the stream and remembers the answer.
    async fn take_facts(&self, epoch: u64) -> Result<Facts, Failure> {
        let info = self.look(epoch, &self.action).await.inspect_err(|failure| {
            if failure.class == FailureClass::Missing {
                *self.facts() = None;
            }
        })?;
        let facts =
            Facts { epoch, created: info.created, max_message_size: info.max_message_size, taken: Instant::now() };
        *self.facts() = Some(facts);
        Ok(facts)
    }

    async fn facts_for(&self, epoch: u64) -> Result<Facts, Failure> {
        let known = *self.facts();
        match known {
            Some(facts) if facts.epoch == epoch => Ok(facts),
            _ => self.take_facts(epoch).await,
        }
    }

    async fn publish(&self, batch: Vec<Attempt>, answers: UnboundedSender<Answer>) {
        let reject = |ticket: u64, failure: &Failure| {
            let _ = answers.send(Answer { ticket, outcome: Err(PublishError::Rejected(failure.clone())) });
        };
        let ready = async {
            let epoch = self.connection.standing(&self.action)?;
            self.facts_for(epoch).await.map(|_| epoch)
        };
        let epoch = match ready.await {
            Ok(epoch) => epoch,
            Err(failure) => return batch.iter().for_each(|attempt| reject(attempt.ticket, &failure)),
        };
        let mut rest = batch.into_iter();
        let send_all = async {
            for attempt in rest.by_ref() {
                self.send(attempt, epoch, &answers).await;
            }
        };
        tokio::select! {
            () = send_all => {}
            () = self.connection.gone(epoch) => {}
        }
        let broken = self.connection.broken(&self.action);
        rest.for_each(|attempt| reject(attempt.ticket, &broken));
    }

    async fn send(&self, attempt: Attempt, epoch: u64, answers: &UnboundedSender<Answer>) {
        let Attempt { ticket, event, late } = attempt;
        let headers = wire_headers(&event, late);
        let size = message_size(&event, &headers);
        if let Err(error) = self.size_limit().check_size(size) {
            let _ = answers.send(Answer { ticket, outcome: Err(error) });
            return;
        }
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let subject = event.subject.clone();
        let pending =
            Pending { ticket, subject: subject.clone(), size, sent: Instant::now(), epoch, answers: answers.clone() };
        self.pending().insert(token, pending);
        let (subject, reply) = (subject_of(&subject), self.reply_to(token));
        let client = self.connection.client();
        if let Err(cause) = client.publish_with_reply_and_headers(subject, reply, headers, event.payload.clone()).await
        {
            // Not handed to the connection: a subject it finds invalid, or a connection closed for good.
            let class =
                if self.connection.is_connected() { FailureClass::Protocol } else { FailureClass::Disconnected };
            if let Some(pending) = self.pending().remove(&token) {
                pending.answer(Err(PublishError::Rejected(Failure::new(self.action.clone(), class, cause))));
            }
        }
    }

    /// Where the answer to a publish is wanted.
    fn reply_to(&self, token: u64) -> Subject {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(token);
        let mut reply = String::with_capacity(self.inbox.len() + 1 + digits.len());
        reply.push_str(&self.inbox);
        reply.push('.');
        reply.push_str(digits);
        Subject::from(reply)
    }

    async fn target(&self) -> Result<Target, Failure> {
        let action = format!("look up target {}", self.settings.stream);
        let epoch = self.connection.standing(&action)?;
        let info = self.look(epoch, &action).await?;
        if let Some(why) = info.refuses {
            let cause = PublishProblem::Refuses { stream: self.settings.stream.clone(), why };
            return Err(Failure::new(action, FailureClass::Unavailable, cause));
        }
        // The next publish takes what is known of the stream from an answer of its own, if it has changed.
        let mut facts = self.facts();
        if facts.is_some_and(|facts| facts.created != info.created || facts.epoch != epoch) {
            *facts = None;
        }
        Ok(Target { created: info.created, last_sequence: info.last_sequence })
    }

    /// Answers the attempt that an acknowledgement belongs to.
    async fn acknowledged(&self, message: Message) {
        let token = message.subject.rsplit('.').next().and_then(|token| token.parse::<u64>().ok());
        // One that is no longer pending has been answered: too late, or on a connection that broke.
        let Some(pending) = token.and_then(|token| self.pending().remove(&token)) else {
            return;
        };
        let outcome = self.outcome(&message, &pending).await;
        pending.answer(outcome);
    }

    async fn outcome(&self, message: &Message, pending: &Pending) -> Result<Stored, PublishError> {
        let rejected = |class, problem| PublishError::Rejected(Failure::new(self.action.clone(), class, problem));
        if message.status.is_some_and(|status| status.as_u16() == 503) {
            *self.facts() = None;
            return Err(rejected(FailureClass::Missing, PublishProblem::NoStream(self.settings.stream.clone())));
        }
        let unknown = |cause: Box<dyn std::error::Error + Send + Sync>| {
            PublishError::Unknown(Failure::new(self.action.clone(), FailureClass::Protocol, cause))
        };
        let (stream, sequence, duplicate) = match serde_json::from_slice(&message.payload) {
            Ok(PubAck { error: Some(error), .. }) => return Err(self.refused(error, pending).await),
            // A replicated stream of nats-server 2.10 answers so while an earlier publish under the same id is in process, which may
            // come to nothing. Newer ones answer with an error of its own.
            Ok(PubAck { seq: Some(0), .. }) => {
                return Err(unknown("an earlier publish under this id is in process".into()));
            }
            Ok(PubAck { stream: Some(stream), seq: Some(sequence), duplicate, .. }) => (stream, sequence, duplicate),
            Ok(_) => return Err(unknown("an answer that names neither an error nor a sequence".into())),
            Err(cause) => return Err(unknown(cause.into())),
        };
        if stream != self.settings.stream {
            let problem =
                PublishProblem::OtherStream { stored: stream.into_owned(), stream: self.settings.stream.clone() };
            return Err(rejected(FailureClass::Protocol, problem));
        }
        let stream_created = self.life_of(sequence, duplicate, pending).await.map_err(PublishError::Unknown)?;
        Ok(Stored { stream_created, sequence, duplicate })
    }

    async fn refused(&self, error: ApiError, pending: &Pending) -> PublishError {
        if error.err_code == ApiError::MESSAGE_TOO_LARGE {
            let limit = match self.take_facts(pending.epoch).await {
                Ok(facts) => facts.max_message_size.unwrap_or(pending.size.saturating_sub(1)),
                Err(failure) => return PublishError::Rejected(failure),
            };
            return PublishError::TooLarge { size: pending.size, limit };
        }
        let of_another_attempt = error.err_code == ApiError::ID_IN_PROCESS;
        let failure = error.into_failure(&self.action);
        // This attempt is not stored, but the one in process may be: another replica's, or our own that was not answered.
        if of_another_attempt { PublishError::Unknown(failure) } else { PublishError::Rejected(failure) }
    }

    /// When the stream that sent this acknowledgement was created. A sequence that is not above the last means that it may be
    /// another one of the same name, or the same with less than it had.
    async fn life_of(&self, sequence: u64, duplicate: bool, pending: &Pending) -> Result<i64, Failure> {
        let epoch = pending.epoch;
        let known = *self.facts();
        let ascends = |facts: &Facts| duplicate || sequence > self.progress().highest(epoch, facts.created);
        let now = match known.filter(ascends) {
            Some(facts) => facts,
            None => self.take_facts(epoch).await?,
        };
        if !duplicate {
            self.progress().confirmed(epoch, now.created, sequence, pending.sent);
        }
        Ok(now.created)
    }

    /// Answers what has waited too long, and everything that was on a connection that broke.
    fn sweep(&self) {
        let epoch = self.connection.epoch();
        let connected = self.connection.is_connected();
        let now = Instant::now();
        let is_due = |_: &u64, waiting: &mut Pending| {
            let waited = now.saturating_duration_since(waiting.sent);
            !connected || waiting.epoch != epoch || waited >= self.settings.ack_timeout
        };
        let mut due: Vec<(u64, Pending)> = self.pending().extract_if(is_due).collect();
        // Tokens are given out in the order of time.
        due.sort_unstable_by_key(|(token, _)| *token);
        for (_, waiting) in due {
            let outcome = Err(self.unanswered(&waiting, connected && waiting.epoch == epoch));
            waiting.answer(outcome);
        }
    }

    fn unanswered(&self, waiting: &Pending, connected: bool) -> PublishError {
        if !connected {
            return PublishError::Unknown(self.connection.broken(&self.action));
        }
        match self.connection.refused_since(waiting.sent, &waiting.subject) {
            Some(said) => PublishError::Rejected(Failure::new(self.action.clone(), FailureClass::Denied, said)),
            None => PublishError::Unknown(Failure::timeout(self.action.clone(), self.settings.ack_timeout)),
        }
    }

    async fn renew_old_facts(&self) {
        let old = self.facts().is_some_and(|facts| facts.taken.elapsed() > FACTS_TRUSTED);
        if old && self.connection.is_connected() {
            // A failure shows with the next publish; what is known may still be true, so it is looked at again later.
            if self.take_facts(self.connection.epoch()).await.is_err()
                && let Some(facts) = self.facts().as_mut()
            {
                facts.taken = Instant::now();
            }
        }
    }
}

/// The answer to a publish. Read in one go and without copies, since each event has one.
#[derive(Debug, Deserialize)]
struct PubAck<'a> {
    error: Option<ApiError>,
    #[serde(borrow)]
    stream: Option<Cow<'a, str>>,
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
}

/// Reads acknowledgements and looks after what is pending, until the publisher is dropped or the connection closed.
async fn read_acks(core: Arc<Core>, mut subscriber: Subscriber) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = subscriber.next() => match message {
                Some(message) => core.acknowledged(message).await,
                None => break,
            },
            _ = tick.tick() => {
                core.sweep();
                core.renew_old_facts().await;
            }
        }
    }
    let closed = core.connection.broken(&core.action);
    for (_, waiting) in core.pending().drain() {
        waiting.answer(Err(PublishError::Unknown(closed.clone())));
    }
}
