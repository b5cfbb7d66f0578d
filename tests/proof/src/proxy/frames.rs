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
    /// The Redis request that it is, or that it answers.
    pub request: Option<&'a [u8]>,
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
    redis(Direction::ToServer, command, "")
}

/// The client sends Redis a command that mentions something.
pub fn redis_request_about(command: &str, what: &str) -> FrameFilter {
    redis(Direction::ToServer, command, what)
}

/// Redis answers a command.
pub fn redis_reply_to(command: &str) -> FrameFilter {
    redis(Direction::ToClient, command, "")
}

/// Redis answers a command that mentioned something.
pub fn redis_reply_about(command: &str, what: &str) -> FrameFilter {
    redis(Direction::ToClient, command, what)
}

fn redis(direction: Direction, command: &str, about: &str) -> FrameFilter {
    let (command, about) = (command.to_owned(), about.to_owned());
    FrameFilter::new(move |frame| {
        frame.direction == direction
            && frame.request.is_some_and(|request| {
                name(request).eq_ignore_ascii_case(command.as_bytes()) && contains(request, about.as_bytes())
            })
    })
}

/// The name of a Redis request's command.
fn name(request: &[u8]) -> &[u8] {
    request.split(|byte| *byte == b'\n').nth(2).unwrap_or_default().trim_ascii_end()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}
