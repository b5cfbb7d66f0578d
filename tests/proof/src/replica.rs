//! One process of the service.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::servers::signal;

/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Settings of the service, named as in `nats.url`.
pub type Settings = BTreeMap<String, String>;

/// What runs as the service.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub binary: PathBuf,
    /// What the saboteur is told, if the program is that one (package cdc-saboteur).
    pub sabotage: Option<String>,
}

impl Program {
    /// The program under test.
    pub fn service(binary: impl Into<PathBuf>) -> Self {
        Self { binary: binary.into(), sabotage: None }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env_clear();
        match &self.sabotage {
            Some(sabotage) => command.env("SABOTAGE", sabotage),
            None => command.arg("run"),
        };
        command
    }
}

/// A process; it ends with this value.
#[derive(Debug)]
pub struct Replica {
    child: Mutex<Child>,
    id: u32,
    log: Arc<Mutex<String>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

/// Copies what a process says, line by line, until it closes the pipe.
fn copy(pipe: impl Read + Send + 'static, log: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        let (mut pipe, mut line) = (BufReader::new(pipe), Vec::new());
        while let Ok(1..) = pipe.read_until(b'\n', &mut line) {
            log.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

impl Replica {
    /// Starts a process with these settings and no others, and with this in its environment.
    pub fn spawn(program: &Program, settings: &Settings, environment: &[(String, String)]) -> Self {
        let variables = settings
            .iter()
            .map(|(name, value)| (format!("DAISI_CDC_{}", name.to_uppercase().replace('.', "__")), value.clone()));
        let mut child = program
            .command()
            .envs(variables)
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let log = Arc::new(Mutex::new(String::new()));
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let readers = Mutex::new(vec![copy(stdout, &log), copy(stderr, &log)]);
        Self { id: child.id(), child: Mutex::new(child), log, readers }
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
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["msg"] == "started").find_map(|line| line["http"].as_str().map(str::to_owned))
    }

    /// Everything it has said so far; all of it once it has ended.
    pub fn log(&self) -> String {
        if self.has_ended() {
            for reader in self.readers.lock().unwrap().drain(..) {
                reader.join().unwrap();
            }
        }
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

    /// Its process.
    pub fn id(&self) -> u32 {
        self.id
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
    /// The sum of the samples of a name that carry all its labels, as in `cdc_consumer_paused{reason="dedup"}`; `None` if
    /// there is none.
    pub fn find(&self, sample: &str) -> Option<f64> {
        let (name, wanted) = parts(sample);
        let samples = self.0.lines().filter_map(|line| line.rsplit_once(' '));
        let values = samples.filter_map(|(found, value)| {
            let (found, labels) = parts(found);
            let fits = found == name && wanted.iter().all(|label| labels.contains(label));
            fits.then(|| value.parse::<f64>().ok()).flatten()
        });
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }

    /// As [`Self::find`]; 0 if there is none, as it is of a counter that has counted nothing yet.
    pub fn value(&self, sample: &str) -> f64 {
        self.find(sample).unwrap_or(0.0)
    }
}

fn parts(sample: &str) -> (&str, Vec<&str>) {
    let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
    (name, labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn figures_are_found_by_name_and_whole_labels() {
        let text = "a_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\",y=\"3\"} 4\na_total_b 9\nc{other_x=\"1\"} 1\n";
        let metrics = Metrics(text.to_owned());
        assert_eq!(metrics.find("a_total"), Some(7.0));
        assert_eq!(metrics.find(r#"a_total{x="1",y="3"}"#), Some(4.0));
        assert_eq!(metrics.find(r#"c{x="1"}"#), None);
        assert_eq!(metrics.find("a"), None);
    }
}
