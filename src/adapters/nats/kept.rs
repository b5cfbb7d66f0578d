//! Notices that somebody else has changed the consumer while the service reads from it, and has it changed back.
//!
//! What the service keeps decides which messages come, how and how often. Two replicas with different settings, as while a new
//! version is rolled out, each take the other for somebody else: so neither changes it back again before [`EVERY`] is over.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::consumers::{ConsumerInfo, Difference, differences};

/// How long after it was changed back a consumer stays as somebody else has set it.
pub(super) const EVERY: Duration = Duration::from_secs(600);

/// What somebody has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    differences: Vec<Difference>,
    /// Whether it is changed back; not, if it was a short time ago.
    back: bool,
    /// If other messages are let through than are configured: those up to this sequence were acknowledged before.
    acknowledged: Option<u64>,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what: Vec<String> = self.differences.iter().map(Difference::to_string).collect();
        write!(f, "was changed by somebody else: {}; ", what.join("; "))?;
        if self.back {
            write!(f, "it is changed back")?;
        } else {
            let minutes = EVERY.as_secs() / 60;
            write!(
                f,
                "it stays so, having been changed back within {minutes} minutes: do replicas have other settings?"
            )?;
        }
        match self.acknowledged {
            Some(floor) => write!(
                f,
                "; what other filters have passed does not come by itself, look at what came after sequence {floor} (docs/runbook.md, CdcConsumerLagging)"
            ),
            None => Ok(()),
        }
    }
}

/// Compares what is seen of the consumer with what it is to be.
#[derive(Debug, Default)]
pub(super) struct KeptWatch(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// How often it was looked up to be read from.
    opened: u64,
    /// As it is to be.
    wanted: Map<String, Value>,
    /// What could not be changed then.
    left: Vec<Difference>,
    /// Somebody else's changes that were told of.
    told: Vec<Difference>,
    changed_back: Option<Instant>,
    /// It is to be looked up anew, and so changed back.
    due: bool,
    /// Everything up to here was acknowledged when it was last seen with the filters it is to have.
    floor: u64,
}

impl KeptWatch {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was looked up and brought up to date, as far as that could be done.
    pub(super) fn opened(&self, wanted: Map<String, Value>, found: &ConsumerInfo) {
        let mut kept = self.lock();
        let left = differences(&found.config, &wanted);
        *kept = Kept { opened: kept.opened + 1, wanted, left, changed_back: kept.changed_back, ..Kept::default() };
        kept.floor = found.ack_floor.stream_seq;
    }

    /// How often it was looked up so.
    pub(super) fn times_opened(&self) -> u64 {
        self.lock().opened
    }

    /// Whether it lets other messages through than it is to.
    pub(super) fn filters_otherwise(&self, seen: &ConsumerInfo) -> bool {
        let kept = self.lock();
        differences(&seen.config, &kept.wanted).iter().any(|difference| difference.is_of_filters())
    }

    /// Takes note of a look that began when it had been opened so often; tells what somebody else has changed since, once.
    pub(super) fn saw(&self, times_opened: u64, seen: &ConsumerInfo, now: Instant) -> Option<Changed> {
        let mut kept = self.lock();
        if kept.opened != times_opened {
            return None;
        }
        let mut differences = differences(&seen.config, &kept.wanted);
        let filters_as_ever = !differences.iter().any(Difference::is_of_filters);
        if filters_as_ever {
            kept.floor = seen.ack_floor.stream_seq;
        }
        differences.retain(|difference| !kept.left.contains(difference));
        let news = kept.told != differences;
        let back = kept.changed_back.is_none_or(|at| now.saturating_duration_since(at) >= EVERY);
        kept.told.clone_from(&differences);
        if differences.is_empty() || !(news || back) {
            return None;
        }
        if back {
            kept.changed_back = Some(now);
            kept.due = true;
        }
        Some(Changed { differences, back, acknowledged: (!filters_as_ever).then_some(kept.floor) })
    }

    /// Whether it is to be looked up anew; once.
    pub(super) fn is_due(&self) -> bool {
        std::mem::take(&mut self.lock().due)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted() -> Map<String, Value> {
        json!({ "max_deliver": -1, "filter_subject": "a.>", "backoff": null }).as_object().unwrap().clone()
    }

    /// A consumer that is as wanted but for these settings, with this acknowledgement floor.
    fn with(changes: Value, floor: u64) -> ConsumerInfo {
        let mut config = wanted();
        config.extend(changes.as_object().unwrap().clone());
        let info = json!({
            "created": "then",
            "config": config,
            "delivered": { "consumer_seq": 0, "stream_seq": 0 },
            "ack_floor": { "stream_seq": floor },
            "num_ack_pending": 0,
            "num_pending": 0,
        });
        serde_json::from_value(info).unwrap()
    }

    fn opened(found: &ConsumerInfo) -> KeptWatch {
        let kept = KeptWatch::default();
        kept.opened(wanted(), found);
        kept
    }

    fn told(kept: &KeptWatch, seen: &ConsumerInfo, now: Instant) -> Option<String> {
        kept.saw(kept.times_opened(), seen, now).map(|changed| changed.to_string())
    }

    #[test]
    fn a_change_is_told_once_and_changed_back_once_in_a_while() {
        let (kept, start) = (opened(&with(json!({}), 0)), Instant::now());
        let altered = with(json!({ "max_deliver": 1 }), 7);
        assert_eq!((told(&kept, &with(json!({}), 7), start), kept.is_due()), (None, false));
        let first = told(&kept, &altered, start).unwrap();
        assert_eq!(first, "was changed by somebody else: max_deliver 1 instead of -1; it is changed back");
        assert_eq!((kept.is_due(), kept.is_due()), (true, false), "once");
        assert_eq!((told(&kept, &altered, start + EVERY / 2), kept.is_due()), (None, false));
        kept.opened(wanted(), &with(json!({}), 7));
        let again = told(&kept, &altered, start + EVERY / 2).unwrap();
        assert!(again.contains("it stays so, having been changed back within 10 minutes"), "{again}");
        assert_eq!((told(&kept, &altered, start + EVERY / 2), kept.is_due()), (None, false));
        assert!(told(&kept, &altered, start + EVERY).unwrap().contains("is changed back"));
        assert!(kept.is_due());
    }

    #[test]
    fn what_could_not_be_changed_is_nobody_elses_change() {
        let kept = opened(&with(json!({ "max_deliver": 3, "backoff": [] }), 0));
        let now = Instant::now();
        assert_eq!(told(&kept, &with(json!({ "max_deliver": 3 }), 0), now), None);
        assert!(told(&kept, &with(json!({ "max_deliver": 4 }), 0), now).is_some());
    }

    #[test]
    fn a_look_from_before_it_was_opened_says_nothing() {
        let kept = opened(&with(json!({}), 0));
        let begun = kept.times_opened();
        kept.opened(wanted(), &with(json!({}), 0));
        assert_eq!(kept.saw(begun, &with(json!({ "max_deliver": 1 }), 0), Instant::now()), None);
        assert_eq!(KeptWatch::default().saw(0, &with(json!({}), 0), Instant::now()), None, "not opened yet");
    }

    #[test]
    fn other_filters_are_told_with_what_was_acknowledged_before() {
        let (kept, now) = (opened(&with(json!({}), 3)), Instant::now());
        let altered = with(json!({ "filter_subject": "", "filter_subjects": ["b"] }), 9);
        assert!(kept.filters_otherwise(&altered) && !kept.filters_otherwise(&with(json!({ "max_deliver": 1 }), 3)));
        assert_eq!(told(&kept, &with(json!({}), 5), now), None);
        let changed = told(&kept, &altered, now).unwrap();
        assert!(changed.contains("after sequence 5"), "{changed}");
    }
}
