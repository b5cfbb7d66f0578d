//! Pull requests, and what comes of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use bytestring::ByteString;
use cdc_actors::message::{Delivery, DeliveryId, Receipt};
use cdc_actors::ports::{Budget, Failure, FailureClass};
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::task::unconstrained;
use tokio::time::timeout;

use super::JetStreamSource;
use crate::adapters::nats::ack::{AckSubject, NotAnAckSubject};
use crate::adapters::nats::consumers::RequestLimits;
use crate::adapters::nats::headers;
use crate::adapters::nats::reader::StreamReader;
use crate::adapters::nats::unreadable::Cuts;

/// How long an empty pull waits for a first message.
const IDLE_RETURN: Duration = Duration::from_secs(1);
/// How long the server keeps a request open.
const REQUEST_EXPIRES: Duration = Duration::from_secs(20);
/// How often the server says that a request is still open.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence after which a request is taken for lost.
const SILENCE: Duration = Duration::from_millis(3500);
/// The longest a withdrawn subscription is waited for.
const DRAIN_PATIENCE: Duration = Duration::from_millis(500);

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
pub(super) struct Inbox {
    pub(super) subject: String,
    pub(super) subscriber: Subscriber,
    pub(super) epoch: u64,
    pub(super) created: i64,
    pub(super) consumer: u64,
    pub(super) limits: RequestLimits,
}

#[derive(Debug, Default)]
pub(super) struct Pulling {
    /// When somebody last looked whether anything had arrived.
    read: Option<Instant>,
    pub(super) inbox: Option<Inbox>,
    request: Option<Request>,
    pub(super) ready: VecDeque<Delivery>,
    /// The next one, if its body seems to be left out. Nothing is taken from the inbox before the stream has been asked.
    bare: Option<Delivery>,
    problem: Option<Failure>,
    pub(super) cuts: Cuts,
    /// When the server said that the consumer was deleted.
    pub(super) deleted: Option<Instant>,
}

impl JetStreamSource {
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
        let is_delivery = || message.reply.as_deref().is_some_and(|reply| reply.starts_with("$JS.ACK."));
        if message.status.is_some() && !is_delivery() {
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
        if pulling.inbox.as_ref().is_some_and(|inbox| inbox.epoch != self.connection.epoch()) {
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

    pub(super) async fn pull_within(&self, budget: Budget) -> Result<Vec<Delivery>, Failure> {
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

    pub(super) async fn withdraw(&self) -> Vec<Delivery> {
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
}

fn delivery(message: Message, inbox: &Inbox, received: Instant) -> Result<Delivery, NotAnAckSubject> {
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
