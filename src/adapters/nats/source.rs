//! The source: a durable pull consumer, read by pull requests of our own.
//!
//! One request is outstanding at most, so that what may still arrive is known and no budget is exceeded. Every look-up of
//! stream and consumer opens a new inbox: what arrives in an inbox belongs to the life of the stream it was opened for.

mod pulling;

use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cdc_actors::message::{Delivery, Receipt, Settle, Settlement};
use cdc_actors::ports::{Backlog, Budget, Failure, FailureClass, Heard, Source};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Mutex;

use self::pulling::{Inbox, Pulling};
use super::backlog::{BacklogWatch, Consumed};
use super::connection::{Connection, subject_of};
use super::consumers::{ConsumerInfo, ConsumerSettings, Note, ensure_consumer, find_consumer, wanted_config};
use super::kept::KeptWatch;
use super::lives::ConsumerLives;
use super::settled::Settled;
use super::streams::{self, Retention, StreamInfo, StreamSettings, ensure_stream, find_stream};
use super::unreadable::unreadable;

/// How long the look at stream and consumer is trusted while the connection stands.
const LIFE_TRUSTED: Duration = Duration::from_secs(2);
/// How long a consumer must have been gone before it is looked up again: while a server deletes a stream, it first deletes
/// the consumers, and a stream created again before it is done can be left without subjects.
const DELETION: Duration = Duration::from_secs(1);

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
