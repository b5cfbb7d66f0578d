//! Claims on dead letters: who replays one says so before anything is published, and takes it back in the end.

use std::time::Duration;

use cdc_actors::ports::{Clock, Failure, SystemClock};

use super::connection::Connection;
use super::letters::Pick;
use super::reader::{StoredMessage, StreamReader};
use super::streams::{SetupError, find_stream};

/// How long whoever made a claim may take until the source has the letter; then it gives up.
pub(super) const CLAIM: Duration = Duration::from_secs(10);
/// By how much the clocks of servers and of this machine may differ.
pub(super) const SKEW: Duration = Duration::from_secs(60);

/// The stream that claims on the letters of this one are in.
pub(super) fn claims_stream(letters: &str) -> String {
    format!("{letters}_replays")
}

/// The subject of the claim on a letter, by the id that it is replayed under.
pub(super) fn claim_subject(letters_prefix: &str, id: &str) -> String {
    format!("{letters_prefix}_replays.{id}")
}

/// How long ago a claim was made.
pub(super) fn age(claim: &StoredMessage) -> Duration {
    Duration::from_nanos(u64::try_from(SystemClock.unix_nanos() - claim.time).unwrap_or(0))
}

/// The claims there are, for whoever does not replay.
#[derive(Debug)]
pub struct Claims {
    /// Their stream; `None` where nothing has ever been replayed.
    stream: Option<StreamReader>,
    letters_prefix: String,
    letters_created: i64,
}

impl Claims {
    /// Those on the letters of a stream whose subjects begin with `letters_prefix`.
    ///
    /// # Errors
    /// [`SetupError`] if there is no such stream, or the server cannot be asked.
    pub async fn of(connection: &Connection, letters: &StreamReader, letters_prefix: &str) -> Result<Self, SetupError> {
        let name = claims_stream(letters.stream());
        let found = find_stream(connection, &name).await?;
        Ok(Self {
            stream: found.map(|_| StreamReader::new(connection.clone(), name)),
            letters_prefix: letters_prefix.to_owned(),
            letters_created: letters.info().await?.created,
        })
    }

    /// Whether somebody may be publishing a letter now.
    ///
    /// # Errors
    /// A [`Failure`] if the server cannot be asked.
    pub async fn is_being_replayed(&self, pick: &Pick) -> Result<bool, Failure> {
        let Some(stream) = &self.stream else { return Ok(false) };
        let subject = claim_subject(&self.letters_prefix, &pick.replay_id(self.letters_created));
        let claim = stream.next(1, &subject).await?;
        Ok(claim.is_some_and(|claim| age(&claim) <= CLAIM + SKEW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_none_where_clocks_differ() {
        let made = |ago: Duration| StoredMessage {
            flaw: None,
            sequence: 1,
            time: SystemClock.unix_nanos() - i64::try_from(ago.as_nanos()).unwrap_or_default(),
            subject: String::new(),
            headers: Vec::new(),
            payload: bytes::Bytes::new(),
        };
        assert!(age(&made(CLAIM)) >= CLAIM && age(&made(CLAIM)) < CLAIM + SKEW);
        let mut ahead = made(Duration::ZERO);
        ahead.time += i64::MAX / 4;
        assert_eq!(age(&ahead), Duration::ZERO);
    }
}
