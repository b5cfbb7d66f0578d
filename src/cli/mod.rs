//! The command line: what can be asked for, and what the process answers with when it ends.

use std::ffi::OsString;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

mod letters;
mod tools;

pub use letters::{DropArgs, Filter, LettersCommand, ListArgs, ReplayArgs, Selection, ShowArgs};
pub use tools::{GenerateArgs, PreviewArgs, TestArgs};

const RUN: &str = "\
Examples:
  daisi-cdc-consumer run --config /etc/cdc/config.yaml
  DAISI_CDC_NATS__URL=nats://n1,nats://n2 DAISI_CDC_LOG__LEVEL=debug daisi-cdc-consumer run

Signals:
  SIGHUP           read the configuration again: log.level, retry.*, guard.* and tables.* change, what else differs is
                   named in the log and needs a restart; a configuration with mistakes is refused, the one in force stays
  SIGTERM, SIGINT  finish what is in flight and end; a second one ends at once

Exit status 0 after an orderly shutdown, 69 if a dependency could not be reached for start_timeout, 70 if one failed for too
long (start the service again), 78 if the configuration or what it names cannot be used, 130 or 143 after a second signal.";

const DEMO: &str = "\
Examples:
  daisi-cdc-consumer demo
  daisi-cdc-consumer demo --events 25000 --rate 5000 --seed 7

Starts a nats-server and, if it is there, a redis-server of its own on free ports, with temporary data, and ends them.
Exit status 0 if the ledger adds up, 1 if it does not, 69 if a server could not be started or reached.";

const HEALTHCHECK: &str = "\
Examples:
  daisi-cdc-consumer healthcheck
  daisi-cdc-consumer healthcheck --config /etc/cdc/config.yaml
  HEALTHCHECK CMD [\"daisi-cdc-consumer\", \"healthcheck\"]      in a Dockerfile

Asks /healthz where http.listen says.
Exit status 0 if the service is alive, 1 if it is not, or not there, 78 if the configuration is wrong.";

const EXAMPLES: &str = "\
Examples:
  daisi-cdc-consumer                                   the service with config.yaml's defaults
  daisi-cdc-consumer run --config /etc/cdc/config.yaml
  DAISI_CDC_NATS__URL=nats://n1,nats://n2 daisi-cdc-consumer check
  daisi-cdc-consumer demo --events 20000
  daisi-cdc-consumer explain --subject sequin.crm.public.chats.update event.json
  daisi-cdc-consumer dead-letters list --reason wrong_shape
  daisi-cdc-consumer dead-letters replay --all --dry-run
  daisi-cdc-consumer preview --config new.yaml --against config.yaml
  daisi-cdc-consumer test --config new.yaml cases/*.yaml
  daisi-cdc-consumer generate --events 500 | daisi-cdc-consumer explain
  daisi-cdc-consumer schema > config.schema.json
  daisi-cdc-consumer completions bash > /etc/bash_completion.d/daisi-cdc-consumer

Every setting of config.yaml can be given as a variable DAISI_CDC_<SECTION>__<KEY>, but for what stands below an entry of a
table (columns, routing, rename, redact, filter).

Exit status:
  0    it did what was asked for
  1    demo: its ledger does not add up; healthcheck: not alive;
       dead-letters: a letter is not there, or had to stay; test: a case failed
  64   the command line makes no sense
  65   explain, test: the input cannot be read; or a result cannot be written
  69   a dependency could not be reached: run for start_timeout, the other commands at the first try
  70   a dependency failed for too long; start the service again
  78   the configuration is wrong, or what it names cannot be used
  130  ended at once by a second SIGINT
  143  ended at once by a second SIGTERM";

const CHECK: &str = "\
Examples:
  daisi-cdc-consumer check --config config.yaml
  daisi-cdc-consumer check --offline --config new.yaml
  daisi-cdc-consumer check --offline --config new.yaml --output json | jq -r '.problems[] | \"\\(.file):\\(.line) \\(.key)\"'

In JSON it is one object: \"valid\"; \"problems\" of the configuration, each with key, value, origin, file, line and expected;
\"warnings\", files that are missing offline and need not be here included; \"findings\", what run would use, create or change, each with about, said and ok.
Exit status 0 if run could start, 69 if a server could not be reached (at the first try), 78 if the configuration or what it
names cannot be used: a stream in whose way another is, or whose subjects are none of those needed, included.";

const COMPLETIONS: &str = "\
Examples:
  daisi-cdc-consumer completions bash > /etc/bash_completion.d/daisi-cdc-consumer
  daisi-cdc-consumer completions zsh > ~/.zfunc/_daisi-cdc-consumer
  daisi-cdc-consumer completions fish > ~/.config/fish/completions/daisi-cdc-consumer.fish";

const SCHEMA: &str = "\
Examples:
  daisi-cdc-consumer schema > config.schema.json

Editors that know the YAML language server take it from the first line of a configuration:
  # yaml-language-server: $schema=config.schema.json";

/// What a process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitStatus {
    /// It did what was asked for, an orderly shutdown included.
    Success = 0,
    /// What was asked for is not so: the ledger of the demo does not add up, the service is not alive, a letter had to stay.
    No = 1,
    /// The command line makes no sense.
    Usage = 64,
    /// The input cannot be read.
    BadInput = 65,
    /// A dependency could not be reached at the start.
    Unreachable = 69,
    /// The guard tripped.
    GuardTripped = 70,
    /// The configuration is wrong.
    BadConfig = 78,
    /// A second SIGINT.
    Interrupted = 130,
    /// A second SIGTERM.
    Terminated = 143,
}

impl ExitStatus {
    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

/// Turns Sequin change events in a NATS JetStream stream into typed, enriched events in a second one, once each.
#[derive(Debug, Parser)]
#[command(name = "daisi-cdc-consumer", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: ConfigArgs,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the service (the default command)
    #[command(after_help = RUN)]
    Run(ConfigArgs),
    /// Run the whole pipeline on this machine with generated traffic; ends with a ledger
    #[command(after_help = DEMO)]
    Demo(DemoArgs),
    /// Check configuration and connections; creates nothing, says what it would create
    #[command(after_help = CHECK)]
    Check(CheckArgs),
    /// Ask the service on this machine whether it is alive; for the health check of a container
    #[command(after_help = HEALTHCHECK)]
    Healthcheck(ConfigArgs),
    /// Show what would become of events; needs no servers
    #[command(after_help = EXPLAIN)]
    Explain(ExplainArgs),
    /// Show what a configuration would do with the messages of the source stream; touches nothing
    #[command(after_help = tools::PREVIEW)]
    Preview(PreviewArgs),
    /// Run cases in YAML against a configuration; needs no servers
    #[command(after_help = tools::TEST)]
    Test(TestArgs),
    /// Generate realistic traffic, to standard output or into the source stream
    #[command(after_help = tools::GENERATE)]
    Generate(GenerateArgs),
    /// List, show, replay or drop what could not be published
    #[command(subcommand, after_help = letters::LETTERS)]
    DeadLetters(LettersCommand),
    /// Print the JSON Schema of config.yaml, for editors
    #[command(after_help = SCHEMA)]
    Schema,
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS)]
    Completions(CompletionsArgs),
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For machines
    Json,
}

/// How the result is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct OutputArgs {
    /// text for people, json for machines
    #[arg(long = "output", value_name = "FORMAT", value_enum)]
    pub format: Option<Output>,
}

/// Completions of which shell.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// The command line as such, for completions.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Where the configuration is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ConfigArgs {
    /// YAML file with the settings that differ from the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct CheckArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Check the configuration alone; needs no servers, and no files of secrets and certificates
    #[arg(long)]
    pub offline: bool,
    /// How it is written.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What the demo does.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// Events to feed
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub events: u64,
    /// Events per second; as fast as possible if not given
    #[arg(long, value_name = "N", value_parser = positive_u32)]
    pub rate: Option<NonZeroU32>,
    /// Seed of the generated traffic: the same seed gives the same events
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

fn positive_u32(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("it should be a whole number from 1 to {}", u32::MAX))
}

fn positive_u64(text: &str) -> Result<NonZeroU64, String> {
    text.parse().map_err(|_| "it should be a whole number from 1 on".to_owned())
}

const EXPLAIN: &str = "\
Examples:
  daisi-cdc-consumer explain --subject sequin.crm.public.chats.update event.json
  daisi-cdc-consumer explain --trace --output text < events.ndjson
  daisi-cdc-consumer generate --events 100 | daisi-cdc-consumer explain | jq -r .verdict

Reads one event, an array of events, or one event a line, in UTF-8 with or without a byte order mark. An event is what Sequin publishes, or that with its subject and
headers around it: {\"subject\": ..., \"headers\": {...}, \"event\": {...}}, \"payload\" with a text in place of \"event\" for what is
not JSON; dead-letters show --output json writes the same. Without \"subject\" it is that of --subject, or the one Sequin would use. Where
what is around an event is not of this form there is no decision on it, but \"error\" with the reason. Writes text to a terminal, else one JSON object for each event, on a line of its own.
Of several events each decision says whose it is and on which line it begins: \"input\": {\"index\", \"line\"}, or a heading.
Line and column of what is wrong with an event (--trace) count within that event, from 1; columns are bytes.
Exit status 0 whatever the verdict, 65 if the input cannot be read, is empty, or begins with [ and is no array, or if there is an event in it
that could not be had.";

/// The events to explain.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ExplainArgs {
    /// Subject the events came under, such as sequin.crm.public.messages.insert; if not given, the one Sequin would use
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// Header of the events; may be given more than once
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<Header>,
    /// Say step by step how each decision came about, and where a dead letter is not as it should be
    #[arg(long)]
    pub trace: bool,
    /// How the decisions are written; text on a terminal, else json, if not given.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The settings decide about tables, prefixes and tokens.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// File that holds the JSON; standard input if absent or -
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

impl ExplainArgs {
    /// The file to read; `None` is standard input.
    pub fn input(&self) -> Option<&PathBuf> {
        self.file.as_ref().filter(|file| file.as_os_str() != "-")
    }
}

/// A header given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

fn header(text: &str) -> Result<Header, String> {
    let (name, value) = text.split_once(':').ok_or("a header is written 'Name: value'")?;
    let name = name.trim();
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("the name of a header is visible ASCII without spaces".to_owned());
    }
    if value.contains(['\r', '\n']) {
        return Err("the value of a header is one line".to_owned());
    }
    Ok(Header { name: name.to_owned(), value: value.trim().to_owned() })
}

/// There is nothing to run: help or version were asked for, or the command line makes no sense.
#[derive(Debug)]
pub struct Refused(clap::Error);

impl Refused {
    /// Says so, help and version on standard output, mistakes on standard error.
    pub fn print(&self) -> std::io::Result<()> {
        self.0.print()
    }

    /// [`ExitStatus::Success`] for help and version, else [`ExitStatus::Usage`].
    pub fn status(&self) -> ExitStatus {
        if self.0.use_stderr() { ExitStatus::Usage } else { ExitStatus::Success }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// Help and version count as errors here: there is nothing to run.
pub fn parse(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Command, Refused> {
    let cli = Cli::try_parse_from(args).map_err(Refused)?;
    Ok(cli.command.unwrap_or(Command::Run(cli.run)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Command {
        parse([&["daisi-cdc-consumer"], line].concat()).unwrap()
    }

    fn refused(line: &[&str]) -> Refused {
        parse([&["daisi-cdc-consumer"], line].concat()).unwrap_err()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default() {
        let with = |file: &str| ConfigArgs { config: Some(PathBuf::from(file)) };
        assert_eq!(parsed(&[]), Command::Run(ConfigArgs::default()));
        assert_eq!(parsed(&["--config", "a.yaml"]), Command::Run(with("a.yaml")));
        assert_eq!(parsed(&["run", "--config", "a.yaml"]), Command::Run(with("a.yaml")));
        assert_eq!(
            parsed(&["check", "--config=b"]),
            Command::Check(CheckArgs { config: with("b"), ..CheckArgs::default() })
        );
        assert_eq!(
            parsed(&["check", "--offline"]),
            Command::Check(CheckArgs { offline: true, ..CheckArgs::default() })
        );
        assert_eq!(parsed(&["healthcheck", "--config", "c"]), Command::Healthcheck(with("c")));
    }

    #[test]
    fn demo_has_defaults() {
        assert_eq!(parsed(&["demo"]), Command::Demo(DemoArgs { events: 10_000, rate: None, seed: 1 }));
        let Command::Demo(demo) = parsed(&["demo", "--events", "5", "--rate", "100", "--seed", "9"]) else { panic!() };
        assert_eq!((demo.events, demo.rate, demo.seed), (5, NonZeroU32::new(100), 9));
    }

    #[test]
    fn explain_takes_headers_and_a_file_or_standard_input() {
        let Command::Explain(args) =
            parsed(&["explain", "--subject", "s", "--header", "Nats-Msg-Id: a:b", "--header", "X:", "event.json"])
        else {
            panic!()
        };
        let header = |name: &str, value: &str| Header { name: name.into(), value: value.into() };
        assert_eq!(args.headers, [header("Nats-Msg-Id", "a:b"), header("X", "")]);
        assert_eq!(args.input(), Some(&PathBuf::from("event.json")));
        for line in [&["explain"][..], &["explain", "--subject", "s", "-"]] {
            let Command::Explain(args) = parsed(line) else { panic!() };
            assert_eq!(args.input(), None);
        }
    }

    #[test]
    fn mistakes_end_with_64_help_and_version_with_0() {
        for line in [
            &["walk"][..],
            &["demo", "--events", "0"],
            &["demo", "--rate", "0"],
            &["explain", "--subject", "s", "--header", "nothing"],
            &["explain", "--subject", "s", "--header", "a b: c"],
            &["--config"],
            &["--config", "x", "check"],
            &["dead-letters"],
            &["dead-letters", "show"],
            &["dead-letters", "show", "one"],
            &["dead-letters", "list", "--reason", "bored"],
            &["dead-letters", "list", "--since", "yesterday"],
            // What is replayed or dropped must be said.
            &["dead-letters", "replay"],
            &["dead-letters", "drop", "--dry-run"],
            &["dead-letters", "drop", "--all", "17"],
            // A sequence that widened a filter would drop more than was meant.
            &["dead-letters", "drop", "94", "--table", "messages"],
            &["dead-letters", "replay", "--until", "2h", "94", "--dry-run"],
            &["dead-letters", "drop", "94", "--tenant", "acme"],
            &["dead-letters", "replay", "--all", "--rate", "0"],
            &["completions", "cmd"],
            &["generate", "--mix", "nothing=1"],
            &["preview", "--last", "0"],
            &["test"],
            &["preview", "--last", "5", "--live"],
            &["preview", "--each", "--against", "old.yaml"],
            &["generate", "--events", "0"],
            &["generate", "--for", "ever"],
        ] {
            assert_eq!(refused(line).status(), ExitStatus::Usage, "{line:?}");
        }
        assert_eq!(refused(&["--version"]).status(), ExitStatus::Success);
        let help = refused(&["--help"]);
        assert_eq!(help.status().code(), 0);
        for expected in ["Examples:", "Exit status:", "explain", "check", "healthcheck", "demo", "run"] {
            assert!(help.to_string().contains(expected), "{expected}");
        }
    }
}
