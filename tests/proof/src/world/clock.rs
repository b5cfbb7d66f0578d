//! A clock that can be moved under the feet of service and Redis.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The library that shows processes another time, where Debian keeps it.
const LIBRARIES: &[&str] =
    &["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"];

/// Wall time for processes that were started with [`Clock::environment`].
#[derive(Debug)]
pub(super) struct Clock {
    directory: TempDir,
}

impl Clock {
    /// A clock that is right for now.
    pub fn new() -> Self {
        let clock = Self { directory: TempDir::new().unwrap() };
        clock.set(0);
        clock
    }

    /// Moves it so many seconds away from the right time.
    pub fn set(&self, seconds: i64) {
        // Renamed into place, so that nobody reads half a number.
        let next = self.directory.path().join("next");
        std::fs::write(&next, format!("{seconds:+}s\n")).unwrap();
        std::fs::rename(next, self.file()).unwrap();
    }

    /// What a process needs in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let library = LIBRARIES.iter().find(|path| Path::new(path).exists());
        let library = library.unwrap_or_else(|| panic!("no libfaketime: `make setup-faults` installs it"));
        [
            ("LD_PRELOAD", (*library).to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Timers run on the monotonic clock, which no operator and no NTP moves.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("offset")
    }
}
