//! The arguments of `dead-letters`.

use std::num::NonZeroU32;

use cdc_actors::message::Reason;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{ConfigArgs, OutputArgs, positive_u32};

pub(super) const LETTERS: &str = "\
Examples:
  daisi-cdc-consumer dead-letters list --reason wrong_shape --since 2h
  daisi-cdc-consumer dead-letters show 17
  daisi-cdc-consumer dead-letters replay --all --dry-run
  daisi-cdc-consumer dead-letters drop 17

Exit status 0 if all was done, 1 if a letter is not there, had to stay or was not tried, 69 if a server could not be reached,
78 if the configuration is wrong or a stream is missing.";

const LIST: &str = "\
Examples:
  daisi-cdc-consumer dead-letters list
  daisi-cdc-consumer dead-letters list --table messages --reason wrong_shape --since 2h
  daisi-cdc-consumer dead-letters list --tenant CID1001 --output json | jq .reason

With --output json one object a line.
Exit status 0 also if there are none, 69 if a server could not be reached, 78 if the stream is missing.";

const SHOW: &str = "\
Examples:
  daisi-cdc-consumer dead-letters show 17
  daisi-cdc-consumer dead-letters show 17 --output json | jq -r .payload

Exit status 0, 1 if a letter is not there (in JSON {\"sequence\", \"outcome\": \"not_there\"}), 69 if a server could not be reached,
78 if the stream is missing.";

const REPLAY: &str = "\
Examples:
  daisi-cdc-consumer dead-letters replay 17 --dry-run       what the present configuration would do with it
  daisi-cdc-consumer dead-letters replay 17 18
  daisi-cdc-consumer dead-letters replay --reason rejected_field --since 2026-01-05T08:00:00Z
  daisi-cdc-consumer dead-letters replay --all --rate 200

Each letter goes back to the subject it came under and leaves the dead letters once the source has stored it. It may be
interrupted at any time and run again, also by two operators at once: nothing is published twice. A letter stays if it would not
reach the service: another source.stream, source.subjects or the stream's subjects that do not cover it, a size that the
stream does not take, a stream that keeps messages by interest and has no consumer that asks for it. --dry-run tells the same.
In JSON the last line is {\"summary\": {...}}, how many letters came to which outcome. SIGINT or SIGTERM ends it after the letter that
is under way.
Exit status 0, 1 if a letter is not there, had to stay or was not tried since the command was interrupted, 69 if a server could
not be reached, 78 if a stream is missing or cannot be used, 130 or 143 if a second SIGINT or SIGTERM ended it at once.";

const DROP: &str = "\
Examples:
  daisi-cdc-consumer dead-letters drop 17
  daisi-cdc-consumer dead-letters drop --reason not_json --until 30d --dry-run

What is dropped is gone for good: look at it with --dry-run first. What somebody is replaying stays.
SIGINT or SIGTERM ends it after the letter that is under way; the summary says how many were not tried.
Exit status 0, 1 if a letter is not there, stays or was not tried, 69 if a server could not be reached, 78 if the stream is missing,
130 or 143 if a second SIGINT or SIGTERM ended it at once.";

/// What is done with dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum LettersCommand {
    /// List them, oldest first
    #[command(after_help = LIST)]
    List(ListArgs),
    /// Show the event, why it was put aside, and its history
    #[command(after_help = SHOW)]
    Show(ShowArgs),
    /// Send them back to the source stream
    #[command(after_help = REPLAY)]
    Replay(ReplayArgs),
    /// Delete them
    #[command(after_help = DROP)]
    Drop(DropArgs),
}

/// Which letters; what is not given does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Filter {
    /// Of this table; unknown for those whose table could not be told
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,
    /// Put aside for this reason
    #[arg(long, value_name = "REASON", value_parser = reasons())]
    pub reason: Option<String>,
    /// Put aside at this time or later: 2026-01-05T08:00:00Z, or a time ago such as 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<Timestamp>,
    /// Put aside before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<Timestamp>,
    /// Of this tenant: the company_id that the row's table routes by, as the configuration has it, else its column company_id
    #[arg(long, value_name = "COMPANY_ID")]
    pub tenant: Option<String>,
}

impl Filter {
    /// Whether it filters at all.
    pub fn says_something(&self) -> bool {
        *self != Self::default()
    }
}

/// Letters either by sequence, or by filter, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(group = clap::ArgGroup::new("which").args(["sequences", "table", "reason", "since", "until", "tenant", "all"]).multiple(true).required(true))]
pub struct Selection {
    /// Sequences of letters, as `list` shows them; instead of a filter, never together with one
    #[arg(value_name = "SEQUENCE", conflicts_with_all = ["table", "reason", "since", "until", "tenant"])]
    pub sequences: Vec<u64>,
    /// Which of them.
    #[command(flatten)]
    pub filter: Filter,
    /// All of them
    #[arg(long, conflicts_with_all = ["sequences", "table", "reason", "since", "until", "tenant"])]
    pub all: bool,
}

/// What is listed.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ListArgs {
    /// Which of them.
    #[command(flatten)]
    pub filter: Filter,
    /// How they are written.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Where the streams are.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ShowArgs {
    /// Sequences of letters, as `list` shows them
    #[arg(value_name = "SEQUENCE", required = true)]
    pub sequences: Vec<u64>,
    /// How they are written.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Where the streams are.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// What is replayed, and how.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ReplayArgs {
    /// Which of them.
    #[command(flatten)]
    pub which: Selection,
    /// Only say what the present configuration would do with them
    #[arg(long)]
    pub dry_run: bool,
    /// Letters a second at most
    #[arg(long, value_name = "N", value_parser = positive_u32)]
    pub rate: Option<NonZeroU32>,
    /// Publish also what an interrupted replay may have published already
    #[arg(long)]
    pub again: bool,
    /// How they are written.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Where the streams are.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// What is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DropArgs {
    /// Which of them.
    #[command(flatten)]
    pub which: Selection,
    /// Only say which they are
    #[arg(long)]
    pub dry_run: bool,
    /// How they are written.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Where the streams are.
    #[command(flatten)]
    pub config: ConfigArgs,
}

fn reasons() -> PossibleValuesParser {
    PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.name()))
}

/// A point in time, or a duration before now.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let wrong = || format!("{text:?} is no time: write 2026-01-05T08:00:00Z, or a time ago such as 90s, 2h or 3d");
    let ago = humantime::parse_duration(text).map_err(|_| wrong())?;
    Timestamp::now().checked_sub(ago).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_durations_ago() {
        assert_eq!(time("2026-01-05T08:00:00Z").map(|time| time.as_second()), Ok(1_767_600_000));
        let (ago, now) = (time("2h").map(|time| time.as_second()), Timestamp::now().as_second());
        assert!(ago.is_ok_and(|ago| (now - 7_201..=now - 7_199).contains(&ago)));
        assert!(time("yesterday").is_err_and(|said| said.contains("yesterday")));
    }
}
