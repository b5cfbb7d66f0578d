//! What was sent, in memory and appended to a file.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;

use super::{Change, Expect, Identity};

/// How many payloads are kept, for `explain`.
const PAYLOADS: usize = 200;
/// The largest payload that is kept, in bytes.
const LARGEST: usize = 64 << 10;

/// A change that the source has stored.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its number.
    pub number: u64,
    /// Its place in the source.
    pub sequence: u64,
    /// How often the source had been created again before.
    pub epoch: u64,
    /// How often the source had begun before to give sequences once more that it had given already: nats-server 2.9.10 does so
    /// after kill -9 if the last messages of a work queue were acknowledged and gone.
    pub rewound: u64,
    /// What must become of it.
    pub expect: Expect,
    /// Which change it is.
    pub identity: Identity,
    /// The subject that it was sent under.
    pub subject: String,
    /// Hash of its body.
    pub payload: u64,
    /// Hash of the row in its body.
    pub record: u64,
    /// Hash of the old values in its body.
    pub changes: Option<u64>,
    /// Its body, for a few from anywhere in the run.
    pub body: Option<Bytes>,
}

/// A hash that is the same within one process.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: BufWriter<File>,
    sent: Vec<Sent>,
    epoch: u64,
    rewound: u64,
    /// When, in terms of `rewound`, a sequence of this epoch was given last.
    given: HashMap<u64, u64>,
    /// Whose bodies are kept, and how many could have been so far.
    kept: Vec<usize>,
    keepable: usize,
    rng: fastrand::Rng,
}

impl Inner {
    /// Keeps the body of what is entered next in place of another's, so that every one so far is as likely to be kept.
    fn keep(&mut self, next: usize) -> bool {
        self.keepable += 1;
        if self.kept.len() < PAYLOADS {
            self.kept.push(next);
            return true;
        }
        let place = self.rng.usize(..self.keepable);
        let Some(kept) = self.kept.get_mut(place) else { return false };
        self.sent[*kept].body = None;
        *kept = next;
        true
    }
}

impl Ledger {
    /// Begins one, appended to a new file.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let (sent, given, kept) = (Vec::new(), HashMap::new(), Vec::new());
        let (epoch, rewound, keepable, rng) = (0, 0, 0, fastrand::Rng::with_seed(0));
        Ok(Self { inner: Mutex::new(Inner { file, sent, epoch, rewound, given, kept, keepable, rng }) })
    }

    /// Enters a change that the source has stored.
    pub fn enter(&self, change: &Change, sequence: u64) {
        let mut inner = self.inner.lock().unwrap();
        let now = inner.rewound;
        if inner.given.insert(sequence, now) == Some(now) {
            inner.rewound += 1;
            inner.given.insert(sequence, now + 1);
        }
        let (epoch, next) = (inner.epoch, inner.sent.len());
        let keepable = change.payload.len() <= LARGEST && matches!(change.expect, Expect::Target(_));
        let kept = keepable && inner.keep(next);
        let Identity { row, lsn, idx } = &change.identity;
        let (number, subject, expect) = (change.number, &change.subject, &change.expect);
        writeln!(inner.file, "{number}\t{epoch}:{sequence}\t{subject}\t{row}\t{lsn}:{idx}\t{expect:?}").unwrap();
        let rewound = inner.rewound;
        inner.sent.push(Sent {
            number,
            sequence,
            epoch,
            rewound,
            expect: expect.clone(),
            identity: change.identity.clone(),
            subject: subject.clone(),
            payload: hash(&change.payload),
            record: hash(&change.record),
            changes: change.changes.as_deref().map(hash),
            body: kept.then(|| change.payload.clone()),
        });
    }

    /// From now on the source is another one.
    pub fn source_recreated(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.epoch += 1;
        inner.given.clear();
    }

    /// The numbers of what the present source stored above a sequence.
    pub fn numbers_above(&self, sequence: u64) -> Vec<u64> {
        let inner = self.inner.lock().unwrap();
        let above = inner.sent.iter().filter(|sent| sent.epoch == inner.epoch && sent.sequence > sequence);
        above.map(|sent| sent.number).collect()
    }

    /// The highest number so far.
    pub fn last_number(&self) -> u64 {
        self.inner.lock().unwrap().sent.iter().map(|sent| sent.number).max().unwrap_or_default()
    }

    /// Everything so far.
    pub fn sent(&self) -> Vec<Sent> {
        let mut inner = self.inner.lock().unwrap();
        inner.file.flush().unwrap();
        inner.sent.clone()
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::traffic::{Generator, Mix};

    #[test]
    fn a_sequence_that_is_given_once_more_is_a_later_one() {
        let directory = TempDir::new().unwrap();
        let ledger = Ledger::create(&directory.path().join("ledger")).unwrap();
        let mut changes = Generator::new(1, Mix::default());
        // What is sent again, since its ack was lost, may be stored behind what was sent after it: nothing is given twice.
        for sequence in [1, 3, 2, 4, 3, 4, 5, 3] {
            ledger.enter(&changes.next().unwrap(), sequence);
        }
        assert_eq!(ledger.numbers_above(3), [4, 6, 7]);
        ledger.source_recreated();
        ledger.enter(&changes.next().unwrap(), 3);
        assert_eq!(ledger.numbers_above(2), [9]);
        let rewound: Vec<u64> = ledger.sent().iter().map(|sent| sent.rewound).collect();
        assert_eq!(rewound, [0, 0, 0, 0, 1, 1, 1, 2, 2]);
    }

    #[test]
    fn bodies_are_kept_from_the_whole_run() {
        let directory = TempDir::new().unwrap();
        let ledger = Ledger::create(&directory.path().join("ledger")).unwrap();
        for (sequence, change) in (1..=4_000).zip(Generator::new(1, Mix::default())) {
            ledger.enter(&change, sequence);
        }
        let kept: Vec<u64> =
            ledger.sent().iter().filter(|sent| sent.body.is_some()).map(|sent| sent.sequence).collect();
        assert_eq!(kept.len(), PAYLOADS);
        // Of 200 that are drawn evenly none comes from a quarter of all once in 10^25 times.
        for quarter in 0..4 {
            assert!(
                kept.iter().any(|sequence| (sequence - 1) / 1_000 == quarter),
                "none of quarter {quarter}: {kept:?}"
            );
        }
    }
}
