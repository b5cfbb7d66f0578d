//! Which life of the service stored an event, as its link to the target tells.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde::Deserialize;

use super::Direction;
use super::nats::{self, Publish};
use crate::traffic::hash;
use crate::world::TARGET;

/// A life of the service: one process, from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LifeId(pub u16);

/// What the links of all lives have told.
///
/// An ack of the target names a sequence, which counts only together with the event that was published: after the target was
/// deleted, or has lost its end, another event can have the same sequence.
#[derive(Debug, Default)]
pub struct Authors(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// By the hash of their `Nats-Msg-Id`, since there are millions.
    events: HashMap<u64, Event>,
    /// Event and author of what was published and not answered yet, by the hash of the reply subject: an answer can come
    /// over a later connection.
    unanswered: HashMap<u64, (u64, LifeId)>,
}

#[derive(Debug)]
struct Event {
    /// Who sent it first.
    sender: LifeId,
    /// Another life has sent it as well.
    shared: bool,
    /// The sequence that the last ack of it named, and whose attempt that was; 0 as long as there is none.
    sequence: u32,
    author: LifeId,
}

#[derive(Deserialize)]
struct Ack<'a> {
    stream: &'a str,
    seq: u32,
    #[serde(default)]
    duplicate: bool,
}

impl Authors {
    /// Who stored the event that stands in the target under this sequence; `None` if that cannot be told: its ack was lost,
    /// and several lives have sent it.
    pub fn of(&self, id: &str, sequence: u64) -> Option<LifeId> {
        let told = self.0.lock().unwrap();
        let event = told.events.get(&hash(id.as_bytes()))?;
        if u64::from(event.sequence) == sequence {
            return Some(event.author);
        }
        (!event.shared).then_some(event.sender)
    }

    /// Forgets what was stored: the target is another one.
    pub fn begin_again(&self) {
        self.0.lock().unwrap().events.values_mut().for_each(|event| event.sequence = 0);
    }

    fn published(&self, publish: &Publish<'_>, life: LifeId) {
        let (reply, id) = (hash(publish.reply.as_bytes()), hash(publish.id.as_bytes()));
        let mut told = self.0.lock().unwrap();
        told.unanswered.insert(reply, (id, life));
        let event = told.events.entry(id).or_insert(Event { sender: life, shared: false, sequence: 0, author: life });
        event.shared |= event.sender != life;
    }

    fn answered(&self, subject: &str, payload: &[u8]) {
        let mut told = self.0.lock().unwrap();
        let Some((id, author)) = told.unanswered.remove(&hash(subject.as_bytes())) else { return };
        let ack = serde_json::from_slice::<Ack<'_>>(payload).ok().filter(|ack| ack.stream == TARGET && !ack.duplicate);
        if let (Some(ack), Some(event)) = (ack, told.events.get_mut(&id)) {
            (event.sequence, event.author) = (ack.seq, author);
        }
    }
}

/// Notes what one life sends and is told.
#[derive(Debug, Clone)]
pub struct Author {
    /// Which life it is.
    pub life: LifeId,
    /// Where it is noted.
    pub authors: Arc<Authors>,
}

impl Author {
    /// A frame has come. What is sent counts if it passes: only then can it be stored. An ack tells what was stored, whether or
    /// not it passes.
    pub(super) fn note(&self, direction: Direction, bytes: &[u8], passes: bool) {
        match direction {
            Direction::ToServer if passes => {
                if let Some(publish) = nats::publish(bytes).filter(|publish| publish.subject.starts_with("wa.")) {
                    self.authors.published(&publish, self.life);
                }
            }
            Direction::ToServer => {}
            Direction::ToClient => {
                if let Some((subject, payload)) = nats::message(bytes) {
                    self.authors.answered(subject, payload);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        authors: Arc<Authors>,
    }

    impl Bench {
        fn new() -> Self {
            Self { authors: Arc::default() }
        }

        fn author(&self, life: u16) -> Author {
            Author { life: LifeId(life), authors: Arc::clone(&self.authors) }
        }

        fn publish(&self, life: u16, id: &str, reply: &str) {
            self.send(life, "wa.t.x", id, reply, true);
        }

        fn send(&self, life: u16, subject: &str, id: &str, reply: &str, passes: bool) {
            let headers = format!("NATS/1.0\r\nCdc-Table: x\r\nNats-Msg-Id: {id}\r\n\r\n");
            let (head, all) = (headers.len(), headers.len() + 2);
            let frame = format!("HPUB {subject} {reply} {head} {all}\r\n{headers}{{}}\r\n");
            self.author(life).note(Direction::ToServer, frame.as_bytes(), passes);
        }

        fn ack(&self, life: u16, reply: &str, ack: &str) {
            let frame = format!("MSG {reply} 7 {}\r\n{ack}\r\n", ack.len());
            self.author(life).note(Direction::ToClient, frame.as_bytes(), false);
        }

        fn of(&self, id: &str, sequence: u64) -> Option<u16> {
            self.authors.of(id, sequence).map(|life| life.0)
        }
    }

    #[test]
    fn an_ack_tells_who_stored_an_event_that_several_sent() {
        let bench = Bench::new();
        bench.publish(1, "a", "_INBOX.one.1");
        bench.publish(2, "a", "_INBOX.two.1");
        assert_eq!(bench.of("a", 5), None, "either of them");
        bench.ack(1, "_INBOX.one.1", r#"{"stream":"wa_stream","seq":5,"duplicate":true}"#);
        assert_eq!(bench.of("a", 5), None, "a duplicate was stored by anybody");
        bench.ack(2, "_INBOX.two.1", r#"{"stream":"wa_stream", "seq":5}"#);
        assert_eq!(bench.of("a", 5), Some(2));
    }

    #[test]
    fn without_an_ack_the_only_sender_is_the_author() {
        let bench = Bench::new();
        bench.publish(1, "a", "_INBOX.one.1");
        bench.publish(1, "a", "_INBOX.one.2");
        assert_eq!((bench.of("a", 5), bench.of("b", 6)), (Some(1), None));
    }

    #[test]
    fn what_does_not_pass_was_not_sent_and_dead_letters_are_no_events() {
        let bench = Bench::new();
        bench.publish(1, "a", "_INBOX.one.1");
        bench.send(2, "wa.t.x", "a", "_INBOX.two.1", false);
        bench.send(2, "cdc.dead_letters.x", "a", "_INBOX.two.2", true);
        assert_eq!(bench.of("a", 5), Some(1));
    }

    #[test]
    fn an_answer_counts_for_its_publish_whoever_hears_it_and_only_if_it_is_an_ack() {
        let bench = Bench::new();
        for (number, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
            bench.publish(1, id, &format!("_INBOX.one.{number}"));
            bench.publish(2, id, &format!("_INBOX.two.{number}"));
        }
        bench.ack(9, "_INBOX.one.0", r#"{"stream":"wa_stream","seq":1}"#);
        bench.ack(1, "_INBOX.one.1", r#"{"stream":"cdc_events_stream","seq":2}"#);
        bench.ack(1, "_INBOX.one.2", r#"{"error":{"code":503},"stream":"wa_stream","seq":0}"#);
        bench.ack(1, "_INBOX.other", r#"{"stream":"wa_stream","seq":4}"#);
        assert_eq!(
            [("a", 1), ("b", 2), ("c", 3), ("d", 4)].map(|(id, at)| bench.of(id, at)),
            [Some(1), None, None, None]
        );
        assert_eq!(bench.authors.0.lock().unwrap().unanswered.len(), 5, "what is answered is not waited for");
    }

    #[test]
    fn a_sequence_counts_for_the_event_that_it_was_given_to_and_in_that_target_alone() {
        let bench = Bench::new();
        for (number, id) in ["a", "b"].into_iter().enumerate() {
            bench.publish(1, id, &format!("_INBOX.one.{number}"));
            bench.publish(2, id, &format!("_INBOX.two.{number}"));
        }
        bench.ack(1, "_INBOX.one.0", r#"{"stream":"wa_stream","seq":1}"#);
        assert_eq!((bench.of("a", 1), bench.of("b", 1), bench.of("a", 2)), (Some(1), None, None));
        bench.authors.begin_again();
        assert_eq!(bench.of("a", 1), None);
        bench.ack(2, "_INBOX.two.0", r#"{"stream":"wa_stream","seq":1}"#);
        assert_eq!(bench.of("a", 1), Some(2));
    }
}
