//! `generate`: realistic traffic, to standard output or into a stream.

use std::io::{self, BufWriter, Write};
use std::time::Instant;

use async_nats::jetstream;
use cdc_actors::ports::{Clock, SystemClock};
use serde_json::json;

use super::envelope::Line;
use super::interrupt::{Interrupt, interruptible};
use super::{CommandError, Pace, connect, ended, load, load_elsewhere, output};
use crate::adapters::nats::StreamReader;
use crate::bootstrap::settings;
use crate::cli::{ExitStatus, GenerateArgs, Output};
use crate::config::Config;
use crate::demo::declared::TableTraffic;
use crate::demo::feeding::feed;
use crate::demo::traffic::{SourceEvent, Traffic};
use crate::domain::table::Table;
use crate::domain::{CdcTransform, DeclaredTable};

/// Generates events.
pub async fn generate(arguments: GenerateArgs) -> ExitStatus {
    match arguments.publish {
        true => interruptible(|interrupt| publish(arguments, interrupt)).await,
        false => ended(print(arguments).await),
    }
}

fn traffic(arguments: &GenerateArgs) -> Result<impl Iterator<Item = SourceEvent> + use<>, CommandError> {
    let start = arguments.start.map_or_else(|| SystemClock.unix_nanos() / 1_000, |time| time.as_microsecond());
    let (ends, most) = (arguments.lasting.map(|lasting| Instant::now() + lasting), arguments.events());
    let events: Box<dyn Iterator<Item = SourceEvent>> = match &arguments.tables[..] {
        [] => Box::new(Traffic::with_mix(arguments.seed, start, arguments.mix.clone())),
        names => {
            let config = load_elsewhere(&arguments.config)?;
            let transform = CdcTransform::new(settings::transform(&config));
            let mix = arguments.mix.of_any_table().ok_or(CommandError::NoKind)?;
            Box::new(TableTraffic::new(declared(&config, names)?, transform, mix, arguments.seed, start))
        }
    };
    let in_time = move |_: &SourceEvent| ends.is_none_or(|ends| Instant::now() < ends);
    Ok(events.take(usize::try_from(most).unwrap_or(usize::MAX)).take_while(in_time))
}

/// The declared tables of these names.
fn declared(config: &Config, names: &[String]) -> Result<Vec<DeclaredTable>, CommandError> {
    let enabled = || config.tables.declared.iter().filter(|table| table.enabled());
    let table = |name: &String| {
        let found = enabled().find(|table| table.name() == name).cloned();
        found.ok_or_else(|| CommandError::NoSuchTable {
            table: name.clone(),
            declared: enabled().map(|table| table.name()).collect(),
        })
    };
    names.iter().map(table).collect()
}

/// One line an event.
async fn print(arguments: GenerateArgs) -> Result<ExitStatus, CommandError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut pace = Pace::new(arguments.rate);
    for event in traffic(&arguments)? {
        pace.turn().await;
        output::json_line(&mut out, &Line::of(&event))?;
        if arguments.rate.is_some() {
            out.flush()?;
        }
    }
    out.flush()?;
    Ok(ExitStatus::Success)
}

async fn publish(arguments: GenerateArgs, interrupt: Interrupt) -> Result<ExitStatus, CommandError> {
    let config = load(&arguments.config)?;
    let connection = connect(&config, "generate").await?;
    let stream = config.source.stream.as_str();
    StreamReader::new(connection.clone(), stream).info().await?;
    let context = jetstream::new(connection.client().clone());
    let total = if arguments.lasting.is_some() { 0 } else { arguments.events() };
    let bar = output::progress("publishing", total);
    let (mut published, mut known, begun) = (0_u64, 0_u64, Instant::now());
    interrupt.begin();
    let events = traffic(&arguments)?.take_while(|_| !interrupt.is_asked());
    let fed = feed(&context, events, Pace::new(arguments.rate), Some(stream), |duplicate| {
        if duplicate {
            known += 1
        } else {
            published += 1
        }
        bar.inc(1);
    });
    let fed = fed.await;
    bar.finish_and_clear();
    let (seconds, interrupted) = (begun.elapsed().as_secs_f64(), interrupt.is_asked());
    let mut out = output::stdout();
    if arguments.output.format == Some(Output::Json) {
        let said = json!({
            "stream": stream, "published": published, "known_before": known, "seconds": seconds, "interrupted": interrupted,
        });
        output::json_line(&mut out, &said)?;
    } else {
        let rest = if interrupted { "; interrupted before the end" } else { "" };
        writeln!(out, "{published} published into {stream} in {seconds:.1} s, {known} it knew already{rest}")?;
    }
    fed.map_err(CommandError::NotPublished)?;
    Ok(if interrupted { ExitStatus::No } else { ExitStatus::Success })
}
