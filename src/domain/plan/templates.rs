//! Subject and event id.

use super::super::layout::{IdPart, Layout, Token};
use super::super::subject::{MAX_SUBJECT, is_illegal};
use super::super::template::{Piece, meant, pieces};
use super::Compiler;

impl Compiler<'_> {
    pub(super) fn templates(&mut self, layout: &mut Layout) {
        layout.subject = self.subject();
        layout.event_id = self.event_id();
    }

    /// The tokens behind the prefix. A value is a token of its own: of two in one it could not be told where one ends, so
    /// that a row might reach another tenant's subjects.
    fn subject(&mut self) -> Vec<Token> {
        let template = self.from.subject.as_str();
        if self.from.is_unread("subject") {
            return Vec::new();
        }
        let behind = template.strip_prefix("{prefix}.");
        if behind.is_none() || template.len() > MAX_SUBJECT {
            let expected = format!("a subject of at most {MAX_SUBJECT} bytes that begins with {{prefix}}.");
            self.wrong("subject", template, expected);
        }
        // Without its prefix a subject is looked at all the same, but for what should stand behind it.
        let without = || template.strip_prefix("{prefix}").unwrap_or(template);
        let tokens: Vec<_> = match behind.unwrap_or_else(without) {
            "" if behind.is_none() => Vec::new(),
            rest => rest.split('.').map(|token| self.token(template, token)).collect(),
        };
        if behind.is_some() && matches!(tokens.first(), Some(Some(Token::Text(_) | Token::Action))) {
            let expected = "a value in braces behind {prefix}, which tells tenants apart: {prefix}.{company_id}. …; \
                            a routing value that is a constant where a table belongs to no tenant";
            self.wrong("subject", template, expected);
        }
        tokens.into_iter().flatten().collect()
    }

    fn token(&mut self, template: &str, token: &str) -> Option<Token> {
        match pieces(token).as_deref() {
            Some([Piece::Text(text)]) if !text.contains(is_illegal) => Some(Token::Text(text.clone())),
            Some([Piece::Name(name)]) => match (name.as_str(), self.value(name)) {
                (_, Some(place)) => Some(Token::Value(place)),
                ("table", _) => Some(Token::Text(self.from.name.to_owned())),
                ("schema", _) => Some(Token::Schema),
                ("action", _) => Some(Token::Action),
                _ if self.from.is_unread("routing") => Some(Token::Value(0)),
                _ => {
                    let known = self.named(&["table", "schema", "action"]);
                    let expected = format!("in braces one of {known}; {{{name}}} is none");
                    self.wrong("subject", template, expected);
                    None
                }
            },
            _ => {
                let expected = format!(
                    "tokens joined by dots, each a text without * > and white space or one value in braces; {token:?} is neither"
                );
                self.wrong("subject", template, expected);
                None
            }
        }
    }

    fn event_id(&mut self) -> Vec<IdPart> {
        let template = self.from.event_id.as_str();
        if template.len() > MAX_SUBJECT {
            self.wrong("event_id", template, format!("a text of at most {MAX_SUBJECT} bytes"));
        }
        let found = pieces(template);
        if found.is_none() {
            self.wrong("event_id", template, "a text in which every { has its }");
        }
        let mut parts = Vec::new();
        for piece in found.unwrap_or_else(|| meant(template)) {
            match piece {
                Piece::Text(text) => parts.push(IdPart::Text(text)),
                Piece::Name(name) => parts.extend(self.id_part(template, &name)),
            }
        }
        if !parts.contains(&IdPart::Key) {
            self.wrong("event_id", template, "a text with {key} in it, such as {commit_lsn}:{table}:{key}");
        }
        parts
    }

    fn id_part(&mut self, template: &str, name: &str) -> Option<IdPart> {
        Some(match (name, self.value(name)) {
            (_, Some(place)) => IdPart::Value(place),
            ("commit_lsn", _) => IdPart::Lsn,
            ("commit_idx", _) => IdPart::Idx,
            ("table", _) => IdPart::Text(self.from.name.to_owned()),
            ("schema", _) => IdPart::Schema,
            ("action", _) => IdPart::Action,
            ("key", _) => IdPart::Key,
            _ if self.from.is_unread("routing") => IdPart::Value(0),
            _ => {
                let known = self.named(&["commit_lsn", "commit_idx", "table", "schema", "action", "key"]);
                let expected = format!("in braces one of {known}; {{{name}}} is none");
                self.wrong("event_id", template, expected);
                return None;
            }
        })
    }
}
