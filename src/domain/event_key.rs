//! The identities of an event: its key for dedup, its id for downstream, the order key of its row.

use std::fmt::Write;
use std::hash::Hasher;

use cdc_actors::message::{EventKey, OrderKey};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::json::push_number;

/// What a part of an event key does not hold as it is: the separator, the escape, and what is not visible ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b':').add(b'%');

/// What an event key is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyParts<'a> {
    /// The database's id or name.
    pub database: &'a str,
    /// The schema.
    pub schema: &'a str,
    /// Log sequence number; 0 if there is none.
    pub lsn: u64,
    /// The table.
    pub table: &'a str,
    /// The row's key.
    pub key: &'a str,
    /// `commit_idx` or what stands in for it: tells two changes of a row in one transaction apart.
    pub place: &'a str,
}

impl KeyParts<'_> {
    /// Appends the parts joined by `:`, each percent-encoded; beyond [`EventKey::MAX_LEN`] bytes, half of the SHA-256 of that.
    pub fn push_event_key(&self, out: &mut Vec<u8>) {
        let start = out.len();
        for part in [self.database, self.schema] {
            push_escaped(out, part);
            out.push(b':');
        }
        push_number(out, self.lsn);
        out.push(b':');
        for part in [self.table, self.key] {
            push_escaped(out, part);
            out.push(b':');
        }
        push_escaped(out, self.place);
        if out.len() - start > EventKey::MAX_LEN {
            let digest = sha256_hex(&out[start..]);
            out.truncate(start);
            out.extend_from_slice(&digest.as_bytes()[..32]);
        }
    }
}

fn push_escaped(out: &mut Vec<u8>, part: &str) {
    utf8_percent_encode(part, ESCAPED).for_each(|piece| out.extend_from_slice(piece.as_bytes()));
}

/// Several texts as one, from which they can be told: joined by commas, each percent-encoded as in an event key, commas too.
pub fn joined(parts: &[&str]) -> String {
    const JOINED: &AsciiSet = &ESCAPED.add(b',');
    parts.iter().map(|part| utf8_percent_encode(part, JOINED).to_string()).collect::<Vec<_>>().join(",")
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// The order key of a row.
pub fn row_order(database: &str, schema: &str, table: &str, key: &str) -> OrderKey {
    order([database, schema, table, key].map(str::as_bytes))
}

/// The order key of all rows of a table that share a routing value.
pub fn value_order(database: &str, schema: &str, table: &str, name: &str, value: &str) -> OrderKey {
    order([database, schema, table, name, value].map(str::as_bytes))
}

/// The order key of an event whose row cannot be told: events of one subject need not wait for each other.
pub fn stray_order(subject: &str, sequence: u64) -> OrderKey {
    order([subject.as_bytes(), &sequence.to_le_bytes()])
}

/// Hashes the parts with their number and lengths, so that no two lists of parts feed the same bytes.
fn order<const N: usize>(parts: [&[u8]; N]) -> OrderKey {
    let mut hasher = SipHasher13::new();
    hasher.write_usize(N);
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    OrderKey(hasher.finish128().as_u128())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARTS: KeyParts<'static> =
        KeyParts { database: "db-1", schema: "daisi_c", lsn: 42, table: "messages", key: "m:1", place: "7" };

    fn key_of(parts: &KeyParts<'_>) -> String {
        let mut out = b"before ".to_vec();
        parts.push_event_key(&mut out);
        let key = String::from_utf8(out.split_off(7)).expect("ASCII");
        assert!(EventKey::new(key.clone()).is_ok(), "{key}");
        key
    }

    #[test]
    fn parts_are_escaped_and_joined() {
        assert_eq!(key_of(&PARTS), "db-1:daisi_c:42:messages:m%3A1:7");
        let hostile = KeyParts { key: "a\r\nCdc-Late: true %é\u{7f}", ..PARTS };
        assert_eq!(key_of(&hostile), "db-1:daisi_c:42:messages:a%0D%0ACdc-Late%3A%20true%20%25%C3%A9%7F:7");
    }

    #[test]
    fn several_texts_are_told_apart_when_joined() {
        assert_eq!(joined(&["7", "2026-01-05"]), "7,2026-01-05");
        assert_ne!(joined(&["a,b", "c"]), joined(&["a", "b,c"]));
        assert_ne!(joined(&["a%2C", "b"]), joined(&["a,", "b"]));
    }

    #[test]
    fn a_long_key_is_half_a_sha256() {
        let rest = "db-1:daisi_c:42:messages::7".len();
        let (fits, long) = ("k".repeat(200 - rest), "k".repeat(201 - rest));
        assert_eq!(key_of(&KeyParts { key: &fits, ..PARTS }).len(), 200);
        let full = format!("db-1:daisi_c:42:messages:{long}:7");
        assert_eq!(key_of(&KeyParts { key: &long, ..PARTS }), &sha256_hex(full.as_bytes())[..32]);
    }

    #[test]
    fn sha256_is_sha256() {
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn order_keys_tell_rows_apart() {
        assert_eq!(row_order("d", "s", "t", "k"), row_order("d", "s", "t", "k"));
        assert_ne!(row_order("d", "s", "t", "k"), row_order("ds", "", "t", "k"));
        assert_ne!(stray_order("a", 1), stray_order("a", 2));
        assert_ne!(value_order("d", "s", "t", "chat_id", "k"), value_order("d", "s", "t", "agent_id", "k"));
    }

    fn parts() -> impl Strategy<Value = (String, String, u64, String, String, String)> {
        let part = || prop_oneof!["[a:%]{0,3}", ".{0,40}", "\\PC{0,90}"];
        (part(), part(), 0..3u64, part(), part(), part())
    }

    proptest! {
        #[test]
        fn keys_are_legal_and_distinct(a in parts(), b in parts()) {
            let key = |(database, schema, lsn, table, key, place): &(String, String, u64, String, String, String)| {
                key_of(&KeyParts { database, schema, lsn: *lsn, table, key, place })
            };
            prop_assert_eq!(a == b, key(&a) == key(&b));
        }
    }
}
