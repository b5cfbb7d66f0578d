//! A secret: given, or kept in a file that is read anew whenever a connection is made, so that a rotated one is taken up.

use std::fmt;
use std::io;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

/// Where a secret is. Printing it never shows the secret.
#[derive(Clone)]
pub enum Secret {
    /// The secret itself.
    Given(SecretString),
    /// A file that holds it and nothing else, but for the newline that editors leave behind.
    File(PathBuf),
}

/// The file of a secret cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the secret in {}: {cause}", file.display())]
pub struct SecretError {
    /// The file.
    file: PathBuf,
    /// Why.
    #[source]
    cause: io::Error,
}

impl Secret {
    /// The secret as it is now.
    ///
    /// # Errors
    /// [`SecretError`] if it is in a file that cannot be read or is empty.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        let path = match self {
            Self::Given(secret) => return Ok(secret.clone()),
            Self::File(path) => path,
        };
        let refused = |cause| SecretError { file: path.clone(), cause };
        let content = SecretString::from(std::fs::read_to_string(path).map_err(refused)?);
        match content.expose_secret().trim_end_matches(['\n', '\r']) {
            "" => Err(refused(io::Error::new(io::ErrorKind::InvalidData, "it is empty"))),
            secret => Ok(SecretString::from(secret)),
        }
    }
}

impl SecretError {
    /// What is wrong with the file, without its name.
    pub fn cause(&self) -> &io::Error {
        &self.cause
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        Self::Given(SecretString::from(secret))
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self::Given(SecretString::from(secret))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("***"),
            Self::File(path) => write!(f, "in {}", path.display()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_anew_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        let secret = Secret::File(file.clone());
        let missing = secret.read().unwrap_err();
        assert!(missing.to_string().contains("password"), "{missing}");
        for (content, read) in [("hunter2\r\n", "hunter2"), (" hunter3 \n\n", " hunter3 ")] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(secret.read().unwrap().expose_secret(), read);
        }
        std::fs::write(&file, "\n").unwrap();
        assert!(secret.read().unwrap_err().to_string().contains("empty"));
        assert_eq!(format!("{:?} {secret:?}", Secret::from("hunter2")), format!("*** in {}", file.display()));
    }
}
