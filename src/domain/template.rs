//! Texts with names in braces: `{prefix}.{company_id}.contacts`.

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text as it is, not empty.
    Text(String),
    /// What stood in braces.
    Name(String),
}

/// Takes a template apart; `None` where a brace has no partner.
pub(super) fn pieces(template: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let (text, braced) = rest.split_at(at);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let (name, behind) = braced.strip_prefix('{')?.split_once('}')?;
        if name.contains('{') {
            return None;
        }
        pieces.push(Piece::Name(name.to_owned()));
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Some(pieces)
}

/// The pieces that a template was probably meant to have in which a brace has no partner.
pub(super) fn meant(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let (text, braced) = rest.split_at(at);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let Some(behind) = braced.strip_prefix('{') else {
            rest = braced.get(1..).unwrap_or_default();
            continue;
        };
        let end = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(behind.len());
        let (name, behind) = behind.split_at(end);
        if !name.is_empty() {
            pieces.push(Piece::Name(name.to_owned()));
        }
        rest = behind.strip_prefix('}').unwrap_or(behind);
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_beside_braces_without_partners() {
        let (text, name) = (|text: &str| Piece::Text(text.to_owned()), |name: &str| Piece::Name(name.to_owned()));
        assert_eq!(meant("{a:{b}"), [name("a"), text(":"), name("b")]);
        assert_eq!(meant("{{a}}é{"), [name("a"), text("é")]);
        assert_eq!(meant("a}{b"), [text("a"), name("b")]);
    }

    #[test]
    fn templates_are_taken_apart() {
        let (text, name) = (|text: &str| Piece::Text(text.to_owned()), |name: &str| Piece::Name(name.to_owned()));
        assert_eq!(pieces("{a}.b.{c}"), Some(vec![name("a"), text(".b."), name("c")]));
        assert_eq!(
            (pieces(""), pieces("x"), pieces("{}")),
            (Some(vec![]), Some(vec![text("x")]), Some(vec![name("")]))
        );
        for broken in ["{", "}", "{a", "a}", "{a{b}}", "{{a}}"] {
            assert_eq!(pieces(broken), None, "{broken}");
        }
    }
}
