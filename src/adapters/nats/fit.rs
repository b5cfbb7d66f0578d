//! Whether the subjects of a stream are those that are needed of it.
//!
//! Subjects are compared as the server lists them. What an account makes of them on the way (`mappings`) is not seen.

use std::collections::BTreeMap;
use std::fmt;

use cdc_actors::ports::Failure;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::connection::Connection;
use super::consumers::gives;
use super::streams::{SetupError, StreamInfo, StreamSettings};
use crate::domain::cover;

/// What a stream must be good for. Subjects may hold wildcards.
#[derive(Debug, Clone)]
pub enum Purpose {
    /// To store what is published under these subjects.
    Store(Vec<String>),
    /// To give what was stored under these subjects.
    Give(Vec<String>),
}

/// Subjects that do not quite fit, which hinders nobody from starting.
#[derive(Debug, Clone)]
pub enum Misfit {
    /// Some of what is published would not be stored.
    StoresInPart {
        /// The stream.
        stream: String,
        /// Its subjects.
        subjects: String,
        /// Which of those needed are not covered.
        lacking: String,
    },
    /// Some of what is asked for never comes.
    GivesInPart {
        /// The stream.
        stream: String,
        /// Its subjects.
        subjects: String,
        /// Which of those asked for it does not have.
        lacking: String,
    },
    /// It could not be looked up whether a stream that would be created has subjects of others.
    Unknown {
        /// The stream.
        stream: String,
        /// Why not.
        failure: Failure,
    },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoresInPart { stream, subjects, lacking } => write!(
                f,
                "stream {stream} does not store all that is published to it: its subjects are {subjects}, and leave out some or all of {lacking}"
            ),
            Self::GivesInPart { stream, subjects, lacking } => write!(
                f,
                "stream {stream} stores nothing under some of source.subjects: its subjects are {subjects}, and have nothing of {lacking}"
            ),
            Self::Unknown { stream, failure } => write!(
                f,
                "stream {stream} would be created, if its subjects do not overlap with those of another, which could not be looked up: {failure}"
            ),
        }
    }
}

/// Holds the subjects of a stream that exists against what it is for.
///
/// # Errors
/// [`SetupError::StoresNothing`], [`SetupError::GivesNothing`], or the server cannot be asked.
pub async fn fit(
    connection: &Connection,
    settings: &StreamSettings,
    found: &StreamInfo,
) -> Result<Option<Misfit>, SetupError> {
    let (stream, own) = (&settings.name, &found.subjects);
    match &settings.purpose {
        Purpose::Store(needed) => stores(stream, own, needed),
        Purpose::Give(wanted) if wanted.is_empty() || found.takes_others => Ok(None),
        Purpose::Give(wanted) => match given(stream, own, wanted) {
            // It may have had other subjects.
            Err(error) if !holds(connection, stream, wanted).await? => Err(error),
            Err(_) => Ok(Some(gives_in_part(stream, own, wanted))),
            fits => fits,
        },
    }
}

fn stores(stream: &str, own: &[String], needed: &[String]) -> Result<Option<Misfit>, SetupError> {
    // Unlike a consumer, a stream without subjects is given nothing.
    if own.is_empty() || !needed.iter().any(|subject| gives(own, subject)) {
        let (subjects, needed) = (listed(own), listed(needed));
        return Err(SetupError::StoresNothing { stream: stream.to_owned(), subjects, needed });
    }
    let lacking: Vec<String> = needed.iter().filter(|subject| !cover(own, subject)).cloned().collect();
    let (subjects, lacking) = (listed(own), (!lacking.is_empty()).then(|| listed(&lacking)));
    Ok(lacking.map(|lacking| Misfit::StoresInPart { stream: stream.to_owned(), subjects, lacking }))
}

fn given(stream: &str, own: &[String], wanted: &[String]) -> Result<Option<Misfit>, SetupError> {
    let lacking = |filter: &&String| own.is_empty() || !gives(own, filter);
    let lacking: Vec<String> = wanted.iter().filter(lacking).cloned().collect();
    match lacking.len() {
        0 => Ok(None),
        all if all == wanted.len() => {
            let (subjects, wanted) = (listed(own), listed(wanted));
            Err(SetupError::GivesNothing { stream: stream.to_owned(), subjects, wanted })
        }
        _ => Ok(Some(gives_in_part(stream, own, &lacking))),
    }
}

fn gives_in_part(stream: &str, own: &[String], lacking: &[String]) -> Misfit {
    Misfit::GivesInPart { stream: stream.to_owned(), subjects: listed(own), lacking: listed(lacking) }
}

/// Subjects for people.
pub(super) fn listed(subjects: &[String]) -> String {
    if subjects.is_empty() { "none".to_owned() } else { subjects.join(", ") }
}

/// The messages that a stream holds, by subject.
#[derive(Deserialize)]
struct Held {
    state: HeldState,
}

#[derive(Deserialize)]
struct HeldState {
    #[serde(default)]
    subjects: Option<BTreeMap<String, IgnoredAny>>,
}

/// Whether a stream holds messages under one of these subjects.
async fn holds(connection: &Connection, stream: &str, wanted: &[String]) -> Result<bool, Failure> {
    let action = format!("look up subjects in stream {stream}");
    for filter in wanted {
        let body = json!({ "subjects_filter": filter });
        let asked = connection.api::<Held>(&action, &format!("STREAM.INFO.{stream}"), &body).await?;
        let held = asked.map_err(|error| error.into_failure(&action))?.state.subjects;
        if held.is_some_and(|held| !held.is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Names of streams.
#[derive(Deserialize)]
struct Names {
    #[serde(default)]
    streams: Option<Vec<String>>,
}

/// The streams that have subjects which this one would have.
///
/// # Errors
/// A [`Failure`] if the server cannot be asked.
pub(super) async fn in_the_way(connection: &Connection, settings: &StreamSettings) -> Result<Vec<String>, Failure> {
    let action = "look up streams by subject";
    let mut others = Vec::new();
    for subject in &settings.subjects {
        let asked = connection.api::<Names>(action, "STREAM.NAMES", &json!({ "subject": subject })).await?;
        let names = asked.map_err(|error| error.into_failure(action))?.streams;
        others.extend(names.into_iter().flatten().filter(|name| *name != settings.name));
    }
    others.sort();
    others.dedup();
    Ok(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(all: &[&str]) -> Vec<String> {
        all.iter().map(|subject| (*subject).to_owned()).collect()
    }

    #[test]
    fn a_stream_stores_all_or_a_part_or_nothing() {
        let needed = subjects(&["wa.*.*.chats", "wa.*.*.agents"]);
        let stores = |own: &[&str]| stores("OUT", &subjects(own), &needed);
        for all in [&["wa.>"][..], &["wa.*.*.*"], &["wa.*.*.agents", "x", "wa.*.*.chats"]] {
            assert!(matches!(stores(all), Ok(None)), "{all:?}");
        }
        for (part, left) in [
            (&["wa.*.*.chats"][..], "of wa.*.*.agents"),
            (&["wa.acme.>"], "of wa.*.*.chats, wa.*.*.agents"),
            (&["wa.*.*.agents", "wa.acme.*.chats"], "of wa.*.*.chats"),
        ] {
            let said = stores(part).ok().flatten().map(|misfit| misfit.to_string()).unwrap_or_default();
            assert!(said.ends_with(left), "{part:?}: {said}");
        }
        for nothing in [&[][..], &["shop.>"], &["wa.*.chats"]] {
            assert!(matches!(stores(nothing), Err(SetupError::StoresNothing { .. })), "{nothing:?}");
        }
    }

    #[test]
    fn a_stream_gives_what_overlaps() {
        let wanted = subjects(&["sequin.>", "seq2.*"]);
        let given = |own: &[&str]| given("IN", &subjects(own), &wanted);
        assert!(matches!(given(&["sequin.db.>", "seq2.a"]), Ok(None)), "a part of each is as it may be meant");
        assert!(
            matches!(given(&["sequin.db.>"]), Ok(Some(Misfit::GivesInPart { lacking, .. })) if lacking == "seq2.*")
        );
        for nothing in [&[][..], &["sequin"], &["seq2.a.b"]] {
            assert!(matches!(given(nothing), Err(SetupError::GivesNothing { .. })), "{nothing:?}");
        }
    }
}
