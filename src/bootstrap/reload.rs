//! The configuration read again while the service runs, at SIGHUP.
//!
//! The level of the log, retries and guard change at once. Tables change when nothing is in flight: a row may be found under another
//! order key by the new ones, and its newer events would overtake those that still go by the old key.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cdc_actors::pipeline::Changes;
use futures::future::BoxFuture;
use slog::{Logger, info, warn};
use tokio::signal::unix::Signal;

use super::{Service, settings};
use crate::adapters::nats::{Connection, StreamSettings, fit, streams};
use crate::adapters::telemetry::Telemetry;
use crate::config::{ConfigError, Reload, process_environment};
use crate::domain::{CdcTransform, TransformConfig};
use crate::logging::LevelSwitch;

/// Before a change is asked for again whose actor died.
const AGAIN: Duration = Duration::from_millis(100);

/// When to read the configuration again, and what from.
pub struct Reloads {
    /// Asks for it.
    pub signal: Signal,
    /// The file; the environment of a process stays as it is.
    pub file: Option<PathBuf>,
    /// The level of the log.
    pub level: LevelSwitch,
}

/// What is left to be done of a reload.
pub type Pending = BoxFuture<'static, ()>;

impl Service {
    /// Reads the configuration again, takes over what can be changed and names what cannot. One that is wrong is refused whole.
    /// What is left to be done when this returns comes after `before`.
    pub fn reload(&mut self, from: &Reloads, before: Option<Pending>) -> Option<Pending> {
        info!(self.logger, "reading the configuration again");
        let loaded = self.config.load_again(from.file.as_deref(), process_environment());
        match loaded {
            Ok(new) => {
                let reload = self.config.reload(new);
                from.level.set(reload.config.log.level);
                Some(self.take_over(reload, before))
            }
            Err(ConfigError { problems }) => {
                self.telemetry.config_refused(&problems.iter().map(ToString::to_string).collect::<Vec<_>>());
                before
            }
        }
    }

    fn take_over(&mut self, Reload { config, changed, needs_restart }: Reload, before: Option<Pending>) -> Pending {
        if !needs_restart.is_empty() {
            warn!(self.logger, "settings have changed that need a restart"; "settings" => needs_restart.join(", "));
        }
        self.pipeline.set_patience(settings::patience(&config));
        let shown = self.http.shown();
        shown.replace(|key| !is_of_tables(key), config.in_force());
        let rules = settings::transform(&config);
        let other_tables = rules != settings::transform(&self.config);
        let in_force = config.in_force().to_vec();
        let (target, outlet, logger) =
            (settings::target_stream(&config), self.connections.last().cloned(), self.logger.clone());
        self.config = config;
        let (transform, telemetry, changes) =
            (Arc::clone(&self.transform), Arc::clone(&self.telemetry), self.pipeline.changes());
        Box::pin(async move {
            // Tables that are the same as those of before are in force only when those are.
            if let Some(before) = before {
                before.await;
            }
            if other_tables {
                follow(&changes, &rules, &transform, &telemetry).await;
            }
            shown.replace(is_of_tables, &in_force);
            telemetry.config_applied(&changed);
            if let Some(outlet) = outlet.filter(|_| other_tables) {
                tell_misfit(&outlet, &target, &logger).await;
            }
        })
    }
}

/// Says what the target does not store of what the tables publish. One that is away is nothing to tell here.
async fn tell_misfit(outlet: &Connection, target: &StreamSettings, logger: &Logger) {
    let Ok(Some(found)) = streams::find_stream(outlet, &target.name).await else { return };
    match fit(outlet, target, &found).await {
        Ok(misfit) => misfit.iter().for_each(|misfit| warn!(logger, "{}", misfit)),
        Err(error) => warn!(logger, "{}", error),
    }
}

/// Has the transform follow other rules once nothing is in flight.
async fn follow(changes: &Changes, rules: &TransformConfig, transform: &Arc<CdcTransform>, telemetry: &Arc<Telemetry>) {
    loop {
        let (transform, telemetry, rules) = (Arc::clone(transform), Arc::clone(telemetry), rules.clone());
        let change = move || {
            transform.follow(rules);
            telemetry.add_tables(&transform.tables());
        };
        if changes.between_events(change).await.is_ok() {
            return;
        }
        actix_rt::time::sleep(AGAIN).await;
    }
}

/// Whether a setting is one that changes between events.
fn is_of_tables(key: &str) -> bool {
    key.starts_with("tables.")
}
