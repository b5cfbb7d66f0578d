//! The service itself: the real binary, or in this process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cdc_actors::supervisor::ExitReason;
use daisi_cdc_consumer::config::Config;
use daisi_cdc_consumer::logging;
use serde_json::Value;
use tokio::sync::oneshot;

use super::process;

/// How long the service may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(40);

/// Settings, named as in `nats.url`.
pub type Settings = BTreeMap<String, String>;

/// The lines of a log, as they come.
#[derive(Clone, Default)]
pub struct Log {
    lines: Arc<(Mutex<Lines>, Condvar)>,
}

#[derive(Default)]
struct Lines {
    whole: Vec<String>,
    rest: Vec<u8>,
    ended: bool,
}

impl Log {
    fn feed(&self, bytes: &[u8]) {
        let mut lines = self.lines.0.lock().unwrap();
        lines.rest.extend_from_slice(bytes);
        while let Some(end) = lines.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = lines.rest.drain(..=end).collect();
            lines.whole.push(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        self.lines.1.notify_all();
    }

    fn end(&self) {
        self.lines.0.lock().unwrap().ended = true;
        self.lines.1.notify_all();
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        self.lines.0.lock().unwrap().whole.join("\n")
    }

    /// The lines so far that say `msg`.
    pub fn find(&self, msg: &str) -> Vec<Value> {
        let lines = self.lines.0.lock().unwrap();
        let parsed = lines.whole.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["msg"] == msg).collect()
    }

    /// Waits for a line that says `msg`; `None` if the log ended before.
    fn wait_for(&self, msg: &str) -> Option<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.find(msg).into_iter().next() {
                return Some(line);
            }
            let lines = self.lines.0.lock().unwrap();
            if lines.ended {
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line {msg:?} within {PATIENCE:?}: {:#?}", lines.whole);
            // Woken by every line; the bound is for a line that came between the look and the wait.
            drop(self.lines.1.wait_timeout(lines, left.min(Duration::from_millis(20))).unwrap());
        }
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The service, running. Dropping it kills a process and asks a thread to end.
pub struct Service {
    log: Log,
    http: String,
    body: Body,
}

enum Body {
    Process { child: Child, reader: Option<JoinHandle<()>> },
    Thread { stop: Option<oneshot::Sender<()>>, thread: Option<JoinHandle<ExitReason>> },
}

fn variables(settings: &Settings) -> impl Iterator<Item = (String, String)> {
    settings
        .iter()
        .map(|(name, value)| (format!("DAISI_CDC_{}", name.to_uppercase().replace('.', "__")), value.clone()))
}

/// The real binary with these settings and no others.
pub fn binary(settings: &Settings) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daisi-cdc-consumer"));
    let inherited = std::env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| name.to_string_lossy().starts_with("DAISI_CDC_")) {
        command.env_remove(name);
    }
    command.envs(variables(settings)).stdin(Stdio::null());
    command
}

/// Runs the real binary to its end, with something on its standard input.
pub fn command(settings: &Settings, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = binary(settings);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // Threads, so that full pipes cannot block each other; whether all the input is read is the command's own business.
    std::thread::spawn(move || drop(stdin.write_all(&input)));
    let (stdout, stderr) = (drained(child.stdout.take().unwrap()), drained(child.stderr.take().unwrap()));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            let said = stderr.join().unwrap();
            panic!("{arguments:?} did not end within {PATIENCE:?}: {}", String::from_utf8_lossy(&said));
        }
        super::pause();
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn drained(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

impl Service {
    /// Starts the real binary and waits until it runs.
    pub fn start(settings: &Settings) -> Self {
        Self::spawn(settings, &["run"]).started()
    }

    /// Starts the real binary with arguments of its own, and waits for nothing.
    pub fn spawn(settings: &Settings, arguments: &[&str]) -> Self {
        let mut child = binary(settings).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = Log::default();
        let copy = log.clone();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 8192];
            while let Ok(count @ 1..) = stderr.read(&mut bytes) {
                copy.feed(&bytes[..count]);
            }
            copy.end();
        });
        Self { http: String::new(), body: Body::Process { child, reader: Some(reader) }, log }
    }

    /// Starts it in this process and waits until it runs.
    pub fn start_in_process(settings: &Settings) -> Self {
        let config = Config::load(None, variables(settings)).unwrap_or_else(|error| panic!("{error}"));
        let log = Log::default();
        let copy = log.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let (logger, guard) = logging::logger_to(&config.log, copy.clone());
            let shutdown = async { drop(stopped.await) };
            let ended = actix_rt::System::new().block_on(daisi_cdc_consumer::run(&config, &logger, shutdown));
            drop(guard);
            copy.end();
            ended.unwrap()
        });
        Self { http: String::new(), body: Body::Thread { stop: Some(stop), thread: Some(thread) }, log }.started()
    }

    /// Waits until it runs.
    pub fn started(mut self) -> Self {
        let line = self.log.wait_for("started");
        let line = line.unwrap_or_else(|| panic!("it ended instead of starting:\n{}", self.log.text()));
        self.http = line["http"].as_str().unwrap().to_owned();
        self
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Where its HTTP endpoint listens, as address:port.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// Fetches a page: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
        (status, body.to_owned())
    }

    /// The sum of a metric's series that carry all these labels, written as in `/metrics`; 0 if there is none.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        let series = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && labels.iter().all(|label| line.contains(label))
        });
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Waits until it has told how each of so many events ended, and holds that it tells of no more. The source hears of it a
    /// moment earlier.
    pub fn until_told(&self, events: usize) {
        let deadline = Instant::now() + PATIENCE;
        let told = || self.metric("cdc_consumer_events_total", &[]);
        while told() < events as f64 {
            assert!(Instant::now() < deadline, "{} of {events} are told of:\n{}", told(), self.log.text());
            super::pause();
        }
        assert_eq!(told(), events as f64);
    }

    /// Sends the process a signal.
    pub fn signal(&self, name: &str) {
        let Body::Process { child, .. } = &self.body else { panic!("a thread takes no signals") };
        process::signal(child, name);
    }

    /// Freezes the process; it goes on with `CONT`.
    pub fn freeze(&self) {
        let Body::Process { child, .. } = &self.body else { panic!("a thread takes no signals") };
        process::freeze(child);
    }

    /// Asks for the controlled shutdown, waits for the end, and makes sure that it was an orderly one.
    pub fn stop(mut self) -> Log {
        match &mut self.body {
            Body::Process { .. } => {
                self.signal("TERM");
                assert_eq!(self.wait(), Some(0), "{}", self.log.text());
            }
            Body::Thread { stop, thread } => {
                drop(stop.take());
                assert_eq!(thread.take().unwrap().join().unwrap(), ExitReason::Asked);
            }
        }
        self.log.clone()
    }

    /// Ends the process at once, as a crash would.
    pub fn kill(&mut self) {
        let Body::Process { child, .. } = &mut self.body else { panic!("a thread cannot be killed") };
        child.kill().unwrap();
        self.wait();
    }

    /// Waits for the end of the process: its exit status, if it was not killed.
    pub fn wait(&mut self) -> Option<i32> {
        let Body::Process { child, reader } = &mut self.body else { panic!("a thread has no exit status") };
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it did not end within {PATIENCE:?}:\n{}", self.log.text());
            super::pause();
        };
        if let Some(reader) = reader.take() {
            reader.join().unwrap();
        }
        status.code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of the service:\n{}", self.log.text());
        }
        match &mut self.body {
            Body::Process { child, reader } => {
                let _ = child.kill();
                let _ = child.wait();
                drop(reader.take().map(JoinHandle::join));
            }
            Body::Thread { stop, thread } => {
                drop(stop.take());
                drop(thread.take().map(JoinHandle::join));
            }
        }
    }
}

/// The lines of an output.
pub fn lines(bytes: &[u8]) -> Vec<String> {
    bytes.lines().map(Result::unwrap).collect()
}
