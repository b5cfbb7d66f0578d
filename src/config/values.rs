//! The vocabulary of settings: sizes, durations, names that NATS accepts, URLs with and without their secrets.

use std::fmt;
use std::time::Duration;

use crate::domain;

/// A setting with a closed list of values.
pub(super) trait Choice: Copy + 'static {
    /// Every value with its name in the configuration.
    const ALL: &'static [(&'static str, Self)];
}

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* })*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl Choice for $name {
            const ALL: &'static [(&'static str, Self)] = &[$(($text, Self::$variant),)*];
        }
        impl $name {
            /// The name in the configuration.
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.name()) }
        }
    )* };
}

choices! {
    /// The least important lines that are still logged.
    LogLevel {
        /// Everything.
        Trace = "trace",
        /// One line per success, too.
        Debug = "debug",
        /// Changes of state and failures.
        #[default]
        Info = "info",
        /// Failures.
        Warning = "warning",
        /// What needs somebody's attention.
        Error = "error",
        /// What ends the process.
        Critical = "critical",
    }
    /// How lines are logged.
    LogFormat {
        /// One JSON object a line.
        #[default]
        Json = "json",
        /// For people.
        Terminal = "terminal",
    }
    /// When a stream lets go of a message.
    Retention {
        /// When a limit is reached.
        #[default]
        Limits = "limits",
        /// When it is acknowledged.
        Workqueue = "workqueue",
        /// When every consumer has acknowledged it.
        Interest = "interest",
    }
    /// Where a stream keeps its messages.
    Storage {
        /// On disk.
        #[default]
        File = "file",
        /// In memory: gone when the server restarts.
        Memory = "memory",
    }
    /// What a full stream does with a new message.
    Discard {
        /// Removes the oldest.
        #[default]
        Old = "old",
        /// Refuses the new one.
        New = "new",
    }
    /// What becomes of a routing value that is no legal subject token.
    UnsafeTokens {
        /// It is percent-encoded.
        #[default]
        Encode = "encode",
        /// Its event is a dead letter.
        Reject = "reject",
    }
    /// What becomes of a field that the typed row does not know.
    UnhandledFields {
        /// It stays in the row.
        #[default]
        Keep = "keep",
        /// It is left out.
        Drop = "drop",
        /// Its event is a dead letter.
        Reject = "reject",
    }
    /// Where it is remembered which events were published.
    DedupKind {
        /// In Redis, shared by all replicas.
        #[default]
        Redis = "redis",
        /// In this process.
        Memory = "memory",
    }
    /// What happens while the dedup store is away.
    WhenUnavailable {
        /// Intake pauses.
        #[default]
        Wait = "wait",
        /// Events go on without a check.
        Bypass = "bypass",
    }
}

impl From<UnhandledFields> for domain::UnhandledFields {
    fn from(fields: UnhandledFields) -> Self {
        match fields {
            UnhandledFields::Keep => Self::Keep,
            UnhandledFields::Drop => Self::Drop,
            UnhandledFields::Reject => Self::Reject,
        }
    }
}

/// The address of a server, possibly with a password in it: printed without, used through [`ServerUrl::expose`].
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// The whole URL, secrets and all.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the URL carries a password.
    pub(super) fn has_password(&self) -> bool {
        self.credentials().is_some_and(|c| c.split_once(':').is_some_and(|(_, password)| !password.is_empty()))
    }

    /// Whether the URL carries a user name.
    pub(super) fn has_user(&self) -> bool {
        self.credentials().is_some_and(|c| !c.split(':').next().unwrap_or(c).is_empty())
    }

    /// Whether the URL leads to this machine itself, where nobody listens on the way.
    pub(super) fn stays_here(&self) -> bool {
        let rest = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        let server = rest.rsplit_once('@').map_or(rest, |(_, server)| server);
        self.0.starts_with(UNIX) || ["localhost", "127.", "[::1]"].iter().any(|here| server.starts_with(here))
    }

    /// Whether the URL asks for encryption.
    pub(super) fn is_encrypted(&self) -> bool {
        self.0.starts_with("tls://") || self.0.starts_with("rediss://")
    }

    /// Whether the URL carries a user name, a token or a password.
    pub(super) fn has_credentials(&self) -> bool {
        self.credentials().is_some_and(|c| !c.is_empty())
    }

    fn credentials(&self) -> Option<&str> {
        let rest = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        rest.rsplit_once('@').map(|(credentials, _)| credentials)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact_url(&self.0))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Replaces whatever could be a secret in a URL by `***`: all before the last `@`, query parameters, and what stands
/// in the place of a port without being one. It hides too much rather than too little: passwords are often not encoded
/// as they should be.
pub fn redact_url(url: &str) -> String {
    let begin = url.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = url.split_at(begin);
    let (hidden, server) = rest.rsplit_once('@').map_or(("", rest), |(_, server)| ("***@", server));
    let (server, query) = server.split_once('?').map_or((server, ""), |(server, _)| (server, "?***"));
    let after_host = if server.starts_with('[') { None } else { server.split_once(':') };
    match after_host {
        Some((host, port)) if hidden.is_empty() && !port.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("{scheme}{host}:***")
        }
        _ => format!("{scheme}{hidden}{server}{query}"),
    }
}

/// Does what [`redact_url`] does to every URL in a text.
pub fn redact_text(text: &str) -> String {
    let redact = |word: &str| {
        if word.contains("://") { redact_url(word) } else { word.to_owned() }
    };
    text.split_inclusive(char::is_whitespace).map(redact).collect()
}

/// Reads the URL of a NATS server.
pub(super) fn nats_url(text: &str) -> Result<ServerUrl, String> {
    url(text, &["nats", "tls"]).ok_or_else(|| "URLs such as nats://host:4222 or tls://host:4222".to_owned())
}

/// What the URL of a Unix socket begins with.
const UNIX: &str = "redis+unix://";

/// Reads the URL of a Redis server.
pub(super) fn redis_url(text: &str) -> Result<ServerUrl, String> {
    let expected =
        || "a URL such as redis://host:6379/0, rediss://host:6379/0 for TLS, or redis+unix:///path?db=0".to_owned();
    if let Some(path) = text.strip_prefix(UNIX) {
        return socket_url(text, path).ok_or_else(expected);
    }
    let url = url(text, &["redis", "rediss"]).ok_or_else(expected)?;
    let after_host = text.rsplit_once('@').map_or(text, |(_, host)| host);
    let path = after_host.split_once("://").map_or(after_host, |(_, rest)| rest).split_once('/').map(|(_, path)| path);
    match path.map(|path| path.split('?').next().unwrap_or(path)) {
        None | Some("") => Ok(url),
        Some(database) if database.parse::<u16>().is_ok() => Ok(url),
        Some(_) => Err(expected()),
    }
}

/// A Unix socket, absolute, and perhaps a database; user and password are settings of their own.
fn socket_url(text: &str, path: &str) -> Option<ServerUrl> {
    let (path, query) = path.split_once('?').unwrap_or((path, "db=0"));
    let database = query.strip_prefix("db=").is_some_and(|database| database.parse::<u16>().is_ok());
    let legal = path.len() > 1 && path.starts_with('/') && !text.chars().any(is_foreign);
    (legal && database).then(|| ServerUrl(text.to_owned()))
}

/// Whether a character stands in no URL as it is. After a `#` a client may find instructions, such as not to look at certificates.
fn is_foreign(c: char) -> bool {
    c.is_whitespace() || c.is_control() || c == '#'
}

fn url(text: &str, schemes: &[&str]) -> Option<ServerUrl> {
    let (scheme, rest) = text.split_once("://")?;
    if !schemes.contains(&scheme) || text.chars().any(is_foreign) {
        return None;
    }
    let server = rest.rsplit_once('@').map_or(rest, |(_, server)| server);
    let authority = server.split(['/', '?']).next()?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (address, after) = v6.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number > 0));
    (!host.is_empty() && port_fits).then(|| ServerUrl(text.to_owned()))
}

/// A size in bytes: `64MiB` (binary), `64MB` (decimal), `1024`. No fractions.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A size as people write it.
pub(super) fn written_size(size: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(factor, _)| size >= *factor && size.is_multiple_of(*factor)) {
        Some((factor, unit)) => format!("{}{unit}", size / factor),
        None => format!("{size}B"),
    }
}

/// A duration as people write it.
pub(super) fn written_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() == 0 && seconds > 0 && seconds.is_multiple_of(86_400) {
        // Above a month humantime would write years and months, which no one would put into a setting.
        return format!("{}d", seconds / 86_400);
    }
    humantime::format_duration(duration).to_string()
}

/// Checks the name of a stream or consumer.
pub(super) fn nats_name(name: &str) -> Result<(), String> {
    let illegal = |c: char| matches!(c, '.' | '*' | '>' | '/' | '\\') || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > 255 || name.contains(illegal) {
        return Err("a name of 1 to 255 bytes without . * > / \\ and white space".to_owned());
    }
    Ok(())
}

/// Checks a subject that may hold wildcards.
pub(super) fn subject_filter(subject: &str) -> Result<String, String> {
    let tokens: Vec<&str> = subject.split('.').collect();
    let last = tokens.len() - 1;
    let legal = |(at, token): (usize, &&str)| match *token {
        ">" => at == last,
        "*" => true,
        token => legal_token(token),
    };
    if subject.len() > 1024 || !tokens.iter().enumerate().all(legal) {
        return Err("subjects of tokens joined by dots, * for any token, > for any rest, no white space".to_owned());
    }
    Ok(subject.to_owned())
}

/// Checks a subject that something is appended to.
pub(super) fn subject_prefix(subject: &str) -> Result<(), String> {
    if subject.len() > 255 || !subject.split('.').all(legal_token) {
        return Err("a subject of 1 to 255 bytes: tokens joined by dots, no wildcards, no white space".to_owned());
    }
    Ok(())
}

fn legal_token(token: &str) -> bool {
    !token.is_empty() && !token.contains(|c: char| matches!(c, '*' | '>') || c.is_whitespace() || c.is_control())
}
