//! What becomes of an event that the target did not take: it is sent again, waits here or at the source, or is a dead letter.

use std::time::{Duration, Instant};

use actix::prelude::*;

use super::PublishActor;
use crate::message::Reason;
use crate::ports::FailureClass;
use crate::refused::Wait;
use crate::shared::{Apart, Buried, Bury, Pending, Unacknowledged};

impl PublishActor {
    /// Notes a failed attempt and brings the event back if it is to be sent again. One that alone has been refused for too
    /// long is a dead letter; one that failed while all is handed back goes back.
    pub(super) fn failed(
        &mut self,
        mut pending: Pending,
        class: FailureClass,
        handed: Instant,
        now: Instant,
    ) -> Option<Pending> {
        pending.attempts += 1;
        self.health.failed(&pending.event.subject, class, handed);
        if self.handing_back || self.leaving {
            pending.ticket.give_back(Duration::ZERO);
            return None;
        }
        if self.health.is_down() {
            pending.refused_since = None;
            return Some(pending);
        }
        self.health.refused(pending.attempts == 1, handed, now);
        let since = *pending.refused_since.get_or_insert(now);
        let refused_for = now.saturating_duration_since(since);
        if refused_for >= self.core.patience().refused_for && self.health.others_were_stored(since, handed) {
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

    /// Brings an event of a refused row back if it may wait here. If not it waits at the source, as long as it is not in the
    /// way of others there.
    fn find_room(&mut self, pending: Pending, now: Instant) -> Option<Pending> {
        let here = self.lanes.refused();
        match self.room.next(here, now) {
            Wait::Here if !self.apart => return Some(pending),
            Wait::Nowhere if self.health.is_selective(self.core.settings.max_ack_pending) => {
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

    /// Brings an event back if it may be sent, or wait in its lane.
    pub(super) fn admitted(&mut self, pending: Pending, now: Instant) -> Option<Pending> {
        if self.health.is_down() || !self.lanes.is_refused(pending.row) {
            Some(pending)
        } else {
            self.find_room(pending, now)
        }
    }

    pub(super) fn bury(&mut self, pending: Pending, reason: Reason, mut detail: String) {
        if pending.unheard {
            detail.push_str("; an earlier attempt was not answered and may have been stored");
        }
        let table = Some(pending.event.table);
        // Through the mailbox like any other dead letter, so that there is one way into the grave.
        self.core.bury.send(Bury(vec![Buried { ticket: pending.ticket, table, reason, detail }]));
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
