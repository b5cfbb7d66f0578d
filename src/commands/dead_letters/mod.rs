//! `dead-letters`: what could not be published, for those who can do something about it.

mod drop;
mod list;
mod replay;
mod select;
mod show;
mod tally;

use serde::Serialize;
use serde_json::Value;

use super::interrupt::interruptible;
use super::{CommandError, connect, ended, load, output};
use crate::adapters::nats::{Assembler, Connection, Letter, StreamReader, past};
use crate::bootstrap::settings;
use crate::cli::{ConfigArgs, ExitStatus, LettersCommand};
use crate::config::Config;
use crate::domain::{CdcTransform, routed};

/// Lists, shows, replays or drops dead letters.
pub async fn dead_letters(command: LettersCommand) -> ExitStatus {
    match command {
        LettersCommand::List(arguments) => ended(list::list(arguments).await),
        LettersCommand::Show(arguments) => ended(show::show(arguments).await),
        LettersCommand::Replay(arguments) => interruptible(|interrupt| replay::replay(arguments, interrupt)).await,
        LettersCommand::Drop(arguments) => interruptible(|interrupt| drop::drop_letters(arguments, interrupt)).await,
    }
}

/// The routing value that tells tenants apart.
const TENANT: &str = "company_id";

/// The dead-letter stream, opened.
struct Desk {
    config: Config,
    connection: Connection,
    letters: StreamReader,
    /// It knows where each table's rows have their tenant.
    transform: CdcTransform,
}

impl Desk {
    async fn open(arguments: &ConfigArgs) -> Result<Self, CommandError> {
        let config = load(arguments)?;
        let connection = connect(&config, "dead-letters").await?;
        let letters = StreamReader::new(connection.clone(), &config.dead_letter.stream);
        let transform = CdcTransform::new(settings::transform(&config));
        Ok(Self { config, connection, letters, transform })
    }

    /// What the subjects of letters begin with.
    fn prefix(&self) -> &str {
        &self.config.dead_letter.subject_prefix
    }

    /// The tenant of a letter's row, if the original can be read that far.
    fn tenant(&self, letter: &Letter) -> Option<String> {
        let original = letter.original.as_ref().ok()?;
        routed(&self.transform, &original.subject, &original.payload, TENANT)
    }

    /// A letter without its body.
    fn summary(&self, letter: &Letter) -> Summary {
        Summary::of(letter, self.prefix(), self.tenant(letter))
    }

    /// Visits every letter in the stream as it is now, in order; those that lack parts come last.
    async fn each(&self, mut visit: impl FnMut(Letter) -> Result<(), CommandError>) -> Result<(), CommandError> {
        let info = self.letters.info().await?;
        let bar = output::progress("reading dead letters", info.messages);
        let (mut assembler, mut next) = (Assembler::default(), Some(info.first_sequence));
        while let Some(from) = next {
            let chunk = self.letters.chunk(from, info.last_sequence).await?;
            for message in chunk.messages {
                bar.inc(1);
                if let Some(letter) = assembler.add(message) {
                    bar.suspend(|| visit(letter))?;
                }
            }
            next = chunk.next;
        }
        bar.finish_and_clear();
        assembler.rest().into_iter().try_for_each(visit)
    }
}

/// A letter without its body, as machines get it.
#[derive(Debug, Serialize)]
struct Summary {
    sequence: u64,
    time: String,
    table: String,
    reason: String,
    detail: String,
    tenant: Option<String>,
    subject: Option<String>,
    stream: String,
    source_sequence: Option<u64>,
    deliveries: Option<u64>,
    /// How often it has been replayed.
    replays: u64,
    /// Messages it consists of.
    parts: usize,
    /// Why the original cannot be had.
    damage: Option<String>,
}

impl Summary {
    fn of(letter: &Letter, prefix: &str, tenant: Option<String>) -> Self {
        let original = letter.original.as_ref();
        Self {
            sequence: letter.sequence(),
            time: letter.time.clone(),
            table: letter.table(prefix).to_owned(),
            reason: letter.reason.clone(),
            detail: letter.detail.clone(),
            tenant,
            subject: original.ok().map(|original| original.subject.clone()),
            stream: letter.stream.clone(),
            source_sequence: letter.source_sequence,
            deliveries: letter.deliveries,
            replays: original.map_or(0, |original| past(original).0),
            parts: letter.sequences.len(),
            damage: original.err().map(ToString::to_string),
        }
    }
}

/// What a letter failed of before this time.
fn history(letter: &Letter) -> Vec<Value> {
    letter.original.as_ref().map(|original| past(original).1).unwrap_or_default()
}
