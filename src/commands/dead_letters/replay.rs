//! `dead-letters replay`.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::select::{Chosen, choose};
use super::tally::Tally;
use super::{CommandError, Desk};
use crate::adapters::nats::{
    Letter, Original, Outcome, Pick, ReplayError, ReplaySettings, Replayer, SizeLimit, WayBack, read_letter,
};
use crate::bootstrap::settings;
use crate::cli::{ExitStatus, Output, ReplayArgs};
use crate::commands::Pace;
use crate::commands::interrupt::Interrupt;
use crate::commands::output::{self, BAD, GOOD, one_line, styled};
use crate::domain;
use crate::logging::chain;

/// What became of a letter, in words for people and for machines.
struct Said {
    good: bool,
    outcome: &'static str,
    text: String,
    json: Value,
}

impl Said {
    fn new(sequence: u64, good: bool, outcome: &'static str, text: &str, more: Value) -> Self {
        let mut json = json!({ "sequence": sequence, "outcome": outcome });
        if let (Value::Object(json), Value::Object(more)) = (&mut json, more) {
            json.extend(more);
        }
        Self { good, outcome, text: format!("{sequence} {}", one_line(text)), json }
    }
}

/// Says what becomes of letter after letter, and counts.
struct Account<W> {
    out: W,
    json: bool,
    tally: Tally,
}

impl<W: Write> Account<W> {
    fn take(&mut self, said: &Said) -> io::Result<()> {
        self.tally.add(said.outcome, 1);
        if self.json {
            return output::json_line(&mut self.out, &said.json);
        }
        writeln!(self.out, "{}", styled(if said.good { GOOD } else { BAD }, &said.text))
    }

    fn close(&mut self, words: &[(&str, &str)]) -> io::Result<()> {
        if self.json {
            return output::json_line(&mut self.out, &self.tally.to_json());
        }
        writeln!(self.out, "{}", self.tally.to_text(words))
    }
}

pub(super) async fn replay(arguments: ReplayArgs, interrupt: Interrupt) -> Result<ExitStatus, CommandError> {
    let desk = Desk::open(&arguments.config).await?;
    let chosen = choose(&desk, &arguments.which).await?;
    let json = arguments.output.format == Some(Output::Json);
    let outcomes: &[_] = if arguments.dry_run {
        &["would_publish", "would_skip", "would_fail", "would_stay", "gone", "not_tried", "not_there"]
    } else {
        &["replayed", "replayed_earlier", "failed", "gone", "not_tried", "not_there"]
    };
    interrupt.begin();
    let mut account = Account { out: output::stdout(), json, tally: Tally::of(outcomes) };
    for sequence in &chosen.missing {
        account.take(&Said::new(*sequence, false, "not_there", "is not there", json!({})))?;
    }
    if arguments.dry_run {
        try_all(&desk, &chosen, &interrupt, &mut account).await?;
        account.close(&[
            ("would_publish", "would be published"),
            ("would_fail", "would fail again"),
            ("would_skip", "would be skipped"),
            ("would_stay", "would stay"),
            ("gone", "gone"),
            ("not_tried", "not tried"),
        ])?;
    } else {
        replay_all(&desk, &chosen, &arguments, interrupt, &mut account).await?;
        account.close(&[
            ("replayed", "replayed"),
            ("failed", "stay"),
            ("replayed_earlier", "replayed before"),
            ("gone", "gone"),
            ("not_tried", "not tried"),
        ])?;
    }
    let left = ["failed", "not_tried", "not_there"].iter().any(|outcome| account.tally.count(outcome) > 0);
    Ok(if left { ExitStatus::No } else { ExitStatus::Success })
}

/// Replays letter by letter; an interrupt ends it after the one that is under way.
async fn replay_all(
    desk: &Desk,
    chosen: &Chosen,
    arguments: &ReplayArgs,
    mut interrupt: Interrupt,
    account: &mut Account<impl Write>,
) -> Result<(), CommandError> {
    let replay = ReplaySettings {
        letters: settings::dead_letter_stream(&desk.config),
        letters_prefix: desk.prefix().to_owned(),
        source: settings::way_in(&desk.config),
        again: arguments.again,
    };
    let mut replayer = Replayer::new(&desk.connection, replay).await?;
    let bar = output::progress("replaying", chosen.picks.len() as u64);
    let mut pace = Pace::new(arguments.rate);
    for (done, pick) in chosen.picks.iter().enumerate() {
        tokio::select! {
            biased;
            () = interrupt.asked() => {
                account.tally.add("not_tried", chosen.picks.len() - done);
                break;
            }
            () = pace.turn() => {}
        }
        let said = match replayer.replay(pick).await {
            Ok(outcome) => said(pick.sequence(), outcome, &desk.config.source.stream),
            Err(error) => stays(pick.sequence(), "failed", "stays", &error),
        };
        bar.suspend(|| account.take(&said))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn said(sequence: u64, outcome: Outcome, source: &str) -> Said {
    match outcome {
        Outcome::Replayed(at) => {
            let text = format!("replayed to {source}, sequence {at}");
            Said::new(sequence, true, "replayed", &text, json!({ "source_sequence": at }))
        }
        Outcome::Earlier(at) => {
            let text = format!("had been replayed to {source} before, sequence {at}; removed");
            Said::new(sequence, true, "replayed_earlier", &text, json!({ "source_sequence": at }))
        }
        Outcome::Gone => gone(sequence),
    }
}

fn gone(sequence: u64) -> Said {
    Said::new(sequence, true, "gone", "is gone: somebody else replayed or dropped it", json!({}))
}

fn stays(sequence: u64, outcome: &'static str, verb: &str, error: &ReplayError) -> Said {
    let why = chain(error);
    Said::new(sequence, false, outcome, &format!("{verb}: {why}"), json!({ "error": why }))
}

/// Decides on every letter as the present configuration does, and changes nothing.
async fn try_all(
    desk: &Desk,
    chosen: &Chosen,
    interrupt: &Interrupt,
    account: &mut Account<impl Write>,
) -> Result<(), CommandError> {
    let way = WayBack::open(&desk.connection, desk.letters.stream(), settings::way_in(&desk.config)).await?;
    let limit = SizeLimit::of_stream(&desk.connection, &desk.config.target.stream).await;
    let bar = output::progress("deciding", chosen.picks.len() as u64);
    for (done, pick) in chosen.picks.iter().enumerate() {
        if interrupt.has_come().await {
            account.tally.add("not_tried", chosen.picks.len() - done);
            break;
        }
        let said = match read_letter(&desk.letters, &pick.sequences).await? {
            None => gone(pick.sequence()),
            Some(letter) => match tried(&way, pick, &letter).await? {
                Ok(original) => decided(desk, pick.sequence(), original, limit),
                Err(error) => stays(pick.sequence(), "would_stay", "would stay", &error),
            },
        };
        bar.suspend(|| account.take(&said))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// What would go back, or why the letter would stay.
async fn tried(way: &WayBack, pick: &Pick, letter: &Letter) -> Result<Result<Original, ReplayError>, CommandError> {
    match way.tried(pick, letter).await {
        Err(ReplayError::Failed(failure)) => Err(failure.into()),
        result => Ok(result),
    }
}

fn decided(desk: &Desk, sequence: u64, original: Original, limit: SizeLimit) -> Said {
    let Original { subject, headers, payload } = original;
    let explanation =
        domain::explain_for(&desk.transform, &subject, headers, payload, desk.prefix(), |event| limit.check(event));
    let more = json!({ "decision": explanation });
    let subject = explanation.subject.as_deref().unwrap_or_default();
    match explanation.verdict {
        "publish" => Said::new(sequence, true, "would_publish", &format!("would be published to {subject}"), more),
        "skip" => Said::new(sequence, false, "would_skip", "would be skipped, as `explain --trace` tells of it", more),
        _ => {
            let (reason, detail) = (explanation.reason.unwrap_or_default(), explanation.detail.unwrap_or_default());
            Said::new(sequence, false, "would_fail", &format!("would fail again: {reason}: {detail}"), more)
        }
    }
}
