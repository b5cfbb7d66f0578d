//! A wall clock that jumps, for processes that are started with it.

use std::path::PathBuf;

use tempfile::TempDir;

/// A wall clock of its own, made by libfaketime; monotonic time goes on as it does.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    directory: TempDir,
}

impl Clock {
    /// A clock that is right.
    pub fn start() -> Self {
        let architectures = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let library = architectures
            .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
            .find(|library| library.exists())
            .expect("no libfaketime: `scripts/install-servers.sh proof` installs it");
        let clock = Self { library, directory: TempDir::new().unwrap() };
        clock.set(0);
        clock
    }

    /// Sets it this many minutes before (or, negative, behind) the right time.
    pub fn set(&self, minutes: i64) {
        // Renamed, so that nobody reads half of it.
        let (next, file) = (self.directory.path().join("next"), self.file());
        std::fs::write(&next, format!("{minutes:+}m\n")).unwrap();
        std::fs::rename(next, file).unwrap();
    }

    /// What a process that goes by it is to have in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        [
            ("LD_PRELOAD", path(self.library.clone())),
            ("FAKETIME_TIMESTAMP_FILE", path(self.file())),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("time")
    }
}
