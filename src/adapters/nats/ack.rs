//! What the reply subject of a JetStream delivery says.

/// A reply subject that is not one of JetStream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no JetStream acknowledgement subject: does something else publish to the inbox of the consumer?")]
pub struct NotAnAckSubject(pub String);

/// The parts of `$JS.ACK…` that identify a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckSubject<'a> {
    /// The stream the message is stored in.
    pub stream: &'a str,
    /// The consumer that delivered it.
    pub consumer: &'a str,
    /// How often it has been delivered, this time included.
    pub deliveries: u64,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When it was stored, nanoseconds since the Unix epoch.
    pub timestamp: i64,
}

impl<'a> AckSubject<'a> {
    /// Reads both forms: nine tokens, or eleven and more, where domain and account hash come before the stream.
    ///
    /// # Errors
    /// [`NotAnAckSubject`] if it is neither.
    pub fn parse(reply: &'a str) -> Result<Self, NotAnAckSubject> {
        Self::read(reply).ok_or_else(|| NotAnAckSubject(reply.to_owned()))
    }

    fn read(reply: &'a str) -> Option<Self> {
        let rest = reply.strip_prefix("$JS.ACK.")?;
        let mut tokens = [""; 9];
        let mut count = 0;
        for token in rest.split('.') {
            // What comes behind the ninth is of no interest.
            if let Some(place) = tokens.get_mut(count) {
                *place = token;
            }
            count += 1;
        }
        let of_stream = match count {
            7 => &tokens[..7],
            9.. => &tokens[2..],
            _ => return None,
        };
        let &[stream, consumer, deliveries, sequence, consumer_sequence, timestamp, pending] = of_stream else {
            return None;
        };
        let _: (u64, u64) = (consumer_sequence.parse().ok()?, pending.parse().ok()?);
        Some(Self {
            stream,
            consumer,
            deliveries: deliveries.parse().ok()?,
            sequence: sequence.parse().ok()?,
            timestamp: timestamp.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms() {
        let expected = AckSubject {
            stream: "S",
            consumer: "C",
            deliveries: 2,
            sequence: 31,
            timestamp: 1_700_000_000_000_000_001,
        };
        for reply in [
            "$JS.ACK.S.C.2.31.30.1700000000000000001.5",
            "$JS.ACK._.ACCHASH.S.C.2.31.30.1700000000000000001.5",
            "$JS.ACK.hub.ACCHASH.S.C.2.31.30.1700000000000000001.5.rAnDoM",
        ] {
            assert_eq!(AckSubject::parse(reply), Ok(expected), "{reply}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for reply in
            ["", "_INBOX.x", "$JS.ACK.S.C.2.31.30.17", "$JS.ACK.S.C.x.31.30.17.5", "$JS.ACK.a.S.C.2.31.30.17.5"]
        {
            assert!(AckSubject::parse(reply).is_err(), "{reply}");
        }
    }
}
