//! How the service proves to NATS who it is, each time a connection is made.

use async_nats::ServerAddr;
use nkeys::{KeyPair, KeyPairType};
use secrecy::ExposeSecret;

use crate::secret::{Secret, SecretError};

/// How the service proves who it is.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// By user and password, or token, of the first URL that holds any; else not at all.
    #[default]
    None,
    /// User and password.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
    /// An NKey seed (`SU…`).
    NKey(Secret),
    /// The text of a `.creds` file: a JWT and its seed.
    Credentials(Secret),
}

/// Why the service cannot say who it is. Shows nothing of any secret.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The secret is in a file that cannot be read.
    #[error(transparent)]
    Unreadable(#[from] SecretError),
    /// The seed is none.
    #[error("the NKey seed for NATS is not the seed of a user: expected SU and 56 more letters and digits ({0})")]
    Seed(&'static str),
    /// The credentials are none.
    #[error("the NATS credentials are not those of a .creds file: expected a JWT and a seed, each between its markers")]
    Credentials,
}

impl Auth {
    /// User and password, or the token, of the first URL that holds any: the client itself ignores them.
    pub(super) fn of_urls(servers: &[ServerAddr]) -> Self {
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        servers
            .iter()
            .find_map(|server| match (server.username().map(decoded)?, server.password().map(decoded)) {
                (user, Some(password)) => Some(Self::UserPassword { user, password: password.into() }),
                (token, None) => Some(Self::Token(token.into())),
            })
            .unwrap_or_default()
    }

    /// The answer to a server that wants `nonce` signed. Secrets in files are read now: that is how a rotated one is taken up.
    pub(super) fn login(&self, nonce: &[u8]) -> Result<async_nats::Auth, LoginError> {
        let mut login = async_nats::Auth::new();
        match self {
            Self::None => {}
            Self::UserPassword { user, password } => {
                login.username = Some(user.clone());
                login.password = Some(password.read()?.expose_secret().to_owned());
            }
            Self::Token(token) => login.token = Some(token.read()?.expose_secret().to_owned()),
            Self::NKey(seed) => {
                let key = key_of(seed.read()?.expose_secret())?;
                login.signature = Some(signed(&key, nonce)?);
                login.nkey = Some(key.public_key());
            }
            Self::Credentials(file) => {
                let text = file.read()?;
                let (jwt, seed) = parts_of(text.expose_secret()).ok_or(LoginError::Credentials)?;
                login.signature = Some(signed(&key_of(seed)?, nonce)?);
                login.jwt = Some(jwt.to_owned());
            }
        }
        Ok(login)
    }
}

fn key_of(seed: &str) -> Result<KeyPair, LoginError> {
    let key = KeyPair::from_seed(seed.trim()).map_err(|error| LoginError::Seed(error.kind().as_str()))?;
    match key.key_pair_type() {
        KeyPairType::User => Ok(key),
        _ => Err(LoginError::Seed("it is that of an account, an operator or a server")),
    }
}

fn signed(key: &KeyPair, nonce: &[u8]) -> Result<Vec<u8>, LoginError> {
    key.sign(nonce).map_err(|error| LoginError::Seed(error.kind().as_str()))
}

/// JWT and seed of a `.creds` file: the lines that follow those that begin with dashes and say so.
fn parts_of(text: &str) -> Option<(&str, &str)> {
    let after = |marker: &str| {
        let mut lines = text.lines().map(str::trim);
        lines.find(|line| line.starts_with("---") && line.contains(marker))?;
        lines.next().filter(|line| !line.is_empty() && !line.starts_with('-'))
    };
    Some((after("BEGIN NATS USER JWT")?, after("BEGIN USER NKEY SEED")?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_url_are_used() {
        let auth = |url: &str| Auth::of_urls(&["nats://plain:4222", url].map(|url| url.parse().unwrap()));
        match auth("nats://me:p%40ss@host:4222") {
            Auth::UserPassword { user, password } => {
                assert_eq!((user.as_str(), password.read().unwrap().expose_secret()), ("me", "p@ss"));
            }
            other => panic!("{other:?}"),
        }
        assert!(
            matches!(auth("nats://t0ken@host:4222"), Auth::Token(token) if token.read().unwrap().expose_secret() == "t0ken")
        );
        assert!(matches!(auth("nats://host:4222"), Auth::None));
    }

    #[test]
    fn a_creds_file_is_read_as_tools_write_it() {
        let seed = KeyPair::new_user().seed().unwrap();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\r\neyJ0.x-_.y\r\n------END NATS USER JWT------\r\n\r\n*** IMPORTANT ***\r\n\
             -----BEGIN USER NKEY SEED-----\r\n{seed}\r\n------END USER NKEY SEED------\r\n"
        );
        assert_eq!(parts_of(&text), Some(("eyJ0.x-_.y", seed.as_str())));
        let login = Auth::Credentials(text.into()).login(b"nonce").unwrap();
        assert_eq!(login.jwt.as_deref(), Some("eyJ0.x-_.y"));
        KeyPair::from_seed(&seed).unwrap().verify(b"nonce", &login.signature.unwrap()).unwrap();
        for torn in ["", "-----BEGIN NATS USER JWT-----\n", "-----BEGIN NATS USER JWT-----\n------END\n"] {
            assert_eq!(parts_of(torn), None, "{torn:?}");
        }
    }

    #[test]
    fn what_is_no_seed_is_not_shown() {
        let account = KeyPair::new_account().seed().unwrap();
        for seed in ["hunter2", "SUhunter2", &account] {
            let error = Auth::NKey(seed.into()).login(b"nonce").map(drop).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(seed), "{error:?}");
        }
        let user = KeyPair::new_user();
        let login = Auth::NKey(user.seed().unwrap().into()).login(b"nonce").unwrap();
        assert_eq!(login.nkey, Some(user.public_key()));
        user.verify(b"nonce", &login.signature.unwrap()).unwrap();
    }
}
