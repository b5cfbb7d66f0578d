//! The logger: one line per failure or change of state, as JSON or for people, on standard error; standard output
//! belongs to the results of commands. A logger is passed to whoever needs one, there is no global one.
//!
//! Lines are written by a thread of their own. When it cannot keep up, because whoever reads standard error has
//! stalled, lines are dropped and a later line says how many: a full pipe must not stop events from being acknowledged.

use std::error::Error;
use std::io::{self, LineWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use slog::{Drain, FnValue, Level, Logger, Never, OwnedKVList, PushFnValue, Record, o};
use slog_async::{Async, AsyncGuard, OverflowStrategy};

use crate::config::{Log, LogFormat, LogLevel, redact_text};

/// Lines that may wait to be written.
const QUEUE: usize = 8_192;

/// Keeps the thread that writes. Dropping it writes what waits; do so last, after everything that logs.
#[must_use = "dropping it ends logging"]
pub struct LogGuard {
    _writer: AsyncGuard,
    level: LevelSwitch,
}

impl LogGuard {
    /// What changes the level of the logger while it is in use.
    pub fn level(&self) -> LevelSwitch {
        self.level.clone()
    }
}

/// The level of one logger. Clones are one and the same.
#[derive(Debug, Clone)]
pub struct LevelSwitch(Arc<AtomicUsize>);

impl LevelSwitch {
    fn new(level: LogLevel) -> Self {
        Self(Arc::new(AtomicUsize::new(Level::from(level).as_usize())))
    }

    /// Lines below are left out from now on.
    pub fn set(&self, level: LogLevel) {
        self.0.store(Level::from(level).as_usize(), Ordering::Relaxed);
    }

    fn lets_through(&self, level: Level) -> bool {
        level.as_usize() <= self.0.load(Ordering::Relaxed)
    }
}

/// Leaves out what is below the level.
struct Filtered<D> {
    drain: D,
    level: LevelSwitch,
}

impl<D: Drain> Drain for Filtered<D> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if self.level.lets_through(record.level()) {
            // A line that cannot be handed over is lost; there is nowhere left to say so.
            let _ = self.drain.log(record, values);
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        self.level.lets_through(level)
    }
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Trace => Self::Trace,
            LogLevel::Debug => Self::Debug,
            LogLevel::Info => Self::Info,
            LogLevel::Warning => Self::Warning,
            LogLevel::Error => Self::Error,
            LogLevel::Critical => Self::Critical,
        }
    }
}

/// A logger that writes to standard error.
pub fn logger(config: &Log) -> (Logger, LogGuard) {
    match config.format {
        LogFormat::Json => logger_to(config, LineWriter::new(io::stderr())),
        LogFormat::Terminal => {
            let decorator = slog_term::TermDecorator::new().stderr();
            // https://no-color.org: set and not empty.
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let decorator = if plain { decorator.force_plain() } else { decorator };
            in_background(config, slog_term::CompactFormat::new(decorator.build()).build())
        }
    }
}

/// A logger that writes to `writer`, without colours.
pub fn logger_to(config: &Log, writer: impl Write + Send + 'static) -> (Logger, LogGuard) {
    match config.format {
        LogFormat::Json => in_background(config, json(writer)),
        LogFormat::Terminal => {
            let decorator = slog_term::PlainDecorator::new(writer);
            in_background(config, slog_term::CompactFormat::new(decorator).build())
        }
    }
}

fn in_background<D: Drain + Send + 'static>(config: &Log, drain: D) -> (Logger, LogGuard) {
    // A line that cannot be written is lost; there is nowhere left to say so.
    let (drain, writer): (Async, AsyncGuard) = Async::new(drain.ignore_res())
        .chan_size(QUEUE)
        .overflow_strategy(OverflowStrategy::DropAndReport)
        .thread_name("log".to_owned())
        .build_with_guard();
    let level = LevelSwitch::new(config.level);
    let filtered = Filtered { drain, level: level.clone() };
    (Logger::root(filtered, o!()), LogGuard { _writer: writer, level })
}

fn json<W: Write>(writer: W) -> slog_json::Json<W> {
    slog_json::Json::new(writer)
        .add_key_value(o!(
            // Written last to first.
            "msg" => PushFnValue(|record, serializer| serializer.emit(record.msg())),
            "level" => FnValue(|record| level_name(record.level())),
            "ts" => FnValue(|_| format!("{:.6}", Timestamp::now())),
        ))
        .build()
}

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::Critical => "critical",
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// An error with everything that caused it on one line, outermost first, without the passwords of any URL in it.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // An error that shows its cause already is not repeated.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    redact_text(&text)
}

/// A logger that keeps nothing.
pub fn discard() -> Logger {
    Logger::root(slog::Discard, o!())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use serde_json::Value;
    use slog::{debug, error, info};

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Buffer {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
        }
    }

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(level: LogLevel, format: LogFormat, lines: impl FnOnce(&Logger)) -> String {
        let buffer = Buffer::default();
        let (logger, guard) = logger_to(&Log { level, format }, buffer.clone());
        lines(&logger);
        drop(guard);
        buffer.text()
    }

    #[test]
    fn a_line_is_one_json_object() {
        let text = log(LogLevel::Info, LogFormat::Json, |logger| {
            error!(logger, "target is down"; "dependency" => "target", "stream_seq" => 7_u64);
            info!(logger, "line\nbreak \"quoted\"");
        });
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(text.starts_with("{\"ts\":\""), "{text}");
        assert_eq!((&lines[0]["level"], &lines[0]["msg"]), (&"error".into(), &"target is down".into()));
        assert_eq!((&lines[0]["dependency"], &lines[0]["stream_seq"]), (&"target".into(), &7.into()));
        assert_eq!(lines[1]["msg"], "line\nbreak \"quoted\"");
        let ts = lines[0]["ts"].as_str().unwrap();
        assert!(ts.parse::<Timestamp>().is_ok() && ts.len() == "2025-01-01T00:00:00.000000Z".len(), "{ts}");
    }

    #[test]
    fn lines_below_the_level_are_left_out() {
        let lines = |logger: &Logger| {
            debug!(logger, "quiet");
            info!(logger, "normal");
        };
        assert!(!log(LogLevel::Info, LogFormat::Json, lines).contains("quiet"));
        assert!(log(LogLevel::Debug, LogFormat::Json, lines).contains("quiet"));
        assert_eq!(log(LogLevel::Error, LogFormat::Json, lines), "");
    }

    #[test]
    fn the_level_can_be_changed_while_the_logger_is_in_use() {
        let buffer = Buffer::default();
        let config = Log { level: LogLevel::Info, format: LogFormat::Json };
        let (logger, guard) = logger_to(&config, buffer.clone());
        let child = logger.new(o!());
        for (level, text) in [(LogLevel::Info, "one"), (LogLevel::Debug, "two"), (LogLevel::Error, "three")] {
            guard.level().set(level);
            debug!(child, "debug {}", text);
            error!(child, "error {}", text);
        }
        drop(guard);
        let lines: Vec<Value> = buffer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let said: Vec<_> = lines.iter().map(|line| line["msg"].as_str().unwrap()).collect();
        assert_eq!(said, ["error one", "debug two", "error two", "error three"]);
    }

    #[test]
    fn people_get_plain_text() {
        let text = log(LogLevel::Info, LogFormat::Terminal, |logger| info!(logger, "started"; "workers" => 8));
        assert!(text.contains("INFO started, workers: 8"), "{text}");
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_is_reported_but_never_blocks() {
        struct Stalled(std::sync::mpsc::Receiver<()>, Buffer);
        impl Write for Stalled {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                // Returns once the other end is gone, when the test lets the reader go on.
                let _ = self.0.recv();
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stalled) = std::sync::mpsc::channel();
        let buffer = Buffer::default();
        let config = Log { level: LogLevel::Info, format: LogFormat::Json };
        let (logger, guard) = logger_to(&config, Stalled(stalled, buffer.clone()));
        for _ in 0..QUEUE + 100 {
            info!(logger, "line");
        }
        drop(release);
        // The report comes with the first line that finds room again.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !buffer.text().contains("dropped") && std::time::Instant::now() < deadline {
            info!(logger, "room?");
            std::thread::yield_now();
        }
        drop(guard);
        assert!(buffer.text().contains("dropped"), "{}", buffer.text().lines().last().unwrap_or_default());
    }
}
