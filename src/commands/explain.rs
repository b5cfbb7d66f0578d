//! `explain`: what would become of events.

use std::io::{self, IsTerminal, Write};

use indicatif::ProgressBar;
use serde::Serialize;

use super::input::{self, Input};
use super::output::{self, BAD, GOOD, NAME, one_line, styled};
use super::{CommandError, ended, load_elsewhere};
use crate::bootstrap::settings;
use crate::cli::{ExitStatus, ExplainArgs, Output};
use crate::domain::{self, CdcTransform, Explanation, Field, Filtered, Place, Routing, Tested, Trace};

/// Says what would become of each event.
pub fn explain(arguments: &ExplainArgs) -> ExitStatus {
    ended(explain_all(arguments))
}

/// A decision, with its steps if they were asked for.
#[derive(Serialize)]
struct Explained<'a> {
    /// Where the event stands among several.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<input::Place>,
    #[serde(flatten)]
    explanation: &'a Explanation,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Trace>,
}

/// What there is no decision on.
#[derive(Serialize)]
struct Refused<'a> {
    /// Where it stands among several.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<input::Place>,
    error: &'a str,
}

fn explain_all(arguments: &ExplainArgs) -> Result<ExitStatus, CommandError> {
    let config = load_elsewhere(&arguments.config)?;
    let headers = arguments.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect();
    let events = input::read(arguments.input(), arguments.subject.as_deref(), &headers)?;
    let transform = CdcTransform::new(settings::transform(&config));
    let prefix = &config.dead_letter.subject_prefix;
    let for_people = match arguments.output.format {
        Some(format) => format == Output::Text,
        None => io::stdout().is_terminal(),
    };
    let mut out = output::stdout();
    // On a terminal the decisions themselves show how far it is.
    let bar = match io::stdout().is_terminal() {
        true => ProgressBar::hidden(),
        false => output::progress("explaining", events.len() as u64),
    };
    let mut status = ExitStatus::Success;
    for (place, event) in events {
        bar.inc(1);
        let Input { subject, headers, payload } = match event {
            Ok(event) => event,
            Err(why) => {
                status = ExitStatus::BadInput;
                bar.suspend(|| refuse(&mut out, place, &why, for_people))?;
                continue;
            }
        };
        let (explanation, trace) = if arguments.trace {
            let (explanation, trace) = domain::trace(&transform, &subject, headers, &payload, prefix);
            (explanation, Some(trace))
        } else {
            (domain::explain(&transform, &subject, headers, payload, prefix), None)
        };
        if for_people {
            place.iter().try_for_each(|place| write_place(&mut out, place))?;
            write(&mut out, &subject, &explanation)?;
            trace.iter().try_for_each(|trace| write_trace(&mut out, trace))?;
        } else {
            output::json_line(&mut out, &Explained { input: place, explanation: &explanation, trace })?;
        }
    }
    bar.finish_and_clear();
    Ok(status)
}

/// Says why there is no event where one was expected.
fn refuse(out: &mut impl Write, place: Option<input::Place>, why: &str, for_people: bool) -> io::Result<()> {
    if !for_people {
        return output::json_line(out, &Refused { input: place, error: why });
    }
    let place = place.map_or_else(String::new, |input::Place { index, line }| format!("event {index} (line {line}): "));
    eprintln!("error: {place}{}", one_line(why));
    Ok(())
}

/// Which of several events the next decision is about.
fn write_place(out: &mut impl Write, input::Place { index, line }: &input::Place) -> io::Result<()> {
    writeln!(out, "{}", styled(NAME, format!("event {index} (line {line})")))
}

/// A decision for people.
fn write(out: &mut impl Write, from: &str, explanation: &Explanation) -> io::Result<()> {
    let Explanation {
        verdict,
        reason,
        detail,
        subject,
        event_id,
        event_key,
        headers,
        payload,
        unhandled_fields,
        order_key: _,
    } = explanation;
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

/// The steps for people.
fn write_trace(out: &mut impl Write, trace: &Trace) -> io::Result<()> {
    let Trace { source, table, fields, routing, filter, skipped, order_key, order_by, place } = trace;
    let mut step =
        |name: &str, value: &str| writeln!(out, "  {} {}", styled(NAME, format!("{name:<16}")), one_line(value));
    match source {
        Some(source) => {
            let domain::trace::Source { database, schema, table, action } = source;
            step("subject says", &format!("database {database}, schema {schema}, table {table}, {action}"))?;
        }
        None => step("subject says", "nothing: it is none of Sequin's forms")?,
    }
    step("table", table.as_deref().unwrap_or("cannot be told"))?;
    for field in fields {
        step("field", &told_field(field))?;
    }
    for routing in routing {
        step("routing value", &told_routing(routing))?;
    }
    if let Some(Filtered { whole, parts }) = filter {
        step("filter", &told_test(whole))?;
        for part in parts.iter().filter(|_| parts.len() > 1) {
            step("  condition", &told_test(part))?;
        }
    }
    if let Some(why) = skipped {
        step("skipped", why)?;
    }
    step("order key", &format!("{order_key}, by {order_by}"))?;
    if let Some(Place { line, column, pointer, expected }) = place {
        let pointer = pointer.as_ref().map_or_else(String::new, |pointer| format!(", {pointer:?}"));
        step("not as it should", &format!("line {line}, column {column} of the event{pointer}: expected {expected}"))?;
    }
    Ok(())
}

fn told_field(Field { name, kind, declared, fits, edit }: &Field) -> String {
    let fit = match (declared, fits) {
        (Some(declared), Some(true)) => format!(", fits {declared}"),
        (Some(declared), _) => format!(", does NOT fit {declared}"),
        (None, _) => ", not declared".to_owned(),
    };
    let edit = edit.as_ref().map_or_else(String::new, |edit| format!("; {edit}"));
    format!("{name}: {kind}{fit}{edit}")
}

fn told_routing(Routing { name, value, from, pattern, .. }: &Routing) -> String {
    let value = value.as_ref().map_or_else(|| "is not there".to_owned(), |value| format!("= {value:?}"));
    match (from, pattern) {
        (Some(from), Some(pattern)) => format!("{name} {value}, from {from} by {pattern}"),
        (Some(from), None) => format!("{name} {value}, from {from}"),
        (None, _) => format!("{name} {value}, a constant"),
    }
}

fn told_test(Tested { condition, holds }: &Tested) -> String {
    match holds {
        Some(true) => format!("holds: {condition}"),
        Some(false) => format!("does not hold: {condition}"),
        None => format!("cannot be told, since a column was not sent: {condition}"),
    }
}
