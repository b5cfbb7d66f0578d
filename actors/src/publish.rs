//! The PublishActor: publishes events in the order of their rows, tries again what failed, and stores dead letters.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use bytestring::ByteString;
use foldhash::{HashMap, HashMapExt};
use futures::stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::message::{Answer, Attempt, DeadLetter, Reason, Stored};
use crate::order::{Departure, Lanes, Place, Sent};
use crate::ports::{DeadLetters, Dependency, Failure, FailureClass, PublishError, Publisher, Target};
use crate::refused::{Wait, WaitingRoom};
use crate::shared::{
    ActorKind, Apart, Buried, Bury, Confirmed, Core, HandBack, Life, LookAtTarget, Pending, Publish, RecordStored,
    SetTarget, TryAgain, Unacknowledged, beat,
};
use crate::telemetry::{Outcome, Telemetry};

/// Answers taken in one go.
const ANSWERS: usize = 1024;
/// Dead letters stored at once.
const LETTERS: usize = 32;
/// Failing subjects that, with no success in between, mean that the target is down and not a subject refused.
const SUBJECTS_THAT_MEAN_DOWN: usize = 2;

struct Flying {
    pending: Pending,
    place: Place,
    handed: Instant,
    /// The [`Core::target_epoch`] that it was handed over in.
    epoch: Option<u64>,
}

/// What is known of the target's health.
#[derive(Default)]
struct Health {
    probing: bool,
    /// Probes that failed in a row.
    failures: u32,
    /// The supervisor has been told that the target is down.
    reported_down: bool,
    /// Subjects that failed since the last success.
    failing: HashSet<ByteString>,
    last_failure: Option<Failure>,
    last_success: Option<Instant>,
    /// When the newest of those that were stored had been handed over.
    stored_handed: Option<Instant>,
    /// Since when there have always been rows that are refused.
    refusing_since: Option<Instant>,
    /// An attempt was refused that had been handed over after another that was stored meanwhile: the target as a whole is
    /// neither down nor just back.
    selective: bool,
    /// Events that were refused since one was stored.
    refused_in_a_row: usize,
    /// When the stream of the last success was created.
    stored_in: Option<i64>,
}

/// Publishes; see the module.
pub struct PublishActor {
    core: Arc<Core>,
    publisher: Arc<dyn Publisher>,
    dead_letters: Arc<dyn DeadLetters>,
    lanes: Lanes<Pending>,
    flying: HashMap<u64, Flying>,
    outbox: Vec<Attempt>,
    sending: bool,
    /// The [`Core::target_epoch`] in which the target was looked at last.
    looked: Option<u64>,
    answers: UnboundedSender<Answer>,
    health: Health,
    room: WaitingRoom,
    /// Suspects must run by themselves: what is refused waits elsewhere.
    apart: bool,
    /// The target has been away for long: what fails goes back until it is there again.
    handing_back: bool,
    /// The process is about to end: what fails goes back.
    leaving: bool,
    retry: Option<SpawnHandle>,
    graves: VecDeque<Buried>,
    burying: bool,
    bury_failures: u32,
    answered: Option<UnboundedReceiver<Answer>>,
    _life: Life,
}

impl PublishActor {
    pub(crate) fn new(
        core: Arc<Core>,
        publisher: Arc<dyn Publisher>,
        dead_letters: Arc<dyn DeadLetters>,
        looked: Option<u64>,
        life: Life,
    ) -> Self {
        let (answers, answered) = unbounded_channel();
        let room = WaitingRoom::new(core.settings.in_flight.messages, core.settings.max_ack_pending);
        Self {
            core,
            publisher,
            dead_letters,
            lanes: Lanes::default(),
            flying: HashMap::new(),
            outbox: Vec::new(),
            sending: false,
            looked,
            answers,
            health: Health::default(),
            room,
            apart: false,
            handing_back: false,
            leaving: false,
            retry: None,
            graves: VecDeque::new(),
            burying: false,
            bury_failures: 0,
            answered: Some(answered),
            _life: life,
        }
    }

    fn launch(&mut self, departures: Vec<Departure<Pending>>) {
        let handed = self.core.clock.now();
        self.outbox.reserve(departures.len());
        for Departure { number, item, place, late } in departures {
            if let Some(certainty) = late {
                let (table, key) = (item.event.table, &item.event.key);
                self.core.observer.observe(Telemetry::Late { table, key, certainty });
            }
            self.outbox.push(Attempt { ticket: number, event: Arc::clone(&item.event), late });
            self.flying.insert(number, Flying { pending: item, place, handed, epoch: self.looked });
        }
    }

    /// Over a connection made anew, or after an outage, nothing is sent before the target has been looked at: what is stored now
    /// would hide that the target is behind what is recorded.
    fn is_in_doubt(&self) -> bool {
        self.looked != Some(self.core.target_epoch(&*self.publisher))
    }

    /// Hands the outbox to the connection; one batch at a time, so that order is kept.
    fn flush(&mut self, ctx: &mut Context<Self>) {
        if self.sending || self.outbox.is_empty() || self.is_in_doubt() {
            return;
        }
        self.sending = true;
        let (publisher, answers) = (Arc::clone(&self.publisher), self.answers.clone());
        let batch = std::mem::take(&mut self.outbox);
        let send = async move { publisher.publish(batch, answers).await };
        ctx.spawn(send.into_actor(self).map(|(), actor, ctx| {
            actor.sending = false;
            actor.flush(ctx);
        }));
    }

    fn take_answers(&mut self, answers: Vec<Answer>, ctx: &mut Context<Self>) {
        let (now, unix_nanos) = (self.core.clock.now(), self.core.clock.unix_nanos());
        let (mut confirmed, mut failed, mut last, mut oldest) = (Vec::with_capacity(answers.len()), 0, None, now);
        let mut newest = None;
        let (core, mut departures) = (Arc::clone(&self.core), Vec::new());
        let epoch_now = self.core.target_epoch(&*self.publisher);
        let mut rows = core.lock_rows();
        for Answer { ticket, outcome } in answers {
            let Some(Flying { mut pending, place, handed, epoch }) = self.flying.remove(&ticket) else {
                continue;
            };
            let (sent, again) = match outcome {
                // Heard after its connection was gone, or after an outage: what it confirms the target may have lost since, and another replica
                // may have filled up. Sent again under its id it is stored once in either case.
                Ok(_) if epoch != Some(epoch_now) => {
                    pending.attempts += 1;
                    pending.unheard = true;
                    (Sent::Unknown, Some(pending))
                }
                Ok(stored) => {
                    oldest = oldest.min(handed);
                    newest = newest.max(Some(handed));
                    if pending.refused_since.is_some() {
                        self.health.selective = false;
                    }
                    self.look_if_other(stored);
                    self.tell_published(&pending, stored, unix_nanos);
                    confirmed.push(Confirmed { pending, stored, since: now });
                    (Sent::Stored, None)
                }
                Err(error @ PublishError::TooLarge { .. }) => {
                    self.bury(pending, Reason::TooLarge, error.to_string());
                    (Sent::NotStored, None)
                }
                Err(PublishError::Unknown(failure)) => {
                    failed += 1;
                    pending.unheard = true;
                    let again = self.failed(pending, failure.class, handed, now);
                    last = Some(failure);
                    (Sent::Unknown, again)
                }
                Err(PublishError::Rejected(failure)) => {
                    failed += 1;
                    let again = self.failed(pending, failure.class, handed, now);
                    last = Some(failure);
                    (Sent::NotStored, again)
                }
            };
            let retry_at = |failures| now + core.delay(failures);
            departures.extend(self.lanes.answered(&mut rows, ticket, place, sent, again, retry_at));
        }
        drop(rows);
        self.launch(departures);
        if !confirmed.is_empty() {
            self.health.stored_handed = self.health.stored_handed.max(newest);
            self.succeeded(oldest, now);
            self.core.record.send(RecordStored(confirmed));
        }
        if let Some(failure) = last {
            self.core.observer.observe(Telemetry::PublishFailed { attempts: failed, failure: &failure });
            self.health.last_failure = Some(failure);
            self.probe(ctx);
        }
        if self.handing_back || self.leaving {
            self.hand_back_waiting(if self.leaving { HandBack::Leaving } else { HandBack::Away });
        }
        if !self.lanes.any_blocked() {
            (self.health.refusing_since, self.health.selective) = (None, false);
        }
        self.flush(ctx);
        self.schedule_retries(ctx);
    }

    /// Stored in a stream that is not the one of the last answer: then it was created anew.
    fn look_if_other(&mut self, stored: Stored) {
        if self.health.stored_in != Some(stored.stream_created) {
            self.health.stored_in = Some(stored.stream_created);
            self.core.look_at_target.send(LookAtTarget { created: Some(stored.stream_created) });
        }
    }

    fn tell_published(&self, pending: &Pending, stored: Stored, unix_nanos: i64) {
        let event = &pending.event;
        let since = |at| u64::try_from((unix_nanos / 1_000).saturating_sub(at)).ok();
        let since_commit = event.committed.and_then(since).map(Duration::from_micros);
        let telemetry =
            Telemetry::Published { table: event.table, key: &event.key, duplicate: stored.duplicate, since_commit };
        self.core.observer.observe(telemetry);
    }

    /// Notes a failed attempt and brings the event back if it is to be sent again. One that alone has been refused for too
    /// long is a dead letter; one that failed while all is handed back goes back.
    fn failed(&mut self, mut pending: Pending, class: FailureClass, handed: Instant, now: Instant) -> Option<Pending> {
        pending.attempts += 1;
        // Nobody listening and no permission concern the subject alone for as long as the target itself answers: to pause
        // intake for them would keep away the very events that could be stored.
        let of_subject = matches!(class, FailureClass::Missing | FailureClass::Denied);
        // Nor does a failure say anything of the target if others were stored since it was handed over: time-outs come late,
        // and many at once.
        let outlived = self.health.last_success.is_some_and(|at| at > handed);
        if !of_subject && !outlived && self.health.failing.len() < SUBJECTS_THAT_MEAN_DOWN {
            // A copy: the subject shares the memory of its event.
            self.health.failing.insert(ByteString::from(&*pending.event.subject));
        }
        if self.handing_back || self.leaving {
            pending.ticket.give_back(Duration::ZERO);
            return None;
        }
        if self.health.failures > 0 || self.health.reported_down {
            pending.refused_since = None;
            return Some(pending);
        }
        self.health.refused_in_a_row += usize::from(pending.attempts == 1);
        let refusing_since = *self.health.refusing_since.get_or_insert(now);
        self.health.selective |= self.others_were_stored(refusing_since, handed);
        let since = *pending.refused_since.get_or_insert(now);
        let refused_for = now.saturating_duration_since(since);
        if refused_for >= self.core.patience().refused_for && self.others_were_stored(since, handed) {
            let (subject, attempts) = (&pending.event.subject, pending.attempts);
            let seconds = refused_for.as_secs();
            let detail = format!("{subject} was refused {attempts} times over {seconds} s while others were stored");
            self.bury(pending, Reason::Refused, detail);
            return None;
        }
        // Not at the first failures: the probe may not have found out yet that all of the target is down.
        if pending.attempts <= 2 {
            return Some(pending);
        }
        self.find_room(pending, now)
    }

    /// Whether an event was stored that had been handed over after one time and before another. What was refused at both is
    /// refused by a target that stores others.
    fn others_were_stored(&self, after: Instant, before: Instant) -> bool {
        self.health.stored_handed.is_some_and(|at| at > after && at < before)
    }

    /// Whether the target refuses some and stores others. Who once did so may be down as a whole by now: then nothing else
    /// comes between those that are refused.
    fn is_selective(&self) -> bool {
        self.health.selective && self.health.refused_in_a_row <= self.core.settings.max_ack_pending
    }

    /// Brings an event of a refused row back if it may wait here. If not it waits at the source, as long as it is not in the
    /// way of others there.
    fn find_room(&mut self, pending: Pending, now: Instant) -> Option<Pending> {
        let here = self.lanes.refused();
        match self.room.next(here, now) {
            Wait::Here if !self.apart => return Some(pending),
            Wait::Nowhere if self.is_selective() => {
                let (subject, away) = (&pending.event.subject, self.room.away(now));
                let detail = format!(
                    "{subject} is refused while others are stored, and {here} refused events wait in this replica and {away} at the source, which leaves no room to wait: source.max_ack_pending bounds it"
                );
                self.bury(pending, Reason::Refused, detail);
            }
            Wait::Here | Wait::Away | Wait::Nowhere => self.send_away(pending, now),
        }
        None
    }

    /// Lets an event of a refused row wait at the source.
    fn send_away(&mut self, pending: Pending, now: Instant) {
        // Later than the others of its row, so that it does not come back before they are through.
        let ack_wait = self.core.settings.ack_wait;
        self.room.sent_away(now + ack_wait);
        if pending.attempts > 0 {
            pending.ticket.refused(ack_wait);
        } else {
            pending.ticket.give_back(ack_wait);
        }
    }

    fn bury(&mut self, pending: Pending, reason: Reason, mut detail: String) {
        if pending.unheard {
            detail.push_str("; an earlier attempt was not answered and may have been stored");
        }
        let table = Some(pending.event.table);
        // Through the mailbox like any other dead letter, so that there is one way into the grave.
        self.core.bury.send(Bury(vec![Buried { ticket: pending.ticket, table, reason, detail }]));
    }

    fn succeeded(&mut self, handed: Instant, now: Instant) {
        self.health.last_success = Some(now);
        self.health.refused_in_a_row = 0;
        self.health.failing.clear();
        self.health.failures = 0;
        self.health.reported_down = false;
        self.handing_back = false;
        self.core.called(Dependency::Target, "publish", handed, None, false);
    }

    /// Asks the target whether it could store anything: tells a target that is down from a subject that is refused.
    fn probe(&mut self, ctx: &mut Context<Self>) {
        if self.health.probing {
            return;
        }
        self.health.probing = true;
        let (publisher, started) = (Arc::clone(&self.publisher), self.core.clock.now());
        let call = async move { publisher.target().await };
        ctx.spawn(call.into_actor(self).map(move |result, actor, ctx| actor.probed(result, started, ctx)));
    }

    fn probed(&mut self, result: Result<Target, Failure>, started: Instant, ctx: &mut Context<Self>) {
        let was_failing = self.health.failures > 0;
        let failure = match result {
            Err(failure) => {
                // From the first on nothing is sent: what is confirmed before the next probe must not pass for the end of it.
                if self.health.failures == 0 {
                    self.core.doubt_target();
                }
                self.health.failures += 1;
                Some(failure)
            }
            Ok(target) => {
                self.core.look_at_target.send(LookAtTarget { created: Some(target.created) });
                self.health.failures = 0;
                self.handing_back = false;
                let nothing_gets_through = self.health.failing.len() >= SUBJECTS_THAT_MEAN_DOWN;
                if was_failing {
                    self.core.doubt_target();
                    self.health.failing.clear();
                    self.lanes.hasten(started);
                }
                self.health.last_failure.clone().filter(|_| nothing_gets_through && !was_failing)
            }
        };
        let down = failure.is_some();
        if down || self.health.reported_down {
            self.core.called(Dependency::Target, "probe", started, failure.as_ref(), false);
        }
        self.health.reported_down = down;
        if self.health.failures == 0 {
            self.health.probing = false;
            return self.schedule_retries(ctx);
        }
        ctx.run_later(self.core.delay(self.health.failures), |actor, ctx| {
            actor.health.probing = false;
            actor.probe(ctx);
        });
    }

    /// Sends what is due in blocked lanes and comes back for the rest. While the target is down the probe does that.
    fn schedule_retries(&mut self, ctx: &mut Context<Self>) {
        if let Some(retry) = self.retry.take() {
            ctx.cancel_future(retry);
        }
        if self.health.failures > 0 || self.is_in_doubt() || !self.lanes.any_blocked() {
            return;
        }
        let now = self.core.clock.now();
        let due = self.lanes.due(&mut self.core.lock_rows(), now);
        self.launch(due);
        self.flush(ctx);
        if let Some(delay) = self.lanes.next_due(now) {
            let retry = ctx.run_later(delay.max(Duration::from_millis(1)), |actor, ctx| {
                actor.retry = None;
                actor.schedule_retries(ctx);
            });
            self.retry = Some(retry);
        }
    }

    fn hand_back_waiting(&mut self, why: HandBack) {
        let waiting = self.lanes.take_waiting();
        if !waiting.is_empty() {
            let (deliveries, why) = (waiting.len(), why.why());
            self.core.observer.observe(Telemetry::HandedBack { deliveries, why });
        }
        for pending in waiting {
            pending.ticket.give_back(Duration::ZERO);
        }
    }

    /// Gives back what was never sent. Nothing has failed by that: the target was not looked at yet.
    fn hand_back_unsent(&mut self, why: HandBack) {
        if self.outbox.is_empty() {
            return;
        }
        let (core, now) = (Arc::clone(&self.core), self.core.clock.now());
        let (deliveries, why) = (self.outbox.len(), why.why());
        core.observer.observe(Telemetry::HandedBack { deliveries, why });
        let (mut rows, mut departures) = (core.lock_rows(), Vec::new());
        for Attempt { ticket, .. } in std::mem::take(&mut self.outbox) {
            let Some(Flying { pending, place, .. }) = self.flying.remove(&ticket) else { continue };
            departures.extend(self.lanes.answered(&mut rows, ticket, place, Sent::NotStored, None, |_| now));
            pending.ticket.give_back(Duration::ZERO);
        }
        drop(rows);
        self.launch(departures);
    }

    fn run_burials(&mut self, ctx: &mut Context<Self>) {
        if self.burying || self.graves.is_empty() {
            return;
        }
        self.burying = true;
        let batch: Vec<Buried> = self.graves.drain(..self.graves.len().min(LETTERS)).collect();
        let letters = batch.iter().map(|buried| DeadLetter {
            delivery: Arc::clone(&buried.ticket.delivery),
            table: buried.table,
            reason: buried.reason,
            detail: buried.detail.clone(),
        });
        let (dead_letters, letters, started) =
            (Arc::clone(&self.dead_letters), letters.collect::<Vec<_>>(), self.core.clock.now());
        let call = async move {
            futures::future::join_all(letters.into_iter().map(|letter| dead_letters.store(letter))).await
        };
        ctx.spawn(call.into_actor(self).map(move |results, actor, ctx| actor.stored(batch, results, started, ctx)));
    }

    fn stored(
        &mut self,
        batch: Vec<Buried>,
        results: Vec<Result<(), Failure>>,
        started: Instant,
        ctx: &mut Context<Self>,
    ) {
        let (mut again, mut last) = (VecDeque::new(), None);
        for (buried, result) in batch.into_iter().zip(results) {
            match result {
                Ok(()) => self.buried(buried),
                Err(failure) => {
                    last = Some(failure);
                    again.push_back(buried);
                }
            }
        }
        self.core.called(Dependency::DeadLetter, "store", started, last.as_ref(), false);
        again.append(&mut self.graves);
        self.graves = again;
        if last.is_none() {
            (self.bury_failures, self.burying) = (0, false);
            return self.run_burials(ctx);
        }
        self.bury_failures += 1;
        ctx.run_later(self.core.delay(self.bury_failures), |actor, ctx| {
            actor.burying = false;
            actor.run_burials(ctx);
        });
    }

    fn buried(&self, buried: Buried) {
        let Buried { ticket, table, reason, detail } = buried;
        let id = ticket.delivery.receipt.id;
        let subject = &ticket.delivery.subject;
        self.core.observer.observe(Telemetry::DeadLettered { id, subject, table, reason, detail: &detail });
        ticket.done(table, Outcome::DeadLettered);
    }

    /// Brings an event back if it may be sent, or wait in its lane.
    fn admitted(&mut self, pending: Pending, now: Instant) -> Option<Pending> {
        let down = self.health.failures > 0 || self.health.reported_down;
        if down || !self.lanes.is_refused(pending.row) { Some(pending) } else { self.find_room(pending, now) }
    }
}

impl Actor for PublishActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        beat(ctx, &self.core, ActorKind::Publish);
        if let Some(answered) = self.answered.take() {
            ctx.add_stream(stream::unfold(answered, |mut answered| async move {
                let mut batch = Vec::new();
                (answered.recv_many(&mut batch, ANSWERS).await > 0).then_some((batch, answered))
            }));
        }
    }
}

impl StreamHandler<Vec<Answer>> for PublishActor {
    fn handle(&mut self, answers: Vec<Answer>, ctx: &mut Self::Context) {
        self.take_answers(answers, ctx);
    }
}

impl Handler<Publish> for PublishActor {
    type Result = ();

    fn handle(&mut self, Publish(events): Publish, ctx: &mut Self::Context) {
        let mut departures = Vec::with_capacity(events.len());
        let core = Arc::clone(&self.core);
        let mut rows = core.lock_rows();
        let now = core.clock.now();
        for pending in events {
            let Some(pending) = self.admitted(pending, now) else { continue };
            let place = Place {
                row: pending.row,
                position: pending.event.position,
                redelivered: pending.ticket.delivery.deliveries > 1,
            };
            departures.extend(self.lanes.admit(&mut rows, pending, place));
        }
        drop(rows);
        self.launch(departures);
        self.flush(ctx);
    }
}

impl Handler<Apart> for PublishActor {
    type Result = ();

    fn handle(&mut self, Apart(apart): Apart, _: &mut Self::Context) {
        self.apart = apart;
        if apart {
            let now = self.core.clock.now();
            for pending in self.lanes.take_refused() {
                self.send_away(pending, now);
            }
        }
    }
}

impl Handler<Unacknowledged> for PublishActor {
    type Result = ();

    fn handle(&mut self, Unacknowledged(messages): Unacknowledged, _: &mut Self::Context) {
        self.room.look(messages);
    }
}

impl Handler<SetTarget> for PublishActor {
    type Result = ();

    fn handle(&mut self, SetTarget { epoch, .. }: SetTarget, ctx: &mut Self::Context) {
        self.looked = Some(epoch);
        // What still waits was meant for the connection before.
        for attempt in &self.outbox {
            if let Some(flying) = self.flying.get_mut(&attempt.ticket) {
                flying.epoch = self.looked;
            }
        }
        self.flush(ctx);
        self.schedule_retries(ctx);
    }
}

impl Handler<Bury> for PublishActor {
    type Result = ();

    fn handle(&mut self, Bury(letters): Bury, ctx: &mut Self::Context) {
        self.graves.extend(letters);
        self.run_burials(ctx);
    }
}

impl Handler<HandBack> for PublishActor {
    type Result = ();

    fn handle(&mut self, why: HandBack, _: &mut Self::Context) {
        let leaving = why == HandBack::Leaving;
        // While the target answers its probes, what waits is refused here as it would be elsewhere, and finds out when that ends.
        self.leaving |= leaving;
        if leaving || self.health.failures > 0 || self.is_in_doubt() {
            self.handing_back = !leaving;
            self.hand_back_waiting(why);
            if self.is_in_doubt() {
                self.hand_back_unsent(why);
            }
        } else if why == HandBack::Change {
            self.hand_back_waiting(why);
        } else if self.health.reported_down {
            // Its probes succeed, so it may be these subjects alone that fail: what is pulled next tells.
            self.health.failing.clear();
            self.core.try_again.send(TryAgain(Dependency::Target));
        }
        // One stays, to find out when the dead-letter stream is back.
        for buried in self.graves.drain(1.min(self.graves.len())..) {
            buried.ticket.give_back(Duration::ZERO);
        }
    }
}
