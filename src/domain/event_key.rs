//! The identities of an event: its key for dedup, its id for downstream, the order key of its row.

use std::fmt::Write;
use std::hash::Hasher;

use cdc_actors::message::{EventKey, OrderKey};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hasher128, SipHasher13};

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
    /// The parts joined by `:`, each percent-encoded; beyond [`EventKey::MAX_LEN`] bytes, half of the SHA-256 of that.
    pub fn event_key(&self) -> EventKey {
        let mut text = String::with_capacity(EventKey::MAX_LEN);
        for part in [self.database, self.schema] {
            text.extend(utf8_percent_encode(part, ESCAPED));
            text.push(':');
        }
        write!(text, "{}:", self.lsn).expect("writing to a String cannot fail");
        for part in [self.table, self.key] {
            text.extend(utf8_percent_encode(part, ESCAPED));
            text.push(':');
        }
        text.extend(utf8_percent_encode(self.place, ESCAPED));
        EventKey::new(&text).unwrap_or_else(|long| {
            let mut digest = sha256_hex(long.as_bytes());
            digest.truncate(32);
            EventKey::new(digest).expect("32 hex digits are visible ASCII and shorter than the limit")
        })
    }

    /// `LSN:Table:PK`, as downstream knows it: not unique.
    pub fn event_id(&self) -> String {
        // Room for 20 digits and two colons: at once, since this is done for every event.
        let mut text = String::with_capacity(22 + self.table.len() + self.key.len());
        write!(text, "{}:{}:{}", self.lsn, self.table, self.key).expect("writing to a String cannot fail");
        text
    }
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

    #[test]
    fn parts_are_escaped_and_joined() {
        assert_eq!(PARTS.event_key().as_str(), "db-1:daisi_c:42:messages:m%3A1:7");
        assert_eq!(PARTS.event_id(), "42:messages:m:1");
        let hostile = KeyParts { key: "a\r\nCdc-Late: true %é\u{7f}", ..PARTS };
        assert_eq!(hostile.event_key().as_str(), "db-1:daisi_c:42:messages:a%0D%0ACdc-Late%3A%20true%20%25%C3%A9%7F:7");
    }

    #[test]
    fn a_long_key_is_half_a_sha256() {
        let rest = "db-1:daisi_c:42:messages::7".len();
        let (fits, long) = ("k".repeat(200 - rest), "k".repeat(201 - rest));
        assert_eq!(KeyParts { key: &fits, ..PARTS }.event_key().as_str().len(), 200);
        let full = format!("db-1:daisi_c:42:messages:{long}:7");
        assert_eq!(KeyParts { key: &long, ..PARTS }.event_key().as_str(), &sha256_hex(full.as_bytes())[..32]);
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
    }

    fn parts() -> impl Strategy<Value = (String, String, u64, String, String, String)> {
        let part = || prop_oneof!["[a:%]{0,3}", ".{0,40}", "\\PC{0,90}"];
        (part(), part(), 0..3u64, part(), part(), part())
    }

    proptest! {
        #[test]
        fn keys_are_visible_ascii_and_distinct(a in parts(), b in parts()) {
            let key = |(database, schema, lsn, table, key, place): &(String, String, u64, String, String, String)| {
                KeyParts { database, schema, lsn: *lsn, table, key, place }.event_key()
            };
            prop_assert!(key(&a).as_str().bytes().all(|b| b.is_ascii_graphic()));
            prop_assert_eq!(a == b, key(&a) == key(&b));
        }
    }
}
