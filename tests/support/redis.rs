//! A redis-server for one test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{self, Port};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// A redis-server on a port and with data of its own; it ends with this value.
pub struct RedisServer {
    port: Port,
    /// What `arguments` name.
    _second: Port,
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
        let (port, second, directory) = (Port::free(), Port::free(), TempDir::new().unwrap());
        let (number, arguments) = (second.number(), arguments(second.number()));
        let mut server = Self { port, _second: second, arguments, directory, child: None };
        server.launch();
        (server, number)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
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
        self.launch();
    }

    /// Freezes it: connections stay open and nothing answers.
    pub fn stop(&self) {
        process::freeze(self.child.as_ref().unwrap());
    }

    /// Lets it go on after [`Self::stop`].
    pub fn cont(&self) {
        process::signal(self.child.as_ref().unwrap(), "CONT");
    }

    /// Runs a command whose parts hold no whitespace and returns the first line of the answer.
    pub fn command(&self, parts: &[&str]) -> String {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port()));
        let connected = TcpStream::connect_timeout(&address, PATIENCE).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        connected.and_then(|stream| ask(stream, parts)).unwrap_or_else(|error| panic!("{parts:?}: {error}"))
    }

    /// Starts the process and waits until it answers.
    fn launch(&mut self) {
        // A server that was killed has left its socket behind.
        let (log, socket) = (self.directory.path().join("log"), self.socket());
        let _ = std::fs::remove_file(&socket);
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port().to_string(), "--save", "", "--appendonly", "no"])
            .args(["--unixsocket", socket.to_str().unwrap()])
            .args(["--dir", self.directory.path().to_str().unwrap()])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(Stdio::null())
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("redis-server ({error}): `make setup` installs it"));
        let child = self.child.insert(child);
        let deadline = Instant::now() + PATIENCE;
        // It makes its socket once it has its ports. With a password it answers, too, if only that it wants to hear it.
        let answers = || {
            let answer = UnixStream::connect(&socket).and_then(|stream| ask(stream, &["PING"]));
            answer.is_ok_and(|answer| answer.starts_with('+') || answer.starts_with("-NOAUTH"))
        };
        while !answers() {
            let ended = child.try_wait().unwrap();
            if ended.is_some() || Instant::now() >= deadline {
                panic!("redis-server did not start: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            super::pause();
        }
    }
}

/// Sends a command and returns the first line of the answer.
fn ask(mut stream: impl Read + Write, parts: &[&str]) -> std::io::Result<String> {
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

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
