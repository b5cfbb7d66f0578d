//! The PublishActor: publishes events in the order of their rows, tries again what failed, and stores dead letters.

mod burial;
mod health;
mod refusal;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use foldhash::{HashMap, HashMapExt};
use futures::stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::burial::Graves;
use self::health::{Health, Probed};
use crate::message::{Answer, Attempt, Late, Reason, Stored};
use crate::order::{Departure, Lanes, Place, Sent};
use crate::ports::{DeadLetters, Dependency, Failure, FailureClass, PublishError, Publisher, Target};
use crate::refused::WaitingRoom;
use crate::shared::{
    ActorKind, Confirmed, Core, HandBack, Life, LookAtTarget, Pending, Publish, RecordStored, SetTarget, TryAgain, beat,
};
use crate::telemetry::Telemetry;

/// Answers taken in one go.
const ANSWERS: usize = 1024;

struct Flying {
    pending: Pending,
    place: Place,
    /// What it says of itself as it is sent.
    late: Option<Late>,
    handed: Instant,
    /// The [`Core::target_epoch`] that it was handed over in.
    epoch: Option<u64>,
}

/// What a batch of answers comes to.
struct Answered {
    now: Instant,
    unix_nanos: i64,
    /// The [`Core::target_epoch`] at this time.
    epoch: u64,
    confirmed: Vec<Confirmed>,
    failed: u64,
    last: Option<Failure>,
    /// When the first and the last of those that were stored had been handed over.
    oldest: Instant,
    newest: Option<Instant>,
}

impl Answered {
    fn new(now: Instant, unix_nanos: i64, epoch: u64) -> Self {
        Self { now, unix_nanos, epoch, confirmed: Vec::new(), failed: 0, last: None, oldest: now, newest: None }
    }

    /// Notes a failure, and says of what class it is.
    fn failure(&mut self, failure: Failure) -> FailureClass {
        let class = failure.class;
        self.failed += 1;
        self.last = Some(failure);
        class
    }
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
    probing: bool,
    /// When the stream of the last success was created.
    stored_in: Option<i64>,
    room: WaitingRoom,
    /// Suspects must run by themselves: what is refused waits elsewhere.
    apart: bool,
    /// The target has been away for long: what fails goes back until it is there again.
    handing_back: bool,
    /// The process is about to end: what fails goes back.
    leaving: bool,
    retry: Option<SpawnHandle>,
    graves: Graves,
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
            probing: false,
            stored_in: None,
            room,
            apart: false,
            handing_back: false,
            leaving: false,
            retry: None,
            graves: Graves::default(),
            answered: Some(answered),
            _life: life,
        }
    }

    fn launch(&mut self, departures: Vec<Departure<Pending>>) {
        let handed = self.core.clock.now();
        self.outbox.reserve(departures.len());
        for Departure { number, item, place, late } in departures {
            self.outbox.push(Attempt { ticket: number, event: Arc::clone(&item.event), late });
            self.flying.insert(number, Flying { pending: item, place, late, handed, epoch: self.looked });
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
        let now = self.core.clock.now();
        let mut answered = Answered::new(now, self.core.clock.unix_nanos(), self.core.target_epoch(&*self.publisher));
        answered.confirmed.reserve(answers.len());
        let (core, mut departures) = (Arc::clone(&self.core), Vec::new());
        let mut rows = core.lock_rows();
        for Answer { ticket, outcome } in answers {
            let Some(flying) = self.flying.remove(&ticket) else {
                continue;
            };
            let place = flying.place;
            let (sent, again) = self.hear(flying, outcome, &mut answered);
            let retry_at = |failures| now + core.delay(failures);
            departures.extend(self.lanes.answered(&mut rows, ticket, place, sent, again, retry_at));
        }
        drop(rows);
        self.launch(departures);
        let Answered { confirmed, failed, last, oldest, newest, .. } = answered;
        if !confirmed.is_empty() {
            self.health.succeeded(newest, now);
            self.handing_back = false;
            self.core.called_to_store("publish", oldest, None);
            self.core.record.send(RecordStored(confirmed));
        }
        if let Some(failure) = last {
            self.core.observer.observe(Telemetry::PublishFailed { attempts: failed, failure: &failure });
            self.health.failed_of(failure);
            self.probe(ctx);
        }
        if self.handing_back || self.leaving {
            self.hand_back_waiting(if self.leaving { HandBack::Leaving } else { HandBack::Away });
        }
        if !self.lanes.any_blocked() {
            self.health.nothing_refused();
        }
        self.flush(ctx);
        self.schedule_retries(ctx);
    }

    /// One answer: what it says of the attempt, and the event if it is to be sent again.
    fn hear(
        &mut self,
        flying: Flying,
        outcome: Result<Stored, PublishError>,
        answered: &mut Answered,
    ) -> (Sent, Option<Pending>) {
        let Flying { mut pending, handed, late, epoch, .. } = flying;
        match outcome {
            // Heard after its connection was gone, or after an outage: what it confirms the target may have lost since, and
            // another replica may have filled up. Sent again under its id it is stored once in either case.
            Ok(_) if epoch != Some(answered.epoch) => {
                pending.attempts += 1;
                pending.unheard = true;
                (Sent::Unknown, Some(pending))
            }
            Ok(stored) => {
                answered.oldest = answered.oldest.min(handed);
                answered.newest = answered.newest.max(Some(handed));
                if pending.refused_since.is_some() {
                    self.health.accepted_after_all();
                }
                self.look_if_other(stored);
                self.tell_published(&pending, stored, late, answered.unix_nanos);
                answered.confirmed.push(Confirmed { pending, stored, since: answered.now });
                (Sent::Stored, None)
            }
            Err(error @ PublishError::TooLarge { .. }) => {
                self.bury(pending, Reason::TooLarge, error.to_string());
                (Sent::NotStored, None)
            }
            Err(PublishError::Unknown(failure)) => {
                pending.unheard = true;
                (Sent::Unknown, self.failed(pending, answered.failure(failure), handed, answered.now))
            }
            Err(PublishError::Rejected(failure)) => {
                (Sent::NotStored, self.failed(pending, answered.failure(failure), handed, answered.now))
            }
        }
    }

    /// Stored in a stream that is not the one of the last answer: then it was created anew.
    fn look_if_other(&mut self, stored: Stored) {
        if self.stored_in != Some(stored.stream_created) {
            self.stored_in = Some(stored.stream_created);
            self.core.look_at_target.send(LookAtTarget { created: Some(stored.stream_created) });
        }
    }

    fn tell_published(&self, pending: &Pending, stored: Stored, late: Option<Late>, unix_nanos: i64) {
        let event = &pending.event;
        // What another replica has stored says of itself what that one knew.
        if let Some(certainty) = late.filter(|_| !stored.duplicate || pending.unheard) {
            self.core.observer.observe(Telemetry::Late { table: event.table, key: &event.key, certainty });
        }
        let since = |at| u64::try_from((unix_nanos / 1_000).saturating_sub(at)).ok();
        let since_commit = event.committed.and_then(since).map(Duration::from_micros);
        let telemetry =
            Telemetry::Published { table: event.table, key: &event.key, duplicate: stored.duplicate, since_commit };
        self.core.observer.observe(telemetry);
    }

    /// Asks the target whether it could store anything: tells a target that is down from a subject that is refused.
    fn probe(&mut self, ctx: &mut Context<Self>) {
        if self.probing {
            return;
        }
        self.probing = true;
        let (publisher, started) = (Arc::clone(&self.publisher), self.core.clock.now());
        let call = async move { publisher.target().await };
        ctx.spawn(call.into_actor(self).map(move |result, actor, ctx| actor.probed(result, started, ctx)));
    }

    fn probed(&mut self, result: Result<Target, Failure>, started: Instant, ctx: &mut Context<Self>) {
        if let Ok(target) = &result {
            self.core.look_at_target.send(LookAtTarget { created: Some(target.created) });
            self.handing_back = false;
        }
        let Probed { turned, failure, tell } = self.health.probed(result.map(drop));
        if turned {
            // From the first failure on nothing is sent: what is confirmed before the next probe must not pass for the end of it.
            self.core.doubt_target();
            if !self.health.is_away() {
                self.lanes.hasten(started);
            }
        }
        match failure.as_ref() {
            // It answers, and nothing gets through.
            Some(failure) if !self.health.is_away() => self.core.called_to_store("probe", started, Some(failure)),
            failure if tell => self.core.called(Dependency::Target, "probe", started, failure, false),
            _ => {}
        }
        if !self.health.is_away() {
            self.probing = false;
            return self.schedule_retries(ctx);
        }
        ctx.run_later(self.core.delay(self.health.failures()), |actor, ctx| {
            actor.probing = false;
            actor.probe(ctx);
        });
    }

    /// Sends what is due in blocked lanes and comes back for the rest. While the target is down the probe does that.
    fn schedule_retries(&mut self, ctx: &mut Context<Self>) {
        if let Some(retry) = self.retry.take() {
            ctx.cancel_future(retry);
        }
        if self.health.is_away() || self.is_in_doubt() || !self.lanes.any_blocked() {
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

impl Handler<HandBack> for PublishActor {
    type Result = ();

    fn handle(&mut self, why: HandBack, _: &mut Self::Context) {
        let leaving = why == HandBack::Leaving;
        // While the target answers its probes, what waits is refused here as it would be elsewhere, and finds out when that ends.
        self.leaving |= leaving;
        if leaving || self.health.is_away() || self.is_in_doubt() {
            self.handing_back = !leaving;
            self.hand_back_waiting(why);
            if self.is_in_doubt() {
                self.hand_back_unsent(why);
            }
        } else if why == HandBack::Change {
            self.hand_back_waiting(why);
        } else if self.health.is_reported_down() {
            // Its probes succeed, so it may be these subjects alone that fail: what is pulled next tells.
            self.health.forgive();
            self.core.try_again.send(TryAgain(Dependency::Target));
        }
        self.graves.hand_back();
    }
}
