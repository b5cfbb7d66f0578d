//! The source: a durable pull consumer, read by pull requests of our own.
//!
//! One request is outstanding at most, so that what may still arrive is known and no budget is exceeded. Every look-up of
//! stream and consumer opens a new inbox: what arrives in an inbox belongs to the life of the stream it was opened for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use bytestring::ByteString;
use cdc_actors::message::{Delivery, DeliveryId, Receipt, Settle, Settlement};
use cdc_actors::ports::{Backlog, Budget, Failure, FailureClass, Heard, Source};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::unconstrained;
use tokio::time::timeout;

use super::ack::AckSubject;
use super::backlog::{BacklogWatch, Consumed};
use super::connection::{Connection, subject_of};
use super::consumers::{
    ConsumerInfo, ConsumerSettings, Note, RequestLimits, ensure_consumer, find_consumer, wanted_config,
};
use super::headers;
use super::kept::KeptWatch;
use super::lives::ConsumerLives;
use super::reader::StreamReader;
use super::settled::Settled;
use super::streams::{self, Retention, StreamInfo, StreamSettings, ensure_stream, find_stream};
use super::unreadable::{Cuts, unreadable};

/// How long an empty pull waits for a first message.
const IDLE_RETURN: Duration = Duration::from_secs(1);
/// How long the server keeps a request open.
const REQUEST_EXPIRES: Duration = Duration::from_secs(20);
/// How often the server says that a request is still open.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence after which a request is taken for lost.
const SILENCE: Duration = Duration::from_millis(3500);
/// How long the look at stream and consumer is trusted while the connection stands.
const LIFE_TRUSTED: Duration = Duration::from_secs(2);
/// How long a consumer must have been gone before it is looked up again: while a server deletes a stream, it first deletes
/// the consumers, and a stream created again before it is done can be left without subjects.
const DELETION: Duration = Duration::from_secs(1);
/// The longest a withdrawn subscription is waited for.
const DRAIN_PATIENCE: Duration = Duration::from_millis(500);

/// The source stream and its consumer.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// The stream; created if it is missing and may be.
    pub stream: StreamSettings,
    /// The consumer; created if it is missing.
    pub consumer: ConsumerSettings,
    /// How long the consumer may stand still before [`Backlog`] tells so, and one of a work queue is made anew; `None` for ever.
    pub stalled_after: Option<Duration>,
    /// How long what has arrived may lie unread, while intake is paused: longer than `ack_wait`, so that all of it is delivered again
    /// in its place, and well below the time for which those who were given it since remember that they are done with it.
    pub stale_after: Duration,
}

/// What went wrong with a pull request, beside failed calls.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum PullProblem {
    #[error("the next message is larger than the {0} bytes that are free: raise in_flight.bytes")]
    LargerThanBudget(usize),
    #[error("the server refused the pull request: {0}")]
    Refused(String),
    #[error("messages come without their bodies: somebody has set headers_only; it is to be changed back")]
    HeadersOnly,
}

/// The life of the stream that was last confirmed.
#[derive(Debug, Clone, Copy)]
struct Life {
    epoch: u64,
    created: i64,
    /// Whether the stream removes what is acknowledged.
    work_queue: bool,
    confirmed: Instant,
}

impl Life {
    fn new(epoch: u64, stream: &StreamInfo) -> Self {
        let work_queue = stream.retention == Retention::WorkQueue;
        Self { epoch, created: stream.created, work_queue, confirmed: Instant::now() }
    }
}

#[derive(Debug)]
struct Request {
    /// Messages that may still arrive.
    left: usize,
    /// Bytes it asked for.
    bytes: usize,
    /// Messages that have arrived.
    arrived: usize,
    /// The last sign of life.
    heard: Instant,
}

#[derive(Debug)]
struct Inbox {
    subject: String,
    subscriber: Subscriber,
    epoch: u64,
    created: i64,
    consumer: u64,
    limits: RequestLimits,
}

#[derive(Debug, Default)]
struct Pulling {
    /// When somebody last looked whether anything had arrived.
    read: Option<Instant>,
    inbox: Option<Inbox>,
    request: Option<Request>,
    ready: VecDeque<Delivery>,
    /// The next one, if its body seems to be left out. Nothing is taken from the inbox before the stream has been asked.
    bare: Option<Delivery>,
    problem: Option<Failure>,
    cuts: Cuts,
    /// When the server said that the consumer was deleted.
    deleted: Option<Instant>,
}

/// The [`Source`] port on JetStream.
pub struct JetStreamSource {
    connection: Connection,
    settings: SourceSettings,
    pulling: Mutex<Pulling>,
    life: StdMutex<Option<Life>>,
    consumers: ConsumerLives,
    kept: KeptWatch,
    settled: StdMutex<Settled>,
    backlog: BacklogWatch,
    on_note: Arc<dyn Fn(Note) + Send + Sync>,
}

impl JetStreamSource {
    /// A source that looks its stream and consumer up with the first pull. `on_note` is told what differs from the settings.
    pub fn new(
        connection: Connection,
        settings: SourceSettings,
        on_note: impl Fn(Note) + Send + Sync + 'static,
    ) -> Self {
        Self {
            backlog: BacklogWatch::new(settings.stalled_after),
            connection,
            settings,
            pulling: Mutex::default(),
            life: StdMutex::default(),
            consumers: ConsumerLives::default(),
            kept: KeptWatch::default(),
            settled: StdMutex::default(),
            on_note: Arc::new(on_note),
        }
    }

    fn stream(&self) -> &str {
        &self.settings.stream.name
    }

    fn action(&self, what: &str) -> String {
        format!("{what} {} of {}", self.settings.consumer.name, self.stream())
    }

    fn known_life(&self) -> Option<Life> {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_life(&self, life: Option<Life>) {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = life;
    }

    /// When the stream was created, as confirmed for the connection that stands.
    async fn confirmed_life(&self, action: &str) -> Result<Life, Failure> {
        let epoch = self.connection.standing(action)?;
        if let Some(life) = self.known_life().filter(|l| l.epoch == epoch && l.confirmed.elapsed() < LIFE_TRUSTED) {
            return Ok(life);
        }
        let info = find_stream(&self.connection, self.stream())
            .await?
            .ok_or_else(|| streams::SetupError::MissingStream(self.stream().to_owned()).into_failure(action))?;
        let life = Life::new(epoch, &info);
        self.set_life(Some(life));
        Ok(life)
    }

    /// Looks stream and consumer up, creates what is missing, and opens a new inbox.
    async fn open(&self, pulling: &mut Pulling, action: &str) -> Result<(), Failure> {
        if let Some(deleted) = pulling.deleted {
            tokio::time::sleep_until((deleted + DELETION).into()).await;
            pulling.deleted = None;
        }
        let epoch = self.connection.standing(action)?;
        let stream =
            ensure_stream(&self.connection, &self.settings.stream).await.map_err(|e| e.into_failure(action))?;
        let notes = ensure_consumer(&self.connection, self.stream(), &stream.subjects, &self.settings.consumer)
            .await
            .map_err(|e| e.into_failure(action))?;
        notes.into_iter().for_each(|note| (self.on_note)(note));
        let consumer = find_consumer(&self.connection, self.stream(), &self.settings.consumer.name).await?;
        let limits = consumer.as_ref().map(ConsumerInfo::request_limits).unwrap_or_default();
        if let Some(consumer) = &consumer {
            self.consumers.opened(consumer.created_at(action)?);
            let wanted = wanted_config(&self.connection, &stream.subjects, &self.settings.consumer);
            self.kept.opened(wanted.map_err(|e| e.into_failure(action))?, consumer);
        }
        if let Some(consumer) = consumer.filter(|_| pulling.cuts.are_suspicious()) {
            self.look_for_unreadable(pulling, &stream, &consumer).await;
        }
        let consumer = self.consumers.present();
        let subject = self.connection.client().new_inbox();
        let subscriber = self
            .connection
            .client()
            .subscribe(subject.clone())
            .await
            .map_err(|cause| Failure::new(action, FailureClass::Disconnected, cause))?;
        self.set_life(Some(Life::new(epoch, &stream)));
        pulling.inbox = Some(Inbox { subject, subscriber, epoch, created: stream.created, consumer, limits });
        Ok(())
    }

    /// Looks for messages that ended the connection, and takes them as if they had arrived.
    async fn look_for_unreadable(&self, pulling: &mut Pulling, stream: &StreamInfo, consumer: &ConsumerInfo) {
        let consumer = (&self.settings.consumer, consumer, self.consumers.present());
        // Where the stream cannot be read, as for want of rights, what can be pulled is; the next end of a connection asks again.
        let Ok(found) = unreadable(&self.connection, self.stream(), stream.created, consumer).await else { return };
        pulling.cuts.looked();
        for (delivery, flaw) in found {
            let (sequence, subject) = (delivery.receipt.id.sequence, delivery.subject.to_string());
            (self.on_note)(Note::Unreadable { sequence, subject, flaw });
            pulling.ready.push_back(delivery);
        }
    }

    /// Notes that the connection has ended under an open request.
    fn note_cut(&self, pulling: &mut Pulling) {
        if let (Some(inbox), Some(_)) = (&pulling.inbox, &pulling.request) {
            // What is not acknowledged comes again after ack_wait.
            pulling.cuts.happened(inbox.epoch, Instant::now(), 3 * self.settings.consumer.ack_wait);
        }
    }

    /// Lets go of what arrived so long ago, or may have, that whoever was given it since may be done with it for longer than the
    /// dedup store remembers.
    fn discard_stale(&self, pulling: &mut Pulling) {
        let stale_after = self.settings.stale_after;
        while pulling.ready.front().is_some_and(|delivery| delivery.received.elapsed() >= stale_after) {
            pulling.ready.pop_front();
        }
        pulling.bare.take_if(|bare| bare.received.elapsed() >= stale_after);
        if pulling.read.is_some_and(|read| read.elapsed() >= stale_after) {
            pulling.inbox = None;
            pulling.request = None;
        }
    }

    /// Takes what has arrived and gives the inbox up. What still comes to it is delivered again after ack_wait.
    fn abandon(&self, pulling: &mut Pulling) {
        self.collect(pulling);
        pulling.inbox = None;
        pulling.request = None;
        self.set_life(None);
    }

    /// Moves what has arrived to `ready`, without waiting.
    fn collect(&self, pulling: &mut Pulling) {
        let now = Instant::now();
        pulling.read = Some(now);
        while let (Some(inbox), None) = (pulling.inbox.as_mut(), &pulling.bare) {
            // A request bounds what there is: without the runtime's bound on a turn, which is lower, all of it is one batch.
            match unconstrained(inbox.subscriber.next()).now_or_never() {
                Some(Some(message)) => self.accept(pulling, message, now),
                Some(None) => {
                    pulling.inbox = None;
                    pulling.request = None;
                }
                None => return,
            }
        }
    }

    fn accept(&self, pulling: &mut Pulling, message: Message, now: Instant) {
        if let Some(request) = pulling.request.as_mut() {
            request.heard = now;
        }
        // A message of the stream says what it is to be acknowledged by; it may bear a status line of its publisher's.
        let is_delivery = message.reply.as_deref().is_some_and(|reply| reply.starts_with("$JS.ACK."));
        if message.status.is_some() && !is_delivery {
            return self.accept_status(pulling, &message);
        }
        let Some(inbox) = pulling.inbox.as_ref() else { return };
        match delivery(message, inbox, now) {
            Ok(bare) if bare.payload.is_empty() && headers::tell_of_a_body(&bare.headers) => pulling.bare = Some(bare),
            Ok(delivery) => pulling.ready.push_back(delivery),
            Err(cause) => {
                pulling.problem = Some(Failure::new(self.action("pull from"), FailureClass::Protocol, cause));
            }
        }
        if let Some(request) = pulling.request.as_mut() {
            request.arrived += 1;
            request.left = request.left.saturating_sub(1);
            if request.left == 0 {
                pulling.request = None;
            }
        }
    }

    fn accept_status(&self, pulling: &mut Pulling, message: &Message) {
        let status = message.status.map_or(0, |status| status.as_u16());
        let said = message.description.as_deref().unwrap_or_default();
        if status == 100 {
            return;
        }
        // The end of a batch, told after its last message: before a request's first it is of the one before.
        let completed = status == 409 && said.contains("Batch Completed");
        if completed && pulling.request.as_ref().is_some_and(|request| request.arrived == 0) {
            return;
        }
        let Some(request) = pulling.request.take() else { return };
        if completed || status == 404 || status == 408 {
            return;
        }
        // The protocol tells the kinds of 409 apart by their text alone.
        if status == 409 && said.contains("Exceeds MaxBytes") {
            if request.arrived == 0 {
                let cause = PullProblem::LargerThanBudget(request.bytes);
                pulling.problem = Some(Failure::new(self.action("pull from"), FailureClass::Unavailable, cause));
            }
            return;
        }
        // Consumer deleted, leadership changed, server shutting down, no responders, or a refusal: look everything up again.
        pulling.inbox = None;
        self.set_life(None);
        if said.contains("Consumer Deleted") {
            self.consumers.end();
            pulling.deleted = Some(Instant::now());
            return;
        }
        if status != 503 && !said.contains("Leadership Change") && !said.contains("Shutdown") {
            let cause = PullProblem::Refused(format!("{status} {said}"));
            pulling.problem = Some(Failure::new(self.action("pull from"), FailureClass::Unavailable, cause));
        }
    }

    /// Gives a request up that can no longer be answered.
    fn check_request(&self, pulling: &mut Pulling) {
        let moved_on = pulling.inbox.as_ref().is_some_and(|inbox| {
            inbox.epoch != self.connection.epoch()
                || inbox.consumer != self.consumers.present()
                || self.known_life().is_none_or(|life| life.epoch != inbox.epoch || life.created != inbox.created)
        });
        if moved_on && pulling.inbox.as_ref().is_some_and(|inbox| inbox.epoch != self.connection.epoch()) {
            self.note_cut(pulling);
        }
        let silent = pulling.request.as_ref().is_some_and(|request| request.heard.elapsed() > SILENCE);
        if moved_on || silent || self.kept.is_due() {
            self.abandon(pulling);
        }
    }

    async fn request(&self, pulling: &mut Pulling, budget: Budget, action: &str) -> Result<(), Failure> {
        let held: usize = pulling.ready.iter().map(Delivery::size).sum();
        let batch = self.settings.consumer.batch.max(1);
        let messages = budget.messages.saturating_sub(pulling.ready.len()).min(batch);
        let bytes = budget.bytes.saturating_sub(held);
        // With deliveries at hand there is no hurry: a request for a rest that the next message exceeds would be refused,
        // and one for a few messages would stand in the way of one for many.
        let small = bytes < self.connection.client().max_payload() || messages < batch / 4;
        let too_little = !pulling.ready.is_empty() && small;
        if pulling.request.is_some() || messages == 0 || too_little {
            return Ok(());
        }
        if pulling.inbox.is_none() {
            self.open(pulling, action).await?;
        }
        let Some(inbox) = pulling.inbox.as_ref() else {
            return Ok(());
        };
        let (messages, bytes) = (messages.min(inbox.limits.messages), bytes.min(inbox.limits.bytes));
        let expires = REQUEST_EXPIRES.min(inbox.limits.expires);
        // A server refuses a heartbeat of more than half of that.
        let heartbeat = HEARTBEAT.min(expires / 2);
        let body = json!({
            "batch": messages,
            "max_bytes": bytes,
            "expires": u64::try_from(expires.as_nanos()).unwrap_or(u64::MAX),
            "idle_heartbeat": u64::try_from(heartbeat.as_nanos()).unwrap_or(u64::MAX),
        });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream(), self.settings.consumer.name);
        let sent = self.connection.client().publish_with_reply(subject, inbox.subject.clone(), body.to_string().into());
        tokio::select! {
            sent = sent => sent.map_err(|cause| Failure::new(action, FailureClass::Disconnected, cause))?,
            () = self.connection.gone(inbox.epoch) => return Err(self.connection.broken(action)),
        }
        pulling.request = Some(Request { left: messages, bytes, arrived: 0, heard: Instant::now() });
        Ok(())
    }

    async fn pull_within(&self, budget: Budget) -> Result<Vec<Delivery>, Failure> {
        let action = self.action("pull from");
        let mut pulling = self.pulling.lock().await;
        let pulling = &mut *pulling;
        self.discard_stale(pulling);
        let idle = Instant::now() + IDLE_RETURN;
        loop {
            self.collect(pulling);
            while pulling.bare.is_some() && pulling.ready.is_empty() {
                self.take_bare(pulling, &action).await?;
                self.collect(pulling);
            }
            if let Some(problem) = pulling.problem.take() {
                return Err(problem);
            }
            self.check_request(pulling);
            let asked = match self.connection.standing(&action) {
                Ok(_) => self.request(pulling, budget, &action).await,
                Err(failure) => Err(failure),
            };
            if !pulling.ready.is_empty() {
                return Ok(take(&mut pulling.ready, budget));
            }
            asked?;
            let left = idle.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Vec::new());
            }
            self.wait(pulling, left, &action).await?;
        }
    }

    /// Takes a delivery whose body seems to be left out as it is, if the stream has none of it either. If it has one, the consumer gives
    /// headers alone: nothing more of it is taken before it has been looked up, and what it gave comes again.
    async fn take_bare(&self, pulling: &mut Pulling, action: &str) -> Result<(), Failure> {
        let Some(id) = pulling.bare.as_ref().map(|bare| bare.receipt.id) else { return Ok(()) };
        let stored = StreamReader::new(self.connection.clone(), self.stream()).get(id.sequence).await?;
        let bare = pulling.bare.take();
        match stored.filter(|stored| stored.time == id.timestamp) {
            // Acknowledged by somebody else, too old by now, or of a stream that is gone.
            None => Ok(()),
            Some(stored) if stored.payload.is_empty() => {
                pulling.ready.extend(bare);
                Ok(())
            }
            Some(_) => {
                pulling.inbox = None;
                pulling.request = None;
                self.set_life(None);
                Err(Failure::new(action, FailureClass::Protocol, PullProblem::HeadersOnly))
            }
        }
    }

    /// Waits for the next message of the inbox, for `left` at most.
    async fn wait(&self, pulling: &mut Pulling, left: Duration, action: &str) -> Result<(), Failure> {
        let Some(inbox) = pulling.inbox.as_mut() else {
            return Ok(());
        };
        let epoch = inbox.epoch;
        tokio::select! {
            next = timeout(left, inbox.subscriber.next()) => match next {
                Ok(Some(message)) => self.accept(pulling, message, Instant::now()),
                Ok(None) => self.abandon(pulling),
                Err(_) => {}
            },
            () = self.connection.gone(epoch) => {
                self.note_cut(pulling);
                return Err(self.connection.broken(action));
            }
        }
        Ok(())
    }

    async fn settle_all(&self, settlements: Vec<Settlement>) -> Result<(), Failure> {
        let action = self.action("settle at");
        let life = self.confirmed_life(&action).await?;
        let consumer = self.consumers.present();
        let is_ours = |receipt: &Receipt| receipt.id.stream_created == life.created && receipt.consumer == consumer;
        let ours = settlements.into_iter().filter(|settlement| is_ours(&settlement.receipt));
        let send = async {
            for settlement in ours {
                let Settlement { receipt: Receipt { reply, .. }, settle } = settlement;
                let body = match settle {
                    Settle::Ack => Bytes::from_static(b"+ACK"),
                    Settle::InProgress => Bytes::from_static(b"+WPI"),
                    Settle::Nak(delay) => Bytes::from(format!("-NAK {{\"delay\":{}}}", delay.as_nanos())),
                };
                self.connection
                    .client()
                    .publish(subject_of(&reply), body)
                    .await
                    .map_err(|cause| Failure::new(action.as_str(), FailureClass::Disconnected, cause))?;
            }
            Ok(())
        };
        self.settled().carried_by(life.epoch, Instant::now());
        tokio::select! {
            sent = send => sent?,
            () = self.connection.gone(life.epoch) => return Err(self.connection.broken(&action)),
        }
        // What was handed in while the connection broke may have gone down with it.
        if self.connection.standing(&action)? == life.epoch { Ok(()) } else { Err(self.connection.broken(&action)) }
    }

    fn settled(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn confirm(&self) -> Result<Heard, Failure> {
        let action = self.action("confirm settlements at");
        let epoch = self.connection.standing(&action)?;
        if self.settled().are_carried_by(epoch) {
            // The server reads a connection in order: an answer to this means that it has read what came before.
            find_consumer(&self.connection, self.stream(), &self.settings.consumer.name).await?;
            if self.connection.standing(&action)? != epoch {
                return Err(self.connection.broken(&action));
            }
        }
        Ok(self.settled().heard(epoch, self.settings.consumer.ack_wait, Instant::now()))
    }

    async fn withdraw(&self) -> Vec<Delivery> {
        let mut pulling = self.pulling.lock().await;
        let pulling = &mut *pulling;
        if let Some(inbox) = pulling.inbox.as_mut() {
            let drained = timeout(DRAIN_PATIENCE, inbox.subscriber.drain()).await;
            if let Ok(Ok(())) = drained {
                let deadline = tokio::time::Instant::now() + DRAIN_PATIENCE;
                while let Some(inbox) = pulling.inbox.as_mut() {
                    match tokio::time::timeout_at(deadline, inbox.subscriber.next()).await {
                        Ok(Some(message)) => self.accept(pulling, message, Instant::now()),
                        Ok(None) | Err(_) => break,
                    }
                }
            }
        }
        self.collect(pulling);
        pulling.inbox = None;
        pulling.request = None;
        pulling.bare = None;
        pulling.ready.drain(..).collect()
    }

    async fn look_behind(&self) -> Result<Backlog, Failure> {
        let seen = async {
            let life = self.confirmed_life(&self.action("look up the backlog of")).await?;
            let consumed = Consumed {
                connection: &self.connection,
                stream: self.stream(),
                created: life.created,
                work_queue: life.work_queue,
                consumer: &self.settings.consumer,
                lives: &self.consumers,
                kept: &self.kept,
            };
            self.backlog.look(consumed).await
        };
        let (backlog, notes) = seen.await.inspect_err(|_| self.backlog.blind())?;
        notes.into_iter().for_each(|note| (self.on_note)(note));
        Ok(backlog)
    }
}

fn delivery(message: Message, inbox: &Inbox, received: Instant) -> Result<Delivery, super::NotAnAckSubject> {
    let reply = message.reply.as_deref().unwrap_or_default();
    let ack = AckSubject::parse(reply)?;
    let id = DeliveryId { stream_created: inbox.created, sequence: ack.sequence, timestamp: ack.timestamp };
    let deliveries = ack.deliveries;
    // Copied, since both stand in the client's read buffer, which is as large as many messages; together, since both live as
    // long as the delivery.
    let mut texts = String::with_capacity(message.subject.len() + reply.len());
    texts.push_str(&message.subject);
    texts.push_str(reply);
    let texts = ByteString::from(texts);
    let (subject, reply) = texts.split_at(message.subject.len());
    Ok(Delivery {
        receipt: Receipt { id, consumer: inbox.consumer, reply },
        subject,
        headers: headers::received(message.headers.as_ref()),
        payload: message.payload,
        deliveries,
        received,
    })
}

/// Takes what fits the budget. One delivery is always taken, so that a message larger than the whole budget, which the
/// port rules out, cannot block the stream.
fn take(ready: &mut VecDeque<Delivery>, budget: Budget) -> Vec<Delivery> {
    let mut bytes = 0;
    let mut count = 0;
    for delivery in ready.iter().take(budget.messages.max(1)) {
        bytes += delivery.size();
        if count > 0 && bytes > budget.bytes {
            break;
        }
        count += 1;
    }
    ready.drain(..count).collect()
}

impl Source for JetStreamSource {
    fn pull(&self, budget: Budget) -> BoxFuture<'_, Result<Vec<Delivery>, Failure>> {
        self.pull_within(budget).boxed()
    }

    fn settle(&self, settlements: Vec<Settlement>) -> BoxFuture<'_, Result<(), Failure>> {
        self.settle_all(settlements).boxed()
    }

    fn stop(&self) -> BoxFuture<'_, Vec<Delivery>> {
        self.withdraw().boxed()
    }

    fn confirm_settled(&self) -> BoxFuture<'_, Result<Heard, Failure>> {
        self.confirm().boxed()
    }

    fn backlog(&self) -> BoxFuture<'_, Result<Backlog, Failure>> {
        self.look_behind().boxed()
    }

    fn connection_epoch(&self) -> u64 {
        self.connection.epoch()
    }
}
