//! The TransformActor: decides what becomes of each delivery. One of a pool; a row always meets the same one.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use actix::prelude::*;

use crate::flight::Ticket;
use crate::message::{Decision, OrderKey, Reason, Remarks, Verdict};
use crate::ports::Transform;
use crate::shared::{ActorKind, Buried, Bury, Check, Core, Life, Pending, beat};
use crate::telemetry::{Outcome, Telemetry};

/// A delivery whose row is known.
#[derive(Debug)]
pub struct Job<P> {
    pub(crate) ticket: Ticket,
    pub(crate) row: OrderKey,
    /// What was parsed to find the row, or what the parser panicked with.
    pub(crate) parsed: Result<P, String>,
}

/// Deliveries for one worker, in source order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Work<P>(pub(crate) Vec<Job<P>>);

/// Runs `f`; a panic comes back as its message, unless that may quote data: what was put together when it happened.
pub(crate) fn caught<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| panic_message(panic.as_ref()))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.unwrap_or("the message of the panic is withheld, since it may quote data; the log names the place").to_owned()
}

/// Decides; see the module.
pub struct TransformActor<T: Transform> {
    core: Arc<Core>,
    transform: Arc<T>,
    index: usize,
    _life: Life,
}

impl<T: Transform> TransformActor<T> {
    pub(crate) fn new(core: Arc<Core>, transform: Arc<T>, index: usize, life: Life) -> Self {
        Self { core, transform, index, _life: life }
    }

    fn decide(&self, job: Job<T::Parsed>, events: &mut Vec<Pending>, letters: &mut Vec<Buried>) {
        let Job { ticket, row, parsed } = job;
        let decided = parsed.and_then(|parsed| caught(|| self.transform.decide(&ticket.delivery, parsed)));
        let Decision { verdict, remarks } = decided.unwrap_or_else(|panic| Decision {
            verdict: Verdict::DeadLetter { table: None, reason: Reason::Panic, detail: panic },
            remarks: Remarks::default(),
        });
        let table = match &verdict {
            Verdict::Publish(event) => Some(event.table),
            Verdict::Skip { table } | Verdict::DeadLetter { table, .. } => *table,
        };
        self.remark(&ticket, table, &remarks);
        match verdict {
            Verdict::Publish(event) => {
                events.push(Pending { ticket, row, event, attempts: 0, refused_since: None, unheard: false });
            }
            Verdict::Skip { table } => ticket.done(table, Outcome::Skipped),
            Verdict::DeadLetter { table, reason, detail } => letters.push(Buried { ticket, table, reason, detail }),
        }
    }

    fn remark(&self, ticket: &Ticket, table: Option<&'static str>, remarks: &Remarks) {
        let observer = &self.core.observer;
        if ticket.delivery.deliveries > 1 {
            observer.observe(Telemetry::Redelivered { table });
        }
        if let Some(table) = table {
            for field in &remarks.unhandled_fields {
                observer.observe(Telemetry::UnhandledField { table, field });
            }
        }
        if let Some(detail) = &remarks.subject_mismatch {
            observer.observe(Telemetry::SubjectMismatch { id: ticket.delivery.receipt.id, detail });
        }
    }
}

impl<T: Transform> Actor for TransformActor<T> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        beat(ctx, &self.core, ActorKind::Transform(self.index));
    }
}

impl<T: Transform> Handler<Work<T::Parsed>> for TransformActor<T> {
    type Result = ();

    fn handle(&mut self, Work(jobs): Work<T::Parsed>, _: &mut Self::Context) {
        let (mut events, mut letters) = (Vec::with_capacity(jobs.len()), Vec::new());
        for job in jobs {
            self.decide(job, &mut events, &mut letters);
        }
        if !events.is_empty() {
            self.core.check.send(Check(events));
        }
        if !letters.is_empty() {
            self.core.bury.send(Bury(letters));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_tells_what_is_fixed_and_nothing_that_may_quote_data() {
        assert_eq!(caught(|| panic!("a fixed text")), Err::<(), _>("a fixed text".to_owned()));
        let data = String::from("é and the rest of a row");
        for quoting in [caught(|| panic!("{data}")), caught(|| drop(data[1..].to_owned()))] {
            let told = quoting.expect_err("it panics");
            assert!(told.contains("withheld") && !told.contains("row"), "{told}");
        }
    }
}
