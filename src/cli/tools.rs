//! The arguments of `generate`, `preview` and `test`.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::{ConfigArgs, OutputArgs, positive_u32, positive_u64};
use crate::demo::traffic::{Kind, Mix};

pub(super) const GENERATE: &str = "\
Examples:
  daisi-cdc-consumer generate --events 3
  daisi-cdc-consumer generate --events 500 --mix chat=3,agent=1 | daisi-cdc-consumer explain
  daisi-cdc-consumer generate --config new.yaml --table contacts | daisi-cdc-consumer explain --config new.yaml --trace
  daisi-cdc-consumer generate --publish --rate 5000 --for 1m --seed 7 --config config.yaml

What is printed is one JSON object a line, {\"subject\",\"headers\",\"event\"}, which explain reads; \"payload\" is in place of
\"event\" where the body is not JSON. What is published goes into source.stream, each event acknowledged; what the stream
knows within its duplicate window it does not store again, so another run needs another seed.
The same seed, mix or tables, and start give the same events. Without --table they are of the tables that are built in.
What is updated or deleted was inserted before; chats, agents, and rows of a mix without insert are taken to have been there.
An update tells the former values of what it changed; with --table these are one to three columns.

Kinds of a mix: insert, update (two changes of a row in one transaction), delete (messages); chat, agent (updates); again
(sent a second time), other (another table), poison; with --table neither chat, agent nor other. By default insert=50,update=20,chat=12,agent=4,delete=4,again=4,other=4,poison=2.

SIGINT or SIGTERM ends --publish once what was sent is acknowledged, and it says how far it came.

Exit status 0, 1 if --publish was interrupted, 64 if the mix holds nothing that tables of --table have, 69 if the server could not be
reached or did not answer, 78 if the configuration is wrong, names no such table, or the stream is missing, full, or has other subjects,
130 or 143 if a signal ended it at once.";

/// What is generated, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct GenerateArgs {
    /// Events; 1000 if neither this nor --for is given
    #[arg(long, value_name = "N", value_parser = positive_u64)]
    pub events: Option<NonZeroU64>,
    /// For how long, such as 30s
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub lasting: Option<Duration>,
    /// Events a second; as fast as possible if not given
    #[arg(long, value_name = "N", value_parser = positive_u32)]
    pub rate: Option<NonZeroU32>,
    /// Kinds of transactions with their weights; what is not named does not occur
    #[arg(long, value_name = "KIND=WEIGHT,...", value_parser = mix, default_value = "insert=50,update=20,chat=12,agent=4,delete=4,again=4,other=4,poison=2", hide_default_value = true)]
    pub mix: Mix,
    /// Events of these tables, which the configuration declares and enables, by the types of their columns
    #[arg(long = "table", value_name = "NAME,...", value_delimiter = ',')]
    pub tables: Vec<String>,
    /// Seed of what is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// When the first event was committed, such as 2026-01-05T08:00:00Z; now if not given
    #[arg(long, value_name = "TIME", value_parser = start)]
    pub start: Option<Timestamp>,
    /// Publish into source.stream instead of printing
    #[arg(long)]
    pub publish: bool,
    /// How the result of --publish is written.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Where the stream is, and what the tables are.
    #[command(flatten)]
    pub config: ConfigArgs,
}

impl GenerateArgs {
    /// How many events at most.
    pub fn events(&self) -> u64 {
        match (self.events, self.lasting) {
            (Some(events), _) => events.get(),
            (None, Some(_)) => u64::MAX,
            (None, None) => 1_000,
        }
    }
}

pub(super) const PREVIEW: &str = "\
Examples:
  daisi-cdc-consumer preview --config new.yaml                       the last 1000 messages
  daisi-cdc-consumer preview --config new.yaml --last 100000 --against config.yaml
  daisi-cdc-consumer preview --from 4711 --each --output json | jq -r .decision.verdict
  daisi-cdc-consumer preview --live --for 1m

Reads source.stream without a consumer: nothing is consumed, acknowledged or changed, whatever its retention. Only messages
that source.subjects lets through count; of the others it is said how many were come across. With --against what only one
of the two receives is a difference (not_received), and both are shown on the stream of --config. With --live on a stream that lets go of what
is acknowledged (a work queue, or by interest) what is published to its subjects is watched, before the stream has stored it.
What is too large for the target stream or its server, as they are now, is told as too_large.
Variables DAISI_CDC_... hold for both files.
SIGINT or SIGTERM ends it with what was seen until then.
Exit status 0 whatever was found, 1 if it was interrupted before its end, which --live has not, 69 if a server could not be reached,
78 if a configuration is wrong or the stream is missing, 130 or 143 if a second SIGINT or SIGTERM ended it at once.";

/// What is looked at, and what is shown of it.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(group = clap::ArgGroup::new("what").args(["last", "from", "live"]))]
pub struct PreviewArgs {
    /// The newest N messages; 1000 if nothing else is asked for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub last: Option<u64>,
    /// From this sequence to the end
    #[arg(long, value_name = "SEQUENCE")]
    pub from: Option<u64>,
    /// What comes from now on, until interrupted
    #[arg(long)]
    pub live: bool,
    /// At most N messages; with --from and --live
    #[arg(long, value_name = "N", value_parser = positive_u64, conflicts_with = "last")]
    pub limit: Option<NonZeroU64>,
    /// For how long, such as 30s
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration, requires = "live")]
    pub lasting: Option<Duration>,
    /// Show only what differs from what this configuration would do
    #[arg(long, value_name = "OLD.yaml")]
    pub against: Option<PathBuf>,
    /// Show every decision instead of counts
    #[arg(long, conflicts_with = "against")]
    pub each: bool,
    /// Samples shown of each verdict, or of each kind of difference
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub samples: usize,
    /// How it is written.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The configuration to try, and where the stream is.
    #[command(flatten)]
    pub config: ConfigArgs,
}

impl PreviewArgs {
    /// How many of the newest messages.
    pub fn last(&self) -> u64 {
        self.last.unwrap_or(1_000)
    }

    /// How many messages at most.
    pub fn limit(&self) -> u64 {
        self.limit.map_or(u64::MAX, NonZeroU64::get)
    }
}

pub(super) const TEST: &str = "\
Examples:
  daisi-cdc-consumer test cases/*.yaml
  daisi-cdc-consumer test --config new.yaml --output json cases/chats.yaml | jq 'select(.passed | not)'

A file of cases:
  settings: {target.unsafe_tokens: reject}      # on top of the configuration; a case may have its own
  cases:
    - name: a chat goes to its agent
      subject: sequin.crm.daisi_acme.chats.update        # if not given, the one Sequin would use
      headers: {Nats-Msg-Id: abc}
      event: {record: {chat_id: c1, ...}, changes: null, action: update, metadata: {...}}
      # or, byte for byte:  json: '{\"record\": ...}'
      expect:
        verdict: publish                                  # publish, skip or dead_letter
        subject: wa.acme.agent-1.chats
        payload: {/row_data/chat_id: c1}                  # by JSON pointer
        absent: [/unchanged]                              # by pointer, too: what is no JSON pointer is refused
        # reason, detail, event_id, event_key, headers, unhandled_fields

Numbers are compared as they are written: 1.10 is not 1.1.

Exit status 0 if every case passed, 1 if one failed, 65 if a file, or the settings of a case, cannot be used; the others are run
all the same. 78 if the configuration is wrong.";

/// Which cases are run, against what.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct TestArgs {
    /// Files of cases
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// How the results are written.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The configuration that is tested.
    #[command(flatten)]
    pub config: ConfigArgs,
}

fn start(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "it should be a time such as 2026-01-05T08:00:00Z".to_owned())
}

fn mix(text: &str) -> Result<Mix, String> {
    let names = || Kind::ALL.map(Kind::name).join(", ");
    let part = |part: &str| {
        let (name, weight) = part.split_once('=').ok_or_else(|| format!("{part:?} is not KIND=WEIGHT"))?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name.trim());
        let kind = kind.ok_or_else(|| format!("{name:?} is none of {}", names()))?;
        let weight = weight.trim().parse().map_err(|_| format!("{weight:?} is no whole number"))?;
        Ok((kind, weight))
    };
    let weights = text.split(',').map(part).collect::<Result<Vec<_>, String>>()?;
    for (place, (kind, _)) in weights.iter().enumerate() {
        if weights[..place].iter().any(|(before, _)| before == kind) {
            return Err(format!("{} is named twice", kind.name()));
        }
    }
    Mix::new(weights).ok_or_else(|| format!("weights are from 0 to {}, not all of them 0", Mix::MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_are_kinds_with_weights() {
        assert_eq!(mix("insert=50,update=20,chat=12,agent=4,delete=4,again=4,other=4,poison=2"), Ok(Mix::default()));
        assert_eq!(mix("chat=3, agent=1").ok(), Mix::new(vec![(Kind::Chat, 3), (Kind::Agent, 1)]));
        for wrong in ["", "chat", "chats=1", "chat=x", "chat=0", "chat=99999999"] {
            assert!(mix(wrong).is_err(), "{wrong}");
        }
        assert!(mix("insert=1,chat=1,insert=2").is_err_and(|said| said.contains("insert is named twice")));
    }
}
