//! `preview`: what a configuration would do with the messages of the real source stream, without touching it.

mod against;
mod report;
mod sight;

use std::io;

use serde_json::json;

use self::against::Comparison;
use self::report::Report;
use self::sight::Sight;
use super::interrupt::{Interrupt, interruptible};
use super::{CommandError, connect, load, output};
use crate::adapters::nats::{Connection, SizeLimit, StoredMessage, StreamReader, gives};
use crate::bootstrap::settings;
use crate::cli::{ConfigArgs, ExitStatus, Output, PreviewArgs};
use crate::config::Config;
use crate::domain::{self, CdcTransform, Explanation};

/// Says what would become of messages of the source stream.
pub async fn preview(arguments: PreviewArgs) -> ExitStatus {
    interruptible(|interrupt| look(arguments, interrupt)).await
}

/// A configuration that decides.
struct Judge {
    transform: CdcTransform,
    limit: SizeLimit,
    dead_letters: String,
    stream: String,
    subjects: Vec<String>,
}

impl Judge {
    async fn new(config: &Config, connection: &Connection) -> Self {
        let transform = CdcTransform::new(settings::transform(config));
        let limit = SizeLimit::of_stream(connection, &config.target.stream).await;
        let (stream, subjects) = (config.source.stream.clone(), config.source.subjects.clone());
        Self { transform, limit, dead_letters: config.dead_letter.subject_prefix.clone(), stream, subjects }
    }

    /// The decision of the service's own transform, and what the target's limit makes of it.
    fn decide(&self, message: &StoredMessage) -> Explanation {
        let StoredMessage { subject, headers, payload, .. } = message;
        let (headers, payload) = (headers.clone(), payload.clone());
        domain::explain_for(&self.transform, subject, headers, payload, &self.dead_letters, |event| {
            self.limit.check(event)
        })
    }

    /// The same of a message that may be for another configuration alone.
    fn decide_if_received(&self, message: &StoredMessage) -> Explanation {
        match gives(&self.subjects, &message.subject) {
            true => self.decide(message),
            false => Explanation::not_received(),
        }
    }
}

/// What is shown of the messages.
enum View {
    /// Every decision.
    Each,
    /// What they come to.
    Report(Report),
    /// What differs.
    Comparison(Box<Comparison>),
}

impl View {
    /// Says what the messages came to; `others` were come across, and nobody receives them.
    fn close(self, out: &mut impl io::Write, json: bool, stream: &str, others: u64) -> io::Result<()> {
        match (self, json) {
            (Self::Each, _) => Ok(()),
            (Self::Report(report), true) => output::json_line(out, &report.to_json(stream, others)),
            (Self::Report(report), false) => report.write(out, stream, others),
            (Self::Comparison(comparison), true) => output::json_line(out, &comparison.to_json(stream, others)),
            (Self::Comparison(comparison), false) => comparison.write(out, stream, others),
        }
    }
}

async fn look(arguments: PreviewArgs, mut interrupt: Interrupt) -> Result<ExitStatus, CommandError> {
    let config = load(&arguments.config)?;
    let against = arguments.against.as_ref().map(|file| load(&ConfigArgs { config: Some(file.clone()) }));
    let against = against.transpose()?;
    let connection = connect(&config, "preview").await?;
    let judge = Judge::new(&config, &connection).await;
    let old = match &against {
        Some(config) => Some(Judge::new(config, &connection).await),
        None => None,
    };
    let reader = StreamReader::new(connection.clone(), &judge.stream);
    let info = reader.info().await?;
    // What only one of the two receives is what they differ in.
    let judges = [Some(&judge), old.as_ref()];
    let filters: Vec<_> = judges.into_iter().flatten().flat_map(|judge| judge.subjects.clone()).collect();
    let mut sight = Sight::open(&arguments, &connection, reader, &info, &filters).await?;
    let mut view = match old {
        Some(old) => View::Comparison(Box::new(Comparison::new(old, arguments.samples))),
        None if arguments.each => View::Each,
        None => View::Report(Report::new(arguments.samples)),
    };
    let json = arguments.output.format == Some(Output::Json);
    let mut out = output::stdout();
    let bar = output::progress("reading the source", sight.total());
    interrupt.begin();
    let mut status = ExitStatus::Success;
    loop {
        let message = tokio::select! {
            biased;
            () = interrupt.asked() => {
                // What comes from now on has no end but this one.
                if !arguments.live {
                    eprintln!("interrupted before the end: this is what was seen until then");
                    status = ExitStatus::No;
                }
                break;
            }
            message = sight.next() => message?,
        };
        let Some(message) = message else { break };
        bar.inc(1);
        match &mut view {
            View::Each => bar.suspend(|| write_each(&mut out, &message, &judge.decide(&message), json))?,
            View::Report(report) => report.add(&message, judge.decide(&message)),
            View::Comparison(comparison) => comparison.add(&message, &judge.decide_if_received(&message)),
        }
    }
    bar.finish_and_clear();
    view.close(&mut out, json, &judge.stream, sight.passed_over())?;
    Ok(status)
}

fn write_each(out: &mut impl io::Write, message: &StoredMessage, decision: &Explanation, json: bool) -> io::Result<()> {
    if json {
        let line = json!({ "sequence": sequence(message), "source_subject": message.subject, "decision": decision });
        return output::json_line(out, &line);
    }
    let verdict = verdict(decision);
    let to = decision.subject.as_deref().unwrap_or("-");
    let place = sequence(message).map_or_else(|| "-".to_owned(), |sequence| sequence.to_string());
    writeln!(out, "{place:>10}  {verdict:<28}  {}  ->  {}", output::one_line(&message.subject), output::one_line(to))
}

/// Its place in the stream; `None` for one that was seen on its way there.
fn sequence(message: &StoredMessage) -> Option<u64> {
    Some(message.sequence).filter(|sequence| *sequence > 0)
}

/// A verdict with its reason.
fn verdict(decision: &Explanation) -> String {
    match decision.reason {
        Some(reason) => format!("{}: {reason}", decision.verdict),
        None => decision.verdict.to_owned(),
    }
}
