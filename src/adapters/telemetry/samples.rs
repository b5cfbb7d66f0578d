//! The figures of the metrics, read back from their text: the registry is the one place where anything is counted.

/// What `/metrics` says at one moment, borrowed from its text.
pub struct Samples<'a>(Vec<Sample<'a>>);

/// One line of it.
#[derive(Debug, PartialEq)]
pub struct Sample<'a> {
    /// The metric.
    pub name: &'a str,
    /// Its labels; values as they are written, with escapes.
    pub labels: Vec<(&'a str, &'a str)>,
    /// The value.
    pub value: f64,
}

impl<'a> Sample<'a> {
    /// A label; empty if there is none of this name.
    pub fn label(&self, name: &str) -> &'a str {
        self.labels.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| value)
    }

    fn read(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(after) = rest.strip_prefix('{') {
            rest = after;
            while !rest.starts_with('}') {
                let (label, after) = rest.trim_start_matches(',').split_once("=\"")?;
                let close = closing_quote(after)?;
                labels.push((label, &after[..close]));
                rest = &after[close + 1..];
            }
            rest = &rest[1..];
        }
        Some(Self { name, labels, value: rest.trim().parse().ok()? })
    }
}

/// Where a quoted text ends, a backslash taking the next character with it.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

impl<'a> Samples<'a> {
    /// Reads the text format; what is no sample is passed over.
    pub fn read(text: &'a str) -> Self {
        Self(text.lines().filter_map(Sample::read).collect())
    }

    /// Every sample of a metric.
    pub fn of(&self, name: &str) -> impl Iterator<Item = &Sample<'a>> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// The value of a metric without labels; `None` if it is not there.
    pub fn one(&self, name: &str) -> Option<f64> {
        self.of(name).next().map(|sample| sample.value)
    }

    /// The sum over a metric's samples that carry all these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let carries = |sample: &&Sample<'_>| labels.iter().all(|(label, value)| sample.label(label) == *value);
        self.of(name).filter(carries).map(|sample| sample.value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_whatever_their_labels_hold() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"q\\\"},\\\\\"} 2\na{x=\"2\"} 3.5\n\nb 7\nc{le=\"+Inf\"} +Inf\nbroken{x=\"} 1\n";
        let samples = Samples::read(text);
        assert_eq!(samples.0.len(), 4);
        assert_eq!(samples.0[0].labels, [("x", "1"), ("y", "q\\\"},\\\\")]);
        assert_eq!(samples.0[0].label("z"), "");
        assert_eq!((samples.sum("a", &[]), samples.sum("a", &[("x", "2")]), samples.sum("b", &[])), (5.5, 3.5, 7.0));
        assert_eq!((samples.sum("nothing", &[]), samples.sum("c", &[])), (0.0, f64::INFINITY));
    }
}
