//! A redis-server for one test.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// A redis-server on a free port, with its data in a directory of its own; it ends with this value.
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
        Self::start_on_ports(|_| arguments.iter().map(|argument| (*argument).to_owned()).collect()).0
    }

    /// Starts a server with the arguments that are made of a second free port, and gives that port back.
    pub fn start_on_ports(arguments: impl Fn(u16) -> Vec<String>) -> (Self, u16) {
        // Between finding a free port and the server's taking it somebody else may: then another one will do.
        for _ in 0..10 {
            let second = free_port();
            let (port, directory) = (free_port(), TempDir::new().unwrap());
            let mut server = Self { port, arguments: arguments(second), directory, child: None };
            if server.launch() {
                return (server, second);
            }
        }
        panic!("redis-server did not start on any of ten free ports; its log says why");
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
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
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
            super::pause();
        }
        false
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id();
        // The shell's own kill: slim systems have no other.
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
