//! How far the consumer is behind, whether it stands still, and what is done about that.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cdc_actors::ports::{Backlog, Failure, FailureClass, Stalled};
use serde::Deserialize;
use serde_json::json;

use super::api::ApiError;
use super::connection::Connection;
use super::consumers::{ConsumerSettings, Note, find_consumer, recreate_consumer};
use super::kept::{Changed, KeptWatch};
use super::lives::ConsumerLives;
use super::stall::{Finding, Look, StallWatch};
use super::streams::parse_time;

/// In how many milliseconds replicas that see the same have their turns.
const TURNS: u64 = 2_000;

/// A stream and its consumer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Consumed<'a> {
    pub connection: &'a Connection,
    pub stream: &'a str,
    /// When the stream was created.
    pub created: i64,
    /// Whether the stream removes what is acknowledged.
    pub work_queue: bool,
    pub consumer: &'a ConsumerSettings,
    pub lives: &'a ConsumerLives,
    pub kept: &'a KeptWatch,
}

/// Looks at the backlog again and again.
#[derive(Debug)]
pub(super) struct BacklogWatch(Mutex<StallWatch>);

impl BacklogWatch {
    /// Tells of a consumer that has stood still for `patience`; never, if there is none.
    pub(super) fn new(patience: Option<Duration>) -> Self {
        Self(Mutex::new(StallWatch::new(patience)))
    }

    fn stalls(&self) -> MutexGuard<'_, StallWatch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen before says nothing any more.
    pub(super) fn blind(&self) {
        self.stalls().blind();
    }

    /// Looks once. A consumer that stands still is made anew if that brings what it owes.
    pub(super) async fn look(&self, consumed: Consumed<'_>) -> Result<(Backlog, Vec<Note>), Failure> {
        let (mut backlog, look, changed) = consumed.look().await?;
        let consumer = &consumed.consumer.name;
        let mut notes: Vec<Note> =
            changed.map(|changed| Note::Changed { consumer: consumer.clone(), changed }).into_iter().collect();
        let consumer_created = look.consumer_created.clone();
        let finding = self.stalls().saw(look, Instant::now());
        let Some(Finding { stall, curable }) = finding else {
            return Ok((backlog, notes));
        };
        let (made_anew, note) = if curable { consumed.recreate(&consumer_created).await } else { (false, None) };
        if made_anew {
            self.stalls().cured();
        }
        backlog.stalled = Some(Stalled { stall, made_anew });
        notes.extend(note);
        Ok((backlog, notes))
    }
}

impl Consumed<'_> {
    fn action(&self) -> String {
        format!("look up the backlog of {} of {}", self.consumer.name, self.stream)
    }

    async fn look(&self) -> Result<(Backlog, Look, Option<Changed>), Failure> {
        let times_opened = self.kept.times_opened();
        let Some(info) = find_consumer(self.connection, self.stream, &self.consumer.name).await? else {
            let cause = format!("consumer {} does not exist; the next pull creates it", self.consumer.name);
            return Err(Failure::new(self.action(), FailureClass::Missing, cause));
        };
        self.lives.saw(info.created_at(&self.action())?);
        let changed = self.kept.saw(times_opened, &info, Instant::now());
        let floor = info.ack_floor.stream_seq;
        // What other filters than the configured ones leave out is not given.
        let all_given = info.num_pending == 0 && info.num_ack_pending == 0 && !self.kept.filters_otherwise(&info);
        // A work queue keeps nothing that is acknowledged: its first message is the first that is not.
        let oldest = match self.work_queue {
            true => self.first_from(1).await?,
            false if all_given => None,
            false => self.first_from(floor + 1).await?,
        };
        // Of another stream everything would come again, or what waits would be let go of. With a limit of deliveries messages stay
        // that were let go of.
        let curable = self.work_queue && !info.gives_up();
        let look = Look {
            stream_created: self.created,
            given: info.delivered.consumer_seq,
            floor,
            could_give: info.could_give(),
            passed: oldest
                .map(|(sequence, _)| sequence)
                .filter(|sequence| curable && !info.paused && *sequence <= floor),
            curable,
            consumer_created: info.created,
        };
        let backlog = Backlog {
            pending: info.num_pending,
            unacknowledged: info.num_ack_pending,
            oldest_unacknowledged: oldest.map(|(_, time)| time),
            stalled: None,
        };
        Ok((backlog, look, changed))
    }

    /// Sequence and time of the first message at or after `from` that the consumer is to be given.
    async fn first_from(&self, from: u64) -> Result<Option<(u64, i64)>, Failure> {
        let all = [">".to_owned()];
        let filters = match self.consumer.filters.as_slice() {
            [] => &all,
            some => some,
        };
        let mut first: Option<(u64, i64)> = None;
        for filter in filters {
            let found = self.first_that_matches(from, filter).await?;
            first = first.into_iter().chain(found).min();
        }
        Ok(first)
    }

    async fn first_that_matches(&self, from: u64, filter: &str) -> Result<Option<(u64, i64)>, Failure> {
        let action = self.action();
        let body = json!({ "seq": from, "next_by_subj": filter });
        let operation = format!("STREAM.MSG.GET.{}", self.stream);
        match self.connection.api::<StoredMessage>(&action, &operation, &body).await? {
            Ok(StoredMessage { message }) => {
                let time = parse_time(&message.time).map_err(|e| Failure::new(action, FailureClass::Protocol, e))?;
                Ok(Some((message.seq, time)))
            }
            Err(error) if error.err_code == ApiError::NO_MESSAGE => Ok(None),
            Err(error) => Err(error.into_failure(&action)),
        }
    }

    /// Whether the consumer is another one now, and why not.
    async fn recreate(&self, created: &str) -> (bool, Option<Note>) {
        // Every replica sees it at the same time, and one of them is enough: two at once can leave a server with half a consumer.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..TURNS))).await;
        match recreate_consumer(self.connection, self.stream, &self.consumer.name, created, self.lives).await {
            Ok(()) => (true, None),
            Err(failure) => {
                let (consumer, refused) = (self.consumer.name.clone(), failure.cause.to_string());
                (false, Some(Note::NotDeleted { consumer, refused }))
            }
        }
    }
}

#[derive(Deserialize)]
struct StoredMessage {
    message: StoredHead,
}

#[derive(Deserialize)]
struct StoredHead {
    seq: u64,
    time: String,
}
