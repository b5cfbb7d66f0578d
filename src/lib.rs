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

use std::pin::pin;

use cdc_actors::pipeline::Ports;
use cdc_actors::ports::Transform;
use cdc_actors::supervisor::ExitReason;
use slog::Logger;

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
    run_with(config, logger, |ports| ports, shutdown).await
}

/// [`run`] with whatever `arrange` puts in front of the ports.
///
/// # Errors
/// [`StartError`] if it never got to run.
pub async fn run_with<T: Transform>(
    config: &Config,
    logger: &Logger,
    arrange: impl FnOnce(Ports<CdcTransform>) -> Ports<T>,
    shutdown: impl Future<Output = ()>,
) -> Result<ExitReason, StartError> {
    let mut shutdown = pin!(shutdown);
    let starting = Service::start(config, logger.clone(), arrange);
    let mut service = tokio::select! {
        started = starting => started?,
        () = &mut shutdown => return Ok(ExitReason::Asked),
    };
    let ended = tokio::select! {
        ended = service.ended() => ended,
        () = &mut shutdown => {
            service.shutdown();
            service.ended().await
        }
    };
    service.close(&ended).await;
    Ok(ended.reason)
}
