//! The judgement.

use std::collections::HashMap;

use super::{Findings, Harvest, Letter, Sample, Stored};
use crate::traffic::{Expect, Identity, Sent};

/// What a scenario excuses.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Several replicas ran at a time: inversions between them are counted and allowed.
    pub across_replicas: bool,
    /// Changes up to this number may be missing: the story took them away.
    pub excused_up_to: u64,
    /// The story made events too large: a dead letter that says so is a fair end of any change.
    pub too_large: bool,
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
        places: HashMap::new(),
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
    /// Where a change, by its number, was found first.
    places: HashMap<u64, Place>,
}

impl<'a> Court<'a> {
    fn index(&mut self) {
        for sent in self.sent {
            match &sent.expect {
                Expect::Target(_) => drop(self.by_identity.insert(&sent.identity, sent)),
                Expect::DeadLetter(_) => drop(self.by_body.insert(sent.payload, sent)),
                Expect::Skip => self.findings.skipped += 1,
                Expect::Repeated => self.findings.repeated += 1,
            }
        }
    }

    fn target(&mut self, stored: &[Stored]) {
        self.findings.stored = stored.len();
        let mut newest: HashMap<&str, (u64, u64)> = HashMap::new();
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
            let order = newest.entry(&sent.identity.row).or_default();
            let place = (sent.epoch, sent.sequence);
            if place < *order {
                self.inversion(event, sent);
            }
            *order = place.max(*order);
        }
    }

    fn inversion(&mut self, event: &Stored, sent: &Sent) {
        if event.late.is_some() {
            self.findings.late += 1;
        } else if self.rules.across_replicas {
            self.findings.inverted_across += 1;
        } else {
            let (at, number, row) = (event.sequence, sent.number, &sent.identity.row);
            self.findings.inverted.add(|| format!("change {number} of {row} at target {at}, after a later one"));
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
        for letter in letters {
            let at = letter.sequence;
            if self.rules.too_large && letter.reason == "too_large" {
                self.too_large(letter);
                continue;
            }
            let Some(sent) = self.by_body.get(&letter.body).copied() else {
                self.findings
                    .wrong
                    .add(|| format!("dead letter {at} ({}) is nothing that belongs there", letter.reason));
                continue;
            };
            if !matches!(sent.expect, Expect::DeadLetter(reason) if reason == letter.reason) {
                self.findings.wrong.add(|| format!("dead letter {at} says {}: {:?}", letter.reason, sent.expect));
            }
            if self.places.insert(sent.number, Place::DeadLetter(at)).is_some() {
                self.findings.doubled.add(|| format!("dead letter of change {} again at {at}", sent.number));
            }
        }
    }

    /// One of perhaps several parts of a change that no longer fits.
    fn too_large(&mut self, letter: &Letter) {
        let about = |sent: &&Sent| sent.sequence == letter.source_sequence;
        if let Some(sent) = self.sent.iter().find(about) {
            self.places.insert(sent.number, Place::DeadLetter(letter.sequence));
        }
    }

    fn missing(&mut self) {
        for sent in self.sent {
            let expected = matches!(sent.expect, Expect::Target(_) | Expect::DeadLetter(_));
            let excused = sent.number <= self.rules.excused_up_to;
            if expected && !excused && !self.places.contains_key(&sent.number) {
                let Sent { number, sequence, identity, .. } = sent;
                self.findings.lost.add(|| format!("change {number}, {sequence} of the source: {identity:?}"));
            }
        }
    }

    /// Every change at or below a floor must have been stored when the floor was seen.
    fn samples(&mut self, samples: &[Sample]) {
        let Some(epoch) = self.sent.iter().map(|sent| sent.epoch).max() else { return };
        let mut sent: Vec<&Sent> = self
            .sent
            .iter()
            .filter(|sent| sent.epoch == epoch && sent.number > self.rules.excused_up_to)
            .filter(|sent| matches!(sent.expect, Expect::Target(_) | Expect::DeadLetter(_)))
            .collect();
        sent.sort_by_key(|sent| sent.sequence);
        let mut samples = samples.to_vec();
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
