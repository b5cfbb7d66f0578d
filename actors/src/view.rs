//! Tells whether the target has lost what it once confirmed.

use crate::message::Stored;
use crate::ports::Target;

/// What was known of the target at some moment.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The target with its generation; nothing before the first look.
    pub target: Option<(Target, u64)>,
    /// How often it had been looked at.
    pub looks: u64,
    /// The connection of the last look.
    pub epoch: u64,
}

impl View {
    /// Whether an event that was confirmed by the moment of `then` has to be taken for lost now.
    pub fn has_lost(&self, stored: Stored, then: &Self) -> bool {
        let (Some((old, old_generation)), Some((known, generation))) = (then.target, self.target) else { return false };
        if stored.stream_created != known.created {
            // The first events of a new stream are confirmed before anybody has looked at it.
            return old.created != known.created;
        }
        let loss_known = old.created == known.created && old_generation != generation;
        // Perhaps it was confirmed after the look; then it is recognised when it is sent again.
        let loss_seen = self.looks != then.looks && stored.sequence > known.last_sequence;
        // Another replica may have filled up what was lost: the sequence can be another event's by now.
        loss_known || loss_seen || self.epoch != then.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(created: i64, generation: u64, last_sequence: u64, looks: u64) -> View {
        View { target: Some((Target { created, last_sequence }, generation)), looks, epoch: 1 }
    }

    fn stored(stream_created: i64, sequence: u64) -> Stored {
        Stored { stream_created, sequence, duplicate: false }
    }

    #[test]
    fn an_event_is_lost_if_its_target_was_replaced_or_taken_back_since() {
        let then = view(7, 1, 100, 1);
        for (now, stored, lost, why) in [
            (view(7, 1, 100, 1), stored(7, 120), false, "nobody has looked since"),
            (view(7, 1, 150, 2), stored(7, 120), false, "a look found it"),
            (view(7, 1, 120, 2), stored(7, 120), false, "a look found it, and nothing behind it"),
            (view(7, 1, 110, 2), stored(7, 120), true, "a look found an end before it"),
            (view(7, 2, 110, 2), stored(7, 105), true, "the target was found to have lost something"),
            (view(9, 1, 500, 2), stored(7, 120), true, "the target is another one"),
            (view(9, 1, 500, 2), stored(9, 120), false, "another one confirmed it, as the look says"),
            (view(9, 1, 110, 2), stored(9, 120), true, "another one confirmed it, and lost it again"),
            (view(7, 1, 100, 1), stored(9, 1), false, "a new one confirmed it before anybody looked at that"),
        ] {
            assert_eq!(now.has_lost(stored, &then), lost, "{why}");
        }
    }

    #[test]
    fn what_an_earlier_connection_confirmed_may_be_another_event_by_now() {
        let then = view(7, 1, 100, 1);
        let now = View { epoch: 2, ..view(7, 1, 150, 2) };
        assert!(now.has_lost(stored(7, 120), &then));
    }

    #[test]
    fn before_the_first_look_nothing_counts_as_lost() {
        let unseen = View { target: None, looks: 0, epoch: 0 };
        assert!(!view(7, 1, 0, 1).has_lost(stored(7, 120), &unseen));
        assert!(!unseen.has_lost(stored(7, 120), &unseen));
    }
}
