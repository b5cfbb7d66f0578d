//! Publishes traffic into a stream, as Sequin would, but with acknowledgements.

use std::collections::VecDeque;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};

use super::traffic::SourceEvent;
use crate::commands::Pace;

/// Publishes that wait for their ack at once.
const WINDOW: usize = 500;

/// An event was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// There was an answer, and it was no.
    #[error("the stream does not take it: is it full, and do its subjects cover the events'?")]
    Refused(#[source] PublishError),
    /// Nothing was heard.
    #[error(transparent)]
    Unheard(PublishError),
}

impl FeedError {
    /// Whether the server was reached and said no.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

impl From<PublishError> for FeedError {
    fn from(error: PublishError) -> Self {
        match error.kind() {
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe | PublishErrorKind::MaxAckPending => {
                Self::Unheard(error)
            }
            _ => Self::Refused(error),
        }
    }
}

/// Publishes every event at `pace`, into `stream` alone if it is given, and tells `stored` of each acknowledgement whether
/// the stream knew the event.
///
/// # Errors
/// The first publish that is not acknowledged.
pub async fn feed(
    streams: &Context,
    events: impl Iterator<Item = SourceEvent>,
    mut pace: Pace,
    stream: Option<&str>,
    mut stored: impl FnMut(bool),
) -> Result<(), FeedError> {
    let mut waiting: VecDeque<PublishAckFuture> = VecDeque::with_capacity(WINDOW);
    for event in events {
        pace.turn().await;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", event.message_id);
        if let Some(stream) = stream {
            headers.insert("Nats-Expected-Stream", stream);
        }
        waiting.push_back(streams.publish_with_headers(event.subject, headers, event.payload.into()).await?);
        if waiting.len() >= WINDOW
            && let Some(ack) = waiting.pop_front()
        {
            stored(ack.await?.duplicate);
        }
    }
    for ack in waiting {
        stored(ack.await?.duplicate);
    }
    Ok(())
}
