//! Dead letters as their stream holds them, put together again by what the README says of them.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use async_nats::HeaderMap;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use crate::traffic::hash;

/// A dead letter.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its place in the stream; of several parts the last one's.
    pub sequence: u64,
    /// Why, as its header says.
    pub reason: String,
    /// The sequence in the source that it names.
    pub source_sequence: u64,
    /// The messages that it is made of.
    pub parts: u32,
    /// The original; an error if it cannot be had from what is stored.
    pub original: Result<Original, String>,
}

/// The message that a dead letter holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// The subject that it came under.
    pub subject: String,
    /// Hash of its body.
    pub body: u64,
}

/// Messages on their way to being letters.
#[derive(Debug, Default)]
pub(super) struct Post {
    letters: Vec<Letter>,
    /// Parts of letters, by the source's sequence, reason, and number of parts.
    parts: HashMap<(u64, String, u32), BTreeMap<u32, Part>>,
}

#[derive(Debug)]
struct Part {
    sequence: u64,
    headers: HeaderMap,
    body: Bytes,
}

/// What moves into a body because it does not fit into headers.
#[derive(Deserialize)]
struct Envelope {
    subject: String,
}

impl Post {
    /// The next message of the stream.
    pub fn take(&mut self, headers: HeaderMap, body: Bytes, sequence: u64) {
        let source_sequence = header(&headers, "Cdc-Sequence").and_then(|text| text.parse().ok()).unwrap_or_default();
        let reason = header(&headers, "Cdc-Reason").unwrap_or_default().to_owned();
        let Some(told) = header(&headers, "Cdc-Part") else {
            let original = original(&headers, &body);
            return self.letters.push(Letter { sequence, reason, source_sequence, parts: 1, original });
        };
        let Some((part, parts)) = place(told) else {
            let original = Err(format!("part {told}"));
            return self.letters.push(Letter { sequence, reason, source_sequence, parts: 0, original });
        };
        let key = (source_sequence, reason, parts);
        let known = self.parts.entry(key.clone()).or_default();
        if known.contains_key(&part) {
            // The same part once more: what has begun before is over, and this begins another letter.
            self.letters.push(joined(key, std::mem::take(known)));
        }
        known.insert(part, Part { sequence, headers, body });
    }

    /// Every letter in the order of the stream, by the last of its parts.
    pub fn letters(self) -> Vec<Letter> {
        let Self { mut letters, parts } = self;
        letters.extend(parts.into_iter().map(|(key, parts)| joined(key, parts)));
        letters.sort_by_key(|letter| letter.sequence);
        letters
    }
}

/// The letter that parts make.
fn joined((source_sequence, reason, parts): (u64, String, u32), found: BTreeMap<u32, Part>) -> Letter {
    let sequence = found.values().map(|part| part.sequence).max().unwrap_or_default();
    let original = match found.values().next() {
        Some(first) if (1..=parts).eq(found.keys().copied()) => {
            let body: Vec<u8> = found.values().flat_map(|part| part.body.iter().copied()).collect();
            original(&first.headers, &body)
        }
        _ => Err(format!("of {parts} parts there are only {:?}", found.keys().collect::<Vec<_>>())),
    };
    Letter { sequence, reason, source_sequence, parts, original }
}

/// The number of a part and of all, as in `1/3`.
fn place(told: &str) -> Option<(u32, u32)> {
    let (part, parts) = told.split_once('/')?;
    let (part, parts) = (part.parse().ok()?, parts.parse().ok()?);
    (1..=parts).contains(&part).then_some((part, parts))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.as_str())
}

/// What a whole body holds.
fn original(headers: &HeaderMap, body: &[u8]) -> Result<Original, String> {
    let mut unpacked = Vec::new();
    let body = match header(headers, "Cdc-Encoding") {
        None => body,
        Some("gzip") => {
            MultiGzDecoder::new(body).read_to_end(&mut unpacked).map_err(|error| format!("no gzip: {error}"))?;
            &unpacked
        }
        Some(other) => return Err(format!("encoding {other}")),
    };
    match header(headers, "Cdc-Envelope") {
        None => {
            let subject = header(headers, "Cdc-Subject").unwrap_or_default().to_owned();
            Ok(Original { subject, body: hash(body) })
        }
        Some("1") => {
            let line = body.iter().position(|byte| *byte == b'\n').ok_or("an envelope without an end")?;
            let Envelope { subject } =
                serde_json::from_slice(&body[..line]).map_err(|error| format!("no envelope: {error}"))?;
            Ok(Original { subject, body: hash(&body[line + 1..]) })
        }
        Some(other) => Err(format!("envelope {other}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const ORIGINAL: &[u8] = b"{\"text\":\"what was sent,\nto the last byte\"}";

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn headers(more: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [("Cdc-Reason", "too_large"), ("Cdc-Sequence", "7"), ("Cdc-Subject", "a.b")] {
            headers.insert(name, value);
        }
        for (name, value) in more {
            headers.insert(*name, *value);
        }
        headers
    }

    fn whole(more: &[(&str, &str)], body: &[u8]) -> Result<Original, String> {
        original(&headers(more), body)
    }

    /// The letters that these parts of three, by number, make; each part is a third of the compressed original.
    fn in_parts(parts: &[usize]) -> Vec<Letter> {
        let (body, mut post) = (gzip(ORIGINAL), Post::default());
        let third = body.len().div_ceil(3);
        for (sequence, part) in (1..).zip(parts) {
            let headers = headers(&[("Cdc-Encoding", "gzip"), ("Cdc-Part", &format!("{part}/3"))]);
            let bytes = body.chunks(third).nth(part - 1).unwrap().to_vec();
            post.take(headers, bytes.into(), sequence);
        }
        post.letters()
    }

    #[test]
    fn the_original_is_had_from_every_form_of_a_letter() {
        let expected = Original { subject: "a.b".to_owned(), body: hash(ORIGINAL) };
        assert_eq!(whole(&[], ORIGINAL), Ok(expected.clone()));
        assert_eq!(whole(&[("Cdc-Encoding", "gzip")], &gzip(ORIGINAL)), Ok(expected.clone()));
        let enveloped = [b"{\"subject\":\"a.b.c\",\"detail\":\"\",\"headers\":[]}\n", ORIGINAL].concat();
        let moved = Original { subject: "a.b.c".to_owned(), ..expected.clone() };
        assert_eq!(whole(&[("Cdc-Envelope", "1")], &enveloped), Ok(moved.clone()));
        assert_eq!(whole(&[("Cdc-Envelope", "1"), ("Cdc-Encoding", "gzip")], &gzip(&enveloped)), Ok(moved));
        for order in [[1, 2, 3], [3, 1, 2]] {
            let letters = in_parts(&order);
            let [letter] = &letters[..] else { panic!("{letters:?}") };
            assert_eq!((letter.sequence, letter.source_sequence, letter.parts), (3, 7, 3));
            assert_eq!(letter.original, Ok(expected.clone()));
        }
    }

    #[test]
    fn what_is_truncated_empty_or_incomplete_holds_no_original() {
        let packed = gzip(ORIGINAL);
        for length in [0, 5, packed.len() - 1] {
            assert!(whole(&[("Cdc-Encoding", "gzip")], &packed[..length]).is_err(), "{length} bytes");
        }
        assert!(whole(&[("Cdc-Envelope", "1")], b"{\"subject\":\"a\"}").is_err());
        assert!(whole(&[("Cdc-Encoding", "zstd")], ORIGINAL).is_err());
        for parts in [&[1, 2][..], &[2, 3], &[3]] {
            let letters = in_parts(parts);
            assert!(letters.len() == 1 && letters[0].original.is_err(), "{parts:?}: {letters:?}");
        }
    }

    #[test]
    fn parts_that_come_again_are_another_letter() {
        let good = |letters: Vec<Letter>| letters.iter().map(|letter| letter.original.is_ok()).collect::<Vec<_>>();
        assert_eq!(good(in_parts(&[1, 2, 3, 1, 2, 3])), [true, true]);
        assert_eq!(good(in_parts(&[1, 2, 3, 2])), [true, false]);
    }
}
