//! Requests of the JetStream API, and what their answers mean.

use std::time::Instant;

use async_nats::client::{RequestError, RequestErrorKind};
use bytes::Bytes;
use cdc_actors::ports::{Failure, FailureClass};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::connection::Connection;

/// An error that JetStream answered with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{description} (code {code}, error code {err_code})")]
pub struct ApiError {
    /// Of the kind HTTP uses.
    #[serde(default)]
    pub code: u16,
    /// JetStream's own.
    #[serde(default)]
    pub err_code: u32,
    /// In words.
    #[serde(default)]
    pub description: String,
}

impl ApiError {
    pub(super) const STREAM_NOT_FOUND: u32 = 10_059;
    pub(super) const CONSUMER_NOT_FOUND: u32 = 10_014;
    pub(super) const SUBJECTS_OVERLAP: u32 = 10_065;
    pub(super) const NO_MESSAGE: u32 = 10_037;
    pub(super) const WRONG_LAST_SEQUENCE: u32 = 10_071;
    pub(super) const MESSAGE_TOO_LARGE: u32 = 10_054;
    /// An earlier publish under the same id is not stored yet, in a replicated stream.
    pub(super) const ID_IN_PROCESS: u32 = 10_158;
    const NOT_ENABLED: [u32; 2] = [10_076, 10_039];

    /// What kind of failure it is. Every other error means that the server cannot do it now: no leader, limits
    /// reached, a first attempt under the same id still in process, ...
    pub fn class(&self) -> FailureClass {
        match self.err_code {
            Self::STREAM_NOT_FOUND | Self::CONSUMER_NOT_FOUND => FailureClass::Missing,
            code if Self::NOT_ENABLED.contains(&code) => FailureClass::Unavailable,
            _ if self.code == 403 => FailureClass::Denied,
            _ if self.code == 404 => FailureClass::Missing,
            _ => FailureClass::Unavailable,
        }
    }

    pub(super) fn into_failure(self, action: &str) -> Failure {
        Failure::new(action, self.class(), self)
    }
}

/// Nobody answers requests of the JetStream API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody answers for JetStream: is JetStream enabled on this server, for this account?")]
pub struct NoJetStream;

#[derive(Deserialize)]
struct MaybeError {
    error: Option<ApiError>,
}

/// Reads an answer that is either an error or a `T`.
pub(super) fn read_answer<T: DeserializeOwned>(body: &[u8]) -> Result<Result<T, ApiError>, serde_json::Error> {
    if let Some(error) = serde_json::from_slice::<MaybeError>(body)?.error {
        return Ok(Err(error));
    }
    serde_json::from_slice(body).map(Ok)
}

impl Connection {
    /// Asks the JetStream API. The outer error is a failed call, the inner one what JetStream said.
    pub(super) async fn api<T: DeserializeOwned>(
        &self,
        action: &str,
        operation: &str,
        body: &impl Serialize,
    ) -> Result<Result<T, ApiError>, Failure> {
        let epoch = self.standing(action)?;
        let subject = format!("$JS.API.{operation}");
        let body = serde_json::to_vec(body).map_err(|cause| Failure::new(action, FailureClass::Protocol, cause))?;
        let start = Instant::now();
        let request = self.client().request(subject.clone(), Bytes::from(body));
        let answer = tokio::select! {
            answer = tokio::time::timeout(self.request_timeout(), request) => answer,
            () = self.gone(epoch) => return Err(self.broken(action)),
        };
        match answer {
            Ok(Ok(message)) => {
                read_answer(&message.payload).map_err(|cause| Failure::new(action, FailureClass::Protocol, cause))
            }
            Ok(Err(error)) => Err(self.request_failure(action, &subject, start, error)),
            Err(_) => Err(self.silence(action, &subject, start)),
        }
    }

    fn request_failure(&self, action: &str, subject: &str, start: Instant, error: RequestError) -> Failure {
        match error.kind() {
            RequestErrorKind::TimedOut => self.silence(action, subject, start),
            RequestErrorKind::NoResponders => Failure::new(action, FailureClass::Unavailable, NoJetStream),
            RequestErrorKind::Other if !self.is_connected() => Failure::new(action, FailureClass::Disconnected, error),
            _ => Failure::new(action, FailureClass::Protocol, error),
        }
    }

    /// No answer: without permission to publish the server says so beside, without an answer.
    pub(super) fn silence(&self, action: &str, subject: &str, start: Instant) -> Failure {
        match self.refused_since(start, subject) {
            Some(said) => Failure::new(action, FailureClass::Denied, said),
            None => Failure::timeout(action, self.request_timeout()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let missing = br#"{"type":"x","error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
        let error = read_answer::<serde_json::Value>(missing).unwrap().unwrap_err();
        assert_eq!(error.class(), FailureClass::Missing);
        assert!(read_answer::<serde_json::Value>(br#"{"type":"x"}"#).unwrap().is_ok());
        assert!(read_answer::<serde_json::Value>(b"nonsense").is_err());
    }

    #[test]
    fn a_first_attempt_in_process_is_worth_a_retry() {
        let error = ApiError { code: 409, err_code: ApiError::ID_IN_PROCESS, description: String::new() };
        assert_eq!(error.class(), FailureClass::Unavailable);
    }
}
