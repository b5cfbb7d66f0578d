//! Servers of their own for tests: free ports, temporary data, gone when dropped.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The nats-servers to test against: `NATS_SERVER_OLD` (else the one on the path) and `NATS_SERVER_NEW` (else the one in `.tools`).
pub fn nats_servers() -> Vec<PathBuf> {
    let runs = |path: &PathBuf| Command::new(path).arg("--version").output().is_ok();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/nats-server");
    let old = std::env::var_os("NATS_SERVER_OLD").map_or_else(|| PathBuf::from("nats-server"), PathBuf::from);
    let new = std::env::var_os("NATS_SERVER_NEW").map_or(tools, PathBuf::from);
    let found: Vec<PathBuf> = [old, new].into_iter().filter(runs).collect();
    assert!(
        !found.is_empty(),
        "no nats-server: install it (apt-get install nats-server) or name one in NATS_SERVER_NEW"
    );
    found
}

/// A nats-server with JetStream.
pub struct NatsServer {
    binary: PathBuf,
    data: TempDir,
    child: Option<Child>,
    port: u16,
    config: String,
}

impl NatsServer {
    /// Starts one on a free port.
    pub fn start(binary: &Path) -> Self {
        Self::start_with(binary, "")
    }

    /// Starts one on a free port with lines of configuration.
    pub fn start_with(binary: &Path, config: &str) -> Self {
        let data = TempDir::new().expect("a temporary directory");
        let mut server = Self {
            binary: binary.to_owned(),
            data,
            child: None,
            port: 0,
            config: config.to_owned(),
        };
        server.run();
        server
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it. Its data stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port with the same data, with new lines of configuration if given.
    pub fn restart(&mut self, config: Option<&str>) {
        self.stop();
        if let Some(config) = config {
            self.config = config.to_owned();
        }
        self.run();
    }

    fn run(&mut self) {
        let dir = self.data.path();
        std::fs::write(dir.join("nats.conf"), &self.config).expect("a writable directory");
        let port = if self.port == 0 {
            "-1".to_owned()
        } else {
            self.port.to_string()
        };
        let child = Command::new(&self.binary)
            .args(["-a", "127.0.0.1", "-p", &port, "-js"])
            .arg("-sd")
            .arg(dir.join("store"))
            .arg("-c")
            .arg(dir.join("nats.conf"))
            .arg("--ports_file_dir")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server starts");
        let ports = dir.join(format!(
            "{}_{}.ports",
            self.binary
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or("nats-server"),
            child.id()
        ));
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        let url = loop {
            let text = std::fs::read_to_string(&ports).unwrap_or_default();
            let value: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            if let Some(url) = value.and_then(|v| v["nats"][0].as_str().map(str::to_owned)) {
                break url;
            }
            assert!(Instant::now() < deadline, "nats-server did not come up within 20 s");
            std::thread::sleep(Duration::from_millis(10));
        };
        self.port = url
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .expect("a port");
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.stop();
    }
}
