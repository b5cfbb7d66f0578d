//! The configuration read again while the service runs, at SIGHUP.
//!
//! The level of the log, retries and guard change at once. Tables change when nothing is in flight: a row may be found under another
//! order key by the new ones, and its newer events would overtake those that still go by the old key.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use slog::{info, warn};
use tokio::signal::unix::Signal;

use super::{Service, settings};
use crate::config::{ConfigError, Reload, process_environment};
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
                self.take_over(reload, before)
            }
            Err(ConfigError { problems }) => {
                self.telemetry.config_refused(&problems.iter().map(ToString::to_string).collect::<Vec<_>>());
                before
            }
        }
    }

    fn take_over(
        &mut self,
        Reload { config, changed, needs_restart }: Reload,
        before: Option<Pending>,
    ) -> Option<Pending> {
        if !needs_restart.is_empty() {
            warn!(self.logger, "settings have changed that need a restart"; "settings" => needs_restart.join(", "));
        }
        self.pipeline.set_patience(settings::patience(&config));
        self.http.show(config.in_force().to_vec());
        let rules = settings::transform(&config);
        let same_tables = rules == settings::transform(&self.config);
        self.config = config;
        if same_tables {
            self.telemetry.config_applied(&changed);
            return before;
        }
        let (transform, telemetry, changes) =
            (Arc::clone(&self.transform), Arc::clone(&self.telemetry), self.pipeline.changes());
        Some(Box::pin(async move {
            if let Some(before) = before {
                before.await;
            }
            loop {
                let (transform, telemetry, rules) = (Arc::clone(&transform), Arc::clone(&telemetry), rules.clone());
                let change = move || {
                    transform.follow(rules);
                    telemetry.add_tables(&transform.tables());
                };
                if changes.between_events(change).await.is_ok() {
                    break;
                }
                actix_rt::time::sleep(AGAIN).await;
            }
            telemetry.config_applied(&changed);
        }))
    }
}
