//! `check`: what `run` would use, create or change.

use super::{ended, load};
use crate::adapters::nats::{Connection, Plan, SetupError, consumers, streams};
use crate::adapters::redis::RedisStore;
use crate::bootstrap::settings;
use crate::cli::{CheckArgs, ExitStatus};
use crate::config::{Config, DedupKind};
use crate::logging::chain;

/// Configuration and connections: says what `run` would use, create or change, and touches nothing.
pub async fn check(arguments: CheckArgs) -> ExitStatus {
    let config = match load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return ended(Err(error.into())),
    };
    println!("configuration: valid");
    for warning in config.warnings() {
        println!("warning: {warning}");
    }
    if arguments.offline {
        return ExitStatus::Success;
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
        Some(info) => consumers::plan_consumer(connection, &stream.name, &info.subjects, &consumer).await?,
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
