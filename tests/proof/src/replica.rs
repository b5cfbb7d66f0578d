//! One process of the service.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::naive::Flaw;
use crate::servers::signal;

/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Settings of the service, named as in `nats.url`.
pub type Settings = BTreeMap<String, String>;

/// What runs as the service.
#[derive(Debug, Clone)]
pub enum Program {
    /// The program under test.
    Service(PathBuf),
    /// The naive service, with one of its defences left out.
    Naive {
        /// The program of this crate.
        proof: PathBuf,
        /// The defence that is left out.
        flaw: Option<Flaw>,
    },
}

impl Program {
    /// Whether it is a naive one.
    pub fn is_naive(&self) -> bool {
        matches!(self, Self::Naive { .. })
    }

    /// The program under test, if it is that.
    pub fn service(&self) -> Option<&Path> {
        match self {
            Self::Service(path) => Some(path),
            Self::Naive { .. } => None,
        }
    }

    /// The name of the naive one's flaw.
    pub fn flaw(&self) -> Option<String> {
        match self {
            Self::Service(_) => None,
            Self::Naive { flaw, .. } => Some(flaw.map_or_else(|| "none".to_owned(), |flaw| flaw.to_string())),
        }
    }

    fn command(&self) -> Command {
        match self {
            Self::Service(path) => {
                let mut command = Command::new(path);
                command.arg("run");
                command
            }
            Self::Naive { proof, flaw } => {
                let mut command = Command::new(proof);
                command.arg("naive");
                command.args(flaw.map(|flaw| format!("--flaw={flaw}")));
                command
            }
        }
    }
}

/// A process; it ends with this value.
#[derive(Debug)]
pub struct Replica {
    child: Mutex<Child>,
    id: u32,
    log: Arc<Mutex<String>>,
}

impl Replica {
    /// Starts a process with these settings and no others, and more in its environment.
    pub fn spawn(program: &Program, settings: &Settings, environment: &[(String, String)]) -> Self {
        let variables = settings
            .iter()
            .map(|(name, value)| (format!("DAISI_CDC_{}", name.to_uppercase().replace('.', "__")), value.clone()));
        let mut child = program
            .command()
            .env_clear()
            .envs(variables)
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let (stderr, log) = (child.stderr.take().unwrap(), Arc::new(Mutex::new(String::new())));
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = sink.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { id: child.id(), child: Mutex::new(child), log }
    }

    /// Waits until it says that it has started; an error with its log if it ended instead.
    pub async fn started(&self) -> Result<(), String> {
        while self.http().is_none() {
            if self.has_ended() {
                return Err(format!("it ended instead of starting:\n{}", self.log()));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Where its pages are, once it has started.
    fn http(&self) -> Option<String> {
        let log = self.log.lock().unwrap();
        let started = log.lines().find(|line| line.contains(r#""started""#))?;
        let line: Value = serde_json::from_str(started).ok()?;
        line["http"].as_str().map(str::to_owned)
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Sends it a signal, by its name without SIG; nothing if it has ended.
    pub fn signal(&self, name: &str) {
        if !self.has_ended() {
            signal(self.id, name);
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits for its end: its exit status; `None` if a signal ended it.
    pub async fn ended(&self) -> Option<i32> {
        loop {
            if let Some(status) = self.child.lock().unwrap().try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Status and body of a page.
    pub async fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let http = self.http().ok_or(std::io::ErrorKind::NotConnected)?;
        let asked = async {
            let mut stream = TcpStream::connect(http).await?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: proof\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = tokio::time::timeout(PATIENCE, asked).await??;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or(std::io::ErrorKind::InvalidData)?, body.to_owned()))
    }

    /// Its figures.
    pub async fn metrics(&self) -> std::io::Result<Metrics> {
        self.get("/metrics").await.map(|(_, text)| Metrics(text))
    }

    /// Its resident memory in bytes; `None` if it has ended.
    pub fn rss_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// How many descriptors it has open; `None` if it has ended.
    pub fn open_files(&self) -> Option<usize> {
        std::fs::read_dir(format!("/proc/{}/fd", self.id)).ok().map(Iterator::count)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What `/metrics` said.
#[derive(Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of the samples of a name that carry all its labels, as in `cdc_consumer_paused{reason="dedup"}`; 0 if
    /// there is none.
    pub fn value(&self, sample: &str) -> f64 {
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let labels: Vec<&str> = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
        let samples = self.0.lines().filter_map(|line| line.rsplit_once(' '));
        samples
            .filter(|(found, _)| {
                let rest = found.strip_prefix(name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                    && labels.iter().all(|label| found.contains(label))
            })
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }
}
