//! What all servers need.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

/// Sends a process a signal, by its name without SIG.
pub(crate) fn signal(id: u32, name: &str) {
    // The shell's own kill: slim systems have no other.
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap();
    assert!(status.success(), "kill -{name} {id}");
}

/// A port that nobody has just now.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The pause between two looks at a starting process.
pub(super) fn pause() {
    std::thread::park_timeout(Duration::from_millis(10));
}
