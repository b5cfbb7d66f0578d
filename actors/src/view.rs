//! Tells whether the target may have lost what it once confirmed.

use crate::message::Stored;
use crate::ports::Target;

/// What was known of the target at some moment.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The target with its generation; nothing before the first look.
    pub target: Option<(Target, u64)>,
    /// How often it had been looked at: after every reconnect and every outage, and when it turned out to be another.
    pub looks: u64,
}

impl View {
    /// Whether an event that was confirmed by the moment of `then` has to be taken for lost now.
    pub fn has_lost(&self, stored: Stored, then: &Self) -> bool {
        let (Some((old, old_generation)), Some((known, generation))) = (then.target, self.target) else { return false };
        if stored.stream_created != known.created {
            // The first events of a new stream are confirmed before anybody has looked at it.
            return old.created != known.created;
        }
        // Even if its sequence is there: another replica may have filled up what was lost, and it is another event's by now. What
        // the target still has it recognises when it is sent again.
        self.looks != then.looks || old.created == known.created && old_generation != generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(created: i64, generation: u64, looks: u64) -> View {
        View { target: Some((Target { created, last_sequence: 100 }, generation)), looks }
    }

    fn stored(stream_created: i64) -> Stored {
        Stored { stream_created, sequence: 90, duplicate: false }
    }

    #[test]
    fn an_event_is_lost_if_its_target_was_replaced_taken_back_or_looked_at_since() {
        let then = view(7, 1, 1);
        for (now, stored, lost, why) in [
            (view(7, 1, 1), stored(7), false, "nobody has looked since"),
            (view(7, 1, 2), stored(7), true, "a look may have found another event under its sequence"),
            (view(7, 2, 1), stored(7), true, "another replica found that the target had lost something"),
            (view(9, 1, 2), stored(7), true, "the target is another one"),
            (view(9, 1, 2), stored(9), true, "another one confirmed it, and was looked at since"),
            (view(9, 2, 1), stored(9), false, "another one confirmed it, which has a generation of its own"),
            (view(7, 1, 1), stored(9), false, "a new one confirmed it before anybody looked at that"),
        ] {
            assert_eq!(now.has_lost(stored, &then), lost, "{why}");
        }
    }

    #[test]
    fn before_the_first_look_nothing_counts_as_lost() {
        let unseen = View { target: None, looks: 0 };
        assert!(!view(7, 1, 1).has_lost(stored(7), &unseen));
        assert!(!unseen.has_lost(stored(7), &unseen));
    }
}
