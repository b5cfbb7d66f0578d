//! What the commands do, apart from the demo.

use std::io::{self, Read, Write};
use std::pin::pin;

use actix_rt::signal::unix::{SignalKind, signal};
use cdc_actors::supervisor::ExitReason;
use slog::{Logger, crit, error};
use tokio::sync::oneshot;

use crate::adapters::nats::{Connection, Plan, SetupError, streams};
use crate::adapters::redis::RedisStore;
use crate::bootstrap::{StartError, settings};
use crate::cli::{ConfigArgs, ExitStatus, ExplainArgs};
use crate::config::{Config, DedupKind, process_environment};
use crate::domain;
use crate::logging::{self, chain};

fn load(arguments: &ConfigArgs) -> Result<Config, ExitStatus> {
    Config::load(arguments.config.as_deref(), process_environment()).map_err(|error| {
        eprintln!("{error}");
        ExitStatus::BadConfig
    })
}

/// The service, until a signal, the guard or a failed start ends it.
pub async fn run(arguments: ConfigArgs) -> ExitStatus {
    let config = match load(&arguments) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let (logger, _guard) = logging::logger(&config.log);
    let (mut interrupt, mut terminate) = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => {
            crit!(logger, "cannot listen for signals"; "error" => %error);
            return ExitStatus::GuardTripped;
        }
    };
    let (stop, stopped) = oneshot::channel();
    let mut stop = Some(stop);
    let mut serving = pin!(crate::run(&config, &logger, async { drop(stopped.await) }));
    loop {
        let status = tokio::select! {
            served = &mut serving => return finish(served, &logger),
            _ = interrupt.recv() => ExitStatus::Interrupted,
            _ = terminate.recv() => ExitStatus::Terminated,
        };
        // The first signal asks for the controlled shutdown, the second ends it.
        match stop.take() {
            Some(stop) => drop(stop.send(())),
            None => return status,
        }
    }
}

fn finish(served: Result<ExitReason, StartError>, logger: &Logger) -> ExitStatus {
    match served {
        Ok(ExitReason::Asked) => ExitStatus::Success,
        Ok(ExitReason::GuardTripped(why)) => {
            crit!(logger, "gave up, to be started again"; "error" => why);
            ExitStatus::GuardTripped
        }
        Err(error) => {
            error!(logger, "could not start"; "error" => chain(&error));
            error.status()
        }
    }
}

/// Configuration and connections: says what `run` would use, create or change, and touches nothing.
pub async fn check(arguments: ConfigArgs) -> ExitStatus {
    let config = match load(&arguments) {
        Ok(config) => config,
        Err(status) => return status,
    };
    println!("configuration: valid");
    for warning in config.warnings() {
        println!("warning: {warning}");
    }
    let found = [check_nats(&config).await, check_dedup(&config).await];
    found.into_iter().find(|status| *status != ExitStatus::Success).unwrap_or(ExitStatus::Success)
}

async fn check_nats(config: &Config) -> ExitStatus {
    let connection = match Connection::connect(&settings::nats(config, "check"), |_| {}).await {
        Ok(connection) => connection,
        Err(error) => {
            println!("nats: {}", chain(&error));
            return if error.class().is_some() { ExitStatus::Unreachable } else { ExitStatus::BadConfig };
        }
    };
    println!("nats: connected to nats-server {}", connection.client().server_info().version);
    let mut status = ExitStatus::Success;
    let source = settings::source_stream(config);
    for stream in [&source, &settings::target_stream(config), &settings::dead_letter_stream(config)] {
        match streams::plan_stream(&connection, stream).await {
            Ok(plan) => println!("stream {}: {}", stream.name, in_words(&plan)),
            Err(error) => status = refused(&error),
        }
    }
    match check_consumer(&connection, config).await {
        Ok(text) => println!("{text}"),
        Err(error) => status = refused(&error),
    }
    status
}

async fn check_consumer(connection: &Connection, config: &Config) -> Result<String, SetupError> {
    let (stream, consumer) = (settings::source_stream(config), settings::consumer(config));
    let (target, ack_wait) = (settings::target_stream(config), config.source.ack_wait);
    if let Some(info) = streams::find_stream(connection, &target.name).await? {
        streams::check_duplicate_window(&target.name, &info, ack_wait)?;
    }
    let plan = match streams::find_stream(connection, &stream.name).await? {
        Some(info) => streams::plan_consumer(connection, &stream.name, &info.subjects, &consumer).await?,
        None => Plan::Create,
    };
    Ok(format!("consumer {}: {}", consumer.name, in_words(&plan)))
}

fn refused(error: &SetupError) -> ExitStatus {
    println!("error: {}", chain(error));
    if error.is_transient() { ExitStatus::Unreachable } else { ExitStatus::BadConfig }
}

fn in_words(plan: &Plan) -> String {
    match plan {
        Plan::Use => "exists, is used as it is".to_owned(),
        Plan::Create => "would be created".to_owned(),
        Plan::Update(settings) => format!("exists, would be changed: {}", settings.join(", ")),
    }
}

async fn check_dedup(config: &Config) -> ExitStatus {
    if config.dedup.store == DedupKind::Memory {
        println!("dedup: in memory, good for one replica");
        return ExitStatus::Success;
    }
    let store = match RedisStore::new(&settings::redis(config)) {
        Ok(store) => store,
        Err(error) => {
            println!("dedup: {}", chain(&error));
            return ExitStatus::BadConfig;
        }
    };
    match store.warnings().await {
        Ok(warnings) => {
            println!("dedup: redis answers");
            warnings.iter().for_each(|warning| println!("warning: {warning}"));
            ExitStatus::Success
        }
        Err(failure) => {
            println!("dedup: {}", chain(&failure));
            ExitStatus::Unreachable
        }
    }
}

/// What would become of one event, as one JSON object.
pub fn explain(arguments: &ExplainArgs) -> ExitStatus {
    let config = match load(&arguments.config) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let payload = match read_input(arguments) {
        Ok(payload) => payload,
        Err(error) => {
            eprintln!("cannot read the event: {error}");
            return ExitStatus::BadInput;
        }
    };
    let headers = arguments.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect();
    let transform = settings::transform(&config);
    let prefix = &config.dead_letter.subject_prefix;
    let explanation = domain::explain(&transform, &arguments.subject, headers, payload.into(), prefix);
    let written = serde_json::to_string(&explanation).map_err(io::Error::from);
    match written.and_then(|text| writeln!(io::stdout(), "{text}")) {
        Ok(()) => ExitStatus::Success,
        Err(error) => {
            eprintln!("cannot write the explanation: {error}");
            ExitStatus::BadInput
        }
    }
}

fn read_input(arguments: &ExplainArgs) -> io::Result<Vec<u8>> {
    if let Some(file) = arguments.input() {
        return std::fs::read(file);
    }
    let mut payload = Vec::new();
    io::stdin().read_to_end(&mut payload)?;
    Ok(payload)
}
