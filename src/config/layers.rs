//! Where settings come from: the built-in config.yaml, a file, the environment; later ones win, setting by setting.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Map, Source, Value, ValueKind};

use super::problem::Problem;
use super::yaml::{self, Document, NotYaml, Twice};

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
    /// The lines on which tables are declared in a file.
    pub lines: BTreeMap<String, usize>,
}

/// What one layer says, as far as it is a setting.
#[derive(Debug, Clone, Default)]
struct Layer {
    settings: Settings,
    tables: BTreeMap<String, Entries>,
    /// The lines of these tables.
    lines: BTreeMap<String, usize>,
    /// Where all of it was found, unless each setting has an origin of its own.
    origin: Option<Origin>,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let value = |setting: &Setting| Value::new(None, setting.value.clone());
        Ok(self.settings.iter().map(|(key, setting)| (key.clone(), value(setting))).collect())
    }
}

impl Layers {
    /// Reads every layer; what is no setting becomes a problem.
    pub fn read(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut this = Self::default();
        let mut layers = vec![this.defaults(problems)];
        if let Some(path) = file {
            match read_file(path, problems) {
                Ok(layer) => this.put(layer, &mut layers, problems),
                Err(expected) => {
                    let origin = Origin::File(path.to_owned());
                    problems.push(Problem::new("configuration", path.display().to_string(), origin, expected));
                }
            }
        }
        this.put(from_environment(env), &mut layers, problems);
        if let Err(error) = this.merge(&layers) {
            // Cannot happen: every layer is there in whole.
            problems.push(Problem::new("config.yaml", "", Origin::Default, format!("layers that merge ({error})")));
        }
        this
    }

    /// The built-in defaults, with which it is known what is a setting.
    fn defaults(&mut self, problems: &mut Vec<Problem>) -> Layer {
        let mut layer = parse(DEFAULTS, &Origin::Default, problems).unwrap_or_else(|NotYaml(cause)| {
            // Cannot happen in a build whose tests passed; reported all the same rather than assumed.
            problems.push(Problem::new("config.yaml", "", Origin::Default, format!("valid YAML ({cause})")));
            Layer::default()
        });
        let (declared, typed): (BTreeMap<_, _>, BTreeMap<_, _>) =
            layer.tables.into_iter().partition(|(_, entries)| entries.contains_key(COLUMNS));
        layer.settings.extend(typed.into_iter().flat_map(|(name, entries)| keyed(name, entries)));
        layer.tables = declared;
        self.defaults.clone_from(&layer.settings);
        layer
    }

    /// Lays a layer on top of the others, without what is no setting.
    fn put(&mut self, layer: Layer, below: &mut Vec<Layer>, problems: &mut Vec<Problem>) {
        let mut known = Layer::default();
        let mut settings = layer.settings;
        for (name, entries) in layer.tables {
            let name = if layer.origin.is_none() { self.meant(name, below) } else { name };
            let typed = self.is_section(&format!("{TABLES}.{name}"));
            // Whatever stands there declares, though perhaps wrongly: what it should be is said where columns are read.
            let declares = entries.get(COLUMNS).is_some_and(|columns| {
                columns.value != ValueKind::Nil && !matches!(columns.origin, Origin::Environment(_))
            });
            if declares {
                self.lines.extend(layer.lines.get(&name).map(|line| (name.clone(), *line)));
                // Columns declare a table anew: nothing of it is left below.
                let section = format!("{TABLES}.{name}.");
                for layer in below.iter_mut() {
                    layer.tables.remove(&name);
                    layer.settings.retain(|key, _| !key.starts_with(&section));
                }
                known.tables.insert(name, entries);
            } else if below.iter().any(|layer| layer.tables.contains_key(&name)) {
                // An entry changes as a whole what is there.
                for layer in below.iter_mut().filter_map(|layer| layer.tables.get_mut(&name)) {
                    layer.retain(|entry, _| !entries.contains_key(entry));
                }
                known.tables.insert(name, entries);
            } else if typed {
                settings.extend(keyed(name, entries));
            } else {
                let names = self.table_names(below).join(", ");
                let expected = format!("a known table ({names}), or {COLUMNS} that declare one, in a file");
                let line = layer.lines.get(&name).copied();
                problems.extend(of_no_table(&name, &entries, layer.origin.as_ref(), line, &expected));
                if layer.origin.is_some() {
                    // Its entries may be wrong as well.
                    self.lines.extend(line.map(|line| (name.clone(), line)));
                    known.tables.insert(name, entries.into_iter().filter(|(entry, _)| entry != COLUMNS).collect());
                }
            }
        }
        for (key, setting) in settings {
            if self.defaults.contains_key(&key) {
                known.settings.insert(key, setting);
            } else if self.is_section(&key) && is_nothing(&setting.value) {
                // `nats:` with every line below it commented out means "nothing to say", and so does `nats: {}`.
            } else if let Some(whole) = self.setting_around(&key) {
                // `password: {x}` is a section to YAML, whose keys are no names of settings but the value itself.
                let problem = Problem::new(whole, "(not shown)", setting.origin, "one value; put it in quotes");
                problems.push(problem.on(setting.line));
            } else {
                // The value is kept back, but for what stands below tables: a misspelt key may well hold a secret.
                let is_of_table = key.starts_with(TABLES) && key.contains('.');
                let value =
                    if is_of_table { format!("{:?}", yaml::written(&setting.value)) } else { "(not shown)".to_owned() };
                let expected = self.allowed_near(&key, &self.table_names(below));
                let problem = Problem::new(&key, value, setting.origin, expected);
                problems.push(problem.on(setting.line));
            }
        }
        below.push(known);
    }

    /// The table that a variable means: its name says nothing of capitals.
    fn meant(&self, name: String, below: &[Layer]) -> String {
        let names = self.table_names(below);
        let mut alike = names.iter().filter(|known| known.eq_ignore_ascii_case(&name));
        match (names.contains(&name.as_str()), alike.next(), alike.next()) {
            (false, Some(only), None) => (*only).to_owned(),
            _ => name,
        }
    }

    /// Merges the layers, later ones on top; each setting keeps the origin of the layer that it is from. An entry of a declared
    /// table is there as a whole in one layer, and keeps the places of what it holds: they tell order and lines.
    fn merge(&mut self, layers: &[Layer]) -> Result<(), ConfigError> {
        let builder = layers.iter().fold(Config::builder(), |builder, layer| builder.add_source(layer.clone()));
        let merged = builder.build()?.cache;
        for layer in layers {
            for (key, setting) in &layer.settings {
                let Some(value) = value_at(&merged, key) else { continue };
                self.effective.insert(key.clone(), Setting { value: value.kind.clone(), ..setting.clone() });
            }
            for (name, entries) in &layer.tables {
                self.declared.entry(name.clone()).or_default().extend(entries.clone());
            }
        }
        Ok(())
    }

    /// The tables there are.
    fn table_names<'a>(&'a self, layers: &'a [Layer]) -> Vec<&'a str> {
        let typed =
            self.defaults.keys().filter_map(|key| key.strip_prefix(TABLES)?.strip_prefix('.')?.split('.').next());
        let declared = layers.iter().flat_map(|layer| layer.tables.keys().map(String::as_str));
        let mut names: Vec<_> = typed.chain(declared).collect();
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

    /// What an unknown key could have meant, where there are these tables.
    fn allowed_near(&self, key: &str, tables: &[&str]) -> String {
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
        if section == TABLES {
            return format!("a section; {TABLES} has {}", tables.join(", "));
        }
        let declaration = match key.rsplit_once('.') {
            Some((table, _)) if table == section && section.starts_with(TABLES) => {
                format!("; more entries need a declaration, which {COLUMNS} make (examples/tables/typed.yaml)")
            }
            _ => String::new(),
        };
        match section {
            "" => format!("a known setting; at the top there are {}", names.join(", ")),
            _ if section == key => format!("a section with {}", names.join(", ")),
            _ => format!("a known setting; {section} has {}{declaration}", names.join(", ")),
        }
    }
}

/// What is wrong with entries of a table that there is not: of a file the table's name, else each variable.
fn of_no_table(
    table: &str,
    entries: &Entries,
    file: Option<&Origin>,
    line: Option<usize>,
    expected: &str,
) -> Vec<Problem> {
    let Some(file) = file else {
        let problem = |(entry, setting): (&String, &Setting)| {
            let value = format!("{:?}", yaml::written(&setting.value));
            Problem::new(&format!("{TABLES}.{table}.{entry}"), value, setting.origin.clone(), expected)
        };
        return entries.iter().map(problem).collect();
    };
    let entries = entries.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    vec![Problem::new(&format!("{TABLES}.{table}"), format!("{{{entries}}}"), file.clone(), expected).on(line)]
}

/// The settings of a table by their dotted keys.
fn keyed(table: String, entries: Entries) -> impl Iterator<Item = (String, Setting)> {
    entries.into_iter().map(move |(entry, setting)| (format!("{TABLES}.{table}.{entry}"), setting))
}

fn member<'v>(section: &'v Value, name: &str) -> Option<&'v Value> {
    match &section.kind {
        ValueKind::Table(members) => members.get(name),
        _ => None,
    }
}

fn value_at<'v>(root: &'v Value, key: &str) -> Option<&'v Value> {
    key.split('.').try_fold(root, member)
}

fn read_file(path: &Path, problems: &mut Vec<Problem>) -> Result<Layer, String> {
    let text = std::fs::read_to_string(path).map_err(|cause| format!("a readable file ({cause})"))?;
    let layer = parse(&text, &Origin::File(path.to_owned()), problems);
    layer.map_err(|NotYaml(cause)| format!("valid YAML: sections with settings ({cause})"))
}

fn parse(text: &str, origin: &Origin, problems: &mut Vec<Problem>) -> Result<Layer, NotYaml> {
    let Document { members, twice } = yaml::load(text)?;
    for Twice { key, line, first } in twice {
        let expected = format!("each name once; the first is on line {first}");
        problems.push(Problem::new(&key, "(not shown)", origin.clone(), expected).on(Some(line)));
    }
    let mut layer = Layer { origin: Some(origin.clone()), ..Layer::default() };
    let setting = |value: Value| Setting { line: yaml::line(&value), value: value.kind, origin: origin.clone() };
    for (name, value) in members {
        match value.kind {
            ValueKind::Table(tables) if name == TABLES => {
                for (table, value) in tables {
                    let line = yaml::line(&value);
                    match value.kind {
                        ValueKind::Table(entries) => {
                            layer.lines.extend(line.map(|line| (table.clone(), line)));
                            let entries = entries.into_iter().map(|(entry, value)| (entry, setting(value)));
                            layer.tables.insert(table, entries.collect());
                        }
                        // Every line below it may have been commented out.
                        ValueKind::Nil => {
                            layer.lines.extend(line.map(|line| (table.clone(), line)));
                            layer.tables.insert(table, Entries::new());
                        }
                        _ => flatten(format!("{TABLES}.{table}"), value, &setting, &mut layer.settings),
                    }
                }
            }
            _ => flatten(name, value, &setting, &mut layer.settings),
        }
    }
    Ok(layer)
}

fn is_nothing(value: &ValueKind) -> bool {
    match value {
        ValueKind::Nil => true,
        ValueKind::Table(members) => members.is_empty(),
        _ => false,
    }
}

fn flatten(key: String, value: Value, setting: &impl Fn(Value) -> Setting, settings: &mut Settings) {
    match value.kind {
        // One with nothing in it is a value: else a name that is no setting, with nothing below it, would go unnoticed.
        ValueKind::Table(members) if !members.is_empty() => {
            for (name, value) in members {
                flatten(format!("{key}.{name}"), value, setting, settings);
            }
        }
        _ => drop(settings.insert(key, setting(value))),
    }
}

fn from_environment(env: impl IntoIterator<Item = (String, String)>) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in env {
        let Some(rest) = name.strip_prefix(ENV_PREFIX).filter(|rest| !is_service_link(rest)) else { continue };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        let setting = Setting { value: ValueKind::String(value), line: None, origin: Origin::Environment(name) };
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
