//! `dead-letters list`.

use std::io::Write;

use super::select::fits;
use super::{CommandError, Desk, Summary};
use crate::adapters::nats::Letter;
use crate::cli::{ExitStatus, ListArgs, Output};
use crate::commands::output::{self, NAME, one_line, styled};

pub(super) async fn list(arguments: ListArgs) -> Result<ExitStatus, CommandError> {
    let desk = Desk::open(&arguments.config).await?;
    let mut out = output::stdout();
    let json = arguments.output.format == Some(Output::Json);
    let (mut listed, mut there) = (0_u64, 0_u64);
    desk.each(|letter| {
        there += 1;
        if !fits(&desk, &arguments.filter, &letter) {
            return Ok(());
        }
        let summary = desk.summary(&letter);
        if json {
            output::json_line(&mut out, &summary)?;
        } else {
            if listed == 0 {
                let [sequence, time, table] = ["SEQUENCE", "TIME", "TABLE"];
                let head = format!(
                    "{sequence:>8}  {time:<20}  {table:<10}  {:<16}  {:<12}  {:>7}  DETAIL",
                    "REASON", "TENANT", "REPLAYS"
                );
                writeln!(out, "{}", styled(NAME, head))?;
            }
            writeln!(out, "{}", line(&letter, &summary))?;
        }
        listed += 1;
        Ok(())
    })
    .await?;
    if listed == 0 && !json {
        match there {
            0 => writeln!(out, "no dead letters")?,
            there => writeln!(out, "none of {there} dead letters fits")?,
        }
    }
    Ok(ExitStatus::Success)
}

fn line(letter: &Letter, summary: &Summary) -> String {
    // Whole seconds are enough for the eye.
    let time = letter.time.get(..19).map_or_else(|| letter.time.clone(), |time| format!("{time}Z"));
    let Summary { sequence, table, reason, replays, .. } = summary;
    let tenant = one_line(summary.tenant.as_deref().unwrap_or("-"));
    let detail = one_line(summary.damage.as_deref().unwrap_or(&summary.detail));
    let time = one_line(&time);
    format!("{sequence:>8}  {time:<20}  {table:<10}  {reason:<16}  {tenant:<12}  {replays:>7}  {detail}")
}
