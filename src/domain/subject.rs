//! Subjects: the one an event came under, and the one it goes to.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::error::{Around, Poison};
use super::json::Shown;
use super::layout::{Token, Values};
use super::path::Origin;
use super::settings::UnsafeTokens;

/// The longest target subject, in bytes. At 4 096 the server would close the connection.
pub const MAX_SUBJECT: usize = 1024;

/// What Sequin did to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A new row.
    Insert,
    /// A changed row.
    Update,
    /// A row that is gone.
    Delete,
    /// A row read by a backfill.
    Read,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::Insert, Self::Update, Self::Delete, Self::Read];

    /// Reads the name that Sequin uses.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "insert" => Some(Self::Insert),
            "update" => Some(Self::Update),
            "delete" => Some(Self::Delete),
            "read" => Some(Self::Read),
            _ => None,
        }
    }

    /// The name that Sequin uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Read => "read",
        }
    }
}

/// What a subject of one of Sequin's two forms says about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceSubject<'a> {
    /// The database's name.
    pub database: &'a str,
    /// The schema.
    pub schema: &'a str,
    /// The table.
    pub table: &'a str,
    /// The action.
    pub action: Action,
}

impl<'a> SourceSubject<'a> {
    /// Reads `sequin.changes.<db>.<schema>.<table>.<action>` or `sequin.<db>.<schema>.<table>.<action>`; `None` for any
    /// other form, an unknown action, or an empty token.
    pub fn parse(subject: &'a str) -> Option<Self> {
        let rest = subject.strip_prefix("sequin.")?;
        let mut tokens = [""; 5];
        let mut count = 0;
        for token in rest.split('.') {
            *tokens.get_mut(count).filter(|_| !token.is_empty())? = token;
            count += 1;
        }
        let (database, schema, table, action) = match (tokens, count) {
            (["changes", database, schema, table, action], 5) | ([database, schema, table, action, _], 4) => {
                (database, schema, table, action)
            }
            _ => return None,
        };
        Some(Self { database, schema, table, action: Action::parse(action)? })
    }

    /// How the names that the metadata gives contradict this subject. A name that is not given, or that holds characters
    /// which Sequin does not put into a subject, is not compared; nor is an action that is none, which may be any text.
    pub fn contradiction(
        &self,
        database: Option<&str>,
        schema: Option<&str>,
        table: Option<&str>,
        action: Option<&str>,
    ) -> Option<String> {
        let pairs = [
            ("database", self.database, database),
            ("schema", self.schema, schema),
            ("table", self.table, table),
            ("action", self.action.name(), action.filter(|action| Action::parse(action).is_some())),
        ];
        if pairs.iter().all(|(_, here, there)| there.is_none_or(|there| there == *here)) {
            return None;
        }
        let differing = pairs.into_iter().filter_map(|(what, here, there)| {
            let there = there.filter(|name| is_plain(name) && *name != here)?;
            Some(format!("{what} is {} in the subject and {} in the event", Shown(here), Shown(there)))
        });
        let differing: Vec<_> = differing.collect();
        (!differing.is_empty()).then(|| differing.join(", "))
    }
}

/// Whether a name appears in a subject as it is.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Characters that a token must not hold: separator, wildcards, and what would end the protocol line.
pub(super) fn is_illegal(c: char) -> bool {
    match c {
        '.' | '*' | '>' | '\0'..=' ' | '\u{7f}' => true,
        _ => !c.is_ascii() && (c.is_whitespace() || c.is_control()),
    }
}

/// Makes any text that is not empty one legal token: what is illegal, and `%`, is percent-encoded.
pub fn encode_token(value: &str) -> Cow<'_, str> {
    if !value.contains(needs_encoding) {
        return Cow::Borrowed(value);
    }
    let mut token = Vec::with_capacity(value.len() + 16);
    push_encoded(&mut token, value);
    Cow::Owned(String::from_utf8(token).expect("characters and ASCII escapes are UTF-8"))
}

/// The ASCII characters that need it.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'.').add(b'*').add(b'>').add(b'%');

fn needs_encoding(c: char) -> bool {
    c == '%' || is_illegal(c)
}

fn push_encoded(out: &mut Vec<u8>, value: &str) {
    let push_escaped = |out: &mut Vec<u8>, byte| {
        out.extend_from_slice(percent_encoding::percent_encode_byte(byte).as_bytes());
    };
    // Ids are ASCII as a rule, and an ASCII character is a byte.
    if value.is_ascii() {
        utf8_percent_encode(value, ENCODED).for_each(|piece| out.extend_from_slice(piece.as_bytes()));
        return;
    }
    for c in value.chars() {
        let mut bytes = [0; 4];
        let encoded = c.encode_utf8(&mut bytes);
        match needs_encoding(c) {
            true => encoded.bytes().for_each(|byte| push_escaped(out, byte)),
            false => out.extend_from_slice(encoded.as_bytes()),
        }
    }
}

/// Takes [`encode_token`] back; `None` if what comes out is not UTF-8.
pub fn decode_token(token: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(token).decode_utf8().ok()
}

/// How target subjects are made.
#[derive(Debug, Clone, Copy)]
pub struct SubjectRules<'a> {
    /// The first token, or tokens.
    pub prefix: &'a str,
    /// What becomes of routing values that are no legal subject token.
    pub unsafe_tokens: UnsafeTokens,
}

/// Appends the target subject of a row whose routing values are all there.
///
/// # Errors
/// [`Poison::MissingRouting`], [`Poison::IllegalToken`] or [`Poison::SubjectTooLong`].
pub fn push_target(
    out: &mut Vec<u8>,
    rules: SubjectRules<'_>,
    table: &'static str,
    values: Values<'_>,
    action: Action,
) -> Result<(), Poison> {
    let start = out.len();
    out.extend_from_slice(rules.prefix.as_bytes());
    for token in &values.layout.subject {
        out.push(b'.');
        match token {
            Token::Text(text) => out.extend_from_slice(text.as_bytes()),
            Token::Action => out.extend_from_slice(action.name().as_bytes()),
            Token::Schema => push_token(out, rules, values.schema, || Origin::Schema("schema".to_owned()), table)?,
            Token::Value(value) => {
                let origin = || values.layout.origin(*value);
                let text = values.get(*value).ok_or_else(|| Poison::MissingRouting {
                    table,
                    value: origin(),
                    around: Around::Any,
                })?;
                push_token(out, rules, text, origin, table)?;
            }
        }
    }
    match out.len() - start {
        length if length > MAX_SUBJECT => {
            Err(Poison::SubjectTooLong { length, limit: MAX_SUBJECT, longest: longest(rules, values) })
        }
        _ => Ok(()),
    }
}

/// What the longest of a subject's values is taken from.
#[cold]
fn longest(rules: SubjectRules<'_>, values: Values<'_>) -> Option<Origin> {
    let length = |text: &str| match rules.unsafe_tokens {
        UnsafeTokens::Encode => encode_token(text).len(),
        UnsafeTokens::Reject => text.len(),
    };
    let of_row = values.layout.values_of_subject();
    let of_row = of_row.map(|value| (length(values.get(value).unwrap_or_default()), values.layout.origin(value)));
    let schema = values.layout.subject.contains(&Token::Schema);
    let schema = schema.then(|| (length(values.schema), Origin::Schema("schema".to_owned())));
    of_row.chain(schema).max_by_key(|(length, _)| *length).map(|(_, origin)| origin)
}

/// Appends a text as one token, whatever it holds.
fn push_token(
    out: &mut Vec<u8>,
    rules: SubjectRules<'_>,
    text: &str,
    origin: impl FnOnce() -> Origin,
    table: &'static str,
) -> Result<(), Poison> {
    match rules.unsafe_tokens {
        _ if text.is_empty() => return Err(Poison::MissingRouting { table, value: origin(), around: Around::Any }),
        UnsafeTokens::Encode => push_encoded(out, text),
        UnsafeTokens::Reject if text.contains(is_illegal) => {
            return Err(Poison::IllegalToken { table, value: origin() });
        }
        UnsafeTokens::Reject => out.extend_from_slice(text.as_bytes()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_are_read() {
        let expected = SourceSubject { database: "db", schema: "daisi_c", table: "messages", action: Action::Insert };
        assert_eq!(SourceSubject::parse("sequin.changes.db.daisi_c.messages.insert"), Some(expected));
        assert_eq!(SourceSubject::parse("sequin.db.daisi_c.messages.insert"), Some(expected));
    }

    #[test]
    fn other_forms_are_not() {
        for other in [
            "sequin.changes.db.s.messages.truncate",
            "sequin.db.s.e.messages.insert",
            "sequin.changes.db.s.x.messages.insert",
            "sequin.db.messages.insert",
            "sequin.db..messages.insert",
            "other.db.s.messages.insert",
            "sequin",
            "sequin.",
            "",
        ] {
            assert_eq!(SourceSubject::parse(other), None, "{other}");
        }
    }

    #[test]
    fn contradictions_are_told_and_unplain_names_left_alone() {
        let subject = SourceSubject::parse("sequin.db.s.messages.insert").expect("a known form");
        assert_eq!(subject.contradiction(Some("db"), Some("s"), Some("messages"), Some("insert")), None);
        assert_eq!(subject.contradiction(Some("d b"), Some("s.t"), None, Some("any-text")), None);
        for other in ["d-b", "d_b", "DB2"] {
            assert!(subject.contradiction(Some(other), None, None, None).is_some(), "{other}");
        }
        let text = subject.contradiction(None, None, Some("chats"), Some("delete")).expect("two differences");
        assert_eq!(
            text,
            "table is messages in the subject and chats in the event, action is insert in the subject and delete in the event"
        );
    }

    #[test]
    fn whatsapp_ids_are_encoded() {
        assert_eq!(encode_token("6281@s.whatsapp.net"), "6281@s%2Ewhatsapp%2Enet");
        assert_eq!(encode_token("100%"), "100%25");
        assert_eq!(encode_token("a\u{2003}b"), "a%E2%80%83b");
        assert!(matches!(encode_token("é-ok"), Cow::Borrowed("é-ok")));
    }

    proptest! {
        #[test]
        fn any_value_is_one_legal_token_and_comes_back(value in "\\PC*|.*|[.*>% \\x00-\\x1f\\u{85}\\u{2028}a-z]{1,20}") {
            let token = encode_token(&value);
            prop_assert!(!token.contains(is_illegal));
            prop_assert_eq!(token.is_empty(), value.is_empty());
            let decoded = decode_token(&token);
            prop_assert_eq!(decoded.as_deref(), Some(value.as_str()));
        }
    }
}
