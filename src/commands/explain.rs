//! `explain`: what would become of events.

use std::io::{self, IsTerminal, Write};

use super::output::{self, BAD, GOOD, NAME, one_line, styled};
use super::{CommandError, ended, input, load};
use crate::bootstrap::settings;
use crate::cli::{ExitStatus, ExplainArgs, Output};
use crate::domain::{self, Explanation};

/// Says what would become of each event.
pub fn explain(arguments: &ExplainArgs) -> ExitStatus {
    ended(explain_all(arguments))
}

fn explain_all(arguments: &ExplainArgs) -> Result<ExitStatus, CommandError> {
    let config = load(&arguments.config)?;
    let text = input::read(arguments.input()).map_err(CommandError::Input)?;
    let headers = arguments.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect();
    let transform = settings::transform(&config);
    let prefix = &config.dead_letter.subject_prefix;
    let for_people = match arguments.output.format {
        Some(format) => format == Output::Text,
        None => io::stdout().is_terminal(),
    };
    let mut out = output::stdout();
    for event in input::events(&text, arguments.subject.as_deref(), &headers) {
        let explanation = domain::explain(&transform, &event.subject, event.headers, event.payload, prefix);
        if for_people {
            write(&mut out, &event.subject, &explanation)?;
        } else {
            output::json_line(&mut out, &explanation)?;
        }
    }
    Ok(ExitStatus::Success)
}

/// A decision for people.
fn write(out: &mut impl Write, from: &str, explanation: &Explanation) -> io::Result<()> {
    let Explanation { verdict, reason, detail, subject, event_id, event_key, headers, payload, unhandled_fields } =
        explanation;
    let style = if *verdict == "dead_letter" { BAD } else { GOOD };
    let verdict = verdict.replace('_', " ");
    match reason {
        Some(reason) => writeln!(out, "{} {reason}", styled(style, verdict))?,
        None => writeln!(out, "{}", styled(style, verdict))?,
    }
    let mut field =
        |name: &str, value: &str| writeln!(out, "  {} {}", styled(NAME, format!("{name:<16}")), one_line(value));
    field("from", from)?;
    for (name, value) in [("detail", detail), ("to", subject), ("event id", event_id), ("event key", event_key)] {
        if let Some(value) = value {
            field(name, value)?;
        }
    }
    for (name, value) in headers.iter().flatten() {
        field("header", &format!("{name}: {value}"))?;
    }
    if let Some(fields) = unhandled_fields.as_ref().filter(|fields| !fields.is_empty()) {
        field("unhandled fields", &fields.join(", "))?;
    }
    if let Some(payload) = payload {
        field("payload", payload)?;
    }
    Ok(())
}
