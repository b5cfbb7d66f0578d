//! `healthcheck`: whether the service on this machine is alive.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::{ended, load};
use crate::cli::{ConfigArgs, ExitStatus};

/// How long the service may take for each step of answering a health check.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks `/healthz` of the service that runs on this machine with this configuration.
pub fn healthcheck(arguments: &ConfigArgs) -> ExitStatus {
    let config = match load(arguments) {
        Ok(config) => config,
        Err(error) => return ended(Err(error.into())),
    };
    let address = reachable(config.http.listen);
    match ask_healthz(address) {
        Ok(answer) if answer.split(' ').nth(1) == Some("200") => ExitStatus::Success,
        Ok(answer) => {
            eprintln!("not alive: http://{address}/healthz answers {answer}");
            ExitStatus::No
        }
        Err(error) => {
            eprintln!("not alive: http://{address}/healthz: {error}");
            ExitStatus::No
        }
    }
}

/// Where a listener on this address can be reached from the same machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The status line that it answers with.
fn ask_healthz(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // In one piece: whoever answers after the first line and hangs up has then read all of it.
    stream.write_all(format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut line = String::new();
    // A status line is short; whoever sends more is not the service.
    BufReader::new(stream.take(256)).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_on_this_machine() {
        for (listen, expected) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.1.2.3:9", "10.1.2.3:9"),
            ("[fd00::1]:9", "[fd00::1]:9"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
