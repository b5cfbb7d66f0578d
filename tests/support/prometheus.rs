//! A Prometheus for one test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;

use super::process::Port;

/// How long it may take to start or to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A Prometheus on a port of its own that scrapes one target twice a second and evaluates rules as often; it ends with this value.
pub struct Prometheus {
    address: SocketAddr,
    child: Child,
    directory: TempDir,
    _port: Port,
}

impl Prometheus {
    /// Whether there is one on this machine.
    pub fn is_installed() -> bool {
        Command::new("prometheus").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    }

    /// Starts one that scrapes `target` (address:port) under the name of `job` and knows these rules.
    pub fn start(job: &str, target: &str, rules: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let config = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}\n\
             rule_files: [rules.yaml]\n\
             scrape_configs: [{{job_name: {job}, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        std::fs::write(directory.path().join("rules.yaml"), rules).unwrap();
        std::fs::write(directory.path().join("prometheus.yaml"), config).unwrap();
        let port = Port::free();
        let address = SocketAddr::from(([127, 0, 0, 1], port.number()));
        let mut child = launch(directory.path(), address);
        if answers(&mut child, address) {
            return Self { address, child, directory, _port: port };
        }
        panic!("prometheus did not start: {}", std::fs::read_to_string(directory.path().join("log")).unwrap());
    }

    /// What a query finds now: pairs of labels and value.
    ///
    /// # Errors
    /// What Prometheus has against the query.
    pub fn query(&self, query: &str) -> Result<Vec<(Value, f64)>, String> {
        let answer = self.get(&format!("/api/v1/query?query={}", utf8_percent_encode(query, NON_ALPHANUMERIC)));
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let found = answer["data"]["result"].as_array().unwrap().iter();
        Ok(found.map(|one| (one["metric"].clone(), one["value"][1].as_str().unwrap().parse().unwrap())).collect())
    }

    /// The labels of the alerts that fire now.
    pub fn firing(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/alerts");
        let alerts = answer["data"]["alerts"].as_array().unwrap().iter();
        alerts.filter(|alert| alert["state"] == "firing").map(|alert| alert["labels"].clone()).collect()
    }

    fn get(&self, path: &str) -> Value {
        let answer = get(self.address, path).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("log"));
            eprintln!("the log of prometheus:\n{}", log.unwrap_or_default());
        }
    }
}

fn launch(directory: &Path, address: SocketAddr) -> Child {
    let flag = |name: &str, value: &Path| format!("--{name}={}", value.display());
    Command::new("prometheus")
        .arg(flag("config.file", &directory.join("prometheus.yaml")))
        .arg(flag("storage.tsdb.path", &directory.join("data")))
        .arg(format!("--web.listen-address={address}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(directory.join("log")).unwrap())
        .spawn()
        .unwrap()
}

/// Whether it is ready, or has ended instead.
fn answers(child: &mut Child, address: SocketAddr) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
        if get(address, "/-/ready").is_ok_and(|answer| answer.contains(" 200 ")) {
            return true;
        }
        super::pause();
    }
    let _ = child.kill();
    child.wait().unwrap();
    false
}

/// HTTP/1.0, whose answers come in one piece.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
