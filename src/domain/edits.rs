//! What is changed of a row before it goes out: columns renamed, dropped, redacted.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::column::is_unchanged;
use super::declaration::Redaction;
use super::error::{Part, Poison};
use super::event_key::sha256_hex;
use super::json::{Read, members, push_string, text};
use super::path::FieldPath;
use super::scan::Scanner;

/// The changes of a table's columns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edits {
    columns: HashMap<String, Edit>,
    /// The new names.
    names: HashSet<String>,
}

/// What becomes of one column.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Edit {
    drop: bool,
    name: Option<String>,
    redaction: Option<Redaction>,
}

impl Edits {
    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    pub(super) fn drop(&mut self, column: &str) {
        self.columns.entry(column.to_owned()).or_default().drop = true;
    }

    pub(super) fn rename(&mut self, column: &str, name: &str) {
        self.columns.entry(column.to_owned()).or_default().name = Some(name.to_owned());
        self.names.insert(name.to_owned());
    }

    pub(super) fn redact(&mut self, column: &str, redaction: Redaction) {
        self.columns.entry(column.to_owned()).or_default().redaction = Some(redaction);
    }

    /// What a column is called in the enriched event; `None` for one that is left out.
    pub(super) fn name<'a>(&'a self, column: &'a str) -> Option<&'a str> {
        match self.columns.get(column) {
            None => Some(column),
            Some(edit) if edit.drop => None,
            Some(edit) => Some(edit.name.as_deref().unwrap_or(column)),
        }
    }

    /// What becomes of a column, for people; `None` if it stays as it is.
    pub(super) fn told(&self, column: &str) -> Option<String> {
        let edit = self.columns.get(column)?;
        if edit.drop {
            return Some("dropped".to_owned());
        }
        let redacted = edit.redaction.map(|redaction| match redaction {
            Redaction::Hash => "a hash in its place".to_owned(),
            Redaction::Mask => "three stars in its place".to_owned(),
        });
        let renamed = edit.name.as_ref().map(|name| format!("renamed to {name}"));
        Some(redacted.into_iter().chain(renamed).collect::<Vec<_>>().join(", "))
    }

    /// Appends the object `raw` of `payload` with the changes made; fields that `keeps` is not true of are left out.
    ///
    /// # Errors
    /// [`Poison::NameTaken`] if a field that is not declared bears the new name of a column.
    pub(super) fn push(
        &self,
        out: &mut Vec<u8>,
        part: Part,
        payload: &str,
        raw: &str,
        keeps: impl Fn(&str) -> bool,
    ) -> Result<(), Poison> {
        let mut before: &[u8] = b"{";
        let read: Read<&str> = members(part, &mut Scanner::new(raw), |scanner, name| {
            let value = scanner.value()?;
            if !keeps(name) {
                return Ok(Ok(()));
            }
            let edit = self.columns.get(name);
            let Some(new) = self.name(name) else { return Ok(Ok(())) };
            if self.names.contains(name) && edit.is_none_or(|edit| edit.name.is_none()) {
                return Ok(Err(Poison::NameTaken { part, field: FieldPath::new(name, &[]) }));
            }
            out.extend_from_slice(before);
            before = b",";
            push_string(out, new);
            out.push(b':');
            match edit.and_then(|edit| edit.redaction) {
                Some(redaction) if value != "null" && !is_unchanged(value) => push_redacted(out, redaction, value),
                _ => out.extend_from_slice(value.as_bytes()),
            }
            Ok(Ok(()))
        });
        read.map_err(|malformed| Poison::not_json_within(payload, raw, malformed))??;
        if before == b"{" {
            out.push(b'{');
        }
        out.push(b'}');
        Ok(())
    }
}

/// Appends what stands in the place of a value. A hash is of the text of a string, else of the value as it is written.
fn push_redacted(out: &mut Vec<u8>, redaction: Redaction, raw: &str) {
    match redaction {
        Redaction::Mask => push_string(out, "***"),
        Redaction::Hash => {
            // A string that is no Unicode is hashed as it is written.
            let text = text(raw).ok().flatten().unwrap_or(Cow::Borrowed(raw));
            push_string(out, &format!("sha256:{}", sha256_hex(text.as_bytes())));
        }
    }
}
