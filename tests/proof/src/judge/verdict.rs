//! The judgement.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

use super::order::{Order, Rows};
use super::{Findings, Harvest, Letter, Original, Sample, Stored};
use crate::traffic::{Expect, Identity, Sent};

/// What a scenario excuses.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Several replicas ran at a time: inversions between them are counted and allowed, within a life of one they are not.
    pub across_replicas: bool,
    /// Changes of these numbers may be missing: the story took them away.
    pub excused: HashSet<u64>,
    /// The story made events too large, or had a tenant's refused: a dead letter for that reason is a fair end of a change
    /// whose source subject has this part.
    pub fair_end: Option<(&'static str, &'static str)>,
}

/// Where something was stored.
#[derive(Debug, Clone, Copy)]
enum Place {
    Target(u64),
    DeadLetter(u64),
}

/// Holds what came out against what was sent.
pub fn judge(sent: &[Sent], harvest: &Harvest, samples: &[Sample], rules: &Rules) -> Findings {
    let mut court = Court {
        findings: Findings { sent: sent.len(), samples: samples.len(), ..Findings::default() },
        by_identity: HashMap::new(),
        by_body: HashMap::new(),
        repeated: HashSet::new(),
        places: HashMap::new(),
        fair_ends: HashSet::new(),
        sent,
        rules,
    };
    court.index();
    court.target(&harvest.stored);
    court.letters(&harvest.letters);
    court.missing();
    court.samples(samples);
    court.findings
}

struct Court<'a> {
    sent: &'a [Sent],
    rules: &'a Rules,
    findings: Findings,
    /// Changes that belong in the target.
    by_identity: HashMap<&'a Identity, &'a Sent>,
    /// Changes that belong in the dead letters.
    by_body: HashMap<u64, &'a Sent>,
    /// Changes that the producer sent once more.
    repeated: HashSet<&'a Identity>,
    /// Where a change, by its number, was found first.
    places: HashMap<u64, Place>,
    /// Letters that are a fair end, by the change's number and their parts.
    fair_ends: HashSet<(u64, u32)>,
}

impl<'a> Court<'a> {
    fn index(&mut self) {
        for sent in self.sent {
            match &sent.expect {
                Expect::Target(_) => drop(self.by_identity.insert(&sent.identity, sent)),
                Expect::DeadLetter(_) => drop(self.by_body.insert(sent.payload, sent)),
                Expect::Skip => self.findings.skipped += 1,
                Expect::Repeated => {
                    self.repeated.insert(&sent.identity);
                    self.findings.repeated += 1;
                }
            }
        }
    }

    fn target(&mut self, stored: &[Stored]) {
        self.findings.stored = stored.len();
        let mut rows = Rows::default();
        for event in stored {
            let at = event.sequence;
            let told = match &event.told {
                Ok(told) => told,
                Err(error) => {
                    self.findings.wrong.add(|| format!("target {at} is no enriched event: {error}"));
                    continue;
                }
            };
            let Some(sent) = self.by_identity.get(&told.identity).copied() else {
                self.findings.wrong.add(|| format!("target {at} is nothing that was sent: {:?}", told.identity));
                continue;
            };
            if self.places.contains_key(&sent.number) {
                self.findings.doubled.add(|| format!("change {} again at target {at}", sent.number));
                continue;
            }
            self.places.insert(sent.number, Place::Target(at));
            self.content(event, sent);
            if self.rules.across_replicas && event.author.is_none() {
                self.findings.unattributed += 1;
            }
            let order = rows.stored(&sent.identity.row, (sent.epoch, sent.rewound, sent.sequence), event.author);
            if order != Order::Kept {
                self.inversion(event, sent, order);
            }
        }
    }

    fn inversion(&mut self, event: &Stored, sent: &Sent, order: Order) {
        if event.late.is_some() {
            self.findings.late += 1;
        } else if self.rules.across_replicas && order == Order::Broken {
            self.findings.inverted_across += 1;
        } else {
            let (at, number, row) = (event.sequence, sent.number, &sent.identity.row);
            let by = event.author.map(|life| format!(" of life {}", life.0)).unwrap_or_default();
            self.findings.inverted.add(|| format!("change {number} of {row} at target {at}, after a later one{by}"));
        }
    }

    fn content(&mut self, event: &Stored, sent: &Sent) {
        let Ok(told) = &event.told else { return };
        let number = sent.number;
        if sent.expect != Expect::Target(event.subject.clone()) {
            self.findings.wrong.add(|| format!("change {number} under {}: {:?}", event.subject, sent.expect));
        }
        if told.record != sent.record || told.changes != sent.changes {
            self.findings.wrong.add(|| format!("change {number} with another row or other changes"));
        }
        if !sent.subject.ends_with(&format!(".{}", told.action)) {
            self.findings.wrong.add(|| format!("change {number} as {}", told.action));
        }
        if event.id.as_ref().is_none_or(String::is_empty) {
            self.findings.wrong.add(|| format!("change {number} without Nats-Msg-Id"));
        }
    }

    fn letters(&mut self, letters: &[Letter]) {
        self.findings.dead_letters = letters.len();
        let whole: HashSet<u64> =
            letters.iter().filter(|letter| letter.original.is_ok()).map(|letter| letter.source_sequence).collect();
        for letter in letters {
            match &letter.original {
                Ok(original) => self.letter(letter, original),
                // A limit that changes in the middle of a letter has it split anew.
                Err(_) if letter.reason == "too_large" && whole.contains(&letter.source_sequence) => {}
                Err(error) => {
                    let Letter { sequence, source_sequence, reason, .. } = letter;
                    self.findings.wrong.add(|| {
                        format!(
                            "dead letter {sequence} ({reason}) of {source_sequence} of the source is not whole: {error}"
                        )
                    });
                }
            }
        }
    }

    fn letter(&mut self, letter: &Letter, original: &Original) {
        if self.rules.fair_end.is_some_and(|(reason, _)| letter.reason == reason) {
            return self.fair_end(letter, original);
        }
        let at = letter.sequence;
        let Some(sent) = self.by_body.get(&original.body).copied() else {
            let reason = &letter.reason;
            return self.findings.wrong.add(|| format!("dead letter {at} ({reason}) is nothing that belongs there"));
        };
        if !matches!(sent.expect, Expect::DeadLetter(reason) if reason == letter.reason) {
            self.findings.wrong.add(|| format!("dead letter {at} says {}: {:?}", letter.reason, sent.expect));
        }
        self.subject(at, original, sent);
        match self.places.entry(sent.number) {
            Entry::Vacant(place) => drop(place.insert(Place::DeadLetter(at))),
            Entry::Occupied(_) => {
                self.findings.doubled.add(|| format!("dead letter of change {} again at {at}", sent.number));
            }
        }
    }

    fn subject(&mut self, at: u64, original: &Original, sent: &Sent) {
        let Original { subject, .. } = original;
        if *subject != sent.subject {
            let number = sent.number;
            self.findings
                .wrong
                .add(|| format!("dead letter {at} of change {number} says that it came under {subject}"));
        }
    }

    /// A change that was not to be a dead letter but for the story.
    fn fair_end(&mut self, letter: &Letter, original: &Original) {
        let about = |sent: &&Sent| sent.sequence == letter.source_sequence;
        let (at, part) = (letter.sequence, self.rules.fair_end.map_or("", |(_, part)| part));
        let Some(sent) = self.sent.iter().find(about).filter(|sent| sent.subject.contains(part)) else {
            return self.findings.wrong.add(|| format!("dead letter {at} ({}) of what should flow", letter.reason));
        };
        let number = sent.number;
        if original.body != sent.payload {
            return self.findings.wrong.add(|| format!("dead letter {at} with another body than change {number}"));
        }
        self.subject(at, original, sent);
        // Split for another limit it has another id; in one form it is there once.
        if !self.fair_ends.insert((number, letter.parts)) {
            self.findings.doubled.add(|| format!("dead letter of change {number} again at {at}"));
        }
        let before = self.places.insert(number, Place::DeadLetter(at));
        // A limit that is lowered cuts the connection: what was stored unheard may be found too large when it is tried again.
        // And of two copies one may end here, the other there.
        let excused = letter.reason == "too_large" || self.repeated.contains(&sent.identity);
        if let Some(Place::Target(target)) = before.filter(|_| !excused) {
            self.findings.doubled.add(|| format!("change {number}, which is at target {target}, as dead letter {at}"));
        }
    }

    fn missing(&mut self) {
        for sent in self.sent {
            let expected = matches!(sent.expect, Expect::Target(_) | Expect::DeadLetter(_));
            let excused = self.rules.excused.contains(&sent.number);
            if expected && !excused && !self.places.contains_key(&sent.number) {
                let Sent { number, sequence, identity, .. } = sent;
                self.findings.lost.add(|| format!("change {number}, {sequence} of the source: {identity:?}"));
            }
        }
    }

    /// Every change at or below a floor must have been stored when the floor was seen.
    fn samples(&mut self, samples: &[Sample]) {
        let epochs: BTreeSet<u64> = samples.iter().map(|sample| sample.epoch).collect();
        for epoch in epochs {
            self.samples_of(epoch, samples.iter().filter(|sample| sample.epoch == epoch).copied().collect());
        }
    }

    /// The same in one life of the source, whose sequences are its own.
    fn samples_of(&mut self, epoch: u64, mut samples: Vec<Sample>) {
        // Of a sequence that was given twice a floor tells only that the first one is done.
        let mut given = HashSet::new();
        let mut sent: Vec<&Sent> = self
            .sent
            .iter()
            .filter(|sent| sent.epoch == epoch && given.insert(sent.sequence))
            .filter(|sent| !self.rules.excused.contains(&sent.number))
            .filter(|sent| matches!(sent.expect, Expect::Target(_) | Expect::DeadLetter(_)))
            .collect();
        sent.sort_by_key(|sent| sent.sequence);
        samples.sort_by_key(|sample| sample.floor);
        // The furthest of what lies at or below the floor; a change that is nowhere is told as lost.
        let (mut next, mut target, mut letter) = (0, 0, 0);
        for sample in samples {
            while let Some(sent) = sent.get(next).filter(|sent| sent.sequence <= sample.floor) {
                match self.places.get(&sent.number) {
                    Some(Place::Target(at)) => target = target.max(*at),
                    Some(Place::DeadLetter(at)) => letter = letter.max(*at),
                    None => {}
                }
                next += 1;
            }
            if target > sample.target || letter > sample.dead_letters {
                self.findings
                    .acked_early
                    .add(|| format!("{sample:?}, while {target} and {letter} belong to the floor"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Symptom, Told};
    use crate::proxy::LifeId;

    fn identity(lsn: u64) -> Identity {
        Identity { row: "daisi/messages/M1".to_owned(), lsn, idx: 0 }
    }

    fn sent(number: u64, expect: Expect) -> Sent {
        Sent {
            number,
            sequence: number,
            epoch: 0,
            rewound: 0,
            expect,
            identity: identity(number),
            subject: "sequin.db.daisi.messages.insert".to_owned(),
            payload: 1_000 + number,
            record: number,
            changes: None,
            body: None,
        }
    }

    fn stored(sequence: u64, number: u64) -> Stored {
        Stored {
            sequence,
            subject: "wa.x".to_owned(),
            told: Ok(Told { identity: identity(number), action: "insert".to_owned(), record: number, changes: None }),
            id: Some("id".to_owned()),
            late: None,
            body: 0,
            author: None,
        }
    }

    fn letter(sequence: u64, reason: &str, of: u64) -> Letter {
        let original = Original { subject: "sequin.db.daisi.messages.insert".to_owned(), body: 1_000 + of };
        Letter { sequence, reason: reason.to_owned(), source_sequence: of, parts: 1, original: Ok(original) }
    }

    /// Three changes of one row and a poisoned one, all where they belong.
    fn good() -> (Vec<Sent>, Harvest) {
        let mut all: Vec<Sent> = (1..=3).map(|number| sent(number, Expect::Target("wa.x".to_owned()))).collect();
        all.push(sent(4, Expect::DeadLetter("not_json")));
        let letter = letter(1, "not_json", 4);
        (all, Harvest { stored: (1..=3).map(|number| stored(number, number)).collect(), letters: vec![letter] })
    }

    fn symptoms(harvest: &Harvest, samples: &[Sample]) -> Vec<Symptom> {
        let findings = judge(&good().0, harvest, samples, &Rules::default());
        findings.broken().into_iter().map(|broken| broken.symptom).collect()
    }

    #[test]
    fn what_is_as_it_should_be_breaks_nothing() {
        let at_the_end = Sample { epoch: 0, floor: 4, target: 3, dead_letters: 1 };
        assert_eq!(symptoms(&good().1, &[at_the_end]), []);
    }

    #[test]
    fn each_fault_shows_as_what_it_is() {
        type Change = fn(&mut Harvest);
        let faults: [(Change, Symptom); 10] = [
            (|harvest| drop(harvest.stored.pop()), Symptom::Lost),
            (|harvest| harvest.letters.clear(), Symptom::Lost),
            (|harvest| harvest.stored.push(stored(4, 1)), Symptom::Doubled),
            (|harvest| harvest.letters.push(harvest.letters[0].clone()), Symptom::Doubled),
            (|harvest| harvest.stored.swap(0, 2), Symptom::Inverted),
            (|harvest| harvest.stored[0].subject = "wa.y".to_owned(), Symptom::Wrong),
            (|harvest| harvest.stored[0].id = None, Symptom::Wrong),
            (|harvest| harvest.stored.push(stored(4, 9)), Symptom::Wrong),
            (|harvest| harvest.letters[0].reason = "panic".to_owned(), Symptom::Wrong),
            (|harvest| harvest.letters[0].original.as_mut().unwrap().subject.clear(), Symptom::Wrong),
        ];
        for (index, (change, symptom)) in faults.into_iter().enumerate() {
            let (_, mut harvest) = good();
            change(&mut harvest);
            assert_eq!(symptoms(&harvest, &[]), [symptom], "fault {index}");
        }
    }

    #[test]
    fn an_inversion_that_says_so_is_none() {
        let (all, mut harvest) = good();
        harvest.stored.swap(1, 2);
        harvest.stored[2].late = Some("true".to_owned());
        let findings = judge(&all, &harvest, &[], &Rules::default());
        assert_eq!((findings.late, findings.broken()), (1, Vec::new()));
    }

    /// One row's changes in the order 1, 3, 2, stored by these lives, with several replicas.
    fn by_lives(authors: [Option<u16>; 3], late: bool) -> Findings {
        let (all, mut harvest) = good();
        harvest.stored.swap(1, 2);
        harvest.stored[2].late = late.then(|| "true".to_owned());
        for (event, author) in harvest.stored.iter_mut().zip(authors) {
            event.author = author.map(LifeId);
        }
        judge(&all, &harvest, &[], &Rules { across_replicas: true, ..Rules::default() })
    }

    #[test]
    fn between_lives_of_several_replicas_an_inversion_is_counted_and_within_one_it_is_found() {
        let counts = |findings: Findings| (findings.inverted.count, findings.inverted_across, findings.late);
        assert_eq!(counts(by_lives([Some(1), Some(2), Some(2)], false)), (1, 0, 0));
        assert_eq!(counts(by_lives([Some(1), Some(2), Some(1)], false)), (0, 1, 0));
        assert_eq!(counts(by_lives([Some(1), Some(2), Some(2)], true)), (0, 0, 1));
        assert_eq!(counts(by_lives([Some(1), Some(2), Some(1)], true)), (0, 0, 1));
    }

    #[test]
    fn what_cannot_be_attributed_is_counted_and_its_order_within_a_life_is_not_judged() {
        let counts = |findings: Findings| (findings.inverted.count, findings.inverted_across, findings.unattributed);
        assert_eq!(counts(by_lives([Some(1), Some(2), None], false)), (0, 1, 1));
        assert_eq!(counts(by_lives([Some(1), None, Some(2)], false)), (0, 1, 1));
        assert_eq!(counts(by_lives([None, None, None], false)), (0, 1, 3));
    }

    #[test]
    fn with_one_replica_order_holds_across_its_lives() {
        let (all, mut harvest) = good();
        harvest.stored.swap(1, 2);
        for (event, author) in harvest.stored.iter_mut().zip([1, 2, 1]) {
            event.author = Some(LifeId(author));
        }
        let findings = judge(&all, &harvest, &[], &Rules::default());
        assert_eq!((findings.inverted.count, findings.unattributed), (1, 0));
    }

    #[test]
    fn what_was_acknowledged_before_it_was_stored_is_seen() {
        let early = Sample { epoch: 0, floor: 3, target: 2, dead_letters: 0 };
        assert_eq!(symptoms(&good().1, &[early]), [Symptom::AckedEarly]);
        let poison = Sample { epoch: 0, floor: 4, target: 3, dead_letters: 0 };
        assert_eq!(symptoms(&good().1, &[poison]), [Symptom::AckedEarly]);
    }

    #[test]
    fn each_life_of_the_source_is_held_against_its_own_floors() {
        let (mut all, mut harvest) = good();
        all.push(Sent { sequence: 1, epoch: 1, ..sent(5, Expect::Target("wa.x".to_owned())) });
        harvest.stored.push(stored(4, 5));
        let shown = |epoch, floor, target| {
            let sample = Sample { epoch, floor, target, dead_letters: 1 };
            judge(&all, &harvest, &[sample], &Rules::default()).shows(Symptom::AckedEarly)
        };
        assert_eq!([shown(0, 4, 3), shown(0, 4, 2), shown(1, 1, 4), shown(1, 1, 3)], [false, true, false, true]);
    }

    #[test]
    fn a_sequence_that_the_source_gives_once_more_is_a_later_change() {
        let (mut all, mut harvest) = good();
        all.push(Sent { sequence: 2, rewound: 1, ..sent(5, Expect::Target("wa.x".to_owned())) });
        harvest.stored.push(stored(4, 5));
        let before = Sample { epoch: 0, floor: 4, target: 3, dead_letters: 1 };
        assert_eq!(judge(&all, &harvest, &[before], &Rules::default()).broken(), []);
        harvest.stored.swap(2, 3);
        assert!(judge(&all, &harvest, &[before], &Rules::default()).shows(Symptom::Inverted));
    }

    #[test]
    fn what_is_stored_again_later_was_stored_when_it_was_acknowledged() {
        let mut harvest = good().1;
        harvest.letters.push(Letter { sequence: 2, ..harvest.letters[0].clone() });
        harvest.stored.push(stored(4, 1));
        let before = Sample { epoch: 0, floor: 4, target: 3, dead_letters: 1 };
        assert_eq!(symptoms(&harvest, &[before]), [Symptom::Doubled]);
    }

    #[test]
    fn what_the_story_took_away_is_excused_and_nothing_more() {
        let (all, mut harvest) = good();
        harvest.stored.drain(..2);
        let rules = |excused: &[u64]| Rules { excused: excused.iter().copied().collect(), ..Rules::default() };
        assert!(judge(&all, &harvest, &[], &rules(&[1, 2])).broken().is_empty());
        for others in [&[1][..], &[2, 3]] {
            assert!(judge(&all, &harvest, &[], &rules(others)).shows(Symptom::Lost), "{others:?}");
        }
    }

    #[test]
    fn a_dead_letter_that_the_story_caused_is_a_fair_end_but_for_what_the_target_has() {
        let rules = Rules { fair_end: Some(("refused", ".daisi.")), ..Rules::default() };
        let letter = letter(2, "refused", 3);
        let (mut all, mut harvest) = good();
        harvest.letters.push(letter);
        assert!(judge(&all, &harvest, &[], &rules).shows(Symptom::Doubled));
        assert!(judge(&all, &harvest, &[], &Rules::default()).shows(Symptom::Wrong));
        all.push(Sent { number: 5, ..sent(3, Expect::Repeated) });
        assert!(judge(&all, &harvest, &[], &rules).broken().is_empty(), "one copy here, the other there");
        harvest.stored.pop();
        assert!(judge(&all, &harvest, &[], &rules).broken().is_empty());
        let others = Rules { fair_end: Some(("refused", ".another.")), ..Rules::default() };
        assert!(judge(&all, &harvest, &[], &others).shows(Symptom::Wrong), "its tenant is not refused");
        harvest.letters[1].original.as_mut().unwrap().body = 7;
        assert!(judge(&all, &harvest, &[], &rules).shows(Symptom::Wrong), "what was sent is not in it");
    }

    #[test]
    fn a_letter_of_what_became_too_large_is_a_fair_end_only_if_the_original_is_in_it() {
        let rules = Rules { fair_end: Some(("too_large", "")), ..Rules::default() };
        let (all, good) = good();
        let shows = |letters: &[Letter]| {
            let mut harvest = Harvest { stored: good.stored[..2].to_vec(), letters: good.letters.clone() };
            harvest.letters.extend_from_slice(letters);
            judge(&all, &harvest, &[], &rules).broken().into_iter().map(|broken| broken.symptom).collect::<Vec<_>>()
        };
        let whole = letter(2, "too_large", 3);
        let broken = Letter { original: Err("of 3 parts there are only [1, 2]".to_owned()), parts: 3, ..whole.clone() };
        let mut other = whole.clone();
        other.original.as_mut().unwrap().body = 7;
        assert_eq!(shows(std::slice::from_ref(&whole)), []);
        assert_eq!(shows(std::slice::from_ref(&broken)), [Symptom::Lost, Symptom::Wrong], "a part is missing");
        assert_eq!(shows(&[other]), [Symptom::Lost, Symptom::Wrong], "it is truncated");
        assert_eq!(shows(&[broken, whole.clone()]), [], "split anew after the limit has changed");
        assert_eq!(shows(&[whole.clone(), whole.clone()]), [Symptom::Doubled]);
        assert_eq!(shows(&[whole.clone(), Letter { parts: 3, ..whole }]), []);
    }
}
