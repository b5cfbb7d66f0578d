//! Kinds of frames.

use std::fmt;
use std::sync::Arc;

use super::Direction;

/// A frame on its way.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Which way it goes.
    pub direction: Direction,
    /// All of it.
    pub bytes: &'a [u8],
    /// The command of a Redis request, or the one that a reply answers, in capitals.
    pub command: Option<&'a str>,
}

/// Picks frames.
#[derive(Clone)]
pub struct FrameFilter(Arc<dyn Fn(&Frame<'_>) -> bool + Send + Sync>);

impl FrameFilter {
    /// Picks what a function says.
    pub fn new(picks: impl Fn(&Frame<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(picks))
    }

    /// Whether it picks this one.
    pub fn matches(&self, frame: &Frame<'_>) -> bool {
        (self.0)(frame)
    }
}

impl fmt::Debug for FrameFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FrameFilter")
    }
}

/// The client publishes to a subject that begins so.
pub fn publish(prefix: &str) -> FrameFilter {
    let heads = [format!("PUB {prefix}"), format!("HPUB {prefix}")];
    FrameFilter::new(move |frame| {
        frame.direction == Direction::ToServer && heads.iter().any(|head| frame.bytes.starts_with(head.as_bytes()))
    })
}

/// The server confirms a publish, or says that it refuses it.
pub fn publish_ack() -> FrameFilter {
    FrameFilter::new(|frame| {
        frame.direction == Direction::ToClient
            && frame.bytes.starts_with(b"MSG ")
            && contains(frame.bytes, br#"{"stream":"#)
            && contains(frame.bytes, br#""seq":"#)
            && !contains(frame.bytes, br#""type":"#)
    })
}

/// The client acknowledges a delivery for good.
pub fn source_ack() -> FrameFilter {
    FrameFilter::new(|frame| {
        frame.direction == Direction::ToServer
            && contains(&frame.bytes[..frame.bytes.len().min(20)], b"PUB $JS.ACK.")
            && contains(frame.bytes, b"+ACK")
    })
}

/// The client sends Redis a command.
pub fn redis_request(command: &str) -> FrameFilter {
    redis(command, Direction::ToServer)
}

/// The client sends Redis a command that mentions something.
pub fn redis_request_about(command: &str, what: &str) -> FrameFilter {
    let (asks, what) = (redis_request(command), what.to_owned());
    FrameFilter::new(move |frame| asks.matches(frame) && contains(frame.bytes, what.as_bytes()))
}

/// Redis answers a command.
pub fn redis_reply_to(command: &str) -> FrameFilter {
    redis(command, Direction::ToClient)
}

fn redis(command: &str, direction: Direction) -> FrameFilter {
    let command = command.to_owned();
    FrameFilter::new(move |frame| frame.direction == direction && frame.command == Some(&command))
}

/// The name of a Redis request's command, in capitals.
pub(super) fn command(request: &[u8]) -> String {
    let part = request.split(|byte| *byte == b'\n').nth(2).unwrap_or_default();
    String::from_utf8_lossy(part).trim_end().to_ascii_uppercase()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
