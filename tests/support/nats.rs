//! A nats-server for one test.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{self, Port};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// The oldest supported nats-server, `NATS_SERVER_OLD` or the one on the path, and the newest, `NATS_SERVER_NEW` or the
/// one in `.tools`; those of them that are there.
pub fn nats_servers() -> Vec<PathBuf> {
    let runs = |path: &PathBuf| Command::new(path).arg("--version").stdout(Stdio::null()).status().is_ok();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/nats-server");
    // Debian keeps it where not everybody's PATH leads.
    let debian = || ["nats-server", "/usr/sbin/nats-server"].map(PathBuf::from).into_iter().find(runs);
    let old = std::env::var_os("NATS_SERVER_OLD").map(PathBuf::from).or_else(debian);
    let new = std::env::var_os("NATS_SERVER_NEW").map_or(tools, PathBuf::from);
    let found: Vec<PathBuf> = old.into_iter().chain([new]).filter(runs).collect();
    assert!(!found.is_empty(), "no nats-server: `make setup` installs it, NATS_SERVER_NEW names another");
    found
}

/// A nats-server with JetStream on a port and with data of its own; it ends with this value.
pub struct NatsServer {
    binary: PathBuf,
    data: TempDir,
    child: Option<Child>,
    port: Port,
    routes: Option<String>,
    config: String,
}

impl NatsServer {
    /// Starts one.
    pub fn start(binary: &Path) -> Self {
        Self::start_with(binary, "")
    }

    /// Starts one with lines of configuration.
    pub fn start_with(binary: &Path, config: &str) -> Self {
        let data = TempDir::new().unwrap();
        let (binary, config) = (binary.to_owned(), config.to_owned());
        let mut server = Self { binary, data, child: None, port: Port::free(), routes: None, config };
        server.run();
        server
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port.number())
    }

    /// Whether it has been killed and not been started again.
    pub fn is_down(&self) -> bool {
        self.child.is_none()
    }

    /// Where it keeps everything.
    pub fn store(&self) -> PathBuf {
        self.data.path().join("store")
    }

    /// Where it keeps a consumer.
    pub fn consumer_directory(&self, stream: &str, consumer: &str) -> PathBuf {
        self.store().join(format!("jetstream/$G/streams/{stream}/obs/{consumer}"))
    }

    /// Where other servers of its cluster reach it, if it is configured for one.
    pub fn routes(&self) -> &str {
        self.routes.as_deref().unwrap()
    }

    /// Ends it at once, as a crash would. Its data stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Publishes what no client of ours would: subject and header block go out as they are.
    pub fn publish_raw(&self, subject: &[u8], headers: &[u8], payload: &[u8]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port.number())).unwrap();
        let sizes = format!(" {} {}\r\n", headers.len(), headers.len() + payload.len());
        let parts =
            [b"CONNECT {\"headers\":true}\r\nHPUB ", subject, sizes.as_bytes(), headers, payload, b"\r\nPING\r\n"];
        stream.write_all(&parts.concat()).unwrap();
        let mut answered = BufReader::new(stream).lines();
        assert!(answered.any(|line| line.unwrap() == "PONG"), "the connection ended without an answer");
    }

    /// Starts it again on the same port with the same data.
    pub fn restart(&mut self) {
        self.kill();
        self.run();
    }

    /// Freezes it: connections stay open and nothing answers.
    pub fn stop(&self) {
        process::freeze(self.child.as_ref().unwrap());
    }

    /// Lets it go on after [`Self::stop`].
    pub fn cont(&self) {
        process::signal(self.child.as_ref().unwrap(), "CONT");
    }

    /// Gives it other lines of configuration while it runs. It says nothing when it has taken them over.
    pub fn reload(&mut self, config: &str) {
        self.config = config.to_owned();
        self.write_config();
        process::signal(self.child.as_ref().unwrap(), "HUP");
    }

    fn write_config(&self) {
        let directory = self.data.path();
        // JetStream is switched on here and not by an option: older servers forget options when they reload.
        let store = self.store();
        let text = format!("jetstream {{ store_dir: {store:?} }}\n{}\n", self.config);
        std::fs::write(directory.join("nats.conf"), text).unwrap();
    }

    fn run(&mut self) {
        self.write_config();
        let directory = self.data.path();
        let port = self.port.number().to_string();
        let child = Command::new(&self.binary)
            .args(["-a", "127.0.0.1", "-p", &port, "-c"])
            .arg(directory.join("nats.conf"))
            .arg("--ports_file_dir")
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("nats-server ({error}): `make setup` installs it"));
        let name = self.binary.file_name().unwrap().to_str().unwrap();
        let ports = directory.join(format!("{name}_{}.ports", child.id()));
        let child = self.child.insert(child);
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Written when it listens everywhere.
            let text = std::fs::read_to_string(&ports).unwrap_or_default();
            let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            if value["nats"].is_array() {
                self.routes = value["cluster"][0].as_str().map(str::to_owned);
                return;
            }
            assert!(child.try_wait().unwrap().is_none(), "nats-server ended instead of starting");
            assert!(Instant::now() < deadline, "nats-server did not start within {PATIENCE:?}");
            super::pause();
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs each of these functions as a test on every supported nats-server.
#[allow(unused_macros, reason = "each test program uses its own part")]
macro_rules! on_every_server {
    ($($name:ident)*) => { mod on_every_server { $(
        #[tokio::test]
        async fn $name() {
            for binary in $crate::support::nats::nats_servers() {
                super::$name(&binary).await;
            }
        }
    )* } };
}
#[allow(unused_imports, reason = "each test program uses its own part")]
pub(crate) use on_every_server;
