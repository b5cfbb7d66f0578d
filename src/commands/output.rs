//! How commands write: for people or for machines, with colours and progress only where somebody looks.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{HumanFloatCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;

/// What is worth a look.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// What went wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default();
/// Names.
pub(super) const NAME: Style = Style::new().bold();

/// Whether a character commands terminals and need not be escaped in JSON.
fn is_beyond_json(c: char) -> bool {
    ('\u{7f}'..='\u{9f}').contains(&c)
}

/// A text in a style; standard output drops the style where nobody would see it.
pub(super) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Standard output; drops colours where it is no terminal, or NO_COLOR is set.
pub(super) fn stdout() -> anstream::AutoStream<io::Stdout> {
    anstream::AutoStream::auto(io::stdout())
}

/// Writes bytes as they are.
pub(super) fn write(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

/// Writes one JSON value on a line of its own.
pub(super) fn json_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(value).map_err(io::Error::from)?;
    // JSON lets these stand in a string as they are. A terminal obeys some, and what drops colours drops one.
    if line.contains(is_beyond_json) {
        let escaped = |c: char| if is_beyond_json(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
        line = line.chars().map(escaped).collect();
    }
    write(out, format!("{line}\n").as_bytes())
}

/// A text on one line, nothing in it that moves the cursor or changes colours: events may hold anything.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A text with its lines, likewise.
pub(super) fn lines(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { ' ' } else { c }).collect()
}

/// Progress of a long work on standard error, where that is a terminal. `total` is what there is to do.
pub(super) fn progress(what: &'static str, total: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = "{msg} {wide_bar} {pos}/{len} {rate} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.with_key("rate", write_rate));
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// How many a second, without decimals.
fn write_rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    // A line of progress that cannot be written is not missed.
    let _ = write!(out, "{}", rate(state.per_sec()));
}

fn rate(per_second: f64) -> String {
    format!("{}/s", HumanFloatCount(per_second.round()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_whole_through_what_drops_colours() {
        let every: String = (0..=0x3_0000).filter_map(char::from_u32).collect();
        let mut out = anstream::StripStream::new(Vec::new());
        json_line(&mut out, &every).unwrap();
        let read: String = serde_json::from_slice(&out.into_inner()).unwrap();
        assert!(read == every, "{:?}", every.chars().filter(|c| !read.contains(*c)).collect::<Vec<_>>());
    }

    #[test]
    fn a_rate_has_no_decimals() {
        assert_eq!([0.0, 0.4, 9_200.825_5].map(rate), ["0/s", "0/s", "9,201/s"]);
    }

    #[test]
    fn json_commands_no_terminal_and_says_what_it_said() {
        let text = "a\u{7f}\u{9b}31m\u{80}é\n";
        let mut line = Vec::new();
        super::json_line(&mut line, &text).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line, "\"a\\u007f\\u009b31m\\u0080é\\n\"\n");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }
}
