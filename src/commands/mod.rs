//! What the commands do, a module each.

mod check;
mod completions;
mod dead_letters;
mod difference;
mod envelope;
mod exact;
mod explain;
mod generate;
mod healthcheck;
mod input;
mod interrupt;
mod output;
mod pace;
mod preview;
mod run;
mod schema;
mod test;

use std::io;

use cdc_actors::ports::Failure;

pub use check::check;
pub use completions::completions;
pub use dead_letters::dead_letters;
pub use explain::explain;
pub use generate::generate;
pub use healthcheck::healthcheck;
pub use pace::Pace;
pub use preview::preview;
pub use run::{run, run_with};
pub use schema::schema;
pub use test::test;

use crate::adapters::nats::{CannotReplay, ConnectError, Connection, SetupError};
use crate::bootstrap::settings;
use crate::cli::{ConfigArgs, ExitStatus};
use crate::config::{Config, ConfigError, process_environment};
use crate::demo::feeding::FeedError;
use crate::logging::chain;

/// Why a command ended before it was done.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    #[error("there is no connection to NATS")]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Replay(#[from] CannotReplay),
    #[error("not everything was published")]
    NotPublished(#[source] FeedError),
    #[error("{table:?} is no table that the configuration declares and enables; {}", there_are(.declared))]
    NoSuchTable {
        /// What was asked for.
        table: String,
        /// What there is.
        declared: Vec<&'static str>,
    },
    #[error("with --table there are insert, update, delete, again and poison, of which the mix holds none")]
    NoKind,
    #[error(transparent)]
    Input(#[from] input::InputError),
    #[error("it cannot listen for signals")]
    Signals(#[source] io::Error),
    #[error("the result cannot be written")]
    Output(#[from] io::Error),
}

fn there_are(declared: &[&str]) -> String {
    match declared {
        [] => "there is none: declare one, or set tables.contacts.enabled for the one that ships".to_owned(),
        names => format!("these are: {}", names.join(", ")),
    }
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        Self::Setup(failure.into())
    }
}

impl CommandError {
    fn status(&self) -> ExitStatus {
        let unreachable = match self {
            Self::Connect(error) => error.class().is_some(),
            Self::Setup(error) | Self::Replay(CannotReplay::Setup(error)) => error.is_transient(),
            Self::Input(_) | Self::Output(_) => return ExitStatus::BadInput,
            Self::NoKind => return ExitStatus::Usage,
            Self::Signals(_) => return ExitStatus::GuardTripped,
            Self::NotPublished(error) => !error.is_refusal(),
            Self::Config(_) | Self::Replay(_) | Self::NoSuchTable { .. } => false,
        };
        if unreachable { ExitStatus::Unreachable } else { ExitStatus::BadConfig }
    }
}

/// What a command ends with; says why if it could not do its work.
fn ended(result: Result<ExitStatus, CommandError>) -> ExitStatus {
    match result {
        Ok(status) => status,
        // Whoever read the result has read enough.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitStatus::Success,
        Err(CommandError::Config(error)) => {
            eprintln!("{error}");
            ExitStatus::BadConfig
        }
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            error.status()
        }
    }
}

fn load(arguments: &ConfigArgs) -> Result<Config, ConfigError> {
    Config::load(arguments.config.as_deref(), process_environment())
}

/// Likewise, for a command that needs no servers, and so no secret.
fn load_elsewhere(arguments: &ConfigArgs) -> Result<Config, ConfigError> {
    Config::load_elsewhere(arguments.config.as_deref(), process_environment())
}

/// A connection for the command `role`.
async fn connect(config: &Config, role: &str) -> Result<Connection, ConnectError> {
    Connection::connect(&settings::nats(config, role), |_| {}).await
}
