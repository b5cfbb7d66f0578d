//! Where settings come from: the built-in config.yaml, a file, the environment; later ones win, setting by setting.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{File, FileFormat, Map, Source, Value, ValueKind};

use super::problem::Problem;

/// The config.yaml of this version: it is the documentation of every setting and the source of every default.
pub const DEFAULTS: &str = include_str!("../../config.yaml");

/// What every variable of the environment that is a setting begins with.
pub const ENV_PREFIX: &str = "DAISI_CDC_";

/// Where a setting's value was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The built-in config.yaml.
    Default,
    /// The file given with `--config`.
    File(PathBuf),
    /// This variable of the environment.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
        }
    }
}

/// A setting as it was found, before anybody looked at its type.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub value: ValueKind,
    pub origin: Origin,
}

/// Settings by dotted key: `tables.messages.enabled`.
pub(super) type Settings = BTreeMap<String, Setting>;

/// Every layer on top of the one below.
pub(super) struct Layers {
    /// The built-in defaults; their keys are all the keys there are.
    pub defaults: Settings,
    /// The values in force, of known keys alone.
    pub effective: Settings,
}

impl Layers {
    /// Reads every layer; what is no setting becomes a problem.
    pub fn read(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut layers = Self { defaults: Settings::new(), effective: Settings::new() };
        match parse(DEFAULTS, &Origin::Default) {
            Ok(defaults) => layers.defaults = defaults,
            // Cannot happen in a build whose tests passed; reported all the same rather than assumed.
            Err(cause) => {
                problems.push(Problem::new("config.yaml", "", Origin::Default, format!("valid YAML ({cause})")))
            }
        }
        layers.effective.clone_from(&layers.defaults);
        if let Some(path) = file {
            match read_file(path) {
                Ok(settings) => layers.put(settings, problems),
                Err(expected) => {
                    let origin = Origin::File(path.to_owned());
                    problems.push(Problem::new("--config", path.display().to_string(), origin, expected));
                }
            }
        }
        layers.put(from_environment(env), problems);
        layers
    }

    fn put(&mut self, settings: Settings, problems: &mut Vec<Problem>) {
        for (key, setting) in settings {
            if self.defaults.contains_key(&key) {
                self.effective.insert(key, setting);
            } else if self.is_section(&key) && setting.value == ValueKind::Nil {
                // `nats:` with every line below it commented out means "nothing to say".
            } else if let Some(whole) = self.setting_around(&key) {
                // `password: {x}` is a section to YAML, whose keys are no names of settings but the value itself.
                problems.push(Problem::new(whole, "(not shown)", setting.origin, "one value; put it in quotes"));
            } else {
                // The value is kept back: a misspelt key may well hold a secret.
                problems.push(Problem::new(&key, "(not shown)", setting.origin, self.allowed_near(&key)));
            }
        }
    }

    /// The setting that a key is within, although a setting has none.
    fn setting_around<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.match_indices('.').map(|(at, _)| &key[..at]).find(|outer| self.defaults.contains_key(*outer))
    }

    fn is_section(&self, key: &str) -> bool {
        let prefix = format!("{key}.");
        self.defaults.keys().any(|known| known.starts_with(&prefix))
    }

    /// What an unknown key could have meant.
    fn allowed_near(&self, key: &str) -> String {
        let mut section = key;
        while !section.is_empty() && !self.is_section(section) {
            section = section.rsplit_once('.').map_or("", |(parent, _)| parent);
        }
        let depth = if section.is_empty() { 0 } else { section.len() + 1 };
        let mut names: Vec<&str> = self
            .defaults
            .keys()
            .filter(|known| section.is_empty() || known.starts_with(&format!("{section}.")))
            .filter_map(|known| known[depth..].split('.').next())
            .collect();
        names.dedup();
        match section {
            "" => format!("a known setting; at the top there are {}", names.join(", ")),
            _ if section == key => format!("a section with {}", names.join(", ")),
            _ => format!("a known setting; {section} has {}", names.join(", ")),
        }
    }
}

fn read_file(path: &Path) -> Result<Settings, String> {
    let text = std::fs::read_to_string(path).map_err(|cause| format!("a readable file ({cause})"))?;
    parse(&text, &Origin::File(path.to_owned())).map_err(|error| match error {
        // What the parser says is where and why; what `config` says quotes the text, which may be a secret.
        config::ConfigError::FileParse { cause, .. } if !cause.is::<Box<config::ConfigError>>() => {
            format!("valid YAML ({cause})")
        }
        _ => "valid YAML: sections with settings".to_owned(),
    })
}

fn parse(text: &str, origin: &Origin) -> Result<Settings, config::ConfigError> {
    let mut settings = Settings::new();
    // A file of nothing but comments is a document without a root; it is an empty layer here.
    let says_nothing = |line: &str| matches!(line.trim(), "" | "---") || line.trim_start().starts_with('#');
    if text.lines().all(says_nothing) {
        return Ok(settings);
    }
    flatten("", File::from_str(text, FileFormat::Yaml).collect()?, origin, &mut settings);
    Ok(settings)
}

fn flatten(prefix: &str, table: Map<String, Value>, origin: &Origin, settings: &mut Settings) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value.kind {
            ValueKind::Table(table) => flatten(&key, table, origin, settings),
            value => {
                settings.insert(key, Setting { value, origin: origin.clone() });
            }
        }
    }
}

fn from_environment(env: impl IntoIterator<Item = (String, String)>) -> Settings {
    env.into_iter()
        .filter_map(|(name, value)| {
            let rest = name.strip_prefix(ENV_PREFIX).filter(|rest| !is_service_link(rest))?;
            let key = rest.to_ascii_lowercase().replace("__", ".");
            Some((key, Setting { value: ValueKind::String(value), origin: Origin::Environment(name) }))
        })
        .collect()
}

/// Kubernetes puts variables for every service of a namespace into every pod. For a service called `daisi-cdc` or
/// `daisi-cdc-consumer` they begin with our prefix; they are no settings and no mistake of the operator either.
fn is_service_link(rest: &str) -> bool {
    if rest.contains("__") {
        return false;
    }
    let words: Vec<&str> = rest.split('_').collect();
    let at = |word: &str| words.iter().position(|w| *w == word);
    match (at("SERVICE"), at("PORT")) {
        (Some(service), _) if matches!(words.get(service + 1), Some(&("HOST" | "PORT"))) => true,
        (_, Some(port)) => match &words[port + 1..] {
            [] => true,
            [number, protocol, ..] => number.parse::<u16>().is_ok() && matches!(*protocol, "TCP" | "UDP" | "SCTP"),
            _ => false,
        },
        _ => false,
    }
}
