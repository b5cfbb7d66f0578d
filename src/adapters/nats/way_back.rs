//! Whether a letter would come back to the service: what keeps the source from storing it, or the service from being given it.
//! A source acknowledges also what nobody will ever read, so this is looked at before anything is published.

use cdc_actors::message::{Event, EventKey, Headers};
use cdc_actors::ports::{Failure, FailureClass, PublishError};

use super::connection::Connection;
use super::consumers::{find_consumer, gives};
use super::fit::listed;
use super::history::replayed;
use super::letters::{Letter, Original, Pick};
use super::limit::SizeLimit;
use super::replay::{CannotReplay, ReplayError};
use super::streams::{Retention, SetupError, StreamInfo, find_stream};

/// How messages come to the service.
#[derive(Debug, Clone)]
pub struct WayIn {
    /// The source stream.
    pub stream: String,
    /// The service's consumer of it.
    pub consumer: String,
    /// The subjects that it is given.
    pub subjects: Vec<String>,
}

/// What is in a letter's way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Barrier {
    /// The configuration has another source.
    #[error("it came from stream {from}, and source.stream is {configured}")]
    OtherStream {
        /// Where it came from.
        from: String,
        /// What is configured.
        configured: String,
    },
    /// The configured filter leaves it out.
    #[error("the service would not be given it: source.subjects ({subjects}) do not let {subject} through")]
    NotConfigured {
        /// The subject it came under.
        subject: String,
        /// What is configured.
        subjects: String,
    },
    /// The stream has other subjects.
    #[error("the source stream {stream} does not take {subject}: its subjects are {subjects}")]
    NotStored {
        /// The source.
        stream: String,
        /// The subject it came under.
        subject: String,
        /// Those that the stream stores.
        subjects: String,
    },
    /// It has grown too large, or the source's limit has become too low.
    #[error("its {size} bytes are more than the {limit} that the source stream {stream} accepts")]
    TooLarge {
        /// Bytes of headers and payload.
        size: usize,
        /// Bytes accepted.
        limit: usize,
        /// The source.
        stream: String,
    },
    /// The stream takes nothing now.
    #[error("the source stream {stream} cannot store anything: {why}")]
    Refuses {
        /// The source.
        stream: String,
        /// Why.
        why: &'static str,
    },
    /// The source would throw it away.
    #[error(
        "the service would not be given it: {stream} keeps only what a consumer asks for, and its consumer {consumer} is not there; `run` creates it"
    )]
    NoConsumer {
        /// The source.
        stream: String,
        /// The consumer.
        consumer: String,
    },
    /// Likewise: the consumer asks for something else.
    #[error(
        "the service would not be given it: {stream} keeps only what a consumer asks for, and its consumer {consumer} asks for {filters} alone; `run` brings it up to date"
    )]
    NotAskedFor {
        /// The source.
        stream: String,
        /// The consumer.
        consumer: String,
        /// What it asks for.
        filters: String,
    },
}

/// The way back into the service.
#[derive(Debug)]
pub struct WayBack {
    connection: Connection,
    way: WayIn,
    source: StreamInfo,
    /// When the dead-letter stream was created.
    letters_created: i64,
}

impl WayBack {
    /// Looks up where letters are, in the stream `letters`, and where they go.
    ///
    /// # Errors
    /// [`CannotReplay`].
    pub async fn open(connection: &Connection, letters: &str, way: WayIn) -> Result<Self, CannotReplay> {
        let found = async |name: &str| {
            let found = find_stream(connection, name).await?;
            found.ok_or_else(|| CannotReplay::Setup(SetupError::NoStream(name.to_owned())))
        };
        let (letters_info, source) = (found(letters).await?, found(&way.stream).await?);
        if !letters_info.deletes {
            return Err(CannotReplay::Kept(letters.to_owned()));
        }
        Ok(Self { connection: connection.clone(), way, source, letters_created: letters_info.created })
    }

    /// Whether a letter could be replayed now, so far as can be told without doing it: what would go back.
    ///
    /// # Errors
    /// Why it would stay.
    pub async fn tried(&self, pick: &Pick, letter: &Letter) -> Result<Original, ReplayError> {
        self.event(letter, &self.id_of(pick)).await?;
        if let Some(why) = self.source.refuses {
            return Err(Barrier::Refuses { stream: self.way.stream.clone(), why }.into());
        }
        Ok(replayed(letter)?)
    }

    /// The id that a letter is replayed under.
    pub(super) fn id_of(&self, pick: &Pick) -> String {
        pick.replay_id(self.letters_created)
    }

    /// The source as it was when the way was opened.
    pub(super) fn source(&self) -> &StreamInfo {
        &self.source
    }

    /// The letter as it goes back under this id, if nothing is in its way.
    pub(super) async fn event(&self, letter: &Letter, id: &str) -> Result<Event, ReplayError> {
        let stream = &self.way.stream;
        // What is damaged may well not say where it came from.
        let mut original = replayed(letter)?;
        if letter.stream != *stream {
            return Err(Barrier::OtherStream { from: letter.stream.clone(), configured: stream.clone() }.into());
        }
        // Another stream that listens on the subject must not take it.
        original.headers.push(("Nats-Expected-Stream".to_owned(), stream.clone()));
        let event = event(id, original.subject, original.headers, original.payload)?;
        self.would_arrive(&event.subject).await?;
        if let Err(PublishError::TooLarge { size, limit }) =
            SizeLimit::new(self.source.max_message_size, &self.connection).check(&event)
        {
            return Err(Barrier::TooLarge { size, limit, stream: stream.clone() }.into());
        }
        Ok(event)
    }

    async fn would_arrive(&self, subject: &str) -> Result<(), ReplayError> {
        let WayIn { stream, consumer, subjects } = &self.way;
        let (subject, stream, consumer) = (subject.to_owned(), stream.clone(), consumer.clone());
        if !gives(subjects, &subject) {
            return Err(Barrier::NotConfigured { subject, subjects: subjects.join(", ") }.into());
        }
        // Unlike a consumer, a stream without subjects is given nothing.
        if self.source.subjects.is_empty() || !gives(&self.source.subjects, &subject) {
            return Err(Barrier::NotStored { stream, subject, subjects: listed(&self.source.subjects) }.into());
        }
        if self.source.retention != Retention::Interest {
            return Ok(());
        }
        // Asked anew for each letter: what nobody asks for is gone the moment it is acknowledged.
        match find_consumer(&self.connection, &stream, &consumer).await? {
            None => Err(Barrier::NoConsumer { stream, consumer }.into()),
            Some(info) if !gives(&info.filters(), &subject) => {
                Err(Barrier::NotAskedFor { stream, consumer, filters: listed(&info.filters()) }.into())
            }
            Some(_) => Ok(()),
        }
    }
}

/// A message as the publisher takes it.
pub(super) fn event(key: &str, subject: String, headers: Headers, payload: bytes::Bytes) -> Result<Event, Failure> {
    let illegal = |key| Failure::new("replay", FailureClass::Protocol, format!("{key:?} is no legal Nats-Msg-Id"));
    Ok(Event {
        key: EventKey::new(key).map_err(illegal)?,
        event_id: "".into(),
        table: "replay",
        subject: subject.into(),
        headers,
        payload,
        position: None,
        committed: None,
    })
}
