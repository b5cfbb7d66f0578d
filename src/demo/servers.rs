//! Servers of our own: started on free ports of the loopback interface with temporary data, ended when dropped.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to answer.
const START: Duration = Duration::from_secs(10);
/// Free ports can be taken by somebody else between the look and the start, so a start is tried this often.
const TRIES: u32 = 5;

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The program is not there.
    #[error("`{program}` was not found: install it with `{remedy}`, or put it on the PATH")]
    NotInstalled {
        /// The program.
        program: String,
        /// What to type.
        remedy: &'static str,
    },
    /// It did not start.
    #[error("`{program}` did not answer on 127.0.0.1:{port} within {} s", START.as_secs())]
    NoAnswer {
        /// The program.
        program: String,
        /// The port it was given.
        port: u16,
    },
    /// The machine would not.
    #[error("cannot start `{program}`")]
    Io {
        /// The program.
        program: String,
        /// What the machine said.
        #[source]
        source: io::Error,
    },
}

/// A server process with a directory of its own.
#[derive(Debug)]
pub struct LocalServer {
    child: Child,
    port: u16,
    _data: TempDir,
}

impl LocalServer {
    /// Starts nats-server with JetStream.
    ///
    /// # Errors
    /// If the program is missing or does not start.
    pub fn nats() -> Result<Self, ServerError> {
        Self::start("nats-server", "apt-get install nats-server", |command, port, data| {
            command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(data);
        })
    }

    /// Starts redis-server without persistence.
    ///
    /// # Errors
    /// If the program is missing or does not start.
    pub fn redis() -> Result<Self, ServerError> {
        Self::start("redis-server", "apt-get install redis-server", |command, port, data| {
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"]).arg(data);
        })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn start(
        program: &str,
        remedy: &'static str,
        arguments: impl Fn(&mut Command, u16, &Path),
    ) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Io { program: program.to_owned(), source };
        let mut port = 0;
        for _ in 0..TRIES {
            let data = TempDir::with_prefix("daisi-cdc-").map_err(failed)?;
            port = free_port().map_err(failed)?;
            let mut command = Command::new(program);
            arguments(&mut command, port, data.path());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = command.spawn().map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => ServerError::NotInstalled { program: program.to_owned(), remedy },
                _ => failed(source),
            })?;
            let mut server = Self { child, port, _data: data };
            if server.answers().map_err(failed)? {
                return Ok(server);
            }
        }
        Err(ServerError::NoAnswer { program: program.to_owned(), port })
    }

    /// Waits until the port is open; false if the process ended instead.
    fn answers(&mut self) -> io::Result<bool> {
        let deadline = Instant::now() + START;
        let address = (Ipv4Addr::LOCALHOST, self.port).into();
        while Instant::now() < deadline {
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            if std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)).is_ok() {
                return Ok(true);
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(false)
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left to do about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
