//! A stream with one consumer, in memory.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, pending, ready, select};
use tokio::sync::watch;

use super::{Faults, ManualClock, lock};
use crate::message::{Delivery, DeliveryId, Headers, Receipt, Settle, Settlement};
use crate::ports::{Backlog, Budget, Clock, Failure, Heard, Source, Stalled};

/// A stream that delivers again what is handed back, or not settled within `ack_wait` of its clock.
#[derive(Debug)]
pub struct FakeSource {
    /// Orders to fail: `pull`, `settle`, `confirm_settled`, `backlog`.
    pub faults: Faults,
    clock: ManualClock,
    ack_wait: Duration,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    epoch: AtomicU64,
}

#[derive(Debug)]
struct State {
    stream_created: i64,
    last_sequence: u64,
    messages: BTreeMap<u64, Message>,
    settlements: Vec<Settlement>,
    stopped: bool,
    arrived_at_stop: usize,
    max_ack_pending: usize,
    unacknowledged_elsewhere: usize,
    stalled: Option<Stalled>,
    heard: Heard,
}

#[derive(Debug)]
struct Message {
    subject: String,
    headers: Headers,
    payload: Bytes,
    timestamp: i64,
    deliveries: u64,
    /// When it may be delivered (again); `None` is at once.
    not_before: Option<Instant>,
}

impl Message {
    fn due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }
}

impl FakeSource {
    /// An empty stream.
    pub fn new(clock: ManualClock, ack_wait: Duration) -> Self {
        let state = State {
            stream_created: clock.unix_nanos(),
            last_sequence: 0,
            messages: BTreeMap::new(),
            settlements: Vec::new(),
            stopped: false,
            arrived_at_stop: 0,
            max_ack_pending: usize::MAX,
            unacknowledged_elsewhere: 0,
            stalled: None,
            heard: Heard::All,
        };
        Self {
            faults: Faults::default(),
            clock,
            ack_wait,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            epoch: AtomicU64::new(0),
        }
    }

    /// Adds a message and returns its sequence.
    pub fn feed(&self, subject: &str, headers: Headers, payload: impl Into<Bytes>) -> u64 {
        let timestamp = self.clock.unix_nanos();
        let sequence = {
            let mut state = lock(&self.state);
            state.last_sequence += 1;
            let message = Message {
                subject: subject.to_owned(),
                headers,
                payload: payload.into(),
                timestamp,
                deliveries: 0,
                not_before: None,
            };
            let sequence = state.last_sequence;
            state.messages.insert(sequence, message);
            sequence
        };
        self.changed.send_replace(());
        sequence
    }

    /// Delivers a message again although it is being worked on, as a server that restarted does.
    pub fn redeliver(&self, sequence: u64) {
        if let Some(message) = lock(&self.state).messages.get_mut(&sequence) {
            message.not_before = None;
        }
        self.changed.send_replace(());
    }

    /// Passes a message without giving it, until [`Self::redeliver`].
    pub fn pass(&self, sequence: u64) {
        if let Some(message) = lock(&self.state).messages.get_mut(&sequence) {
            message.not_before = Some(self.clock.now() + Duration::from_secs(1 << 30));
        }
    }

    /// Another replica, which it was given to as well, acknowledges a message.
    pub fn acknowledge_elsewhere(&self, sequence: u64) {
        lock(&self.state).messages.remove(&sequence);
    }

    /// Sets how often a message counts as delivered so far.
    pub fn set_deliveries(&self, sequence: u64, deliveries: u64) {
        if let Some(message) = lock(&self.state).messages.get_mut(&sequence) {
            message.deliveries = deliveries;
        }
    }

    /// Deletes the stream and creates it anew: empty, its sequences starting over.
    pub fn begin_new_life(&self) {
        let mut state = lock(&self.state);
        state.stream_created += 1;
        state.last_sequence = 0;
        state.messages.clear();
    }

    /// Gives no more new messages while so many are unacknowledged.
    pub fn set_max_ack_pending(&self, messages: usize) {
        lock(&self.state).max_ack_pending = messages;
    }

    /// Other replicas were given so many messages that they have not acknowledged.
    pub fn set_unacknowledged_elsewhere(&self, messages: usize) {
        lock(&self.state).unacknowledged_elsewhere = messages;
    }

    /// The connection was lost and made anew.
    pub fn reconnect(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// The next look at the backlog finds the consumer standing still.
    pub fn stall(&self, stalled: Stalled) {
        lock(&self.state).stalled = Some(stalled);
    }

    /// A connection has broken that carried settlements.
    pub fn lose_settlements(&self) {
        lock(&self.state).heard = Heard::PerhapsNotAll;
    }

    /// Makes `stop` return up to so many messages as having arrived unasked for.
    pub fn arrive_at_stop(&self, messages: usize) {
        lock(&self.state).arrived_at_stop = messages;
    }

    /// Whether `stop` was called.
    pub fn stopped(&self) -> bool {
        lock(&self.state).stopped
    }

    /// Sequences that are not acknowledged, in order.
    pub fn unacknowledged(&self) -> Vec<u64> {
        lock(&self.state).messages.keys().copied().collect()
    }

    /// Every settlement handed in, in order, those without effect included.
    pub fn settlements(&self) -> Vec<Settlement> {
        lock(&self.state).settlements.clone()
    }

    fn take(&self, state: &mut State, budget: Budget) -> Vec<Delivery> {
        let now = self.clock.now();
        let mut bytes = 0;
        let mut batch = Vec::new();
        let given = state.messages.values().filter(|message| message.deliveries > 0).count();
        let mut room = state.max_ack_pending.saturating_sub(given);
        for (sequence, message) in state.messages.iter_mut().filter(|(_, message)| message.due(now)) {
            if message.deliveries == 0 {
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            let id =
                DeliveryId { stream_created: state.stream_created, sequence: *sequence, timestamp: message.timestamp };
            let delivery = Delivery {
                receipt: Receipt { id, consumer: 0, reply: format!("ack.{}.{sequence}", state.stream_created).into() },
                subject: message.subject.clone().into(),
                headers: message.headers.clone(),
                payload: message.payload.clone(),
                deliveries: message.deliveries + 1,
                received: now,
            };
            bytes += delivery.size();
            if batch.len() == budget.messages || (bytes > budget.bytes && !batch.is_empty()) {
                break;
            }
            message.deliveries += 1;
            message.not_before = Some(now + self.ack_wait);
            batch.push(delivery);
        }
        batch
    }

    async fn next_batch(&self, budget: Budget) -> Result<Vec<Delivery>, Failure> {
        self.faults.enter("pull")?;
        if self.stopped() {
            return pending().await;
        }
        let mut changed = self.changed.subscribe();
        let mut moved = self.clock.moves();
        loop {
            {
                let mut state = lock(&self.state);
                let batch = if state.stopped { Vec::new() } else { self.take(&mut state, budget) };
                if !batch.is_empty() || state.stopped {
                    return Ok(batch);
                }
            }
            select(pin!(changed.changed()), pin!(moved.changed())).await;
        }
    }

    fn settle_now(&self, settlements: Vec<Settlement>) -> Result<(), Failure> {
        self.faults.enter("settle")?;
        let now = self.clock.now();
        let mut state = lock(&self.state);
        for settlement in settlements {
            let id = settlement.receipt.id;
            let same = id.stream_created == state.stream_created
                && state.messages.get(&id.sequence).is_some_and(|message| message.timestamp == id.timestamp);
            if same {
                state.apply(id.sequence, settlement.settle, now, self.ack_wait);
            }
            state.settlements.push(settlement);
        }
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }

    fn stop_now(&self) -> Vec<Delivery> {
        let mut state = lock(&self.state);
        let arrived = state.arrived_at_stop;
        let left = self.take(&mut state, Budget { messages: arrived, bytes: usize::MAX });
        state.stopped = true;
        drop(state);
        self.changed.send_replace(());
        left
    }

    fn backlog_now(&self) -> Result<Backlog, Failure> {
        self.faults.enter("backlog")?;
        let mut state = lock(&self.state);
        let pending = state.messages.values().filter(|message| message.deliveries == 0).count();
        let unacknowledged = state.messages.len() - pending + state.unacknowledged_elsewhere;
        Ok(Backlog {
            pending: u64::try_from(pending).unwrap_or(u64::MAX),
            unacknowledged: u64::try_from(unacknowledged).unwrap_or(u64::MAX),
            oldest_unacknowledged: state.messages.values().next().map(|message| message.timestamp),
            stalled: state.stalled.take(),
        })
    }
}

impl State {
    fn apply(&mut self, sequence: u64, settle: Settle, now: Instant, ack_wait: Duration) {
        let Some(message) = self.messages.get_mut(&sequence) else { return };
        match settle {
            Settle::Ack => drop(self.messages.remove(&sequence)),
            Settle::Nak(delay) => message.not_before = Some(now + delay),
            Settle::InProgress => message.not_before = Some(now + ack_wait),
        }
    }
}

impl Source for FakeSource {
    fn pull(&self, budget: Budget) -> BoxFuture<'_, Result<Vec<Delivery>, Failure>> {
        self.next_batch(budget).boxed()
    }

    fn settle(&self, settlements: Vec<Settlement>) -> BoxFuture<'_, Result<(), Failure>> {
        ready(self.settle_now(settlements)).boxed()
    }

    fn stop(&self) -> BoxFuture<'_, Vec<Delivery>> {
        ready(self.stop_now()).boxed()
    }

    fn confirm_settled(&self) -> BoxFuture<'_, Result<Heard, Failure>> {
        ready(self.faults.enter("confirm_settled").map(|()| lock(&self.state).heard)).boxed()
    }

    fn connection_epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    fn backlog(&self) -> BoxFuture<'_, Result<Backlog, Failure>> {
        ready(self.backlog_now()).boxed()
    }
}
