//! Headers between the ports and the client: nothing that comes from a row can start a header line of its own.

use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use cdc_actors::message::Headers;

/// Whether a header can travel as it is.
pub(super) fn is_legal(name: &str, value: &str) -> bool {
    is_legal_name(name) && !value.chars().any(char::is_control) && value.trim() == value
}

fn is_legal_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

/// Puts a header into the map, control characters of the value as spaces. A name that is not legal is left out: it
/// would be read as part of another line.
pub(super) fn put(map: &mut HeaderMap, name: &str, value: &str) {
    if !is_legal_name(name) {
        return;
    }
    let clean;
    let value = if value.chars().any(char::is_control) {
        clean = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        clean.as_str()
    } else {
        value
    };
    if let (Ok(name), Ok(value)) = (HeaderName::from_str(name), HeaderValue::from_str(value)) {
        map.append(name, value);
    }
}

/// Bytes that the headers occupy on the wire: the version line, `name: value` lines and the empty line.
pub(super) fn wire_size<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> usize {
    b"NATS/1.0\r\n\r\n".len() + headers.map(|(name, value)| name.len() + value.len() + b": \r\n".len()).sum::<usize>()
}

/// Bytes that a map occupies on the wire.
pub(super) fn map_size(map: &HeaderMap) -> usize {
    wire_size(map.iter().flat_map(|(name, values)| values.iter().map(|value| (name.as_ref(), value.as_str()))))
}

/// The headers of a received message.
pub(super) fn received(map: Option<&HeaderMap>) -> Headers {
    map.into_iter()
        .flat_map(HeaderMap::iter)
        .flat_map(|(name, values)| values.iter().map(move |value| (name.to_string(), value.as_str().to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_start_a_line() {
        let mut map = HeaderMap::new();
        put(&mut map, "Cdc-Detail", "a\r\nNats-Rollup: all\n");
        put(&mut map, "bad name", "x");
        put(&mut map, "bad:name", "x");
        assert_eq!(received(Some(&map)), vec![("Cdc-Detail".to_owned(), "a  Nats-Rollup: all ".to_owned())]);
    }
}
