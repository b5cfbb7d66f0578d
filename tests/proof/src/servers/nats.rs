//! A nats-server.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tempfile::TempDir;

use super::pause;

/// How long a start may take: after hours it reads back millions of messages first.
const PATIENCE: Duration = Duration::from_secs(180);

/// The versions that the service supports, from one to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NatsVersion {
    /// 2.9.10, as in Debian 12: `NATS_SERVER_OLD`, or the one on the path.
    Oldest,
    /// The newest: `NATS_SERVER_NEW`, or the one that `make setup` puts into `.tools`.
    Newest,
}

impl NatsVersion {
    /// The program.
    pub fn binary(self) -> PathBuf {
        match self {
            Self::Oldest => std::env::var_os("NATS_SERVER_OLD").map_or_else(on_path, PathBuf::from),
            Self::Newest => std::env::var_os("NATS_SERVER_NEW").map_or_else(
                || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin/nats-server"),
                PathBuf::from,
            ),
        }
    }

    /// What the program says that it is, such as `2.9.10`; `None` if it is not there.
    pub fn number(self) -> Option<String> {
        let said = Command::new(self.binary()).arg("--version").output().ok()?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.trim().rsplit(['v', ' ']).next().map(str::to_owned)
    }
}

/// Debian keeps nats-server where not everybody's PATH leads.
fn on_path() -> PathBuf {
    let debian = Path::new("/usr/sbin/nats-server");
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|part| part.join("nats-server").exists()));
    if found || !debian.exists() { PathBuf::from("nats-server") } else { debian.to_owned() }
}

/// The oldest and the newest supported nats-server; those of them that are there.
pub fn nats_servers() -> Vec<PathBuf> {
    let versions = [NatsVersion::Oldest, NatsVersion::Newest];
    let found: Vec<PathBuf> =
        versions.into_iter().filter(|version| version.number().is_some()).map(NatsVersion::binary).collect();
    assert!(!found.is_empty(), "no nats-server: `make setup` installs it, NATS_SERVER_NEW names another");
    found
}

/// A nats-server with JetStream on a free port, with its data in a directory of its own; it ends with this value.
#[derive(Debug)]
pub struct NatsServer {
    binary: PathBuf,
    directory: TempDir,
    store: PathBuf,
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
        let mut server = Self::prepare(binary, config);
        server.run();
        server
    }

    /// Starts one that keeps its data in a directory of the caller's.
    pub fn start_in(binary: &Path, config: &str, store: &Path) -> Self {
        let mut server = Self::prepare(binary, config);
        store.clone_into(&mut server.store);
        server.run();
        server
    }

    /// One that does not run yet.
    pub(super) fn prepare(binary: &Path, config: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let store = directory.path().join("store");
        Self { binary: binary.to_owned(), directory, store, child: None, port: 0, config: config.to_owned() }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where it keeps its data.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends it at once, as a crash would. Its data stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same port with the same data.
    pub fn restart(&mut self) {
        self.kill();
        self.run();
    }

    /// Freezes it: connections stay open and nothing answers.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    /// Lets it go on after [`Self::stop`].
    pub fn cont(&self) {
        self.signal("CONT");
    }

    /// Gives it other lines of configuration while it runs. It says nothing when it has taken them over.
    pub fn reload(&mut self, config: &str) {
        config.clone_into(&mut self.config);
        self.write_config();
        self.signal("HUP");
    }

    /// A copy of what it has stored; only while it is down.
    pub fn copy_store(&self) -> TempDir {
        assert!(self.child.is_none(), "a running server changes its files");
        let copy = TempDir::new().unwrap();
        copy_directory(&self.store, &copy.path().join("store"));
        copy
    }

    /// Puts a copy back in place of what it has stored; only while it is down.
    pub fn restore_store(&self, copy: &TempDir) {
        assert!(self.child.is_none(), "a running server changes its files");
        std::fs::remove_dir_all(&self.store).unwrap();
        copy_directory(&copy.path().join("store"), &self.store);
    }

    fn write_config(&self) {
        // JetStream is switched on here and not by an option: older servers forget options when they reload.
        let text = format!("jetstream {{ store_dir: {:?} }}\n{}\n", self.store, self.config);
        std::fs::write(self.directory.path().join("nats.conf"), text).unwrap();
    }

    fn signal(&self, name: &str) {
        if let Some(id) = self.pid() {
            super::signal(id, name);
        }
    }

    /// Spawns the process on a port, 0 for any free one, and returns at once.
    pub(super) fn spawn(&mut self, port: u16) {
        self.write_config();
        let directory = self.directory.path();
        // -1 takes any free port.
        let asked = if port == 0 { "-1".to_owned() } else { port.to_string() };
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let child = Command::new(&self.binary)
            .args(["-a", "127.0.0.1", "-p", &asked, "-c"])
            .arg(directory.join("nats.conf"))
            .arg("--ports_file_dir")
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("nats-server ({error}): `make setup` installs it")));
        self.port = port;
    }

    /// Waits until the spawned process listens.
    pub(super) fn await_start(&mut self) {
        let child = self.child.as_mut().unwrap();
        let name = self.binary.file_name().unwrap().to_str().unwrap();
        let ports = self.directory.path().join(format!("{name}_{}.ports", child.id()));
        let deadline = Instant::now() + PATIENCE;
        self.port = loop {
            let text = std::fs::read_to_string(&ports).unwrap_or_default();
            let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let port = value["nats"][0].as_str().and_then(|url| url.rsplit(':').next()?.parse().ok());
            if let Some(port) = port {
                break port;
            }
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(child.try_wait().unwrap().is_none(), "nats-server ended instead of starting:\n{}", log());
            assert!(Instant::now() < deadline, "nats-server did not start within {PATIENCE:?}:\n{}", log());
            pause();
        };
    }

    fn run(&mut self) {
        self.spawn(self.port);
        self.await_start();
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
