//! How large a message may be for the stream that is to store it.

use async_nats::HeaderMap;
use cdc_actors::message::{Event, Late};
use cdc_actors::ports::PublishError;

use super::connection::Connection;
use super::headers;
use super::streams::find_stream;

/// Bytes of headers and payload that server and stream accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimit(usize);

impl SizeLimit {
    /// The stream's own limit, if it has one, and the server's.
    pub(super) fn new(own: Option<usize>, connection: &Connection) -> Self {
        Self(own.unwrap_or(usize::MAX).min(connection.client().max_payload()))
    }

    /// Looks the stream up. One that is not there, or that the user may not see, has no limit of its own that is known.
    pub async fn of_stream(connection: &Connection, stream: &str) -> Self {
        let info = find_stream(connection, stream).await.ok().flatten();
        Self::new(info.and_then(|info| info.max_message_size), connection)
    }

    /// In bytes.
    pub(super) fn bytes(self) -> usize {
        self.0
    }

    /// Whether an event fits that is published for the first time.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`], as publishing it would end.
    pub fn check(self, event: &Event) -> Result<(), PublishError> {
        self.check_size(message_size(event, &wire_headers(event, None)))
    }

    pub(super) fn check_size(self, size: usize) -> Result<(), PublishError> {
        if size > self.0 { Err(PublishError::TooLarge { size, limit: self.0 }) } else { Ok(()) }
    }
}

/// The headers that an event is sent with.
pub(super) fn wire_headers(event: &Event, late: Option<Late>) -> HeaderMap {
    let late = late.map(|late| ("Cdc-Late", late.name()));
    let own = event.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    headers::with_id(&event.key, late.into_iter().chain(own))
}

/// Bytes of headers and payload.
pub(super) fn message_size(event: &Event, headers: &HeaderMap) -> usize {
    headers::map_size(headers) + event.payload.len()
}
