//! A nats-server for one test.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// The oldest supported nats-server, `NATS_SERVER_OLD` or the one on the path, and the newest, `NATS_SERVER_NEW` or the
/// one in `.tools`; those of them that are there.
pub fn nats_servers() -> Vec<PathBuf> {
    let runs = |path: &PathBuf| Command::new(path).arg("--version").stdout(Stdio::null()).status().is_ok();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/nats-server");
    let old = std::env::var_os("NATS_SERVER_OLD").map_or_else(|| PathBuf::from("nats-server"), PathBuf::from);
    let new = std::env::var_os("NATS_SERVER_NEW").map_or(tools, PathBuf::from);
    let found: Vec<PathBuf> = [old, new].into_iter().filter(runs).collect();
    assert!(!found.is_empty(), "no nats-server: `make setup` installs it, NATS_SERVER_NEW names another");
    found
}

/// A nats-server with JetStream on a free port, with its data in a directory of its own; it ends with this value.
pub struct NatsServer {
    binary: PathBuf,
    data: TempDir,
    child: Option<Child>,
    port: u16,
    routes: Option<String>,
    config: String,
}

impl NatsServer {
    /// Starts one on a free port.
    pub fn start(binary: &Path) -> Self {
        Self::start_with(binary, "")
    }

    /// Starts one on a free port with lines of configuration.
    pub fn start_with(binary: &Path, config: &str) -> Self {
        let data = TempDir::new().unwrap();
        let (binary, config) = (binary.to_owned(), config.to_owned());
        let mut server = Self { binary, data, child: None, port: 0, routes: None, config };
        server.run();
        server
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where it keeps a consumer.
    pub fn consumer_directory(&self, stream: &str, consumer: &str) -> PathBuf {
        self.data.path().join(format!("store/jetstream/$G/streams/{stream}/obs/{consumer}"))
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
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
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
        self.signal("STOP");
        // The signal is sent, not yet obeyed: on a busy machine a thread may answer one more message.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.stands_still() {
            assert!(Instant::now() < deadline, "the server does not stop");
            std::thread::yield_now();
        }
    }

    /// Whether the kernel has stopped every thread: the state behind the name of the program is `T`.
    fn stands_still(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.as_ref().unwrap().id())).unwrap();
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        })
    }

    /// Lets it go on after [`Self::stop`].
    pub fn cont(&self) {
        self.signal("CONT");
    }

    /// Gives it other lines of configuration while it runs. It says nothing when it has taken them over.
    pub fn reload(&mut self, config: &str) {
        self.config = config.to_owned();
        self.write_config();
        self.signal("HUP");
    }

    fn write_config(&self) {
        let directory = self.data.path();
        // JetStream is switched on here and not by an option: older servers forget options when they reload.
        let store = directory.join("store");
        let text = format!("jetstream {{ store_dir: {store:?} }}\n{}\n", self.config);
        std::fs::write(directory.join("nats.conf"), text).unwrap();
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id();
        // The shell's own kill: slim systems have no other.
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap();
        assert!(status.success());
    }

    fn run(&mut self) {
        self.write_config();
        let directory = self.data.path();
        // -1 takes any free port.
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
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
        self.port = loop {
            let text = std::fs::read_to_string(&ports).unwrap_or_default();
            let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let port = value["nats"][0].as_str().and_then(|url| url.rsplit(':').next()?.parse().ok());
            if let Some(port) = port {
                self.routes = value["cluster"][0].as_str().map(str::to_owned);
                break port;
            }
            assert!(child.try_wait().unwrap().is_none(), "nats-server ended instead of starting");
            assert!(Instant::now() < deadline, "nats-server did not start within {PATIENCE:?}");
            super::pause();
        };
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
