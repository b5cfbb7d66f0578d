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

#[cfg(test)]
mod tests {
    use super::frame;

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
}
