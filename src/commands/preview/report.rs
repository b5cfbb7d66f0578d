//! What the decisions come to.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::{sequence, verdict};
use crate::adapters::nats::StoredMessage;
use crate::commands::output::{NAME, one_line, styled};
use crate::domain::Explanation;

/// Different subjects that are counted; what comes after them is counted together.
const SUBJECTS_KEPT: usize = 10_000;
/// Subjects and fields shown.
const SHOWN: usize = 20;

/// Counts, and a few samples of each verdict.
pub(super) struct Report {
    samples_of_each: usize,
    messages: u64,
    first: Option<u64>,
    last: Option<u64>,
    verdicts: BTreeMap<String, u64>,
    subjects: BTreeMap<String, u64>,
    other_subjects: u64,
    unhandled: BTreeMap<String, u64>,
    samples: BTreeMap<String, Vec<Value>>,
}

impl Report {
    pub(super) fn new(samples_of_each: usize) -> Self {
        Self {
            samples_of_each,
            messages: 0,
            first: None,
            last: None,
            verdicts: BTreeMap::new(),
            subjects: BTreeMap::new(),
            other_subjects: 0,
            unhandled: BTreeMap::new(),
            samples: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, message: &StoredMessage, decision: Explanation) {
        self.messages += 1;
        self.last = sequence(message);
        self.first = self.first.or(self.last);
        let verdict = verdict(&decision);
        *self.verdicts.entry(verdict.clone()).or_default() += 1;
        if let Some(subject) = &decision.subject {
            if self.subjects.len() < SUBJECTS_KEPT || self.subjects.contains_key(subject) {
                *self.subjects.entry(subject.clone()).or_default() += 1;
            } else {
                self.other_subjects += 1;
            }
        }
        for field in decision.unhandled_fields.iter().flatten() {
            *self.unhandled.entry(field.clone()).or_default() += 1;
        }
        let samples = self.samples.entry(verdict).or_default();
        if samples.len() < self.samples_of_each {
            let sample =
                json!({ "sequence": sequence(message), "source_subject": message.subject, "decision": decision });
            samples.push(sample);
        }
    }

    pub(super) fn to_json(&self, stream: &str, not_received: u64) -> Value {
        let sum = |name: &str| {
            let of_it = self.verdicts.iter().filter(|(verdict, _)| verdict.split(':').next() == Some(name));
            of_it.map(|(_, count)| count).sum::<u64>()
        };
        let reasons: BTreeMap<_, _> =
            self.verdicts.iter().filter_map(|(verdict, count)| Some((verdict.split_once(": ")?.1, count))).collect();
        json!({
            "stream": stream, "messages": self.messages, "first_sequence": self.first, "last_sequence": self.last,
            "verdicts": { "publish": sum("publish"), "skip": sum("skip"), "dead_letter": sum("dead_letter") },
            "reasons": reasons, "subjects": self.subjects, "other_subjects": self.other_subjects,
            "not_received": not_received, "unhandled_fields": self.unhandled, "samples": self.samples,
        })
    }

    pub(super) fn write(&self, out: &mut impl Write, stream: &str, not_received: u64) -> io::Result<()> {
        let range = match (self.first, self.last) {
            (Some(first), Some(last)) => format!(", sequence {first} to {last}"),
            _ => String::new(),
        };
        writeln!(out, "{}", styled(NAME, format!("{} messages of {stream}{range}", self.messages)))?;
        for (verdict, count) in &self.verdicts {
            writeln!(out, "  {count:>8}  {verdict}")?;
        }
        if not_received > 0 {
            writeln!(out, "  {not_received:>8}  not received: source.subjects does not let them through")?;
        }
        write_counts(out, "subjects", &self.subjects)?;
        if self.other_subjects > 0 {
            writeln!(out, "  {:>8}  more, under subjects that were not kept", self.other_subjects)?;
        }
        write_counts(out, "unhandled fields", &self.unhandled)?;
        for (verdict, samples) in &self.samples {
            for sample in samples {
                write_sample(out, verdict, sample)?;
            }
        }
        Ok(())
    }
}

fn write_counts(out: &mut impl Write, what: &str, counts: &BTreeMap<String, u64>) -> io::Result<()> {
    if counts.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", styled(NAME, format!("{} {what}", counts.len())))?;
    let mut by_count: Vec<_> = counts.iter().collect();
    by_count.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (name, count) in by_count.iter().take(SHOWN) {
        writeln!(out, "  {count:>8}  {}", one_line(name))?;
    }
    match by_count.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "            and {more} more"),
    }
}

fn write_sample(out: &mut impl Write, verdict: &str, sample: &Value) -> io::Result<()> {
    let place = sample["sequence"].as_u64().map_or_else(String::new, |sequence| format!(", sequence {sequence}"));
    writeln!(out, "\n{}", styled(NAME, format!("{verdict}{place}")))?;
    let decision = &sample["decision"];
    for (name, value) in [
        ("from", &sample["source_subject"]),
        ("detail", &decision["detail"]),
        ("to", &decision["subject"]),
        ("payload", &decision["payload"]),
    ] {
        if let Some(text) = value.as_str() {
            writeln!(out, "  {name:<8} {}", one_line(text))?;
        }
    }
    Ok(())
}
