//! The service: domain, adapters, configuration and bootstrap around `cdc-actors`.

pub mod adapters;
pub mod bootstrap;
pub mod cli;
pub mod commands;
pub mod config;
pub mod demo;
pub mod domain;
pub mod logging;
pub mod privacy;
pub mod secret;

use std::future::pending;
use std::pin::pin;

use cdc_actors::pipeline::Ports;
use cdc_actors::ports::Transform;
use cdc_actors::supervisor::ExitReason;
use slog::Logger;

use crate::bootstrap::reload::{Pending, Reloads};
use crate::bootstrap::{Service, StartError};
use crate::config::Config;
use crate::domain::CdcTransform;

/// Runs the service until `shutdown` is ready or the guard trips; then what is in flight is settled within `shutdown.grace`.
///
/// # Errors
/// [`StartError`] if it never got to run.
pub async fn run(
    config: &Config,
    logger: &Logger,
    shutdown: impl Future<Output = ()>,
) -> Result<ExitReason, StartError> {
    run_with(config, logger, |ports| ports, None, shutdown).await
}

/// [`run`] with whatever `arrange` puts in front of the ports, reading the configuration again when `reloads` ask for it. One that
/// is asked for during the start comes after it.
///
/// # Errors
/// [`StartError`] if it never got to run.
pub async fn run_with<T: Transform>(
    config: &Config,
    logger: &Logger,
    arrange: impl FnOnce(Ports<CdcTransform>) -> Ports<T>,
    mut reloads: Option<Reloads>,
    shutdown: impl Future<Output = ()>,
) -> Result<ExitReason, StartError> {
    let mut shutdown = pin!(shutdown);
    let starting = Service::start(config, logger.clone(), arrange);
    let mut service = tokio::select! {
        started = starting => started?,
        () = &mut shutdown => return Ok(ExitReason::Asked),
    };
    let mut reloading: Option<Pending> = None;
    let ended = loop {
        tokio::select! {
            ended = service.ended() => break ended,
            () = &mut shutdown => {
                service.shutdown();
                break service.ended().await;
            }
            from = asked(&mut reloads) => reloading = service.reload(from, reloading.take()),
            () = done(&mut reloading) => reloading = None,
        }
    };
    service.close(&ended).await;
    Ok(ended.reason)
}

/// Waits until the configuration is to be read again.
async fn asked(reloads: &mut Option<Reloads>) -> &Reloads {
    let Some(reloads) = reloads else { return pending().await };
    match reloads.signal.recv().await {
        Some(()) => reloads,
        None => pending().await,
    }
}

/// Waits for the end of a reload; for ever if there is none.
async fn done(reloading: &mut Option<Pending>) {
    match reloading {
        Some(reloading) => reloading.await,
        None => pending().await,
    }
}
