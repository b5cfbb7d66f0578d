//! What errors of Redis mean, told by type and error code.

use cdc_actors::ports::{Failure, FailureClass};
use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};
use deadpool_redis::{PoolError, TimeoutType};

/// The class of failure that an error of the client or the server belongs to.
pub(super) fn class_of(error: &RedisError) -> FailureClass {
    if error.is_timeout() {
        return FailureClass::Timeout;
    }
    match error.kind() {
        ErrorKind::Io => FailureClass::Disconnected,
        ErrorKind::AuthenticationFailed => FailureClass::Denied,
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::NoPerm => FailureClass::Denied,
            ServerErrorKind::ReadOnly
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::TryAgain
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask => FailureClass::Unavailable,
            _ => FailureClass::Protocol,
        },
        ErrorKind::Extension => class_of_code(error.code().unwrap_or_default()),
        _ => FailureClass::Protocol,
    }
}

/// The class behind an error code that the client has no name for.
fn class_of_code(code: &str) -> FailureClass {
    match code {
        "NOAUTH" | "WRONGPASS" | "DENIED" => FailureClass::Denied,
        // Out of memory, cannot persist, a script hogs the server, too few replicas, failing over.
        "OOM" | "MISCONF" | "BUSY" | "NOREPLICAS" | "UNBLOCKED" | "FAILOVER" => FailureClass::Unavailable,
        _ => FailureClass::Protocol,
    }
}

/// Whether a connection on which this class of failure was met is not worth keeping: it is broken, or leads to a server that is not,
/// or not yet, the one to talk to.
pub(super) fn spoils_connection(error: &RedisError) -> bool {
    match class_of(error) {
        FailureClass::Timeout | FailureClass::Disconnected => true,
        // Whoever may not use one key or command is still whom the server takes it for; whoever is nobody must log in again.
        FailureClass::Denied => !matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoPerm)),
        FailureClass::Unavailable => matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown)
        ),
        FailureClass::Missing | FailureClass::Protocol => matches!(error.kind(), ErrorKind::Parse),
    }
}

/// An error of Redis whose text would give away the password.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Redacted(String);

/// What was heard is not as Redis speaks. The client's words for it name bytes, on several lines.
#[derive(Debug, thiserror::Error)]
#[error("what answers there does not speak as Redis does: is that Redis?")]
struct NotRedis;

/// No connection with TLS was made in time.
#[derive(Debug, thiserror::Error)]
#[error("{0}: does that server speak TLS?")]
struct NoTls(RedisError);

/// Turns errors into failures without ever showing the password.
pub(super) struct Failures {
    password: Option<String>,
    is_encrypted: bool,
}

impl Failures {
    pub(super) fn new(password: Option<String>, is_encrypted: bool) -> Self {
        Self { password: password.filter(|password| !password.is_empty()), is_encrypted }
    }

    /// `action` failed with `error`.
    pub(super) fn redis(&self, action: &'static str, error: RedisError) -> Failure {
        let class = class_of(&error);
        if error.kind() == ErrorKind::Parse {
            return Failure::new(action, class, NotRedis);
        }
        // Servers quote the arguments of a command they do not know, and that may be AUTH.
        match self.password.as_deref().filter(|password| error.to_string().contains(password)) {
            Some(password) => Failure::new(action, class, Redacted(error.to_string().replace(password, "***"))),
            None => Failure::new(action, class, error),
        }
    }

    /// No connection could be had.
    pub(super) fn pool(&self, error: PoolError) -> Failure {
        const ACTION: &str = "connect to redis";
        match error {
            PoolError::Backend(error) if self.is_encrypted && error.is_timeout() => {
                Failure::new(ACTION, FailureClass::Timeout, NoTls(error))
            }
            PoolError::Backend(error) => self.redis(ACTION, error),
            PoolError::Timeout(TimeoutType::Wait | TimeoutType::Create | TimeoutType::Recycle) => {
                Failure::new(ACTION, FailureClass::Timeout, error)
            }
            other => Failure::new(ACTION, FailureClass::Disconnected, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deadpool_redis::redis::{Value, parse_redis_value};

    fn server_error(line: &str) -> RedisError {
        match parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap() {
            Value::ServerError(error) => RedisError::from(error),
            other => panic!("{other:?} is no error"),
        }
    }

    #[test]
    fn every_answer_has_its_class() {
        for (line, class, spoils) in [
            ("READONLY You can't write against a read only replica.", FailureClass::Unavailable, true),
            ("LOADING Redis is loading the dataset in memory", FailureClass::Unavailable, true),
            ("MASTERDOWN Link with MASTER is down", FailureClass::Unavailable, true),
            ("OOM command not allowed when used memory > 'maxmemory'.", FailureClass::Unavailable, false),
            ("MISCONF Redis is configured to save RDB snapshots", FailureClass::Unavailable, false),
            ("NOAUTH Authentication required.", FailureClass::Denied, true),
            ("WRONGPASS invalid username-password pair or user is disabled.", FailureClass::Denied, true),
            ("NOPERM this user has no permissions to run the 'mget' command", FailureClass::Denied, false),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", FailureClass::Protocol, false),
            ("ERR unknown command", FailureClass::Protocol, false),
        ] {
            let error = server_error(line);
            assert_eq!((class_of(&error), spoils_connection(&error)), (class, spoils), "{line}");
        }
    }

    #[test]
    fn breaks_and_timeouts_are_told_apart() {
        let io = |kind| RedisError::from(std::io::Error::from(kind));
        assert_eq!(class_of(&io(std::io::ErrorKind::ConnectionRefused)), FailureClass::Disconnected);
        assert_eq!(class_of(&io(std::io::ErrorKind::TimedOut)), FailureClass::Timeout);
        let refused = RedisError::from((ErrorKind::AuthenticationFailed, "the client's own word for a refused login"));
        assert_eq!(class_of(&refused), FailureClass::Denied);
    }

    #[test]
    fn a_quoted_password_is_redacted() {
        let failures = Failures::new(Some("hunter2".to_owned()), false);
        let failure =
            failures.redis("check", server_error("ERR unknown command 'AUTH', with args beginning with: 'hunter2'"));
        assert!(!format!("{failure} {failure:?}").contains("hunter2"), "{failure}");
        assert!(failure.to_string().contains("***"));
    }
}
