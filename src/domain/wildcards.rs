//! Subjects with wildcards, as NATS reads them: `*` is one token, `>` at the end is one or more.

/// Whether some subject matches both.
pub fn overlap(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (None, _) | (_, None) => return false,
            (Some(x), Some(y)) if x == y || x == "*" || y == "*" => {}
            _ => return false,
        }
    }
}

/// Whether every subject that matches `wanted` matches one of `all`, be it none of them alone that takes them all.
pub fn cover(all: &[String], wanted: &str) -> bool {
    let mut left: Vec<_> = all.iter().map(|subject| subject.split('.')).collect();
    let mut wanted = wanted.split('.').peekable();
    while let Some(token) = wanted.next_if(|token| *token != ">") {
        // What a wildcard stands for may be a token that no subject names: only wildcards take it.
        if advance(&mut left, (token != "*").then_some(token)) {
            return true;
        }
    }
    let ends = |left: &[std::str::Split<'_, char>]| left.iter().any(|rest| rest.clone().next().is_none());
    if wanted.peek().is_none() {
        return ends(&left);
    }
    // One more token, and again: each number of them must be taken until something takes any number.
    loop {
        if advance(&mut left, None) {
            return true;
        }
        if !ends(&left) {
            return false;
        }
    }
}

/// Keeps the subjects that take this token next, or, without one, a token that nobody names; whether one of them takes whatever follows.
fn advance(left: &mut Vec<std::str::Split<'_, char>>, token: Option<&str>) -> bool {
    let mut everything = false;
    left.retain_mut(|rest| {
        let own = rest.next();
        everything |= own == Some(">");
        own.is_some() && (own == Some("*") || own == token)
    });
    everything
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subjects(all: &[&str]) -> Vec<String> {
        all.iter().map(|subject| (*subject).to_owned()).collect()
    }

    #[test]
    fn overlapping_subjects_are_found() {
        for (a, b) in [("a.>", "a.b"), ("a.*", "a.b"), (">", "x.y"), ("*.b", "a.*"), ("a", "a")] {
            assert!(overlap(a, b) && overlap(b, a), "{a} {b}");
        }
        for (a, b) in [("a.>", "a"), ("a.*", "a.b.c"), ("a.b", "a.c"), ("wa.>", "sequin.>")] {
            assert!(!overlap(a, b) && !overlap(b, a), "{a} {b}");
        }
    }

    #[test]
    fn what_takes_everything_covers() {
        for (all, wanted) in [
            (&["wa.>"][..], "wa.>"),
            (&[">"], "wa.>"),
            (&["*.>"], "wa.>"),
            (&["wa.*", "wa.*.>"], "wa.>"),
            (&["wa.*", "wa.*.*", "wa.*.*.>"], "wa.>"),
            (&["wa.>"], "wa.*.*.chats"),
            (&["x", "wa.*.*.*"], "wa.*.*.chats"),
            (&["wa.*.*.chats"], "wa.acme.*.chats"),
            (&["a.b"], "a.b"),
        ] {
            assert!(cover(&subjects(all), wanted), "{all:?} {wanted}");
        }
        for (all, wanted) in [
            (&[][..], "wa.>"),
            (&["shop.>"], "wa.>"),
            (&["wa.*"], "wa.>"),
            (&["wa.*.>"], "wa.>"),
            (&["wa.*", "wa.*.*.>"], "wa.>"),
            (&["wa.acme.>"], "wa.>"),
            (&["wa.acme.*.chats", "wa.*.a.chats"], "wa.*.*.chats"),
            (&["wa.*.*"], "wa.*.*.chats"),
            (&["wa.*.*.chats.*"], "wa.*.*.chats"),
            (&["a.b"], "a.*"),
        ] {
            assert!(!cover(&subjects(all), wanted), "{all:?} {wanted}");
        }
    }

    /// Whether a subject matches, said in the plainest way.
    fn matches(filter: &str, subject: &str) -> bool {
        let (filter, subject): (Vec<_>, Vec<_>) = (filter.split('.').collect(), subject.split('.').collect());
        let alike = filter.iter().zip(&subject).all(|(own, token)| matches!(*own, "*" | ">") || own == token);
        let at_end = filter.last() == Some(&">");
        alike && if at_end { subject.len() >= filter.len() } else { subject.len() == filter.len() }
    }

    /// Every subject of up to five tokens, one of which no filter names.
    fn every_subject() -> Vec<String> {
        let mut all = subjects(&["a", "b", "new"]);
        let mut longest = all.clone();
        for _ in 1..5 {
            longest = longest.iter().flat_map(|one| ["a", "b", "new"].map(|token| format!("{one}.{token}"))).collect();
            all.extend_from_slice(&longest);
        }
        all
    }

    proptest! {
        #[test]
        fn the_answers_are_those_of_trying_every_subject(
            all in prop::collection::vec("([ab*]\\.){0,3}[ab*>]", 0..5), wanted in "([ab*]\\.){0,3}[ab*>]",
        ) {
            let asked: Vec<_> = every_subject().into_iter().filter(|subject| matches(&wanted, subject)).collect();
            let taken = |subject: &String| all.iter().any(|filter| matches(filter, subject));
            prop_assert_eq!(cover(&all, &wanted), asked.iter().all(taken));
            for filter in &all {
                let both = asked.iter().any(|subject| matches(filter, subject));
                prop_assert_eq!(overlap(filter, &wanted), both);
            }
        }
    }
}
