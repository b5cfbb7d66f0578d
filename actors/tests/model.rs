//! The delivery protocol as a model, every interleaving of which is visited.
//!
//! Two rows: one event came in two messages, another row's event in a third. Two replicas, a dedup store, a target. Any step
//! may be cut by a crash, a delivery may come again while another attempt is alive, a publish ack may be lost, the store may
//! forget, the duplicate window may close, and the target may lose the last it had confirmed, or all. The breadth-first
//! search below needs no framework: a state is a few bytes, and there are some hundred thousand of them.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// Which event each message of the source carries: the first two are one and the same, the third is another row's.
const EVENT_OF: [usize; MESSAGES] = [0, 0, 1];
const MESSAGES: usize = 3;
const EVENTS: usize = 2;
/// The messages by number.
const EVERY: [u8; MESSAGES] = [0, 1, 2];

/// A protocol: the right one, or one that leaves out a defence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Right,
    /// Marks the event before it is published.
    MarkFirst,
    /// Acknowledges before it publishes.
    AckFirst,
    /// Publishes without an id.
    NoId,
    /// A record is a plain flag, bound to no generation.
    PlainRecords,
    /// Nobody looks at the target after a reconnect.
    NoLook,
    /// What was confirmed before the target lost it is recorded and acknowledged all the same.
    KeepsInHand,
    /// Records over a new connection before it has looked at the target.
    RecordsUnseen,
    /// Publishes over a new connection before it has looked at the target, which then no longer seems to be behind.
    PublishesUnseen,
    /// Keeps what an earlier connection confirmed, if a look over the new one finds no end before it and no loss: the
    /// sequence may be another event's by now.
    KeepsConfirmed,
}

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Phase {
    Delivered,
    ToPublish,
    /// Confirmed under this sequence.
    ToRecord(u8),
    ToAcknowledge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Replica {
    /// Which message is in hand, and how far.
    attempt: Option<(u8, Phase)>,
    /// It has looked at the target since its connection was made.
    looked: bool,
    /// The generation at its last look.
    seen: u8,
    /// The generation that the store told last.
    heard: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    /// Messages that the source still holds.
    source: [bool; MESSAGES],
    replicas: [Replica; 2],
    /// The generation that an event's record names.
    records: [Option<u8>; EVENTS],
    generation: u8,
    /// The highest sequence recorded.
    highest: u8,
    /// What the target holds, in order: its sequences count from 1.
    target: [Option<usize>; EVENTS],
    window_open: bool,
    /// The target has lost data once.
    rolled_back: bool,
    /// What the target lost had been acknowledged before.
    excused: [bool; EVENTS],
    /// The store has forgotten everything once.
    forgot: bool,
    /// An event was stored twice.
    doubled: bool,
}

const IDLE: Replica = Replica { attempt: None, looked: true, seen: 0, heard: 0 };

const START: State = State {
    source: [true; MESSAGES],
    replicas: [IDLE; 2],
    records: [None; EVENTS],
    generation: 0,
    highest: 0,
    target: [None; EVENTS],
    window_open: true,
    rolled_back: false,
    excused: [false; EVENTS],
    forgot: false,
    doubled: false,
};

impl State {
    /// The target's last sequence.
    fn last(&self) -> u8 {
        u8::try_from(self.target.iter().flatten().count()).unwrap_or(u8::MAX)
    }

    fn sequence_of(&self, event: usize) -> Option<u8> {
        let place = self.target.iter().position(|held| *held == Some(event))?;
        u8::try_from(place + 1).ok()
    }

    /// Whether the source still holds a message of an event.
    fn is_due(&self, event: usize) -> bool {
        (0..MESSAGES).any(|message| EVENT_OF[message] == event && self.source[message])
    }

    fn with(mut self, replica: usize, change: impl FnOnce(&mut Replica)) -> Self {
        change(&mut self.replicas[replica]);
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Broken {
    Lost,
    Doubled,
}

fn judge(state: &State) -> Option<Broken> {
    let lost = |event: usize| !state.is_due(event) && state.sequence_of(event).is_none() && !state.excused[event];
    match state.doubled {
        true => Some(Broken::Doubled),
        false => (0..EVENTS).any(lost).then_some(Broken::Lost),
    }
}

/// What happens, to which message, event or end of the target.
type Step = (&'static str, usize);

/// Every state that can follow, and what leads there.
fn successors(state: &State, variant: Variant, window_closes: bool) -> Vec<(Step, State)> {
    let mut next = Vec::new();
    for replica in 0..2 {
        of_replica(state, variant, replica, &mut next);
    }
    let mut add = |what: &'static str, which: usize, state: State| next.push(((what, which), state));
    for event in (0..EVENTS).filter(|event| state.records[*event].is_some()) {
        let mut records = state.records;
        records[event] = None;
        add("the store forgets the record of event", event, State { records, ..*state });
    }
    // Both at once are beyond the protocol: then nothing is left that could tell.
    if !state.forgot && !state.rolled_back {
        let empty = State { records: [None; EVENTS], highest: 0, generation: 0, forgot: true, ..*state };
        add("the store forgets everything of", EVENTS, empty);
        for kept in 0..usize::from(state.last()) {
            add("the target is back at", kept, roll_back(state, kept));
        }
    }
    if window_closes && state.window_open && state.last() > 0 {
        add("the window closes over", EVENTS, State { window_open: false, ..*state });
    }
    next
}

/// The server comes back with older data: every connection is made anew.
fn roll_back(state: &State, kept: usize) -> State {
    let mut then = State { rolled_back: true, ..*state };
    for place in kept..EVENTS {
        if let Some(event) = then.target[place].take() {
            then.excused[event] = !state.is_due(event);
        }
    }
    then.replicas.iter_mut().for_each(|replica| replica.looked = false);
    then
}

fn of_replica(state: &State, variant: Variant, index: usize, next: &mut Vec<(Step, State)>) {
    let mut add = |what: &'static str, which: usize, state: State| next.push(((what, which), state));
    let replica = state.replicas[index];
    let sure = replica.looked || variant == Variant::NoLook;
    let with = |attempt| state.with(index, |replica| replica.attempt = attempt);
    if !replica.looked {
        add("looks at the target: replica", index, look(state, variant, index));
    }
    let Some((number, phase)) = replica.attempt else {
        for message in (0..MESSAGES).filter(|message| sure && state.source[*message]) {
            add("is delivered: message", message, with(Some((EVERY[message], Phase::Delivered))));
        }
        return;
    };
    let message = usize::from(number);
    // A process that starts looks at the target first.
    let begun = Replica { looked: false, ..IDLE };
    add("dies who has message", message, state.with(index, |replica| *replica = begun));
    let at = |phase| with(Some((number, phase)));
    let event = EVENT_OF[message];
    match phase {
        Phase::Delivered => add("checks message", message, check(state, variant, index, message)),
        Phase::ToPublish if sure || variant == Variant::PublishesUnseen => {
            let (then, sequence) = publish(state, variant, event);
            let confirmed = match variant {
                Variant::AckFirst => None,
                Variant::MarkFirst => Some((number, Phase::ToAcknowledge)),
                _ => Some((number, Phase::ToRecord(sequence))),
            };
            add("publishes message", message, then.with(index, |replica| replica.attempt = confirmed));
            add("publishes and hears nothing of message", message, then);
        }
        Phase::ToRecord(sequence) if sure || variant == Variant::RecordsUnseen => {
            let mut then = at(Phase::ToAcknowledge);
            then.records[event] = Some(replica.heard);
            then.highest = then.highest.max(sequence);
            add("records message", message, then);
        }
        Phase::ToAcknowledge if sure => {
            let publishes = variant == Variant::AckFirst && state.source[message];
            let mut then = if publishes { at(Phase::ToPublish) } else { with(None) };
            then.source[message] = false;
            add("acknowledges message", message, then);
        }
        Phase::ToPublish | Phase::ToRecord(_) | Phase::ToAcknowledge => {}
    }
}

fn check(state: &State, variant: Variant, index: usize, message: usize) -> State {
    let event = EVENT_OF[message];
    let known = state.records[event].is_some_and(|of| of == state.generation || variant == Variant::PlainRecords);
    let fresh = if variant == Variant::AckFirst { Phase::ToAcknowledge } else { Phase::ToPublish };
    let phase = if known { Phase::ToAcknowledge } else { fresh };
    let mut then = state.with(index, |replica| {
        replica.attempt = Some((EVERY[message], phase));
        replica.heard = state.generation;
    });
    if variant == Variant::MarkFirst && !known {
        then.records[event] = Some(state.generation);
    }
    then
}

/// What the target holds after a publish, and the sequence that it confirms.
fn publish(state: &State, variant: Variant, event: usize) -> (State, u8) {
    let known = state.sequence_of(event);
    if let Some(sequence) = known.filter(|_| state.window_open && variant != Variant::NoId) {
        return (*state, sequence);
    }
    let mut then = State { doubled: known.is_some(), ..*state };
    if known.is_none() {
        then.target[usize::from(state.last())] = Some(event);
    }
    (then, then.last())
}

/// The target is held against the highest sequence recorded; what is in hand and may have been lost goes back.
fn look(state: &State, variant: Variant, index: usize) -> State {
    let mut then = *state;
    let before = state.replicas[index];
    if variant != Variant::NoLook && state.last() < state.highest {
        then.generation += 1;
        then.highest = 0;
    }
    let (generation, last) = (then.generation, then.last());
    let replica = &mut then.replicas[index];
    (replica.looked, replica.seen, replica.heard) = (true, generation, generation);
    let lost = |attempt: &mut (u8, Phase)| match attempt.1 {
        Phase::Delivered | Phase::ToPublish => false,
        Phase::ToRecord(sequence) if variant == Variant::KeepsConfirmed => sequence > last || before.seen != generation,
        Phase::ToRecord(_) => true,
        Phase::ToAcknowledge => before.seen != generation,
    };
    if !matches!(variant, Variant::KeepsInHand | Variant::NoLook) {
        replica.attempt.take_if(lost);
    }
    then
}

/// How a state was come to: from which one, by what.
type Ways = HashMap<State, Option<(State, Step)>>;

/// What a search found.
struct Found {
    states: usize,
    /// The promises that break, and the shortest way to each.
    broken: BTreeMap<Broken, Vec<String>>,
}

/// Visits every state, or ends with the first that breaks `until`.
fn explore(variant: Variant, window_closes: bool, until: Option<Broken>) -> Found {
    let mut came: Ways = HashMap::from([(START, None)]);
    let (mut todo, mut broken) = (VecDeque::from([START]), BTreeMap::new());
    while let Some(state) = todo.pop_front() {
        if let Some(how) = judge(&state) {
            broken.entry(how).or_insert_with(|| way(&came, state));
            if until == Some(how) {
                break;
            }
            continue;
        }
        for (step, mut next) in successors(&state, variant, window_closes) {
            // Replicas are alike: which is which makes no other state.
            next.replicas.sort_unstable();
            came.entry(next).or_insert_with(|| {
                todo.push_back(next);
                Some((state, step))
            });
        }
    }
    Found { states: came.len(), broken }
}

fn way(came: &Ways, mut state: State) -> Vec<String> {
    let mut way = Vec::new();
    while let Some(Some((before, (what, which)))) = came.get(&state) {
        way.push(format!("{what} {which}"));
        state = *before;
    }
    way.reverse();
    way
}

#[test]
fn while_the_window_is_open_nothing_is_lost_and_nothing_doubled() {
    let Found { states, broken } = explore(Variant::Right, false, None);
    println!("{states} states");
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(states > 10_000, "too few to mean anything: {states}");
}

#[test]
fn after_the_window_has_closed_nothing_is_lost() {
    let Found { states, broken } = explore(Variant::Right, true, None);
    println!("{states} states");
    assert_eq!(broken.keys().collect::<Vec<_>>(), [&Broken::Doubled], "{broken:#?}");
}

#[test]
fn without_any_one_defence_the_promise_breaks() {
    for (variant, how) in [
        (Variant::MarkFirst, Broken::Lost),
        (Variant::AckFirst, Broken::Lost),
        (Variant::NoId, Broken::Doubled),
        (Variant::PlainRecords, Broken::Lost),
        (Variant::NoLook, Broken::Lost),
        (Variant::KeepsInHand, Broken::Lost),
        (Variant::RecordsUnseen, Broken::Lost),
        (Variant::PublishesUnseen, Broken::Lost),
        (Variant::KeepsConfirmed, Broken::Lost),
    ] {
        let Found { states, broken } = explore(variant, false, Some(how));
        let way = broken.get(&how);
        assert!(way.is_some(), "{variant:?} keeps the promise in {states} states");
        println!("{variant:?}, {states} states, {how:?}: {way:#?}");
    }
}
