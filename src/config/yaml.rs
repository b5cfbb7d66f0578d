//! YAML as it stands in a file: values, in order, each with its line.

use std::collections::HashMap;

use yaml_rust2::parser::{Event, Parser, Tag};
use yaml_rust2::scanner::{Marker, TScalarStyle};
use yaml_rust2::{ScanError, Yaml};

/// How deep values may be nested: more than any setting is, and little enough for whatever goes over them.
const DEEPEST: usize = 32;
/// How many values a file may come to once what it refers to is put in its place.
const MOST: usize = 100_000;

/// A value and its line, from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub value: Value,
    pub line: usize,
}

/// A value before anybody looked at its type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Nil,
    Boolean(bool),
    I64(i64),
    /// A number that is no integer of 64 bits, as it is written.
    Number(String),
    String(String),
    Array(Vec<Node>),
    /// Names and values, in the order of the file; a name may come twice.
    Table(Vec<(String, Node)>),
}

/// Text that is no document of sections and settings; it says why and where, and quotes nothing.
#[derive(Debug)]
pub(super) struct NotYaml(pub String);

impl From<ScanError> for NotYaml {
    fn from(error: ScanError) -> Self {
        Self(error.to_string())
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nil => f.write_str("null"),
            Self::Boolean(flag) => write!(f, "{flag}"),
            Self::I64(number) => write!(f, "{number}"),
            Self::Number(text) | Self::String(text) => f.write_str(text),
            Self::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| item.value.to_string()).collect();
                f.write_str(&items.join(","))
            }
            Self::Table(members) => {
                let members: Vec<_> = members.iter().map(|(name, node)| format!("{name}: {}", node.value)).collect();
                write!(f, "{{{}}}", members.join(", "))
            }
        }
    }
}

/// Something that is open while a document is read.
enum Open {
    Array(Vec<Node>),
    /// The members so far, and the name whose value comes next.
    Table(Vec<(String, Node)>, Option<(String, usize)>),
}

struct Frame {
    open: Open,
    line: usize,
    anchor: usize,
}

#[derive(Default)]
struct Loader {
    stack: Vec<Frame>,
    anchors: HashMap<usize, (Node, usize)>,
    root: Option<Node>,
    documents: usize,
    count: usize,
}

/// Reads one document: a table, or nothing at all.
pub(super) fn load(text: &str) -> Result<Vec<(String, Node)>, NotYaml> {
    let mut loader = Loader::default();
    let mut parser = Parser::new_from_str(text);
    loop {
        let (event, mark) = parser.next_token()?;
        if event == Event::StreamEnd {
            break;
        }
        loader.take(event, mark)?;
    }
    match loader.root.map(|root| root.value) {
        _ if loader.documents > 1 => Err(NotYaml("there are several documents".to_owned())),
        None | Some(Value::Nil) => Ok(Vec::new()),
        Some(Value::Table(members)) => Ok(members),
        Some(_) => Err(NotYaml("it holds no sections with settings".to_owned())),
    }
}

impl Loader {
    fn take(&mut self, event: Event, mark: Marker) -> Result<(), NotYaml> {
        let line = mark.line();
        match event {
            Event::DocumentStart => self.documents += 1,
            Event::SequenceStart(anchor, _) => self.open(Open::Array(Vec::new()), line, anchor)?,
            Event::MappingStart(anchor, _) => self.open(Open::Table(Vec::new(), None), line, anchor)?,
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Frame { open, line, anchor }) = self.stack.pop() else { return Ok(()) };
                let value = match open {
                    Open::Array(items) => Value::Array(items),
                    Open::Table(members, _) => Value::Table(members),
                };
                self.put(Node { value, line }, anchor)?;
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.put(Node { value: scalar(text, style, tag), line }, anchor)?;
            }
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
                    return Err(NotYaml(format!("line {line} refers to something that is not complete there")));
                };
                self.count += size;
                self.put(Node { line, ..node }, 0)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn open(&mut self, open: Open, line: usize, anchor: usize) -> Result<(), NotYaml> {
        if self.stack.len() >= DEEPEST {
            return Err(NotYaml(format!("line {line} is more than {DEEPEST} levels deep")));
        }
        self.stack.push(Frame { open, line, anchor });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), NotYaml> {
        self.count += 1;
        if self.count > MOST {
            return Err(NotYaml(format!("it comes to more than {MOST} values")));
        }
        if anchor > 0 {
            let size = size(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let line = node.line;
        match self.stack.last_mut().map(|frame| &mut frame.open) {
            None => self.root = Some(node),
            Some(Open::Array(items)) => items.push(node),
            Some(Open::Table(members, name)) => match name.take() {
                Some((name, begin)) => {
                    // A section begins where its name stands.
                    let is_section = matches!(node.value, Value::Array(_) | Value::Table(_));
                    members.push((name, if is_section { Node { line: begin, ..node } } else { node }));
                }
                None => {
                    let found = name_of(node.value).ok_or_else(|| NotYaml(format!("line {line} has no name")))?;
                    *name = Some((found, line));
                }
            },
        }
        Ok(())
    }
}

fn name_of(value: Value) -> Option<String> {
    match value {
        Value::String(_) | Value::Boolean(_) | Value::I64(_) | Value::Number(_) => Some(value.to_string()),
        Value::Nil | Value::Array(_) | Value::Table(_) => None,
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Table(members) => members.iter().map(|(_, node)| size(node)).sum(),
        _ => 0,
    }
}

fn scalar(text: String, style: TScalarStyle, tag: Option<Tag>) -> Value {
    if style != TScalarStyle::Plain || tag.is_some() {
        return Value::String(text);
    }
    match Yaml::from_str(&text) {
        Yaml::Null => Value::Nil,
        Yaml::Boolean(flag) => Value::Boolean(flag),
        Yaml::Integer(number) => Value::I64(number),
        Yaml::Real(text) => Value::Number(text),
        _ => Value::String(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> String {
        match load(text) {
            Ok(members) => Value::Table(members).to_string(),
            Err(NotYaml(why)) => format!("no: {why}"),
        }
    }

    #[test]
    fn values_stay_in_order_with_their_lines() {
        let members = load("b: 1\na:\n  - x\n  - {y: true}\n\"c\": '07'\n").unwrap();
        assert_eq!(Value::Table(members.clone()).to_string(), "{b: 1, a: x,{y: true}, c: 07}");
        let Value::Array(items) = &members[1].1.value else { panic!("{members:?}") };
        assert_eq!([members[0].1.line, items[0].line, items[1].line, members[2].1.line], [1, 3, 4, 5]);
        assert_eq!(members[2].1.value, Value::String("07".to_owned()));
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
        assert_eq!((loaded(""), loaded("# x\n"), loaded("---\n# x\n")), ("{}".into(), "{}".into(), "{}".into()));
        assert_eq!(loaded("1: x\ntrue: y\n"), "{1: x, true: y}");
        for text in ["~: x", "[a]: x", "a: 1\n---\nb: 2\n", "- a", "text"] {
            assert!(loaded(text).starts_with("no: "), "{text}");
        }
    }
}
