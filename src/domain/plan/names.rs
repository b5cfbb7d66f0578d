//! Names that a declaration gives.

use super::{Compiler, LONGEST_NAME};

/// What the enriched event and the templates call something else already.
const TAKEN: [&str; 14] = [
    "event_id",
    "table",
    "schema",
    "action",
    "commit_lsn",
    "commit_idx",
    "commit_timestamp",
    "row_data",
    "changes",
    "unchanged",
    "prefix",
    "key",
    "row",
    "database",
];

/// Names of tables that labels and dead letters use for what belongs to none.
const NO_TABLES: [&str; 2] = ["other", "unknown"];

impl Compiler<'_> {
    /// Table, columns and routing values.
    pub(super) fn names(&mut self) {
        let from = self.from;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let length = 1..=LONGEST_NAME;
        if !length.contains(&from.name.len()) || !from.name.chars().all(plain) || NO_TABLES.contains(&from.name) {
            let [first, second] = NO_TABLES;
            let expected = format!(
                "a table's name: 1 to {LONGEST_NAME} of the letters A to Z and a to z, digits, _ and -, as Sequin puts them into a subject; neither {first} nor {second}"
            );
            self.wrong("", from.name, expected);
        }
        for (name, _) in &from.columns {
            if !length.contains(&name.len()) || name.chars().any(char::is_control) {
                self.wrong(format!("columns.{name}"), name, format!("a column's name of 1 to {LONGEST_NAME} bytes"));
            }
        }
        self.no_twice("columns", from.columns.iter().map(|(name, _)| name.as_str()));
        self.no_twice("routing", from.routing.iter().map(|(name, _)| name.as_str()));
        for (name, _) in &from.routing {
            let small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !length.contains(&name.len()) || !name.chars().all(small) || TAKEN.contains(&name.as_str()) {
                let expected = format!("a name of small letters, digits and _, and none of {}", TAKEN.join(", "));
                self.wrong(format!("routing.{name}"), name, expected);
            }
        }
    }
}
