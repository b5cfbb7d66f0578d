//! `dead-letters show`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

use super::{CommandError, Desk, Summary, history};
use crate::adapters::nats::{Assembler, Letter};
use crate::cli::{ExitStatus, Output, ShowArgs};
use crate::commands::output::{self, BAD, NAME, lines, one_line, styled};

/// A letter with everything that is known of it.
#[derive(Debug, Serialize)]
struct Whole {
    #[serde(flatten)]
    summary: Summary,
    /// What it failed of before, oldest first.
    history: Vec<Value>,
    /// The headers of the original; the last of those with one name.
    headers: Option<BTreeMap<String, String>>,
    /// The body of the original, exactly, if it is text.
    payload: Option<String>,
    /// The body of the original if it is not.
    payload_base64: Option<String>,
}

pub(super) async fn show(arguments: ShowArgs) -> Result<ExitStatus, CommandError> {
    let desk = Desk::open(&arguments.config).await?;
    let mut out = output::stdout();
    let json = arguments.output.format == Some(Output::Json);
    let mut status = ExitStatus::Success;
    for sequence in arguments.sequences {
        let Some(letter) = find(&desk, sequence).await? else {
            status = ExitStatus::No;
            if json {
                output::json_line(&mut out, &json!({ "sequence": sequence, "outcome": "not_there" }))?;
            } else {
                eprintln!("error: there is no dead letter {sequence} in {}", desk.letters.stream());
            }
            continue;
        };
        let whole = whole(&desk, &letter);
        if json {
            output::json_line(&mut out, &whole)?;
        } else {
            write(&mut out, &whole)?;
        }
    }
    Ok(status)
}

/// The letter that has this sequence; where it is one of several parts, the stream is read for the others.
async fn find(desk: &Desk, sequence: u64) -> Result<Option<Letter>, CommandError> {
    desk.letters.info().await?;
    // Sequences begin with 1, and the server takes a question for 0 as no question at all.
    if sequence == 0 {
        return Ok(None);
    }
    let Some(message) = desk.letters.get(sequence).await? else { return Ok(None) };
    if let Some(letter) = Assembler::default().add(message) {
        return Ok(Some(letter));
    }
    let mut found = None;
    desk.each(|letter| {
        if letter.sequences.contains(&sequence) {
            found = Some(letter);
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

fn whole(desk: &Desk, letter: &Letter) -> Whole {
    let original = letter.original.as_ref().ok();
    let text = original.and_then(|original| String::from_utf8(original.payload.to_vec()).ok());
    Whole {
        summary: desk.summary(letter),
        history: history(letter),
        headers: original.map(|original| original.headers.iter().cloned().collect()),
        payload_base64: original.filter(|_| text.is_none()).map(|original| STANDARD.encode(&original.payload)),
        payload: text,
    }
}

fn write(out: &mut impl Write, whole: &Whole) -> io::Result<()> {
    let Whole { summary, history, headers, payload, payload_base64 } = whole;
    writeln!(out, "{}", styled(NAME, format!("dead letter {}", summary.sequence)))?;
    let mut field = |name: &str, value: &str| writeln!(out, "  {name:<12} {}", one_line(value));
    field("reason", &summary.reason)?;
    field("detail", &summary.detail)?;
    field("time", &summary.time)?;
    field("table", &summary.table)?;
    field("tenant", summary.tenant.as_deref().unwrap_or("-"))?;
    field("subject", summary.subject.as_deref().unwrap_or("-"))?;
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    field("from", &format!("{} sequence {}", summary.stream, number(summary.source_sequence)))?;
    field("deliveries", &number(summary.deliveries))?;
    field("replays", &summary.replays.to_string())?;
    for past in history {
        let text = |name: &str| past[name].as_str().unwrap_or_default();
        field("before", &format!("{} {}: {}", text("time"), text("reason"), text("detail")))?;
    }
    // What a replay has added is told above.
    let own = |name: &str| name == "Cdc-History" || name == "Cdc-Replays";
    for (name, value) in headers.iter().flatten().filter(|(name, _)| !own(name)) {
        field("header", &format!("{name}: {value}"))?;
    }
    if let Some(damage) = &summary.damage {
        writeln!(out, "  {}", styled(BAD, one_line(damage)))?;
    }
    match (payload, payload_base64) {
        (Some(text), _) => {
            // JSON may hold what moves the cursor or changes colours as well.
            let is_json = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
            let shown = if is_json { lines(text) } else { one_line(text) };
            writeln!(out, "\n{shown}\n")
        }
        (None, Some(encoded)) => writeln!(out, "\nnot text, as base64: {encoded}\n"),
        (None, None) => writeln!(out),
    }
}
