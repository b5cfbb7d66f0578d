//! What all generated traffic is sent by: transactions in order of commit, and now and then an event for a second time.

use std::collections::VecDeque;

use super::traffic::{Expected, SourceEvent};

/// The producer of one stream of events.
#[derive(Debug)]
pub(super) struct Producer {
    pub(super) random: fastrand::Rng,
    /// Of the transaction that is being made up.
    pub(super) lsn: u64,
    /// Likewise: when it was committed, in microseconds since the Unix epoch.
    pub(super) now_micros: i64,
    number: u64,
    waiting: VecDeque<SourceEvent>,
    last_published: Option<SourceEvent>,
}

impl Producer {
    /// One that draws by `seed` and commits from `start_micros` on.
    pub(super) fn new(seed: u64, start_micros: i64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            lsn: 26_000_000_000,
            now_micros: start_micros,
            number: 0,
            waiting: VecDeque::new(),
            last_published: None,
        }
    }

    /// Begins the next transaction.
    pub(super) fn begin(&mut self) {
        self.lsn += self.random.u64(40..4_000);
        self.now_micros += 150;
    }

    /// The `Nats-Msg-Id` of the change with this place in the transaction.
    pub(super) fn message_id(&mut self, idx: u64) -> String {
        self.number += 1;
        format!("{}:{idx}:{}", self.lsn, self.number)
    }

    pub(super) fn send(&mut self, event: SourceEvent) {
        if event.expected == Expected::Published {
            self.last_published = Some(event.clone());
        }
        self.waiting.push_back(event);
    }

    /// Sends an event a second time, under another `Nats-Msg-Id`, so that the source stream keeps it; false if there is none.
    pub(super) fn send_again(&mut self) -> bool {
        let Some(mut again) = self.last_published.clone() else { return false };
        self.number += 1;
        again.message_id = format!("again-{}", self.number);
        again.expected = Expected::Duplicate;
        self.waiting.push_back(again);
        true
    }

    /// The event sent last.
    pub(super) fn last_sent(&mut self) -> Option<&mut SourceEvent> {
        self.waiting.back_mut()
    }

    /// The next event of what was sent.
    pub(super) fn next(&mut self) -> Option<SourceEvent> {
        self.waiting.pop_front()
    }
}
