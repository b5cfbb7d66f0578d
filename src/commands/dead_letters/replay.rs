//! `dead-letters replay`.

use std::io::{self, Write};
use std::pin::pin;

use futures::FutureExt;
use serde_json::{Value, json};

use super::select::{Chosen, choose};
use super::{CommandError, Desk};
use crate::adapters::nats::{Letter, Outcome, Pick, ReplaySettings, Replayer, StreamReader, read_letter, replayed};
use crate::bootstrap::settings;
use crate::cli::{ExitStatus, Output, ReplayArgs};
use crate::commands::Pace;
use crate::commands::output::{self, BAD, GOOD, one_line, styled};
use crate::domain::{self, CdcTransform, Explanation};
use crate::logging::chain;

/// What became of a letter, in words for people and for machines.
struct Said {
    good: bool,
    text: String,
    json: Value,
}

impl Said {
    fn new(pick: &Pick, good: bool, outcome: &str, text: &str, more: Value) -> Self {
        let mut json = json!({ "sequence": pick.sequence(), "outcome": outcome });
        if let (Value::Object(json), Value::Object(more)) = (&mut json, more) {
            json.extend(more);
        }
        Self { good, text: format!("{} {}", pick.sequence(), one_line(text)), json }
    }

    fn write(&self, out: &mut impl Write, json: bool) -> io::Result<()> {
        if json {
            return output::json_line(out, &self.json);
        }
        writeln!(out, "{}", styled(if self.good { GOOD } else { BAD }, &self.text))
    }
}

pub(super) async fn replay(arguments: ReplayArgs) -> Result<ExitStatus, CommandError> {
    let desk = Desk::open(&arguments.config).await?;
    let chosen = choose(&desk, &arguments.which).await?;
    let mut out = output::stdout();
    let json = arguments.output.format == Some(Output::Json);
    for sequence in &chosen.missing {
        let said = json!({ "sequence": sequence, "outcome": "not_there" });
        match json {
            true => output::json_line(&mut out, &said)?,
            false => writeln!(out, "{}", styled(BAD, format!("{sequence} is not there")))?,
        }
    }
    let (good, bad) = if arguments.dry_run {
        try_all(&desk, &chosen, json, &mut out).await?
    } else {
        replay_all(&desk, &chosen, &arguments, &mut out).await?
    };
    if !json {
        let [done, left] = if arguments.dry_run { ["would be published", "would not"] } else { ["replayed", "stay"] };
        writeln!(out, "{good} {done}, {bad} {left}")?;
    }
    let all_good = arguments.dry_run || bad == 0;
    Ok(if all_good && chosen.missing.is_empty() { ExitStatus::Success } else { ExitStatus::No })
}

/// Replays letter by letter; an interrupt ends it after the one that is under way.
async fn replay_all(
    desk: &Desk,
    chosen: &Chosen,
    arguments: &ReplayArgs,
    out: &mut impl Write,
) -> Result<(u64, usize), CommandError> {
    let replay = ReplaySettings {
        letters: settings::dead_letter_stream(&desk.config),
        letters_prefix: desk.prefix().to_owned(),
        source: desk.config.source.stream.clone(),
        again: arguments.again,
    };
    let mut replayer = Replayer::new(&desk.connection, replay).await?;
    let mut interrupted = pin!(tokio::signal::ctrl_c().fuse());
    let bar = output::progress("replaying", chosen.picks.len() as u64);
    let json = arguments.output.format == Some(Output::Json);
    let (mut pace, mut done) = (Pace::new(arguments.rate), 0);
    for pick in &chosen.picks {
        tokio::select! {
            biased;
            _ = &mut interrupted => break,
            () = pace.turn() => {}
        }
        let said = match replayer.replay(pick).await {
            Ok(outcome) => {
                done += 1;
                said(pick, outcome, &desk.config.source.stream)
            }
            Err(error) => {
                let why = chain(&error);
                Said::new(pick, false, "failed", &format!("stays: {why}"), json!({ "error": why }))
            }
        };
        bar.suspend(|| said.write(out, json))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((done, chosen.picks.len() - usize::try_from(done).unwrap_or(usize::MAX)))
}

fn said(pick: &Pick, outcome: Outcome, source: &str) -> Said {
    match outcome {
        Outcome::Replayed(at) => Said::new(
            pick,
            true,
            "replayed",
            &format!("replayed to {source}, sequence {at}"),
            json!({ "source_sequence": at }),
        ),
        Outcome::Earlier(at) => {
            let text = format!("had been replayed to {source} before, sequence {at}; removed");
            Said::new(pick, true, "replayed_earlier", &text, json!({ "source_sequence": at }))
        }
        Outcome::Gone => Said::new(pick, true, "gone", "is gone: somebody else replayed or dropped it", json!({})),
    }
}

/// Decides on every letter as the present configuration does, and changes nothing.
async fn try_all(desk: &Desk, chosen: &Chosen, json: bool, out: &mut impl Write) -> Result<(u64, usize), CommandError> {
    let target = StreamReader::new(desk.connection.clone(), &desk.config.target.stream);
    let own = target.info().await.ok().and_then(|info| info.max_message_size);
    let limit = own.unwrap_or(usize::MAX).min(desk.connection.client().max_payload());
    let transform = CdcTransform::new(settings::transform(&desk.config));
    let (mut good, mut bad) = (0, 0);
    for pick in &chosen.picks {
        let letter = read_letter(&desk.letters, &pick.sequences).await?;
        let said = match letter {
            None => Said::new(pick, false, "gone", "is gone", json!({})),
            Some(letter) => decided(pick, &letter, &transform, desk.prefix(), limit),
        };
        if said.good {
            good += 1
        } else {
            bad += 1
        }
        said.write(out, json)?;
    }
    Ok((good, bad))
}

fn decided(pick: &Pick, letter: &Letter, transform: &CdcTransform, prefix: &str, limit: usize) -> Said {
    let original = match replayed(letter) {
        Ok(original) => original,
        Err(damage) => {
            let why = damage.to_string();
            return Said::new(pick, false, "would_stay", &format!("would stay: {why}"), json!({ "error": why }));
        }
    };
    let explanation = domain::explain(transform, &original.subject, original.headers, original.payload, prefix);
    let more = json!({ "decision": explanation });
    let subject = explanation.subject.as_deref().unwrap_or_default();
    match explanation.verdict {
        "publish" if size(&explanation) > limit => {
            let text = format!("would be too_large again: more than the {limit} bytes that the target accepts");
            Said::new(pick, false, "would_fail", &text, more)
        }
        "publish" => Said::new(pick, true, "would_publish", &format!("would be published to {subject}"), more),
        "skip" => Said::new(pick, false, "would_skip", "would be skipped: its table is not enabled", more),
        _ => {
            let (reason, detail) = (explanation.reason.unwrap_or_default(), explanation.detail.unwrap_or_default());
            Said::new(pick, false, "would_fail", &format!("would fail again: {reason}: {detail}"), more)
        }
    }
}

/// Bytes of headers and payload.
fn size(explanation: &Explanation) -> usize {
    let headers = explanation.headers.iter().flatten().map(|(name, value)| name.len() + value.len() + 4);
    headers.sum::<usize>() + explanation.payload.as_ref().map_or(0, String::len)
}
