//! The delivery protocol as a model, every interleaving of which is visited.
//!
//! Two messages of one event, two replicas, a dedup store and a target. Any step may be cut by a crash, a delivery may come
//! again while another attempt is alive, a publish ack may be lost, the store may forget, the duplicate window may close,
//! and the target may lose what it had confirmed. The breadth-first search below needs no framework: a state is a few bytes
//! and there are some ten thousand of them.

use std::collections::{BTreeSet, HashMap, VecDeque};

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
}

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Delivered,
    ToPublish,
    ToRecord,
    ToAcknowledge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    /// Messages that the source still holds.
    source: [bool; 2],
    /// Each replica's attempt: which message, and how far.
    attempts: [Option<(usize, Phase)>; 2],
    /// Each replica has looked at the target since its connection was made.
    looked: [bool; 2],
    /// The generation that the record names.
    record: Option<u8>,
    generation: u8,
    /// The store remembers that something was stored.
    highest: bool,
    /// How often the target holds the event.
    stored: u8,
    window_open: bool,
    /// The target has lost data once.
    rolled_back: bool,
    /// Whatever the target lost had been acknowledged before.
    excused: bool,
    /// The store has forgotten everything once.
    forgot: bool,
}

const START: State = State {
    source: [true; 2],
    attempts: [None; 2],
    looked: [true; 2],
    record: None,
    generation: 0,
    highest: false,
    stored: 0,
    window_open: true,
    rolled_back: false,
    excused: false,
    forgot: false,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Broken {
    Lost,
    Doubled,
}

fn judge(state: &State) -> Option<Broken> {
    if state.stored > 1 {
        return Some(Broken::Doubled);
    }
    let done = state.source == [false; 2];
    (done && state.stored == 0 && !state.excused).then_some(Broken::Lost)
}

/// Every state that can follow, and what leads there.
fn successors(state: &State, variant: Variant, window_closes: bool) -> Vec<(String, State)> {
    let mut next = Vec::new();
    for replica in 0..2 {
        of_replica(state, variant, replica, &mut next);
    }
    let mut add = |what: &str, state: State| next.push((what.to_owned(), state));
    if state.record.is_some() {
        add("the store forgets the record", State { record: None, ..*state });
    }
    // Both at once are beyond the protocol: then nothing is left that could tell.
    if !state.forgot && !state.rolled_back {
        let empty = State { record: None, highest: false, generation: 0, forgot: true, ..*state };
        add("the store forgets everything", empty);
        if state.stored > 0 {
            let excused = state.source == [false; 2];
            let lost = State { stored: 0, looked: [false; 2], rolled_back: true, excused, ..*state };
            add("the target loses the event", lost);
        }
    }
    if window_closes && state.window_open && state.stored > 0 {
        add("the window closes", State { window_open: false, ..*state });
    }
    next
}

fn of_replica(state: &State, variant: Variant, replica: usize, next: &mut Vec<(String, State)>) {
    let mut add = |what: String, state: State| next.push((format!("replica {replica} {what}"), state));
    let with = |attempt| {
        let mut attempts = state.attempts;
        attempts[replica] = attempt;
        State { attempts, ..*state }
    };
    if !state.looked[replica] {
        add("looks at the target".to_owned(), look(state, variant, replica));
    }
    let Some((message, phase)) = state.attempts[replica] else {
        if state.looked[replica] || variant == Variant::NoLook {
            for message in (0..2).filter(|message| state.source[*message]) {
                add(format!("is given {message}"), with(Some((message, Phase::Delivered))));
            }
        }
        return;
    };
    // A process that starts looks at the target first.
    let mut looked = state.looked;
    looked[replica] = false;
    add(format!("dies with {message}"), State { looked, ..with(None) });
    let at = |phase| with(Some((message, phase)));
    match phase {
        Phase::Delivered => {
            let known = state.record.is_some_and(|of| of == state.generation || variant == Variant::PlainRecords);
            let fresh = if variant == Variant::AckFirst { Phase::ToAcknowledge } else { Phase::ToPublish };
            let then = at(if known { Phase::ToAcknowledge } else { fresh });
            let marks = variant == Variant::MarkFirst && !known;
            let record = if marks { Some(state.generation) } else { state.record };
            add(format!("checks {message}"), State { record, ..then });
        }
        Phase::ToPublish => {
            let known = state.stored > 0 && state.window_open && variant != Variant::NoId;
            let stored = if known { state.stored } else { state.stored + 1 };
            let confirmed = match variant {
                Variant::AckFirst => None,
                Variant::MarkFirst => Some((message, Phase::ToAcknowledge)),
                _ => Some((message, Phase::ToRecord)),
            };
            add(format!("publishes {message}"), State { stored, ..with(confirmed) });
            add(format!("publishes {message}, and the ack is lost"), State { stored, ..*state });
        }
        Phase::ToRecord if state.looked[replica] || matches!(variant, Variant::NoLook | Variant::RecordsUnseen) => {
            let record = Some(state.generation);
            add(format!("records {message}"), State { record, highest: true, ..at(Phase::ToAcknowledge) });
        }
        Phase::ToAcknowledge if state.looked[replica] || variant == Variant::NoLook => {
            let mut source = state.source;
            source[message] = false;
            let publishes = variant == Variant::AckFirst && state.source[message];
            let then = if publishes { at(Phase::ToPublish) } else { with(None) };
            add(format!("acknowledges {message}"), State { source, ..then });
        }
        Phase::ToRecord | Phase::ToAcknowledge => {}
    }
}

/// The target is held against the highest sequence recorded; what is in hand and lies beyond its end goes back.
fn look(state: &State, variant: Variant, replica: usize) -> State {
    let mut then = *state;
    then.looked[replica] = true;
    if variant == Variant::NoLook {
        return then;
    }
    if state.highest && state.stored == 0 {
        then.generation += 1;
        then.highest = false;
    }
    let confirmed = |attempt: &mut (usize, Phase)| matches!(attempt.1, Phase::ToRecord | Phase::ToAcknowledge);
    if state.stored == 0 && variant != Variant::KeepsInHand {
        then.attempts[replica].take_if(confirmed);
    }
    then
}

/// Visits every state: how many there are, which promises break, and the shortest way to each.
fn explore(variant: Variant, window_closes: bool) -> (usize, BTreeSet<Broken>, HashMap<Broken, Vec<String>>) {
    let mut came: HashMap<State, Option<(State, String)>> = HashMap::from([(START, None)]);
    let (mut todo, mut broken, mut ways) = (VecDeque::from([START]), BTreeSet::new(), HashMap::new());
    while let Some(state) = todo.pop_front() {
        if let Some(how) = judge(&state) {
            if broken.insert(how) {
                ways.insert(how, way(&came, state));
            }
            continue;
        }
        for (what, next) in successors(&state, variant, window_closes) {
            came.entry(next).or_insert_with(|| {
                todo.push_back(next);
                Some((state, what))
            });
        }
    }
    (came.len(), broken, ways)
}

fn way(came: &HashMap<State, Option<(State, String)>>, mut state: State) -> Vec<String> {
    let mut way = Vec::new();
    while let Some(Some((before, what))) = came.get(&state) {
        way.push(what.clone());
        state = *before;
    }
    way.reverse();
    way
}

impl std::hash::Hash for Broken {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        std::mem::discriminant(self).hash(hasher);
    }
}

#[test]
fn while_the_window_is_open_nothing_is_lost_and_nothing_doubled() {
    let (states, broken, ways) = explore(Variant::Right, false);
    println!("{states} states");
    assert!(broken.is_empty(), "{ways:#?}");
    assert!(states > 1_000, "too few to mean anything: {states}");
}

#[test]
fn after_the_window_has_closed_nothing_is_lost() {
    let (states, broken, ways) = explore(Variant::Right, true);
    println!("{states} states");
    assert_eq!(broken, BTreeSet::from([Broken::Doubled]), "{ways:#?}");
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
    ] {
        let (states, broken, ways) = explore(variant, false);
        assert!(broken.contains(&how), "{variant:?} keeps the promise in {states} states");
        println!("{variant:?}, {states} states, {how:?}: {:#?}", ways[&how]);
    }
}
