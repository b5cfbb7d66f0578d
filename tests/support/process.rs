//! What tests do to processes, and the ports that they listen on.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

/// How long a process may take to stand still.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends a signal, by its name without SIG.
pub fn signal(child: &Child, name: &str) {
    // The shell's own kill: slim systems have no other.
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().unwrap();
    assert!(status.success());
}

/// Freezes a process: its connections stay open and nothing answers. It goes on with `CONT`.
pub fn freeze(child: &Child) {
    signal(child, "STOP");
    // The signal is sent, not yet obeyed: on a busy machine a thread may answer one more message.
    let deadline = Instant::now() + PATIENCE;
    while !stands_still(child) {
        assert!(Instant::now() < deadline, "the process does not stop");
        std::thread::yield_now();
    }
}

/// Whether the kernel has stopped every thread: the state behind the name of the program is `T`.
fn stands_still(child: &Child) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    })
}

/// A port on 127.0.0.1 that is nobody else's as long as this value lives, also while the server that it is for is down.
pub struct Port {
    number: u16,
    /// Bound and never listening: the system gives the port to nobody who asks for any, and lets a server have it that asks for it
    /// by number with `SO_REUSEADDR`, as they all do.
    _held: TcpSocket,
}

impl Port {
    /// One that is free.
    pub fn free() -> Self {
        let held = TcpSocket::new_v4().unwrap();
        held.set_reuseaddr(true).unwrap();
        held.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { number: held.local_addr().unwrap().port(), _held: held }
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
