//! `run`: the service, until a signal, the guard or a failed start ends it.

use std::pin::pin;

use cdc_actors::pipeline::Ports;
use cdc_actors::ports::Transform;
use cdc_actors::supervisor::ExitReason;
use slog::{Logger, crit, error};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::{ended, load};
use crate::bootstrap::StartError;
use crate::bootstrap::reload::Reloads;
use crate::cli::{ConfigArgs, ExitStatus};
use crate::domain::CdcTransform;
use crate::logging::{self, chain};
use crate::privacy;

/// The service, until a signal, the guard or a failed start ends it.
pub async fn run(arguments: ConfigArgs) -> ExitStatus {
    run_with(arguments, |ports| ports).await
}

/// [`run`] with whatever `arrange` puts in front of the ports.
pub async fn run_with<T: Transform>(
    arguments: ConfigArgs,
    arrange: impl FnOnce(Ports<CdcTransform>) -> Ports<T>,
) -> ExitStatus {
    // First of all: from here on a SIGHUP ends nothing. One that comes before the service runs is heard when it does.
    let hangup = signal(SignalKind::hangup());
    let config = match load(&arguments) {
        Ok(config) => config,
        Err(error) => return ended(Err(error.into())),
    };
    let (logger, log) = logging::logger(&config.log);
    privacy::tell_panics_in(logger.clone());
    let signals =
        hangup.and_then(|hangup| Ok((hangup, signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)));
    let (hangup, mut interrupt, mut terminate) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            crit!(logger, "cannot listen for signals"; "error" => %error);
            return ExitStatus::GuardTripped;
        }
    };
    let reloads = Reloads { signal: hangup, file: arguments.config, level: log.level() };
    let (stop, stopped) = oneshot::channel();
    let mut stop = Some(stop);
    let mut serving = pin!(crate::run_with(&config, &logger, arrange, Some(reloads), async { drop(stopped.await) }));
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
