//! Two configurations, and what they decide differently.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::{Judge, sequence, verdict};
use crate::adapters::nats::StoredMessage;
use crate::commands::difference::{differences, write_difference};
use crate::commands::exact::Exact;
use crate::commands::output::{NAME, one_line, styled};
use crate::domain::Explanation;

/// What differs, counted by kind, with a few samples of each.
pub(super) struct Comparison {
    old: Judge,
    samples_of_each: usize,
    messages: u64,
    differ: u64,
    changes: BTreeMap<String, u64>,
    samples: BTreeMap<String, Vec<Sample>>,
}

/// A message on which the two do not agree.
struct Sample {
    sequence: Option<u64>,
    subject: String,
    /// By field: what the old one said, what the new one says.
    fields: BTreeMap<&'static str, (Value, Value)>,
}

impl Comparison {
    pub(super) fn new(old: Judge, samples_of_each: usize) -> Self {
        let (changes, samples) = (BTreeMap::new(), BTreeMap::new());
        Self { old, samples_of_each, messages: 0, differ: 0, changes, samples }
    }

    pub(super) fn add(&mut self, message: &StoredMessage, new: &Explanation) {
        self.messages += 1;
        let old = self.old.decide_if_received(message);
        if old == *new {
            return;
        }
        self.differ += 1;
        let fields = fields(&old, new);
        let (was, is) = (verdict(&old), verdict(new));
        let change = if was == is {
            format!("{is}, other {}", fields.keys().copied().collect::<Vec<_>>().join(", "))
        } else {
            format!("{was} -> {is}")
        };
        *self.changes.entry(change.clone()).or_default() += 1;
        let samples = self.samples.entry(change).or_default();
        if samples.len() < self.samples_of_each {
            samples.push(Sample { sequence: sequence(message), subject: message.subject.clone(), fields });
        }
    }

    pub(super) fn to_json(&self, stream: &str, not_received: u64) -> Value {
        let sample = |sample: &Sample| {
            let fields = sample.fields.iter();
            let fields: Map<String, Value> =
                fields.map(|(name, (old, new))| ((*name).to_owned(), json!({ "old": old, "new": new }))).collect();
            json!({ "sequence": sample.sequence, "source_subject": sample.subject, "fields": fields })
        };
        let samples: BTreeMap<_, Vec<Value>> =
            self.samples.iter().map(|(change, samples)| (change, samples.iter().map(sample).collect())).collect();
        json!({
            "stream": stream, "against_stream": self.old.stream,
            "messages": self.messages, "same": self.messages - self.differ, "different": self.differ,
            "not_received": not_received, "changes": self.changes, "samples": samples,
        })
    }

    pub(super) fn write(&self, out: &mut impl Write, stream: &str, not_received: u64) -> io::Result<()> {
        let head = format!("{} of {} messages of {stream} differ", self.differ, self.messages);
        writeln!(out, "{}", styled(NAME, head))?;
        if self.old.stream != stream {
            let elsewhere = &self.old.stream;
            writeln!(out, "note: --against reads the stream {elsewhere}; both are shown on {stream}")?;
        }
        for (change, count) in &self.changes {
            writeln!(out, "  {count:>8}  {change}")?;
        }
        if not_received > 0 {
            writeln!(out, "  {not_received:>8}  not received by either: no source.subjects lets them through")?;
        }
        for (change, samples) in &self.samples {
            for Sample { sequence, subject, fields } in samples {
                let place = sequence.map_or_else(String::new, |sequence| format!(", sequence {sequence}"));
                writeln!(out, "\n{}", styled(NAME, format!("{change}{place}")))?;
                writeln!(out, "  from {}", one_line(subject))?;
                for (name, (old, new)) in fields {
                    for difference in differences(&unfolded(old), &unfolded(new)) {
                        write_difference(out, name, &difference)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The fields that differ.
fn fields(old: &Explanation, new: &Explanation) -> BTreeMap<&'static str, (Value, Value)> {
    let pairs = [
        ("verdict", json!(old.verdict), json!(new.verdict)),
        ("reason", json!(old.reason), json!(new.reason)),
        ("detail", json!(old.detail), json!(new.detail)),
        ("subject", json!(old.subject), json!(new.subject)),
        ("event_id", json!(old.event_id), json!(new.event_id)),
        ("event_key", json!(old.event_key), json!(new.event_key)),
        ("headers", json!(old.headers), json!(new.headers)),
        ("payload", json!(old.payload), json!(new.payload)),
        ("unhandled_fields", json!(old.unhandled_fields), json!(new.unhandled_fields)),
        ("order_key", json!(old.order_key), json!(new.order_key)),
    ];
    pairs.into_iter().filter(|(_, old, new)| old != new).map(|(name, old, new)| (name, (old, new))).collect()
}

/// A payload as the JSON it is, so that what differs within it can be told.
fn unfolded(value: &Value) -> Exact {
    value.as_str().and_then(Exact::parse).unwrap_or_else(|| value.clone().into())
}
