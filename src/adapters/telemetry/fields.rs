//! Unknown fields: counted under a bounded number of names, logged now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cdc_actors::ports::Clock;
use metrics::Counter;

use super::metrics::{OTHER, field_label, lock};

/// How long a name that was logged stays quiet.
const QUIET: Duration = Duration::from_secs(600);

/// Longest name in a log line, in characters; names come from outside.
const SHOWN: usize = 128;

struct Series {
    counter: Counter,
    logged: Option<Instant>,
}

/// What came of counting a field.
pub(super) struct Seen {
    /// Whether it is time to log the name.
    pub worth_a_line: bool,
    /// The name, cut to a length fit for a log line.
    pub shown: String,
}

/// The unknown fields met so far, by table and label.
pub(super) struct Fields {
    clock: Arc<dyn Clock>,
    tables: Mutex<HashMap<&'static str, HashMap<String, Series>>>,
}

impl Fields {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, tables: Mutex::default() }
    }

    /// Counts a field; `register` makes the counter of a label that is new. Names beyond the bound share a counter and
    /// a turn in the log, so that neither the series nor the memory grows with what producers invent.
    pub(super) fn count(&self, table: &'static str, field: &str, register: impl FnOnce(&str) -> Counter) -> Seen {
        let now = self.clock.now();
        let mut tables = lock(&self.tables);
        let known = tables.entry(table).or_default();
        let names = known.len() - usize::from(known.contains_key(OTHER));
        let label = if known.contains_key(field) { field } else { field_label(field, names) };
        let new = || Series { counter: register(label), logged: None };
        if !known.contains_key(label) {
            known.insert(label.to_owned(), new());
        }
        let Some(series) = known.get_mut(label) else {
            return Seen { worth_a_line: false, shown: String::new() };
        };
        series.counter.increment(1);
        let worth_a_line = series.logged.is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
        if !worth_a_line {
            return Seen { worth_a_line, shown: String::new() };
        }
        series.logged = Some(now);
        Seen { worth_a_line, shown: field.chars().take(SHOWN).collect() }
    }
}
