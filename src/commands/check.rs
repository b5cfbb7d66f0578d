//! `check`: what `run` would use, create or change.

use std::io::{self, Write};

use serde::Serialize;

use super::{CommandError, ended, load, load_elsewhere, output};
use crate::adapters::nats::{Connection, Misfit, NoJetStream, Plan, SetupError, consumers, streams};
use crate::adapters::redis::RedisStore;
use crate::bootstrap::settings;
use crate::cli::{CheckArgs, ExitStatus, Output};
use crate::config::{Config, ConfigError, DedupKind, Origin, Problem};
use crate::logging::chain;

/// Configuration and connections: says what `run` would use, create or change, and touches nothing.
pub async fn check(arguments: CheckArgs) -> ExitStatus {
    ended(look(arguments).await)
}

/// What was found, as it is written in JSON.
#[derive(Serialize)]
struct Report {
    /// Whether the configuration can be used.
    valid: bool,
    problems: Vec<Wrong>,
    warnings: Vec<String>,
    findings: Vec<Finding>,
}

/// A problem of the configuration.
#[derive(Serialize)]
struct Wrong {
    key: String,
    value: String,
    origin: String,
    file: Option<String>,
    line: Option<usize>,
    expected: String,
}

/// What is there, and what `run` would do with it.
#[derive(Serialize)]
struct Finding {
    about: String,
    said: String,
    ok: bool,
    #[serde(skip)]
    status: ExitStatus,
}

async fn look(arguments: CheckArgs) -> Result<ExitStatus, CommandError> {
    let json = arguments.output.format == Some(Output::Json);
    let mut out = output::stdout();
    let config = match if arguments.offline { load_elsewhere(&arguments.config) } else { load(&arguments.config) } {
        Ok(config) => config,
        Err(ConfigError { problems }) if json => {
            let problems = problems.into_iter().map(Wrong::from).collect();
            let report = Report { valid: false, problems, warnings: Vec::new(), findings: Vec::new() };
            output::json_line(&mut out, &report)?;
            return Ok(ExitStatus::BadConfig);
        }
        Err(error) => return Err(error.into()),
    };
    let warnings = config.warnings().to_vec();
    let mut report = Report { valid: true, problems: Vec::new(), warnings, findings: Vec::new() };
    if !arguments.offline {
        report.look_at_nats(&config).await;
        report.look_at_dedup(&config).await;
    }
    if json {
        output::json_line(&mut out, &report)?
    } else {
        report.write(&mut out)?
    }
    Ok(report.status())
}

impl Report {
    fn found(&mut self, about: impl Into<String>, said: impl Into<String>) {
        let (about, said) = (about.into(), said.into());
        self.findings.push(Finding { about, said, ok: true, status: ExitStatus::Success });
    }

    fn failed(&mut self, about: impl Into<String>, error: &(dyn std::error::Error + 'static), is_transient: bool) {
        let status = if is_transient { ExitStatus::Unreachable } else { ExitStatus::BadConfig };
        self.findings.push(Finding { about: about.into(), said: chain(error).to_string(), ok: false, status });
    }

    /// Whether there was an answer.
    fn planned(&mut self, about: String, plan: Result<(Plan, Option<Misfit>), SetupError>) -> bool {
        match plan {
            Ok((plan, misfit)) => {
                self.found(about, in_words(&plan));
                self.warnings.extend(misfit.map(|misfit| misfit.to_string()));
                true
            }
            Err(error) => {
                self.failed(about, &error, error.is_transient());
                !error.is_transient()
            }
        }
    }

    /// The status of the first that failed.
    fn status(&self) -> ExitStatus {
        let failed = self.findings.iter().find(|found| !found.ok);
        failed.map_or(ExitStatus::Success, |found| found.status)
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "configuration: valid")?;
        for Finding { about, said, ok, .. } in &self.findings {
            writeln!(out, "{}{about}: {said}", if *ok { "" } else { "error: " })?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
    }

    async fn look_at_nats(&mut self, config: &Config) {
        let connection = match Connection::connect(&settings::nats(config, "check"), |_| {}).await {
            Ok(connection) => connection,
            Err(error) => return self.failed("nats", &error, error.class().is_some()),
        };
        self.found("nats", format!("connected to nats-server {}", connection.client().server_info().version));
        let (source, target) = (settings::source_stream(config), settings::target_stream(config));
        let planned = streams::plan_stream(&connection, &source).await;
        if let Err(SetupError::Failed(failure)) = &planned
            && failure.cause.is::<NoJetStream>()
        {
            return self.failed("nats", failure, true);
        }
        let is_known = self.planned(format!("stream {}", source.name), planned);
        let planned = streams::plan_target(&connection, &target, config.source.ack_wait).await;
        self.planned(format!("stream {}", target.name), planned);
        let letters = settings::dead_letter_stream(config);
        let planned = streams::plan_stream(&connection, &letters).await;
        self.planned(format!("stream {}", letters.name), planned);
        // Of the consumer of a stream that could not be asked for there is nothing to say but that again.
        if is_known {
            let planned = plan_consumer(&connection, config).await;
            self.planned(format!("consumer {}", config.source.consumer), planned.map(|plan| (plan, None)));
        }
    }

    async fn look_at_dedup(&mut self, config: &Config) {
        if config.dedup.store == DedupKind::Memory {
            return self.found("dedup", "in memory, good for one replica");
        }
        let store = match RedisStore::new(&settings::redis(config)) {
            Ok(store) => store,
            Err(error) => return self.failed("dedup", &error, false),
        };
        match store.warnings().await {
            Ok(warnings) => {
                self.found("dedup", "redis answers");
                self.warnings.extend(warnings);
            }
            Err(failure) => self.failed("dedup", &failure, true),
        }
    }
}

impl From<Problem> for Wrong {
    fn from(Problem { key, value, origin, line, expected }: Problem) -> Self {
        let file = match &origin {
            Origin::File(path) => Some(path.display().to_string()),
            Origin::Default | Origin::Environment(_) => None,
        };
        Self { key, value, origin: origin.to_string(), file, line, expected }
    }
}

async fn plan_consumer(connection: &Connection, config: &Config) -> Result<Plan, SetupError> {
    let (stream, consumer) = (settings::source_stream(config), settings::consumer(config));
    match streams::find_stream(connection, &stream.name).await? {
        Some(info) => consumers::plan_consumer(connection, &stream.name, &info.subjects, &consumer).await,
        None => Ok(Plan::Create),
    }
}

fn in_words(plan: &Plan) -> String {
    match plan {
        Plan::Use => "exists, is used as it is".to_owned(),
        Plan::Create => "would be created".to_owned(),
        Plan::Update(settings) => format!("exists, would be changed: {}", settings.join(", ")),
    }
}
