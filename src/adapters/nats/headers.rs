//! Headers between the ports and the client: nothing that comes from a row can start a header line of its own.

use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue, header};
use cdc_actors::message::{EventKey, Headers};

/// Whether a header can travel as it is.
pub(super) fn is_legal(name: &str, value: &str) -> bool {
    is_legal_name(name) && !value.chars().any(char::is_control) && value.trim() == value
}

fn is_legal_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

/// The header that servers deduplicate by.
const MSG_ID: &str = "Nats-Msg-Id";
/// Maps built to find one with a fitting order; each has an even chance or better against one other header.
const ORDERS_TRIED: usize = 256;

/// A map of `Nats-Msg-Id` and the rest.
///
/// The server looks for the id by searching the header block for its name, and takes the first place it finds: with
/// `Cdc-Source-Nats-Msg-Id`, or a value that holds the name, in front, it sees no id and does not deduplicate. The
/// client's map writes headers in a random order that differs from map to map, so maps are built until the id comes first.
pub(super) fn with_id<'a>(id: &EventKey, rest: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> HeaderMap {
    let build = || {
        let mut map = HeaderMap::new();
        map.insert(header::NATS_MESSAGE_ID, id.as_str());
        rest.clone().filter(|(name, _)| *name != MSG_ID).for_each(|(name, value)| put(&mut map, name, value));
        map
    };
    let mut map = build();
    if rest.clone().any(|(name, value)| name.contains(MSG_ID) || value.contains(MSG_ID)) {
        for _ in 0..ORDERS_TRIED {
            if id_comes_first(&map) {
                break;
            }
            map = build();
        }
    }
    map
}

fn id_comes_first(map: &HeaderMap) -> bool {
    let mut names = map.iter();
    let first = names.find(|(name, values)| {
        let name: &str = name.as_ref();
        name.contains(MSG_ID) || values.iter().any(|value| value.as_str().contains(MSG_ID))
    });
    first.is_some_and(|(name, _)| AsRef::<str>::as_ref(name) == MSG_ID)
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

/// How large the body is that a server has left out, in its words.
const SIZE: &str = "Nats-Msg-Size";

/// Whether a message without a body seems to have had one when it was stored, which a server leaves out if a consumer asks for headers
/// alone. It only seems so: whoever publishes can say the same.
pub(super) fn tell_of_a_body(headers: &Headers) -> bool {
    // Of a body that is empty nothing is left out.
    headers.iter().any(|(name, size)| name.eq_ignore_ascii_case(SIZE) && size.trim() != "0")
}

/// The headers of a received message.
pub fn received(map: Option<&HeaderMap>) -> Headers {
    map.into_iter()
        .flat_map(HeaderMap::iter)
        .flat_map(|(name, values)| values.iter().map(move |value| (name.to_string(), value.as_str().to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_comes_before_whatever_holds_its_name() {
        let rest =
            [("Cdc-Source-Nats-Msg-Id", "a"), ("Cdc-Detail", "Nats-Msg-Id: b"), ("Nats-Msg-Id", "c"), ("x", "y")];
        for _ in 0..50 {
            let map = with_id(&EventKey::new("id").expect("a legal key"), rest.into_iter());
            assert!(id_comes_first(&map));
            assert_eq!(map.get_all(MSG_ID).map(|v| v.as_str().to_owned()).collect::<Vec<_>>(), ["id"]);
        }
    }

    #[test]
    fn a_value_cannot_start_a_line() {
        let mut map = HeaderMap::new();
        put(&mut map, "Cdc-Detail", "a\r\nNats-Rollup: all\n");
        put(&mut map, "bad name", "x");
        put(&mut map, "bad:name", "x");
        assert_eq!(received(Some(&map)), vec![("Cdc-Detail".to_owned(), "a  Nats-Rollup: all ".to_owned())]);
    }
}
