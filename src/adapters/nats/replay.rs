//! Dead letters back to the source, each published once.
//!
//! A replay is four steps, and can be interrupted after any of them:
//!
//! 1. **claim**: a message in a stream of claims, under a subject of the letter's own, stored only if there is none. It says
//!    how far the source was. Whoever finds a claim of somebody else first looks what became of it.
//! 2. **publish** to the source, under an id that follows from the letter alone; wait for the acknowledgement.
//! 3. **delete** the letter, its first message last.
//! 4. **release** the claim.
//!
//! The letter leaves the stream only after step 2. A claim that was left behind says from where on to look in the source
//! for the id: found, the letter was published, and steps 3 and 4 are made up for. Not found, although the source
//! has kept everything since, it was not, and the replay starts again. Where neither can be told (the source lets go of what
//! is acknowledged) the source's duplicate window decides while it lasts; afterwards nobody knows, and only an operator
//! may say to publish again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc_actors::message::{Attempt, Event, Stored};
use cdc_actors::ports::{Failure, FailureClass, PublishError, Publisher};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;

use super::api::ApiError;
use super::claims::{CLAIM, SKEW, age, claim_subject, claims_stream};
use super::connection::Connection;
use super::letters::{Damage, Letter, Pick, read_letter};
use super::publisher::{JetStreamPublisher, PublisherSettings};
use super::reader::{StoredMessage, StreamReader};
use super::streams::{Retention, SetupError, StreamInfo, StreamSettings, ensure_stream};
use super::way_back::{Barrier, WayBack, WayIn, event};

/// Between two looks at somebody else's claim.
const LOOK: Duration = Duration::from_millis(200);
/// How long an acknowledgement is waited for; an attempt more must fit into [`CLAIM`].
const ACK: Duration = Duration::from_secs(3);

/// What came of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The source has stored it, under this sequence.
    Replayed(u64),
    /// A replay that was interrupted had published it, under this sequence.
    Earlier(u64),
    /// It is no longer there: somebody else replayed or dropped it.
    Gone,
}

/// Why a letter stays where it is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReplayError {
    /// The original cannot be had.
    #[error("{0}")]
    Damaged(#[from] Damage),
    /// The service would not be given it, or the source not take it.
    #[error(transparent)]
    Barred(#[from] Barrier),
    /// The source did not take it.
    #[error("the source does not take it: {0}")]
    NotStored(#[source] PublishError),
    /// The claim ran out before it was sent.
    #[error("it could not be sent within {} s; replay it again", CLAIM.as_secs())]
    TooSlow,
    /// An earlier replay of it may or may not have been published.
    #[error(
        "a replay of it was interrupted, and whether the source had it can no longer be told: look for it in the target, then drop it, or replay it with --again"
    )]
    Unknown,
    /// Its replay is stored, and the letter could not be deleted.
    #[error("the source has it, but it could not be removed: {0}; replay it again to have that made up for")]
    NotRemoved(#[source] Failure),
    /// The servers cannot be asked.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Why letters cannot be replayed at all.
#[derive(Debug, thiserror::Error)]
pub enum CannotReplay {
    /// A stream is missing or cannot be created.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// What was replayed could not be taken away.
    #[error("stream {0} does not allow messages to be deleted: a letter could not be taken away once it is replayed")]
    Kept(String),
}

impl From<Failure> for CannotReplay {
    fn from(failure: Failure) -> Self {
        Self::Setup(failure.into())
    }
}

/// Where letters are and where they go.
#[derive(Debug, Clone)]
pub struct ReplaySettings {
    /// The dead-letter stream.
    pub letters: StreamSettings,
    /// What the subjects of dead letters begin with.
    pub letters_prefix: String,
    /// Where they go.
    pub source: WayIn,
    /// Publish again what an interrupted replay may have published.
    pub again: bool,
}

/// A claim as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    /// Who made it.
    run: String,
    /// Where in the source the letter goes.
    subject: Option<String>,
    /// The letter's sequences.
    letter: Vec<u64>,
    /// When the source stream was created, nanoseconds since the Unix epoch.
    source_created: i64,
    /// Its last sequence, or one before that.
    source_last: u64,
}

/// What an older claim turned out to be.
enum Found {
    Published(u64),
    NotPublished,
    Unknown,
}

/// Brings letters back.
pub struct Replayer {
    settings: ReplaySettings,
    letters: StreamReader,
    way: WayBack,
    source: StreamReader,
    claims: StreamReader,
    to_source: JetStreamPublisher,
    to_claims: JetStreamPublisher,
    run: String,
    source_created: i64,
    source_last: u64,
}

impl Replayer {
    /// Looks the streams up and creates the one for claims, beside the dead letters.
    ///
    /// # Errors
    /// [`CannotReplay`].
    pub async fn new(connection: &Connection, settings: ReplaySettings) -> Result<Self, CannotReplay> {
        let way = WayBack::open(connection, &settings.letters.name, settings.source.clone()).await?;
        let claims = StreamSettings {
            name: claims_stream(&settings.letters.name),
            subjects: vec![format!("{}_replays.>", settings.letters_prefix)],
            max_age: None,
            max_bytes: None,
            newest_per_subject: true,
            ..settings.letters.clone()
        };
        ensure_stream(connection, &claims).await?;
        let publisher = |stream: &str| PublisherSettings { stream: stream.to_owned(), ack_timeout: ACK };
        let replayer = Self {
            to_source: JetStreamPublisher::new(connection.clone(), publisher(&settings.source.stream)).await?,
            to_claims: JetStreamPublisher::new(connection.clone(), publisher(&claims.name)).await?,
            claims: StreamReader::new(connection.clone(), claims.name),
            letters: StreamReader::new(connection.clone(), &settings.letters.name),
            source: StreamReader::new(connection.clone(), &settings.source.stream),
            run: format!("{:016x}", fastrand::u64(..)),
            source_created: way.source().created,
            source_last: way.source().last_sequence,
            way,
            settings,
        };
        replayer.tidy().await?;
        Ok(replayer)
    }

    /// Releases claims whose letter is gone: the crash was right before that.
    async fn tidy(&self) -> Result<(), SetupError> {
        let info = self.claims.info().await?;
        let mut next = (info.messages > 0).then_some(info.first_sequence);
        while let Some(from) = next {
            let chunk = self.claims.chunk(from, info.last_sequence).await?;
            for message in chunk.messages {
                let Ok(claim) = serde_json::from_slice::<Claim>(&message.payload) else { continue };
                if read_letter(&self.letters, &claim.letter).await?.is_none() {
                    self.claims.delete(message.sequence).await?;
                }
            }
            next = chunk.next;
        }
        Ok(())
    }

    /// Replays one letter.
    ///
    /// # Errors
    /// [`ReplayError`]: the letter is where it was.
    pub async fn replay(&mut self, pick: &Pick) -> Result<Outcome, ReplayError> {
        let id = self.way.id_of(pick);
        let subject = claim_subject(&self.settings.letters_prefix, &id);
        let (claim, claimed) = match self.claim(pick, &subject, 0).await? {
            Ok(claimed) => claimed,
            Err(held) => match self.take_over(pick, &id, &subject, held).await? {
                TakenOver::Claimed(claim, claimed) => (claim, claimed),
                TakenOver::Over(outcome) => return Ok(outcome),
            },
        };
        // Read only now: whoever held a claim before has taken away what it published.
        let letter = match read_letter(&self.letters, &pick.sequences).await {
            Ok(Some(letter)) => letter,
            Ok(None) => {
                self.claims.delete(claim).await?;
                return Ok(Outcome::Gone);
            }
            Err(failure) => return self.give_up(claim, failure.into()).await,
        };
        let stored = match self.publish(&letter, &id, claimed).await {
            Ok(stored) => stored,
            // The claim stays, for whoever comes next to look what became of it.
            Err(error @ ReplayError::NotStored(PublishError::Unknown(_))) => return Err(error),
            Err(error) => return self.give_up(claim, error).await,
        };
        if stored.stream_created == self.source_created {
            self.source_last = self.source_last.max(stored.sequence);
        } else {
            (self.source_created, self.source_last) = (stored.stream_created, stored.sequence);
        }
        self.remove(pick, claim).await?;
        Ok(Outcome::Replayed(stored.sequence))
    }

    async fn give_up(&self, claim: u64, error: ReplayError) -> Result<Outcome, ReplayError> {
        self.claims.delete(claim).await?;
        Err(error)
    }

    /// Claims the letter; `held` is the sequence of the claim to replace, 0 if there must be none. Gives back the claim that
    /// is in the way, if one is.
    async fn claim(
        &self,
        pick: &Pick,
        subject: &str,
        held: u64,
    ) -> Result<Result<(u64, Instant), StoredMessage>, Failure> {
        let claimed = Instant::now();
        let body = json!(Claim {
            run: self.run.clone(),
            subject: pick.subject.clone(),
            letter: pick.sequences.clone(),
            source_created: self.source_created,
            source_last: self.source_last
        });
        let headers = vec![("Nats-Expected-Last-Subject-Sequence".to_owned(), held.to_string())];
        let key = format!("{}-{:016x}", self.run, fastrand::u64(..));
        let event = event(&key, subject.to_owned(), headers, body.to_string().into())?;
        match send(&self.to_claims, event.into()).await {
            Ok(stored) => Ok(Ok((stored.sequence, claimed))),
            Err(error) if is_taken(&error) => match self.claims.next(1, subject).await? {
                Some(held) => Ok(Err(held)),
                // Released since: whoever held it is done with the letter.
                None => Box::pin(self.claim(pick, subject, 0)).await,
            },
            Err(PublishError::Unknown(failure) | PublishError::Rejected(failure)) => Err(failure),
            Err(error @ PublishError::TooLarge { .. }) => {
                Err(Failure::new("claim a letter", FailureClass::Unavailable, error))
            }
        }
    }

    /// Finds out what became of a replay whose claim is still there, waiting while it may be going on.
    async fn take_over(
        &self,
        pick: &Pick,
        id: &str,
        subject: &str,
        mut held: StoredMessage,
    ) -> Result<TakenOver, ReplayError> {
        let mut seen = Instant::now();
        loop {
            let claim: Claim = serde_json::from_slice(&held.payload).map_err(|_| ReplayError::Unknown)?;
            let found = self.look(id, &claim, held.time).await?;
            if let Found::Published(sequence) = found {
                self.remove(pick, held.sequence).await?;
                return Ok(TakenOver::Over(Outcome::Earlier(sequence)));
            }
            let age = age(&held);
            if claim.run == self.run || age > CLAIM + SKEW || seen.elapsed() > CLAIM {
                let window = self.source.info().await.map_err(|error| error.into_failure("look up the source"))?;
                let remembered = age + CLAIM + SKEW < window.duplicate_window;
                if !matches!(found, Found::NotPublished) && !remembered && !self.settings.again {
                    return Err(ReplayError::Unknown);
                }
                match self.claim(pick, subject, held.sequence).await? {
                    Ok((claim, claimed)) => return Ok(TakenOver::Claimed(claim, claimed)),
                    Err(other) => (held, seen) = (other, Instant::now()),
                }
            } else {
                tokio::time::sleep(LOOK).await;
                match self.claims.get(held.sequence).await? {
                    Some(_) => {}
                    None => match self.claim(pick, subject, 0).await? {
                        Ok((claim, claimed)) => return Ok(TakenOver::Claimed(claim, claimed)),
                        Err(other) => (held, seen) = (other, Instant::now()),
                    },
                }
            }
        }
    }

    /// Looks in the source for what was published under a claim.
    async fn look(&self, id: &str, claim: &Claim, time: i64) -> Result<Found, ReplayError> {
        let info = self.source.info().await.map_err(|error| error.into_failure("look up the source"))?;
        if info.created != claim.source_created {
            return Ok(Found::Unknown);
        }
        let Some(subject) = &claim.subject else { return Ok(Found::Unknown) };
        let until = time.saturating_add(nanos(CLAIM + SKEW));
        let mut from = claim.source_last + 1;
        while let Some(message) = self.source.next(from, subject).await? {
            if message.header("Nats-Msg-Id") == Some(id) {
                return Ok(Found::Published(message.sequence));
            }
            if message.time > until {
                break;
            }
            from = message.sequence + 1;
        }
        Ok(if has_kept_all_since(&info, claim.source_last) { Found::NotPublished } else { Found::Unknown })
    }

    async fn publish(&self, letter: &Letter, id: &str, claimed: Instant) -> Result<Stored, ReplayError> {
        let event = Arc::new(self.way.event(letter, id).await?);
        let mut last = None;
        // Sent again under its id, as long as the claim lasts.
        while claimed.elapsed() + ACK < CLAIM {
            match send(&self.to_source, event.clone()).await {
                Ok(stored) => return Ok(stored),
                Err(error @ PublishError::Unknown(_)) => last = Some(error),
                // Its limit has become lower meanwhile.
                Err(PublishError::TooLarge { size, limit }) => {
                    let stream = self.settings.source.stream.clone();
                    return Err(Barrier::TooLarge { size, limit, stream }.into());
                }
                Err(error) => return Err(ReplayError::NotStored(error)),
            }
        }
        Err(last.map_or(ReplayError::TooSlow, ReplayError::NotStored))
    }

    /// Deletes the letter, its first message last, and then the claim.
    async fn remove(&self, pick: &Pick, claim: u64) -> Result<(), ReplayError> {
        for sequence in pick.sequences.iter().rev() {
            self.letters.delete(*sequence).await.map_err(ReplayError::NotRemoved)?;
        }
        self.claims.delete(claim).await.map_err(ReplayError::NotRemoved)?;
        Ok(())
    }
}

enum TakenOver {
    Claimed(u64, Instant),
    Over(Outcome),
}

/// Whether everything that the source stored after `last` is still there.
fn has_kept_all_since(info: &StreamInfo, last: u64) -> bool {
    let keeps = info.retention == Retention::Limits && !info.limited_per_subject && info.first_sequence <= last + 1;
    keeps || info.last_sequence == last
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Whether a claim was refused because there is one.
fn is_taken(error: &PublishError) -> bool {
    let cause = error.failure().and_then(|failure| failure.cause.downcast_ref::<ApiError>());
    cause.is_some_and(|cause| cause.err_code == ApiError::WRONG_LAST_SEQUENCE)
}

async fn send(publisher: &JetStreamPublisher, event: Arc<Event>) -> Result<Stored, PublishError> {
    let (answers, mut answered) = mpsc::unbounded_channel();
    publisher.publish(vec![Attempt { ticket: 0, event, late: None }], answers).await;
    match answered.recv().await {
        Some(answer) => answer.outcome,
        None => {
            let ended = "the publisher ended before it answered".to_owned();
            Err(PublishError::Unknown(Failure::new("replay", FailureClass::Protocol, ended)))
        }
    }
}
