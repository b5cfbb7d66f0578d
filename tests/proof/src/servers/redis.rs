//! A redis-server.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{free_port, pause};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// A redis-server on a free port, with its data in a directory of its own; it ends with this value.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    arguments: Vec<String>,
    directory: TempDir,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more arguments, as on its command line.
    pub fn start_with(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        // Between finding a free port and the server's taking it somebody else may: then another one will do.
        for _ in 0..10 {
            let mut server = Self {
                port: free_port(),
                arguments: arguments.clone(),
                directory: TempDir::new().unwrap(),
                child: None,
            };
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server did not start on any of ten free ports");
    }

    /// Starts a server that replicates another.
    pub fn replica_of(primary: &Self, arguments: &[&str]) -> Self {
        let port = primary.port.to_string();
        let mut all = vec!["--replicaof", "127.0.0.1", &port];
        all.extend(arguments);
        Self::start_with(&all)
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same port after [`Self::kill`].
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.launch(), "redis-server did not start again on port {}", self.port);
    }

    /// Freezes it: connections stay open and nothing answers.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    /// Lets it go on after [`Self::stop`].
    pub fn cont(&self) {
        self.signal("CONT");
    }

    /// Runs a command whose parts hold no whitespace and returns the first line of the answer.
    pub fn command(&self, parts: &[&str]) -> String {
        self.try_command(parts).unwrap_or_else(|error| panic!("{parts:?}: {error}"))
    }

    fn try_command(&self, parts: &[&str]) -> std::io::Result<String> {
        let address = self.address();
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut request = format!("*{}\r\n", parts.len());
        for part in parts {
            request.push_str(&format!("${}\r\n{part}\r\n", part.len()));
        }
        stream.write_all(request.as_bytes())?;
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next().unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()))?;
        // A bulk string has its length in the first line.
        if first.starts_with('$') && first != "$-1" { lines.next().unwrap_or(Ok(first)) } else { Ok(first) }
    }

    /// Starts the process; whether it answers in the end.
    fn launch(&mut self) -> bool {
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--appendonly", "no"])
            .args(["--unixsocket", self.socket().to_str().unwrap()])
            .args(["--dir", self.directory.path().to_str().unwrap()])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("redis-server ({error}): `make setup` installs it"));
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                return false;
            }
            // A server with a password answers, too, if only that it wants to hear it.
            if self.try_command(&["PING"]).is_ok_and(|answer| answer.starts_with('+') || answer.starts_with("-NOAUTH"))
            {
                return true;
            }
            pause();
        }
        false
    }

    fn signal(&self, name: &str) {
        if let Some(id) = self.pid() {
            super::signal(id, name);
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
