//! YAML as it stands in a file: values, in order, each with its line.

use std::collections::HashMap;

use config::{Map, Value, ValueKind};
use yaml_rust2::parser::{Event, Parser, Tag};
use yaml_rust2::scanner::{Marker, TScalarStyle};
use yaml_rust2::{ScanError, Yaml};

/// How deep values may be nested: more than any setting is, and little enough for whatever goes over them.
const DEEPEST: usize = 32;
/// How many values a file may come to once what it refers to is put in its place.
const MOST: usize = 100_000;

/// A document: sections and settings by name. The origin of each value is its place; see [`line`] and [`in_order`].
#[derive(Debug, Default)]
pub(super) struct Document {
    /// What it holds.
    pub members: Map<String, Value>,
    /// Names that come twice in a section; the first of them counts.
    pub twice: Vec<Twice>,
}

/// A name that comes a second time in its section.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Twice {
    /// The name with the sections around it, joined by dots.
    pub key: String,
    /// Where it comes again.
    pub line: usize,
    /// Where it came first.
    pub first: usize,
}

/// Text that is no document of sections and settings; it says why and where, and quotes nothing.
#[derive(Debug)]
pub(super) struct NotYaml(pub String);

impl From<ScanError> for NotYaml {
    fn from(error: ScanError) -> Self {
        Self(error.to_string())
    }
}

/// The line of a value that was read from a file, from 1.
pub(super) fn line(value: &Value) -> Option<usize> {
    value.origin()?.split_once(' ')?.0.parse().ok()
}

/// Characters before a value that was read from a file.
fn index(value: &Value) -> Option<usize> {
    value.origin()?.split_once(' ')?.1.parse().ok()
}

/// The members of a section in the order of the file.
pub(super) fn in_order(members: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|(_, value)| index(value));
    members
}

/// A value as people write it.
pub(super) fn written(value: &ValueKind) -> String {
    match value {
        ValueKind::Nil => "null".to_owned(),
        ValueKind::Array(items) => items.iter().map(|item| written(&item.kind)).collect::<Vec<_>>().join(","),
        ValueKind::Table(members) => {
            let members =
                in_order(members).into_iter().map(|(name, value)| format!("{name}: {}", written(&value.kind)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        // A fraction is not to look like an integer.
        ValueKind::Float(number) => format!("{number:?}"),
        other => other.to_string(),
    }
}

/// A value so that no two which mean something else are written alike: a list of `a,b` is not one of `a` and `b`. Whether a
/// number stands in quotes makes no difference.
pub(super) fn exact(value: &ValueKind) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match value {
        ValueKind::Nil => written(value),
        ValueKind::Array(items) => format!("[{}]", joined(items.iter().map(|item| exact(&item.kind)).collect())),
        ValueKind::Table(members) => {
            let member = |(name, value): (&String, &Value)| format!("{name:?}: {}", exact(&value.kind));
            format!("{{{}}}", joined(in_order(members).into_iter().map(member).collect()))
        }
        one => format!("{:?}", written(one)),
    }
}

/// Something that is open while a document is read.
enum Open {
    Array(Vec<Value>),
    /// The members so far, and the name whose value comes next with its place.
    Table(Map<String, Value>, Option<(String, Marker)>),
}

struct Frame {
    open: Open,
    mark: Marker,
    anchor: usize,
}

#[derive(Default)]
struct Loader {
    stack: Vec<Frame>,
    anchors: HashMap<usize, (Value, usize)>,
    root: Option<Value>,
    twice: Vec<Twice>,
    documents: usize,
    count: usize,
}

/// Reads one document: a table, or nothing at all.
pub(super) fn load(text: &str) -> Result<Document, NotYaml> {
    let mut loader = Loader::default();
    // Some editors put a mark before the first character.
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    loop {
        let (event, mark) = parser.next_token()?;
        if event == Event::StreamEnd {
            break;
        }
        loader.take(event, mark)?;
    }
    match loader.root.map(|root| root.kind) {
        _ if loader.documents > 1 => Err(NotYaml("there are several documents".to_owned())),
        None | Some(ValueKind::Nil) => Ok(Document::default()),
        Some(ValueKind::Table(members)) => Ok(Document { members, twice: loader.twice }),
        Some(_) => Err(NotYaml("it holds no sections with settings".to_owned())),
    }
}

fn at(mark: Marker, kind: ValueKind) -> Value {
    Value::new(Some(&format!("{} {}", mark.line(), mark.index())), kind)
}

impl Loader {
    fn take(&mut self, event: Event, mark: Marker) -> Result<(), NotYaml> {
        let line = mark.line();
        match event {
            Event::DocumentStart => self.documents += 1,
            Event::SequenceStart(anchor, _) => self.open(Open::Array(Vec::new()), mark, anchor)?,
            Event::MappingStart(anchor, _) => self.open(Open::Table(Map::new(), None), mark, anchor)?,
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Frame { open, mark, anchor }) = self.stack.pop() else { return Ok(()) };
                let value = match open {
                    Open::Array(items) => ValueKind::Array(items),
                    Open::Table(members, _) => ValueKind::Table(members),
                };
                self.put(at(mark, value), mark, anchor)?;
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_name = matches!(self.stack.last(), Some(Frame { open: Open::Table(_, None), .. }));
                let kind = match scalar(text.clone(), style, tag) {
                    // Names are texts, whatever they look like.
                    kind if is_name && kind != ValueKind::Nil => ValueKind::String(text),
                    kind => kind,
                };
                self.put(at(mark, kind), mark, anchor)?;
            }
            Event::Alias(anchor) => {
                let Some((value, size)) = self.anchors.get(&anchor).cloned() else {
                    return Err(NotYaml(format!("line {line} refers to something that is not complete there")));
                };
                self.count += size;
                self.put(at(mark, value.kind), mark, 0)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn open(&mut self, open: Open, mark: Marker, anchor: usize) -> Result<(), NotYaml> {
        if self.stack.len() >= DEEPEST {
            let line = mark.line();
            return Err(NotYaml(format!("line {line} is more than {DEEPEST} levels deep")));
        }
        self.stack.push(Frame { open, mark, anchor });
        Ok(())
    }

    fn put(&mut self, value: Value, mark: Marker, anchor: usize) -> Result<(), NotYaml> {
        self.count += 1;
        if self.count > MOST {
            return Err(NotYaml(format!("it comes to more than {MOST} values")));
        }
        if anchor > 0 {
            let size = size(&value);
            self.anchors.insert(anchor, (value.clone(), size));
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(value);
            return Ok(());
        };
        match &mut frame.open {
            Open::Array(items) => items.push(value),
            Open::Table(_, name @ None) => {
                let found = name_of(&value.kind).ok_or_else(|| NotYaml(format!("line {} has no name", mark.line())))?;
                *name = Some((found, mark));
            }
            Open::Table(members, name @ Some(_)) => {
                let Some((name, begin)) = name.take() else { return Ok(()) };
                if let Some(first) = members.get(&name) {
                    let first = self::line(first).unwrap_or_default();
                    let key = self.path(&name);
                    self.twice.push(Twice { key, line: begin.line(), first });
                    return Ok(());
                }
                // A section begins where its name stands, one with nothing in it, too.
                let is_section = matches!(value.kind, ValueKind::Array(_) | ValueKind::Table(_) | ValueKind::Nil);
                members.insert(name, if is_section { at(begin, value.kind) } else { value });
            }
        }
        Ok(())
    }

    /// A name in the innermost section with the sections around it.
    fn path(&self, name: &str) -> String {
        let around = self.stack.iter().filter_map(|frame| match &frame.open {
            Open::Table(_, Some((name, _))) => Some(name.as_str()),
            Open::Table(_, None) | Open::Array(_) => None,
        });
        around.chain([name]).collect::<Vec<_>>().join(".")
    }
}

fn name_of(kind: &ValueKind) -> Option<String> {
    match kind {
        ValueKind::Nil | ValueKind::Array(_) | ValueKind::Table(_) => None,
        name => Some(name.to_string()),
    }
}

fn size(value: &Value) -> usize {
    1 + match &value.kind {
        ValueKind::Array(items) => items.iter().map(size).sum(),
        ValueKind::Table(members) => members.values().map(size).sum(),
        _ => 0,
    }
}

/// What a text stands for.
fn scalar(text: String, style: TScalarStyle, tag: Option<Tag>) -> ValueKind {
    if style != TScalarStyle::Plain || tag.is_some() {
        return ValueKind::String(text);
    }
    match Yaml::from_str(&text) {
        Yaml::Null => ValueKind::Nil,
        Yaml::Boolean(flag) => ValueKind::Boolean(flag),
        Yaml::Integer(number) => ValueKind::I64(number),
        real @ Yaml::Real(_) => match text.parse() {
            Ok(number) => ValueKind::I128(number),
            Err(_) => ValueKind::Float(real.as_f64().unwrap_or(f64::NAN)),
        },
        _ => ValueKind::String(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> String {
        match load(text) {
            Ok(document) => written(&ValueKind::Table(document.members)),
            Err(NotYaml(why)) => format!("no: {why}"),
        }
    }

    #[test]
    fn values_stay_in_order_with_their_lines() {
        let text = "b: 1\na:\n  - x\n  - {y: true}\n\"c\": '07'\n";
        assert_eq!(loaded(text), "{b: 1, a: x,{y: true}, c: 07}");
        let members = load(text).unwrap().members;
        let ValueKind::Array(items) = &members["a"].kind else { panic!("{members:?}") };
        let lines = [&members["b"], &members["a"], &items[0], &items[1], &members["c"]].map(line);
        assert_eq!(lines, [1, 2, 3, 4, 5].map(Some));
        assert_eq!(members["c"].kind, ValueKind::String("07".to_owned()));
    }

    #[test]
    fn numbers_are_no_texts() {
        for (text, kind) in [
            ("1.50", ValueKind::Float(1.5)),
            ("1e5", ValueKind::Float(100_000.0)),
            ("99999999999999999999", ValueKind::I128(99_999_999_999_999_999_999)),
            ("'1.5'", ValueKind::String("1.5".to_owned())),
            ("1.5.0", ValueKind::String("1.5.0".to_owned())),
        ] {
            assert_eq!(load(&format!("a: {text}")).unwrap().members["a"].kind, kind, "{text}");
        }
        assert_eq!(loaded("a: 7.0\nb: 99999999999999999999\n"), "{a: 7.0, b: 99999999999999999999}");
    }

    #[test]
    fn a_name_that_comes_twice_is_told_with_both_lines() {
        let document = load("a:\n  b: {c: 1}\n  d: 2\n  b:\n    c: 3\n").unwrap();
        assert_eq!(document.twice, [Twice { key: "a.b".to_owned(), line: 4, first: 2 }]);
        assert_eq!(written(&ValueKind::Table(document.members)), "{a: {b: {c: 1}, d: 2}}");
    }

    #[test]
    fn what_is_referred_to_stands_in_its_place_and_does_not_explode() {
        assert_eq!(loaded("a: &x {k: 1}\nb: *x\n"), "{a: {k: 1}, b: {k: 1}}");
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(", "));
        }
        assert!(loaded(&bomb).contains("100000 values"));
        assert!(loaded(&"a: [".repeat(40)).starts_with("no: "));
        assert!(loaded(&format!("a: {}{}", "[".repeat(40), "]".repeat(40))).contains("32 levels"));
    }

    #[test]
    fn names_are_texts_and_documents_single() {
        assert_eq!(loaded("\u{feff}a: {b: 1}\n"), "{a: {b: 1}}");
        assert_eq!((loaded(""), loaded("# x\n"), loaded("---\n# x\n")), ("{}".into(), "{}".into(), "{}".into()));
        assert_eq!(loaded("1: x\nTrue: y\n007: z\n1e5: a\n"), "{1: x, True: y, 007: z, 1e5: a}");
        for text in ["~: x", "[a]: x", "a: 1\n---\nb: 2\n", "- a", "text"] {
            assert!(loaded(text).starts_with("no: "), "{text}");
        }
    }
}
