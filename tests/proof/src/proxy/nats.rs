//! Frames of the NATS client protocol.

/// The length of the first frame, if it is there as a whole.
pub(super) fn frame(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let whole = line + 2 + payload(&bytes[..line]).map_or(0, |length| length + 2);
    (bytes.len() >= whole).then_some(whole)
}

/// The length of the payload that follows a line, headers included; `None` if there is none.
fn payload(line: &[u8]) -> Option<usize> {
    let operation = line.split(|byte| *byte == b' ').next()?;
    let carries = [&b"PUB"[..], b"HPUB", b"MSG", b"HMSG"].iter().any(|name| operation.eq_ignore_ascii_case(name));
    let last = std::str::from_utf8(line.rsplit(|byte| *byte == b' ').next()?).ok()?;
    if carries { last.parse().ok() } else { None }
}

/// A publish that asks for an answer and has an id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Publish<'a> {
    /// Where to.
    pub subject: &'a str,
    /// Where the answer is to go.
    pub reply: &'a str,
    /// Its `Nats-Msg-Id`.
    pub id: &'a str,
}

/// What a whole frame publishes, if it is such a publish.
pub(super) fn publish(frame: &[u8]) -> Option<Publish<'_>> {
    let (line, rest) = split(frame)?;
    let mut words = line.strip_prefix("HPUB ")?.split(' ');
    let (subject, reply) = (words.next()?, words.next()?);
    // Without a reply subject this is the length of all.
    let headers: usize = words.next()?.parse().ok()?;
    words.next()?;
    let headers = std::str::from_utf8(rest.get(..headers)?).ok()?;
    let id = headers.lines().find_map(|header| header.strip_prefix("Nats-Msg-Id:"))?.trim();
    Some(Publish { subject, reply, id })
}

/// Subject and payload of a whole frame that is a message without headers.
pub(super) fn message(frame: &[u8]) -> Option<(&str, &[u8])> {
    let (line, rest) = split(frame)?;
    let subject = line.strip_prefix("MSG ")?.split(' ').next()?;
    Some((subject, rest.strip_suffix(b"\r\n")?))
}

fn split(frame: &[u8]) -> Option<(&str, &[u8])> {
    let line = frame.windows(2).position(|pair| pair == b"\r\n")?;
    Some((std::str::from_utf8(&frame[..line]).ok()?, &frame[line + 2..]))
}

#[cfg(test)]
mod tests {
    use super::{Publish, frame, message, publish};

    #[test]
    fn frames_end_where_they_should_however_they_are_cut() {
        let text = b"PING\r\nPUB wa.a 5\r\nhe\r\no\r\nHMSG s 1 _INBOX.x 12 16\r\nNATS/1.0\r\n\r\nbody\r\n+OK\r\nMSG s 1 0\r\n\r\n";
        let lengths = [6, 19, 43, 5, 13];
        let mut at = 0;
        for length in lengths {
            for cut in at..at + length {
                assert_eq!(frame(&text[at..cut]), None, "{:?}", String::from_utf8_lossy(&text[at..cut]));
            }
            assert_eq!(frame(&text[at..]), Some(length), "{:?}", String::from_utf8_lossy(&text[at..]));
            at += length;
        }
        assert_eq!(at, text.len());
    }

    #[test]
    fn a_publish_is_told_from_one_without_an_id_or_an_answer() {
        let id = "NATS/1.0\r\nCdc-Late: true\r\nNats-Msg-Id: a:1\r\n\r\n";
        let (head, all) = (id.len(), id.len() + 4);
        let whole = format!("HPUB wa.a _INBOX.x.1 {head} {all}\r\n{id}body\r\n");
        assert_eq!(publish(whole.as_bytes()), Some(Publish { subject: "wa.a", reply: "_INBOX.x.1", id: "a:1" }));
        let unanswered = format!("HPUB wa.a {head} {all}\r\n{id}body\r\n");
        for other in [&*unanswered, "HPUB wa.a r 12 12\r\nNATS/1.0\r\n\r\n\r\n", "PUB wa.a r 0\r\n\r\n", "PING\r\n"] {
            assert_eq!(publish(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn a_message_is_subject_and_payload() {
        assert_eq!(message(b"MSG _INBOX.x.1 3 2\r\n{}\r\n"), Some(("_INBOX.x.1", &b"{}"[..])));
        assert_eq!(message(b"HMSG a 1 12 12\r\nNATS/1.0\r\n\r\n\r\n"), None);
        assert_eq!(message(b"+OK\r\n"), None);
    }
}
