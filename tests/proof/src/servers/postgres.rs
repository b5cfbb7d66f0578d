//! A PostgreSQL server.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{free_port, pause};

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// The oldest release with everything that is asked of it.
const OLDEST: u32 = 15;

/// A server with logical decoding on a free port, with its data in a directory of its own; it ends with this value.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    port: u16,
    child: Child,
    _directory: TempDir,
}

impl PostgresServer {
    /// Starts a server with an empty database.
    pub fn start() -> Self {
        let programs = programs();
        // Between finding a free port and the server's taking it somebody else may: then another one will do.
        for _ in 0..10 {
            if let Some(server) = Self::launch(&programs, free_port()) {
                return server;
            }
        }
        panic!("postgres did not start on any of ten free ports");
    }

    fn launch(programs: &Path, port: u16) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let account = account();
        if let Some((user, group)) = account {
            std::os::unix::fs::chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let data = directory.path().join("data");
        let run = |name: &str| {
            let mut command = Command::new(programs.join(name));
            command.current_dir(directory.path()).stdin(Stdio::null());
            if let Some((user, group)) = account {
                command.uid(user).gid(group);
            }
            command
        };
        let created = run("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(created.status.success(), "initdb: {}", String::from_utf8_lossy(&created.stderr));
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = run("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-k", directory.path().to_str().unwrap()])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "wal_level=logical", "-c", "fsync=off"])
            .args(["-c", "deadlock_timeout=50ms"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Self { programs: programs.to_owned(), port, child, _directory: directory };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && server.child.try_wait().unwrap().is_none() {
            if server.psql("SELECT 1").is_ok() {
                return Some(server);
            }
            pause();
        }
        None
    }

    /// Runs SQL, one statement or many; what it returns, a row a line, its columns with a tab between them.
    ///
    /// # Errors
    /// What psql has to say.
    pub fn psql(&self, sql: &str) -> Result<String, String> {
        let mut session = self.session();
        session.args(["-v", "ON_ERROR_STOP=1", "-f", "-"]).stdin(Stdio::piped());
        let mut child = session.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // psql that ends before its end says why.
        let _ = child.stdin.take().unwrap().write_all(sql.as_bytes());
        told(child.wait_with_output().unwrap())
    }

    /// A session of its own that runs a script to its end, whatever of it fails: what fails is rolled back.
    pub fn session_with(&self, script: &Path) -> Command {
        let mut session = self.session();
        session.args(["-v", "ON_ERROR_STOP=0", "-f"]).arg(script).stdout(Stdio::null()).stderr(Stdio::null());
        session
    }

    fn session(&self) -> Command {
        let mut session = Command::new(self.programs.join("psql"));
        session
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "-d", "postgres"])
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\t"])
            .stdin(Stdio::null());
        session
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Its children end when it does; SIGQUIT does not wait for them.
        super::signal(self.child.id(), "QUIT");
        self.child.wait().unwrap();
    }
}

fn told(output: Output) -> Result<String, String> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Where the newest release is that is recent enough.
fn programs() -> PathBuf {
    let releases = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = releases
        .filter_map(|entry| version(&entry.path()).map(|version| (version, entry.path().join("bin"))))
        .filter(|(version, programs)| *version >= OLDEST && programs.join("initdb").exists())
        .max();
    newest.expect("no PostgreSQL of 15 or newer: `scripts/install-servers.sh proof` installs it").1
}

/// Whom it runs as: it refuses to be root.
fn account() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> u32 {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (id(&["-u"]) == 0).then(|| (id(&["-u", "postgres"]), id(&["-g", "postgres"])))
}
