//! A target stream, in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio::sync::mpsc::UnboundedSender;

use super::{Faults, lock};
use crate::message::{Answer, Attempt, Headers, Stored};
use crate::ports::{Failure, FailureClass, PublishError, Publisher, Target};

/// A message as it lies in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its sequence.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
}

impl StoredMessage {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A target that stores what is published, once per event key.
#[derive(Debug)]
pub struct FakePublisher {
    /// Orders to fail: `publish` (each attempt; it is not stored), `publish unanswered` (each attempt; it is stored, and its answer is
    /// lost), `target`.
    pub faults: Faults,
    state: Mutex<State>,
    epoch: AtomicU64,
}

#[derive(Debug)]
struct State {
    created: i64,
    last_sequence: u64,
    messages: Vec<StoredMessage>,
    sequences: HashMap<String, u64>,
    refused: HashMap<String, FailureClass>,
    max_payload: usize,
    /// Answers kept back while `Some`.
    held: Option<VecDeque<(UnboundedSender<Answer>, Answer)>>,
}

impl FakePublisher {
    /// An empty target that was created then.
    pub fn new(created: i64) -> Self {
        let state = State {
            created,
            last_sequence: 0,
            messages: Vec::new(),
            sequences: HashMap::new(),
            refused: HashMap::new(),
            max_payload: 1024 * 1024,
            held: None,
        };
        Self { faults: Faults::default(), state: Mutex::new(state), epoch: AtomicU64::new(1) }
    }

    /// What it has stored, in order.
    pub fn stored(&self) -> Vec<StoredMessage> {
        lock(&self.state).messages.clone()
    }

    /// Makes one subject fail, as if no stream listened on it, until [`Self::accept`].
    pub fn refuse(&self, subject: &str) {
        self.refuse_as(subject, FailureClass::Missing);
    }

    /// Makes one subject fail in this way, until [`Self::accept`].
    pub fn refuse_as(&self, subject: &str, class: FailureClass) {
        lock(&self.state).refused.insert(subject.to_owned(), class);
    }

    /// Takes [`Self::refuse`] back.
    pub fn accept(&self, subject: &str) {
        lock(&self.state).refused.remove(subject);
    }

    /// Sets the largest headers and payload it accepts; 1 MiB to begin with.
    pub fn set_max_payload(&self, bytes: usize) {
        lock(&self.state).max_payload = bytes;
    }

    /// Keeps answers back until [`Self::release`].
    pub fn hold(&self) {
        lock(&self.state).held.get_or_insert_default();
    }

    /// How many answers are kept back.
    pub fn held(&self) -> usize {
        lock(&self.state).held.as_ref().map_or(0, VecDeque::len)
    }

    /// Gives the answers kept back, in order, and keeps no more.
    pub fn release(&self) {
        for (answers, answer) in lock(&self.state).held.take().into_iter().flatten() {
            // Whoever asked may be gone by now.
            let _ = answers.send(answer);
        }
    }

    /// Gives the first of the answers kept back, and goes on keeping.
    pub fn release_first(&self) {
        let first = lock(&self.state).held.as_mut().and_then(VecDeque::pop_front);
        // Whoever asked may be gone by now.
        first.into_iter().for_each(|(answers, answer)| drop(answers.send(answer)));
    }

    /// The connection was lost and made anew.
    pub fn reconnect(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// The duplicate window has passed.
    pub fn forget_keys(&self) {
        lock(&self.state).sequences.clear();
    }

    /// Everything after `sequence` is lost, as after a crash of its machine.
    pub fn regress_to(&self, sequence: u64) {
        let mut state = lock(&self.state);
        state.last_sequence = sequence;
        state.messages.retain(|message| message.sequence <= sequence);
        state.sequences.retain(|_, stored| *stored <= sequence);
    }

    /// Deletes the stream and creates it anew: empty, its sequences starting over.
    pub fn begin_new_life(&self) {
        self.regress_to(0);
        lock(&self.state).created += 1;
    }

    /// Another publisher stores so many events, which [`Self::stored`] does not tell of.
    pub fn store_others(&self, count: u64) {
        lock(&self.state).last_sequence += count;
    }

    fn publish_one(&self, attempt: &Attempt) -> Result<Stored, PublishError> {
        self.faults.enter("publish").map_err(PublishError::Rejected)?;
        let stored = lock(&self.state).store(attempt)?;
        match self.faults.take("publish unanswered") {
            Some(failure) => Err(PublishError::Unknown(failure)),
            None => Ok(stored),
        }
    }

    fn publish_all(&self, batch: &[Attempt], answers: &UnboundedSender<Answer>) {
        for attempt in batch {
            let answer = Answer { ticket: attempt.ticket, outcome: self.publish_one(attempt) };
            match &mut lock(&self.state).held {
                Some(held) => held.push_back((answers.clone(), answer)),
                // Whoever asked may be gone by now.
                None => drop(answers.send(answer)),
            }
        }
    }

    fn target_now(&self) -> Result<Target, Failure> {
        self.faults.enter("target")?;
        let state = lock(&self.state);
        Ok(Target { created: state.created, last_sequence: state.last_sequence })
    }
}

impl State {
    fn store(&mut self, attempt: &Attempt) -> Result<Stored, PublishError> {
        let event = &attempt.event;
        let mut headers = vec![("Nats-Msg-Id".to_owned(), event.key.to_string())];
        headers.extend(attempt.late.map(|late| ("Cdc-Late".to_owned(), late.name().to_owned())));
        headers.extend(event.headers.iter().cloned());
        let size =
            event.payload.len() + headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
        if size > self.max_payload {
            return Err(PublishError::TooLarge { size, limit: self.max_payload });
        }
        if let Some(class) = self.refused.get(&*event.subject) {
            let failure = Failure::new(format!("publish to {}", event.subject), *class, "this subject is refused");
            return Err(PublishError::Rejected(failure));
        }
        if let Some(sequence) = self.sequences.get(event.key.as_str()) {
            return Ok(Stored { stream_created: self.created, sequence: *sequence, duplicate: true });
        }
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        self.sequences.insert(event.key.to_string(), sequence);
        self.messages.push(StoredMessage {
            sequence,
            subject: event.subject.to_string(),
            headers,
            payload: event.payload.clone(),
        });
        Ok(Stored { stream_created: self.created, sequence, duplicate: false })
    }
}

impl Publisher for FakePublisher {
    fn publish(&self, batch: Vec<Attempt>, answers: UnboundedSender<Answer>) -> BoxFuture<'_, ()> {
        async move { self.publish_all(&batch, &answers) }.boxed()
    }

    fn target(&self) -> BoxFuture<'_, Result<Target, Failure>> {
        ready(self.target_now()).boxed()
    }

    fn connection_epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }
}
