//! Defences, each of which can be taken out.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use cdc_actors::message::{Answer, Attempt, DeadLetter, Delivery, DeliveryId, Event, EventKey, Settle, Settlement};
use cdc_actors::pipeline::Ports;
use cdc_actors::ports::{Backlog, Budget, DeadLetters, Failure, Heard, Publisher, Source, Target};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio::sync::mpsc::UnboundedSender;

use crate::records;

/// What is sabotaged.
#[derive(Debug)]
pub struct Sabotage(Vec<&'static str>);

/// No such sabotage.
#[derive(Debug)]
pub struct Unknown(pub String);

impl Sabotage {
    /// Everything that can be.
    pub const NAMES: [&'static str; 13] = [
        // Acknowledges at the source whatever was pulled.
        "ack-first",
        // Never tells the source that something is still being worked on.
        "no-progress",
        // Knows deliveries by their sequence alone, whichever life of the source they are of.
        "any-life",
        // Marks events in the store before they are published, as the service did that this one replaces.
        "mark-first",
        // Finds no record.
        "no-records",
        // Takes any record for valid, whatever stream and generation it names.
        "plain-records",
        // Never finds the target behind.
        "no-look",
        // Publishes without an identity that stays the same.
        "no-msg-id",
        // Never says that an event comes late.
        "no-late",
        // Loses what can never be published.
        "no-letters",
        // Any worker takes any event.
        "spread",
        "panics",
        "deaths",
    ];

    /// Whether this is part of it.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(&name)
    }
}

impl FromStr for Sabotage {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let names = text.split(',').filter(|name| !name.is_empty());
        let known = names.map(|name| Self::NAMES.into_iter().find(|known| *known == name).ok_or(name));
        known.collect::<Result<_, _>>().map(Self).map_err(|name| Unknown(name.to_owned()))
    }
}

/// Puts the saboteur before the ports.
pub fn take_out<T>(sabotage: &Sabotage, mut ports: Ports<T>) -> Ports<T> {
    let has = |name| sabotage.has(name);
    let (ack_first, no_progress, any_life) = (has("ack-first"), has("no-progress"), has("any-life"));
    let ids = Mutex::default();
    ports.source = Arc::new(Negligent { inner: ports.source, ack_first, no_progress, any_life, ids });
    let (no_look, no_msg_id, no_late) = (has("no-look"), has("no-msg-id"), has("no-late"));
    ports.dedup = records::sabotaged(sabotage, ports.dedup, Arc::clone(&ports.publisher));
    ports.publisher = Arc::new(Careless { inner: ports.publisher, no_look, no_msg_id, no_late });
    if has("no-letters") {
        ports.dead_letters = Arc::new(Forgetful);
    }
    ports
}

struct Negligent {
    inner: Arc<dyn Source>,
    ack_first: bool,
    no_progress: bool,
    any_life: bool,
    /// What deliveries really are, by where their settlement goes.
    ids: Mutex<HashMap<String, DeliveryId>>,
}

impl Negligent {
    fn take_for_another(&self, delivery: &mut Delivery) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(delivery.receipt.reply.to_string(), delivery.receipt.id);
        (delivery.receipt.id.stream_created, delivery.receipt.id.timestamp) = (0, 0);
    }

    fn tell_again(&self, settlement: &mut Settlement) {
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        settlement.receipt.id = ids.get(&*settlement.receipt.reply).copied().unwrap_or(settlement.receipt.id);
    }
}

impl Source for Negligent {
    fn pull(&self, budget: Budget) -> BoxFuture<'_, Result<Vec<Delivery>, Failure>> {
        async move {
            let mut deliveries = self.inner.pull(budget).await?;
            if self.ack_first && !deliveries.is_empty() {
                let ack = |delivery: &Delivery| Settlement { receipt: delivery.receipt.clone(), settle: Settle::Ack };
                self.inner.settle(deliveries.iter().map(ack).collect()).await?;
            }
            if self.any_life {
                deliveries.iter_mut().for_each(|delivery| self.take_for_another(delivery));
            }
            Ok(deliveries)
        }
        .boxed()
    }

    fn settle(&self, mut settlements: Vec<Settlement>) -> BoxFuture<'_, Result<(), Failure>> {
        if self.no_progress {
            settlements.retain(|settlement| settlement.settle != Settle::InProgress);
        }
        if self.any_life {
            settlements.iter_mut().for_each(|settlement| self.tell_again(settlement));
        }
        self.inner.settle(settlements)
    }

    fn stop(&self) -> BoxFuture<'_, Vec<Delivery>> {
        self.inner.stop()
    }

    fn confirm_settled(&self) -> BoxFuture<'_, Result<Heard, Failure>> {
        self.inner.confirm_settled()
    }

    fn backlog(&self) -> BoxFuture<'_, Result<Backlog, Failure>> {
        self.inner.backlog()
    }

    fn connection_epoch(&self) -> u64 {
        self.inner.connection_epoch()
    }
}

struct Careless {
    inner: Arc<dyn Publisher>,
    no_look: bool,
    no_msg_id: bool,
    no_late: bool,
}

impl Careless {
    fn change(&self, attempt: &mut Attempt) {
        if self.no_late {
            attempt.late = None;
        }
        if self.no_msg_id
            && let Ok(key) = EventKey::new(format!("sabotage-{:032x}", fastrand::u128(..)))
        {
            attempt.event = Arc::new(Event { key, ..Event::clone(&attempt.event) });
        }
    }
}

impl Publisher for Careless {
    fn publish(&self, mut batch: Vec<Attempt>, answers: UnboundedSender<Answer>) -> BoxFuture<'_, ()> {
        batch.iter_mut().for_each(|attempt| self.change(attempt));
        self.inner.publish(batch, answers)
    }

    fn target(&self) -> BoxFuture<'_, Result<Target, Failure>> {
        let seen = |target: Target| match self.no_look {
            true => Target { last_sequence: u64::MAX, ..target },
            false => target,
        };
        async move { self.inner.target().await.map(seen) }.boxed()
    }

    fn connection_epoch(&self) -> u64 {
        self.inner.connection_epoch()
    }
}

struct Forgetful;

impl DeadLetters for Forgetful {
    fn store(&self, _: DeadLetter) -> BoxFuture<'_, Result<(), Failure>> {
        ready(Ok(())).boxed()
    }
}
