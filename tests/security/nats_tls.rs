//! Encryption of the connection to NATS, and that nothing is ever said in clear where it was asked for.

use std::path::Path;
use std::time::{Duration, Instant};

use cdc_actors::ports::FailureClass;
use daisi_cdc_consumer::adapters::nats::{Auth, ConnectError, Tls};

use tempfile::TempDir;

use crate::authority::Authority;
use crate::link::{Link, all_texts, refused, settings};
use crate::support::nats::{NatsServer, nats_servers, on_every_server};

/// The server's lines of configuration.
pub fn config(authority: &Authority, more: &str) -> String {
    let [certificate, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|file| authority.path(file));
    format!("tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}, timeout: 10, {more} }}")
}

/// Trusts the authority, and no other.
fn trusting(authority: &Authority) -> Tls {
    Tls { ca_file: Some(authority.path("ca.pem")), ..Tls::default() }
}

/// Trusts it and shows the client's certificate.
fn showing(authority: &Authority) -> Tls {
    Tls { client: Some(authority.client()), ..trusting(authority) }
}

/// A server without TLS that notes what it hears.
struct Plain {
    server: NatsServer,
    log: TempDir,
}

impl Plain {
    fn start(binary: &Path, more: &str) -> Self {
        let log = TempDir::new().unwrap();
        let config = format!("log_file: {:?}\ndebug: true\ntrace: true\n{more}", log.path().join("log"));
        Self { server: NatsServer::start_with(binary, &config), log }
    }

    /// Nobody has told it anything: who they are, say.
    fn has_heard_nothing(&self) {
        let log = std::fs::read_to_string(self.log.path().join("log")).unwrap();
        // Routes have a rid.
        let told = log.lines().find(|line| line.contains("cid:") && line.contains("[CONNECT"));
        assert!(log.contains("Server is ready") && told.is_none(), "{told:?}");
    }
}

async fn connect(url: String, tls: Tls) -> Result<Link, ConnectError> {
    Link::to(url, Auth::None, tls).await
}

/// A connection is refused, and it is said that a certificate is why.
async fn certificate_refused(url: String, tls: Tls, why: &str) {
    let error = refused(connect(url, tls).await);
    assert!(error.class().is_some(), "{error}");
    assert!(all_texts(&error).contains(why), "{why}: {}", all_texts(&error));
}

async fn a_server_of_a_private_authority_is_trusted_when_told(binary: &Path) {
    let authority = Authority::new();
    let mut server = NatsServer::start_with(binary, &config(&authority, ""));
    for scheme in ["nats", "tls"] {
        let url = server.url().replace("nats", scheme);
        connect(url.clone(), trusting(&authority)).await.unwrap().works().await;
        certificate_refused(url, Tls::default(), "certificate").await;
    }
    certificate_refused(server.url(), trusting(&Authority::new()), "certificate").await;
    authority.sign("server", -1);
    server.restart();
    certificate_refused(server.url(), trusting(&authority), "xpired").await;
}

async fn a_client_certificate_is_shown(binary: &Path) {
    let authority = Authority::new();
    let server = NatsServer::start_with(binary, &config(&authority, "verify: true"));
    connect(server.url(), showing(&authority)).await.unwrap().works().await;
    refused(connect(server.url(), trusting(&authority)).await);
    let stranger = Authority::new();
    let foreign = Tls { client: Some(stranger.client()), ..trusting(&authority) };
    refused(connect(server.url(), foreign).await);
    authority.sign("client", -1);
    refused(connect(server.url(), showing(&authority)).await);
}

async fn rotated_certificates_are_taken_from_their_files(binary: &Path) {
    let (authority, next) = (Authority::new(), Authority::new());
    let mut server = NatsServer::start_with(binary, &config(&authority, "verify: true"));
    let link = connect(server.url(), showing(&authority)).await.unwrap();
    link.works().await;
    // Only the server's is new: it is not trusted, and the log says so.
    let trusted = std::fs::read(authority.path("ca.pem")).unwrap();
    authority.rotate_to(&next);
    std::fs::write(authority.path("ca.pem"), trusted).unwrap();
    server.restart();
    link.until("certificate").await;
    authority.rotate_to(&next);
    server.restart();
    link.works().await;
}

async fn a_server_without_tls_is_refused_where_anything_asks_for_it(binary: &Path) {
    let (plain, authority) = (Plain::start(binary, ""), Authority::new());
    let server = &plain.server;
    let required = Tls { required: true, ..Tls::default() };
    let first = Tls { first: true, ..Tls::default() };
    for tls in [required, first, trusting(&authority), showing(&authority)] {
        let error = refused(connect(server.url(), tls).await);
        assert!(matches!(error.class(), Some(FailureClass::Disconnected | FailureClass::Timeout)), "{error}");
    }
    refused(connect(server.url().replace("nats", "tls"), Tls::default()).await);
    plain.has_heard_nothing();
}

/// One URL that asks for TLS is enough for all servers of the list.
async fn no_other_server_of_the_list_is_talked_to_in_clear(binary: &Path) {
    let authority = Authority::new();
    let plain = Plain::start(binary, "");
    let mut encrypted = NatsServer::start_with(binary, &config(&authority, ""));
    let (open, tls) = (plain.server.url(), encrypted.url().replace("nats", "tls"));
    // Without a file of certificates, so that the URL alone asks.
    for urls in [vec![tls.clone(), open.clone()], vec![open.clone(), tls.clone()]] {
        refused(Link::make(&settings(urls, Auth::None, Tls::default())).await);
    }
    let link = Link::make(&settings(vec![tls, open.clone()], Auth::None, trusting(&authority))).await.unwrap();
    link.works().await;
    encrypted.kill();
    link.breaks().await;
    link.until(&format!("{}: ", open.replace("nats://", ""))).await;
    encrypted.restart();
    link.works().await;
    plain.has_heard_nothing();
}

/// Nor one that another server tells of, whose address says nothing of TLS.
async fn no_server_heard_of_is_talked_to_in_clear(binary: &Path) {
    let authority = Authority::new();
    let pair = |name: &str, route: &str| {
        format!("server_name: {name}\ncluster {{ name: pair, listen: \"127.0.0.1:-1\", routes: [ \"{route}\" ] }}")
    };
    // A server of a cluster must have a route; this one leads nowhere.
    let plain = Plain::start(binary, &pair("plain", "nats://127.0.0.1:1"));
    let pair = pair("tls", plain.server.routes());
    let mut encrypted = NatsServer::start_with(binary, &format!("{}\n{pair}", config(&authority, "")));
    let address = plain.server.url().replace("nats://", "");
    let url = encrypted.url().replace("nats", "tls");
    let settings = settings(vec![url], Auth::None, trusting(&authority));
    let deadline = Instant::now() + Duration::from_secs(20);
    let link = loop {
        let link = Link::make(&settings).await.unwrap();
        if link.connection.client().server_info().connect_urls.contains(&address) {
            break link;
        }
        assert!(Instant::now() < deadline, "never told of {address}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    encrypted.kill();
    link.breaks().await;
    link.until(&format!("{address}: ")).await;
    plain.has_heard_nothing();
}

async fn the_handshake_can_come_first(binary: &Path) {
    let authority = Authority::new();
    let first = Tls { first: true, ..trusting(&authority) };
    let mut server = NatsServer::start_with(binary, &config(&authority, "handshake_first: true"));
    let link = connect(server.url(), first.clone()).await.unwrap();
    link.works().await;
    refused(connect(server.url(), trusting(&authority)).await);
    certificate_refused(server.url(), Tls { first: true, ..Tls::default() }, "certificate").await;
    authority.sign("server", -1);
    server.restart();
    certificate_refused(server.url(), first.clone(), "xpired").await;
    link.until("xpired").await;
    authority.rotate_to(&Authority::new());
    server.restart();
    link.works().await;
    let later = NatsServer::start_with(binary, &config(&authority, ""));
    refused(connect(later.url(), first).await);
}

#[tokio::test]
async fn the_handshake_comes_first_where_the_server_can() {
    // `handshake_first` came with 2.10.4; an older server takes no such configuration.
    for binary in nats_servers().into_iter().skip(1) {
        the_handshake_can_come_first(&binary).await;
    }
}

on_every_server! {
    a_server_of_a_private_authority_is_trusted_when_told
    a_client_certificate_is_shown
    rotated_certificates_are_taken_from_their_files
    a_server_without_tls_is_refused_where_anything_asks_for_it
    no_other_server_of_the_list_is_talked_to_in_clear
    no_server_heard_of_is_talked_to_in_clear
}
