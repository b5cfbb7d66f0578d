//! Where settings come from: the built-in config.yaml, a file, the environment; later ones win, setting by setting.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::problem::Problem;
use super::yaml::{self, Node, NotYaml, Value};

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
    pub value: Value,
    pub origin: Origin,
    /// Its line in a file.
    pub line: Option<usize>,
}

/// Settings by dotted key: `tables.messages.enabled`.
pub(super) type Settings = BTreeMap<String, Setting>;

/// What is declared of a table, entry by entry: `columns`, `key`, `subject`.
pub(super) type Entries = BTreeMap<String, Setting>;

/// The section of tables.
pub(super) const TABLES: &str = "tables";
/// The entry that makes a table a declared one.
pub(super) const COLUMNS: &str = "columns";

/// Every layer on top of the one below.
#[derive(Default)]
pub(super) struct Layers {
    /// The built-in defaults; their keys are all the keys there are beside those of declared tables.
    pub defaults: Settings,
    /// The values in force, of known keys alone.
    pub effective: Settings,
    /// The tables that are declared, by name.
    pub declared: BTreeMap<String, Entries>,
}

/// What one layer says.
#[derive(Default)]
struct Layer {
    settings: Settings,
    tables: BTreeMap<String, Entries>,
}

impl Layers {
    /// Reads every layer; what is no setting becomes a problem.
    pub fn read(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut layers = Self::default();
        match parse(DEFAULTS, &Origin::Default, problems) {
            Ok(Layer { settings, tables }) => {
                layers.defaults = settings;
                for (name, entries) in tables {
                    if entries.contains_key(COLUMNS) {
                        layers.declared.insert(name, entries);
                        continue;
                    }
                    let settings = entries.into_iter().map(|(entry, it)| (format!("{TABLES}.{name}.{entry}"), it));
                    layers.defaults.extend(settings);
                }
            }
            // Cannot happen in a build whose tests passed; reported all the same rather than assumed.
            Err(NotYaml(cause)) => {
                problems.push(Problem::new("config.yaml", "", Origin::Default, format!("valid YAML ({cause})")))
            }
        }
        layers.effective.clone_from(&layers.defaults);
        if let Some(path) = file {
            match read_file(path, problems) {
                Ok(layer) => layers.put(layer, problems),
                Err(expected) => {
                    let origin = Origin::File(path.to_owned());
                    problems.push(Problem::new("--config", path.display().to_string(), origin, expected));
                }
            }
        }
        layers.put(from_environment(env), problems);
        layers
    }

    fn put(&mut self, layer: Layer, problems: &mut Vec<Problem>) {
        for (name, entries) in layer.tables {
            self.put_table(name, entries, problems);
        }
        for (key, setting) in layer.settings {
            if self.defaults.contains_key(&key) {
                self.effective.insert(key, setting);
            } else if self.is_section(&key) && setting.value == Value::Nil {
                // `nats:` with every line below it commented out means "nothing to say".
            } else if let Some(whole) = self.setting_around(&key) {
                // `password: {x}` is a section to YAML, whose keys are no names of settings but the value itself.
                let problem = Problem::new(whole, "(not shown)", setting.origin, "one value; put it in quotes");
                problems.push(problem.on(setting.line));
            } else {
                // The value is kept back: a misspelt key may well hold a secret.
                let problem = Problem::new(&key, "(not shown)", setting.origin, self.allowed_near(&key));
                problems.push(problem.on(setting.line));
            }
        }
    }

    /// Takes in what a layer says of a table: columns declare it anew, other entries change what is there.
    fn put_table(&mut self, name: String, entries: Entries, problems: &mut Vec<Problem>) {
        let declares = entries.get(COLUMNS).is_some_and(|columns| matches!(columns.value, Value::Table(_)));
        if declares {
            let typed = format!("{TABLES}.{name}.");
            self.effective.retain(|key, _| !key.starts_with(&typed));
            self.declared.insert(name, entries);
        } else if let Some(declared) = self.declared.get_mut(&name) {
            declared.extend(entries);
        } else if self.is_section(&format!("{TABLES}.{name}")) {
            let settings = entries.into_iter().map(|(entry, setting)| (format!("{TABLES}.{name}.{entry}"), setting));
            self.put(Layer { settings: settings.collect(), ..Layer::default() }, problems);
        } else {
            let Some((entry, setting)) = entries.into_iter().next() else { return };
            let expected = format!("a known table ({}), or {COLUMNS} that declare one", self.table_names().join(", "));
            let problem = Problem::new(&format!("{TABLES}.{name}.{entry}"), "(not shown)", setting.origin, expected);
            problems.push(problem.on(setting.line));
        }
    }

    /// The tables there are.
    fn table_names(&self) -> Vec<&str> {
        let typed =
            self.defaults.keys().filter_map(|key| key.strip_prefix(TABLES)?.strip_prefix('.')?.split('.').next());
        let mut names: Vec<_> = typed.chain(self.declared.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// A setting in force, be it an entry of a declared table.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.effective.get(key).or_else(|| {
            let (table, entry) = key.strip_prefix(TABLES)?.strip_prefix('.')?.split_once('.')?;
            self.declared.get(table)?.get(entry)
        })
    }

    /// Every setting in force by key, with the entries of declared tables.
    pub fn all(&self) -> Settings {
        let declared = self.declared.iter().flat_map(|(table, entries)| {
            entries.iter().map(move |(entry, setting)| (format!("{TABLES}.{table}.{entry}"), setting.clone()))
        });
        self.effective.clone().into_iter().chain(declared).collect()
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

fn read_file(path: &Path, problems: &mut Vec<Problem>) -> Result<Layer, String> {
    let text = std::fs::read_to_string(path).map_err(|cause| format!("a readable file ({cause})"))?;
    let layer = parse(&text, &Origin::File(path.to_owned()), problems);
    layer.map_err(|NotYaml(cause)| format!("valid YAML: sections with settings ({cause})"))
}

fn parse(text: &str, origin: &Origin, problems: &mut Vec<Problem>) -> Result<Layer, NotYaml> {
    let mut layer = Layer::default();
    for (name, node) in once("", yaml::load(text)?, origin, problems) {
        match node.value {
            Value::Table(tables) if name == TABLES => {
                for (table, node) in once(TABLES, tables, origin, problems) {
                    layer.take_table(table, node, origin, problems);
                }
            }
            _ => flatten(name, node, origin, &mut layer.settings, problems),
        }
    }
    Ok(layer)
}

impl Layer {
    fn take_table(&mut self, name: String, node: Node, origin: &Origin, problems: &mut Vec<Problem>) {
        let key = format!("{TABLES}.{name}");
        match node.value {
            Value::Table(members) => {
                let entries = once(&key, members, origin, problems).into_iter().map(|(entry, node)| {
                    (entry, Setting { value: node.value, origin: origin.clone(), line: Some(node.line) })
                });
                self.tables.insert(name, entries.collect());
            }
            _ => flatten(key, node, origin, &mut self.settings, problems),
        }
    }
}

/// The members of a section; one that comes twice becomes a problem, and the first of them counts.
fn once(
    section: &str,
    members: Vec<(String, Node)>,
    origin: &Origin,
    problems: &mut Vec<Problem>,
) -> Vec<(String, Node)> {
    let mut kept: Vec<(String, Node)> = Vec::with_capacity(members.len());
    for (name, node) in members {
        match kept.iter().find(|(known, _)| *known == name) {
            Some((_, first)) => {
                let key = if section.is_empty() { name } else { format!("{section}.{name}") };
                let expected = format!("each name once; the first is on line {}", first.line);
                problems.push(Problem::new(&key, "(not shown)", origin.clone(), expected).on(Some(node.line)));
            }
            None => kept.push((name, node)),
        }
    }
    kept
}

fn flatten(key: String, node: Node, origin: &Origin, settings: &mut Settings, problems: &mut Vec<Problem>) {
    match node.value {
        Value::Table(members) => {
            for (name, node) in once(&key, members, origin, problems) {
                flatten(format!("{key}.{name}"), node, origin, settings, problems);
            }
        }
        value => {
            settings.insert(key, Setting { value, origin: origin.clone(), line: Some(node.line) });
        }
    }
}

fn from_environment(env: impl IntoIterator<Item = (String, String)>) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in env {
        let Some(rest) = name.strip_prefix(ENV_PREFIX).filter(|rest| !is_service_link(rest)) else { continue };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        let setting = Setting { value: Value::String(value), line: None, origin: Origin::Environment(name) };
        match key.strip_prefix(TABLES).and_then(|rest| rest.strip_prefix('.')?.split_once('.')) {
            Some((table, entry)) => {
                drop(layer.tables.entry(table.to_owned()).or_default().insert(entry.to_owned(), setting))
            }
            None => drop(layer.settings.insert(key, setting)),
        }
    }
    layer
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
