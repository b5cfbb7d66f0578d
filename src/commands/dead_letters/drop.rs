//! `dead-letters drop`.

use std::io::Write;

use serde_json::json;

use super::select::choose;
use super::tally::Tally;
use super::{CommandError, Desk};
use crate::adapters::nats::{Claims, Pick};
use crate::cli::{DropArgs, ExitStatus, Output};
use crate::commands::interrupt::Interrupt;
use crate::commands::output::{self, BAD, styled};

pub(super) async fn drop_letters(arguments: DropArgs, interrupt: Interrupt) -> Result<ExitStatus, CommandError> {
    let desk = Desk::open(&arguments.config).await?;
    let chosen = choose(&desk, &arguments.which).await?;
    let claims = Claims::of(&desk.connection, &desk.letters, desk.prefix()).await?;
    let json = arguments.output.format == Some(Output::Json);
    let mut out = output::stdout();
    let outcomes: &[_] = match arguments.dry_run {
        true => &["would_be_dropped", "not_tried", "not_there"],
        false => &["dropped", "gone", "being_replayed", "not_tried", "not_there"],
    };
    let mut tally = Tally::of(outcomes);
    interrupt.begin();
    let bar = output::progress("dropping", chosen.picks.len() as u64);
    let mut say = |sequence: u64, outcome: &'static str| {
        tally.add(outcome, 1);
        bar.suspend(|| match json {
            true => output::json_line(&mut out, &json!({ "sequence": sequence, "outcome": outcome })),
            false => writeln!(out, "{sequence} {}", in_words(outcome)),
        })
    };
    for sequence in &chosen.missing {
        say(*sequence, "not_there")?;
    }
    let mut tried = 0;
    for pick in &chosen.picks {
        if interrupt.has_come().await {
            break;
        }
        let outcome = match arguments.dry_run {
            true => "would_be_dropped",
            false => drop_one(&desk, &claims, pick).await?,
        };
        say(pick.sequence(), outcome)?;
        bar.inc(1);
        tried += 1;
    }
    bar.finish_and_clear();
    tally.add("not_tried", chosen.picks.len() - tried);
    let left = ["not_there", "being_replayed", "not_tried"].iter().any(|outcome| tally.count(outcome) > 0);
    if json {
        output::json_line(&mut out, &tally.to_json())?;
    } else {
        let words: &[_] = match arguments.dry_run {
            true => &[("would_be_dropped", "would be dropped"), ("not_tried", "not tried")],
            false => {
                &[("dropped", "dropped"), ("being_replayed", "stay"), ("gone", "gone"), ("not_tried", "not tried")]
            }
        };
        writeln!(out, "{}", tally.to_text(words))?;
        if !chosen.missing.is_empty() {
            writeln!(out, "{}", styled(BAD, format!("{} not there", chosen.missing.len())))?;
        }
    }
    Ok(if left { ExitStatus::No } else { ExitStatus::Success })
}

async fn drop_one(desk: &Desk, claims: &Claims, pick: &Pick) -> Result<&'static str, CommandError> {
    // The source may have it already: what is said to be dropped must not be published.
    if claims.is_being_replayed(pick).await? {
        return Ok("being_replayed");
    }
    let mut was_there = false;
    // The first message last: it names the letter.
    for sequence in pick.sequences.iter().rev() {
        was_there |= desk.letters.delete(*sequence).await?;
    }
    Ok(if was_there { "dropped" } else { "gone" })
}

fn in_words(outcome: &str) -> String {
    match outcome {
        "being_replayed" => "stays: somebody is replaying it, or was interrupted; drop it again in a minute".to_owned(),
        "gone" => "is gone: somebody else replayed or dropped it".to_owned(),
        outcome => outcome.replace('_', " "),
    }
}
