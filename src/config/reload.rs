//! A configuration that takes the place of another in the running service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use super::{Config, ConfigError, InForce, Log, Whereabouts};

/// What can be changed while the service runs: settings, and sections with a dot.
const LIVE: [&str; 4] = ["log.level", "retry.", "guard.", "tables."];

fn is_live(key: &str) -> bool {
    LIVE.iter().any(|live| if live.ends_with('.') { key.starts_with(live) } else { key == *live })
}

/// What becomes of the running service when another configuration is read.
#[derive(Debug, Clone)]
pub struct Reload {
    /// The configuration in force from now on: that of before, with what can be changed while the service runs.
    pub config: Config,
    /// Keys of the settings that change now.
    pub changed: Vec<String>,
    /// Keys of the settings that differ and need a restart.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// Loads the configuration of the running service again.
    ///
    /// # Errors
    /// As of [`Config::load`].
    pub fn load_again(
        &mut self,
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::load_noting_keys(file, env, Whereabouts::There, &mut self.names).0
    }

    /// What becomes of this configuration, which is in force, when `new` is to take its place.
    pub fn reload(&self, new: Self) -> Reload {
        let keys: BTreeSet<&String> = self.digests.0.keys().chain(new.digests.0.keys()).collect();
        let differ = keys.into_iter().filter(|key| self.digests.0.get(*key) != new.digests.0.get(*key)).cloned();
        let (changed, needs_restart) = differ.partition(|key| is_live(key));
        let of = |settings: &[InForce], live: bool| -> Vec<InForce> {
            settings.iter().filter(|setting| is_live(&setting.key) == live).cloned().collect()
        };
        let mut in_force = of(&self.in_force, false);
        in_force.extend(of(&new.in_force, true));
        in_force.sort_by(|one, other| one.key.cmp(&other.key));
        let mut digests = self.digests.clone();
        digests.0.retain(|key, _| !is_live(key));
        digests.0.extend(new.digests.0.into_iter().filter(|(key, _)| is_live(key)));
        let config = Self {
            log: Log { level: new.log.level, format: self.log.format },
            retry: new.retry,
            guard: new.guard,
            tables: new.tables,
            in_force,
            digests,
            names: new.names,
            ..self.clone()
        };
        Reload { config, changed, needs_restart }
    }
}

/// Every setting by a digest of what was found. Never shown: the digest of a short password gives it away.
#[derive(Clone, Default)]
pub(super) struct Digests(pub(super) BTreeMap<String, String>);

impl fmt::Debug for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digests").finish_non_exhaustive()
    }
}

/// The names of declared tables. Each lives as long as the process, since labels and events bear it; one that is read again is
/// the same, so that only names that were never there before take memory.
#[derive(Debug, Clone, Default)]
pub(super) struct TableNames(BTreeSet<&'static str>);

impl TableNames {
    pub(super) fn keep(&mut self, name: &str) -> &'static str {
        if let Some(known) = self.0.get(name) {
            return known;
        }
        let kept = name.to_owned().leak();
        self.0.insert(kept);
        kept
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use crate::config::LogLevel;
    use crate::domain::table::Table;

    use super::*;

    const NOTES: &str = "tables: {notes: {key: id, routing: [company_id, agent_id], subject: '{prefix}.{company_id}.notes', \
                         columns: {id: string not null, company_id: string, agent_id: string}}}";

    fn config(text: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()), []).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_same_file_changes_nothing() {
        let Reload { changed, needs_restart, config: same } = config(NOTES).reload(config(NOTES));
        assert_eq!((changed, needs_restart), (Vec::<String>::new(), Vec::new()));
        assert_eq!(same.in_force().len(), config(NOTES).in_force().len());
    }

    #[test]
    fn no_change_of_a_list_goes_unnoticed() {
        let noted = |entry: &str| config(&NOTES.replace("{key: id,", &format!("{{key: id, {entry},")));
        for (before, after, entry) in [
            ("filter: {column: id, in: ['a,b']}", "filter: {column: id, in: [a, b]}", "filter"),
            ("filter: {column: id, in: ['{a: b}']}", "filter: {column: id, in: ['{a', ' b}']}", "filter"),
            ("filter: {column: id, equals: 'null'}", "filter: {column: id, is_null: true}", "filter"),
            ("rename: {id: 'a, company_id: b'}", "rename: {id: a, company_id: b}", "rename"),
        ] {
            let Reload { changed, .. } = noted(before).reload(noted(after));
            assert_eq!(changed, [format!("tables.notes.{entry}")], "{before}");
        }
    }

    #[test]
    fn levels_retries_guard_and_tables_change_and_the_rest_stays_and_is_named() {
        let old = config("nats: {user: one, password: before}");
        let new = config(&format!(
            "log: {{level: debug, format: terminal}}\nhttp: {{listen: '127.0.0.1:1'}}\nretry: {{max: 3s}}\n\
             guard: {{max_consecutive_failures: 7}}\nnats: {{user: one, password: after}}\n{NOTES}"
        ));
        let Reload { config, changed, needs_restart } = old.reload(new);
        assert_eq!(needs_restart, ["http.listen", "log.format", "nats.password"]);
        let (tables, others): (Vec<_>, Vec<_>) = changed.iter().partition(|key| key.starts_with("tables."));
        assert_eq!(others, ["guard.max_consecutive_failures", "log.level", "retry.max"]);
        assert!(tables.contains(&&"tables.notes.columns".to_owned()), "{tables:?}");
        assert_eq!((config.log.level, config.log.format), (LogLevel::Debug, old.log.format));
        assert_eq!((config.retry.max, config.guard.max_consecutive_failures), (Duration::from_secs(3), 7));
        assert_eq!(config.http.listen, old.http.listen);
        assert!(config.tables.declared.iter().any(|table| table.name() == "notes"));
        let shown = |key: &str| config.in_force().iter().find(|setting| setting.key == key).map(|s| s.value.clone());
        assert_eq!((shown("log.level").as_deref(), shown("log.format").as_deref()), (Some("debug"), Some("json")));
        assert!(shown("tables.notes.key").is_some());
        // What needs a restart is still open the next time, and what was taken over is not.
        let Reload { changed, needs_restart, .. } = config.reload(config_of_after());
        assert_eq!(
            (changed.len(), needs_restart.as_slice()),
            (tables.len() + 3, ["nats.password".to_owned()].as_slice())
        );
    }

    fn config_of_after() -> Config {
        config("nats: {user: one, password: after}")
    }

    #[test]
    fn neither_a_secret_nor_its_digest_is_shown() {
        let config = config("nats: {user: one, password: hunter2}");
        let shown = format!("{config:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains(&crate::domain::event_key::sha256_hex(b"hunter2")),
            "{shown}"
        );
    }

    #[test]
    fn a_name_that_is_read_again_takes_no_memory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), NOTES).unwrap();
        let mut first = Config::load(Some(file.path()), []).unwrap();
        let second = first.load_again(Some(file.path()), []).unwrap();
        let name =
            |config: &Config| config.tables.declared.iter().map(|table| table.name()).find(|name| *name == "notes");
        assert!(std::ptr::eq(name(&first).unwrap(), name(&second).unwrap()));
        // Neither does one that is refused again and again.
        fs::write(file.path(), "tables: {refused: {columns: {id: nothing}}}").unwrap();
        first.load_again(Some(file.path()), []).unwrap_err();
        let kept = first.names.keep("refused");
        first.load_again(Some(file.path()), []).unwrap_err();
        assert!(std::ptr::eq(kept, first.names.keep("refused")));
    }
}
