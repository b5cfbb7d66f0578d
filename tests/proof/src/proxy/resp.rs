//! Frames of RESP 2 and 3.

/// The length of the first frame, if it is there as a whole.
pub(super) fn frame(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let number = std::str::from_utf8(bytes.get(1..line)?).ok().and_then(|text| text.parse::<i64>().ok());
    let parts = match (bytes[0], number) {
        (b'$' | b'=' | b'!', Some(length @ 0..)) => {
            let whole = line + 2 + usize::try_from(length).ok()? + 2;
            return (bytes.len() >= whole).then_some(whole);
        }
        (b'*' | b'~' | b'>', Some(count @ 0..)) => count,
        (b'%', Some(count @ 0..)) => 2 * count,
        _ => 0,
    };
    let mut at = line + 2;
    for _ in 0..parts {
        at += frame(bytes.get(at..)?)?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::frame;

    #[test]
    fn frames_end_where_they_should_however_they_are_cut() {
        let text =
            b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n+OK\r\n$-1\r\n*2\r\n$-1\r\n$2\r\n\r\n\r\n%1\r\n+a\r\n:1\r\n>1\r\n+x\r\n";
        let lengths = [20, 5, 5, 17, 12, 8];
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
