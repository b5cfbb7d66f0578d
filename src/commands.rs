//! What the commands do, apart from the demo.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::pin::pin;
use std::time::Duration;

use actix_rt::signal::unix::{SignalKind, signal};
use cdc_actors::supervisor::ExitReason;
use slog::{Logger, crit, error};
use tokio::sync::oneshot;

use crate::adapters::nats::{Connection, Plan, SetupError, streams};
use crate::adapters::redis::RedisStore;
use crate::bootstrap::{StartError, settings};
use crate::cli::{CheckArgs, ConfigArgs, ExitStatus, ExplainArgs};
use crate::config::{Config, DedupKind, process_environment};
use crate::domain;
use crate::logging::{self, chain};

/// How long the service may take for each step of answering a health check.
const HEALTHCHECK_PATIENCE: Duration = Duration::from_secs(2);

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
pub async fn check(arguments: CheckArgs) -> ExitStatus {
    let config = match load(&arguments.config) {
        Ok(config) => config,
        Err(status) => return status,
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

/// Asks `/healthz` of the service that runs on this machine with this configuration.
pub fn healthcheck(arguments: &ConfigArgs) -> ExitStatus {
    let config = match load(arguments) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let address = reachable(config.http.listen);
    match ask_healthz(address) {
        Ok(answer) if answer.split(' ').nth(1) == Some("200") => ExitStatus::Success,
        Ok(answer) => {
            eprintln!("not alive: http://{address}/healthz answers {answer}");
            ExitStatus::No
        }
        Err(error) => {
            eprintln!("not alive: http://{address}/healthz: {error}");
            ExitStatus::No
        }
    }
}

/// Where a listener on this address can be reached from the same machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The status line that it answers with.
fn ask_healthz(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, HEALTHCHECK_PATIENCE)?;
    stream.set_read_timeout(Some(HEALTHCHECK_PATIENCE))?;
    stream.set_write_timeout(Some(HEALTHCHECK_PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut line = String::new();
    // A status line is short; whoever sends more is not the service.
    BufReader::new(stream.take(256)).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_on_this_machine() {
        for (listen, expected) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.1.2.3:9", "10.1.2.3:9"),
            ("[fd00::1]:9", "[fd00::1]:9"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
