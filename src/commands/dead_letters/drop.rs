//! `dead-letters drop`.

use std::io::Write;

use serde_json::json;

use super::select::choose;
use super::{CommandError, Desk};
use crate::cli::{DropArgs, ExitStatus, Output};
use crate::commands::output::{self, BAD, styled};

pub(super) async fn drop_letters(arguments: DropArgs) -> Result<ExitStatus, CommandError> {
    let desk = Desk::open(&arguments.config).await?;
    let chosen = choose(&desk, &arguments.which).await?;
    let json = arguments.output.format == Some(Output::Json);
    let mut out = output::stdout();
    let bar = output::progress("dropping", chosen.picks.len() as u64);
    let mut say = |sequence: u64, outcome: &str| {
        bar.suspend(|| match json {
            true => output::json_line(&mut out, &json!({ "sequence": sequence, "outcome": outcome })),
            false => writeln!(out, "{sequence} {}", outcome.replace('_', " ")),
        })
    };
    for sequence in &chosen.missing {
        say(*sequence, "not_there")?;
    }
    let mut dropped = 0_usize;
    for pick in &chosen.picks {
        if arguments.dry_run {
            say(pick.sequence(), "would_be_dropped")?;
            continue;
        }
        let mut was_there = false;
        // The first message last: it names the letter.
        for sequence in pick.sequences.iter().rev() {
            was_there |= desk.letters.delete(*sequence).await?;
        }
        dropped += usize::from(was_there);
        say(pick.sequence(), if was_there { "dropped" } else { "not_there" })?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    if !json {
        let what = if arguments.dry_run { chosen.picks.len() } else { dropped };
        let verb = if arguments.dry_run { "would be dropped" } else { "dropped" };
        writeln!(out, "{what} {verb}")?;
    }
    if chosen.missing.is_empty() {
        return Ok(ExitStatus::Success);
    }
    if !json {
        writeln!(out, "{}", styled(BAD, format!("{} not there", chosen.missing.len())))?;
    }
    Ok(ExitStatus::No)
}
