//! Credentials and encryption of the connection to NATS, on real servers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod support;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cdc_actors::ports::FailureClass;
use daisi_cdc_consumer::adapters::nats::{
    Auth, ConnectError, Connection, ConnectionEvent, NatsConfig, StreamSettings, Tls, streams,
};
use support::nats::{NatsServer, nats_servers};
use tempfile::TempDir;

/// Must not be found in any message.
const SECRET: &str = "s3cret@:/%x";

/// Makes use of a connection.
async fn works(connection: &Connection) {
    let settings = StreamSettings::new("OUT", vec!["out.>".to_owned()]);
    streams::ensure_stream(connection, &settings).await.unwrap();
}

async fn connect(url: String, auth: Auth, tls: Tls) -> Result<Connection, ConnectError> {
    let config = NatsConfig { auth, tls, ..NatsConfig::new(vec![url], 100) };
    Connection::connect(&config, |_| {}).await
}

/// All that a failure says, to people and to developers, of itself and of its causes.
fn all_texts(error: &dyn Error) -> String {
    let causes = error.source().map(all_texts).unwrap_or_default();
    format!("{error} {error:?}\n{causes}")
}

fn denied(result: Result<Connection, ConnectError>) {
    let error = result.unwrap_err();
    assert_eq!(error.class(), Some(FailureClass::Denied), "{error}");
    let said = all_texts(&error);
    assert!(!said.contains("s3cret"), "{said}");
}

fn user(password: &str) -> Auth {
    Auth::UserPassword { user: "cdc".to_owned(), password: password.to_owned().into() }
}

async fn a_password_is_asked_for(binary: &Path) {
    let server = NatsServer::start_with(binary, &format!("authorization {{ user: cdc, password: \"{SECRET}\" }}"));
    let none = Tls::default;
    works(&connect(server.url(), user(SECRET), none()).await.unwrap()).await;
    denied(connect(server.url(), user("s3cret wrong"), none()).await);
    denied(connect(server.url(), Auth::None, none()).await);
    let with = |login: &str| server.url().replace("nats://", &format!("nats://{login}@"));
    works(&connect(with("cdc:s3cret%40%3A%2F%25x"), Auth::None, none()).await.unwrap()).await;
    denied(connect(with("cdc:s3cret%40wrong"), Auth::None, none()).await);
    // What is configured counts more than what a URL says.
    works(&connect(with("cdc:s3cret%40wrong"), user(SECRET), none()).await.unwrap()).await;
}

async fn a_token_is_asked_for(binary: &Path) {
    let server = NatsServer::start_with(binary, &format!("authorization {{ token: \"{SECRET}\" }}"));
    let token = |text: &str| Auth::Token(text.to_owned().into());
    let none = Tls::default;
    works(&connect(server.url(), token(SECRET), none()).await.unwrap()).await;
    denied(connect(server.url(), token("s3cret wrong"), none()).await);
    let with = |login: &str| server.url().replace("nats://", &format!("nats://{login}@"));
    works(&connect(with("s3cret%40%3A%2F%25x"), Auth::None, none()).await.unwrap()).await;
    denied(connect(with("s3cret%40wrong"), Auth::None, none()).await);
}

async fn a_connection_outlives_a_wrong_password(binary: &Path) {
    let config = |password: &str| format!("authorization {{ user: cdc, password: \"{password}\" }}");
    let mut server = NatsServer::start_with(binary, &config(SECRET));
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = events.clone();
    let settings = NatsConfig { auth: user(SECRET), ..NatsConfig::new(vec![server.url()], 100) };
    let connection = Connection::connect(&settings, move |event| seen.lock().unwrap().push(event)).await.unwrap();
    works(&connection).await;
    server.reload(&config("another"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while connection.is_connected() {
        assert!(Instant::now() < deadline, "still connected");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let failure = streams::find_stream(&connection, "OUT").await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Disconnected);
    let refused = || events.lock().unwrap().iter().any(|event| matches!(event, ConnectionEvent::ClientError(_)));
    while !refused() {
        assert!(Instant::now() < deadline, "no attempt to reconnect is reported");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.reload(&config(SECRET));
    while let Err(failure) = streams::find_stream(&connection, "OUT").await {
        assert!(Instant::now() < deadline, "the password is right again, yet: {failure}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let said = format!("{:?}", events.lock().unwrap());
    assert!(!said.contains("s3cret"), "{said}");
}

/// A certificate authority and what it has signed.
struct Authority {
    directory: TempDir,
}

impl Authority {
    /// With the certificates `server`, for 127.0.0.1, and `client`.
    fn new() -> Self {
        let authority = Self { directory: TempDir::new().unwrap() };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let ca = ["req", "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"];
        authority.openssl(&[&ca[..], &key].concat());
        for (name, extensions) in [
            ("server", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"),
            ("client", "subjectAltName=DNS:cdc\nextendedKeyUsage=clientAuth\n"),
        ] {
            let file = |kind: &str| format!("{name}.{kind}");
            std::fs::write(authority.path(&file("ext")), extensions).unwrap();
            let subject = format!("/CN={name}");
            let request = ["req", "-subj", &subject, "-keyout", &file("key"), "-out", &file("csr")];
            authority.openssl(&[&request[..], &key[..5]].concat());
            let sign = ["x509", "-req", "-in", &file("csr"), "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
            let out = ["-days", "2", "-extfile", &file("ext"), "-out", &file("pem")];
            authority.openssl(&[&sign[..], &out].concat());
        }
        authority
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(self.directory.path()).stdin(Stdio::null());
        let output = command.output().expect("openssl: install it to run this test");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The server's lines of configuration.
    fn config(&self, more: &str) -> String {
        let [certificate, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|file| self.path(file));
        format!("tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}, timeout: 10, {more} }}")
    }

    /// The service's settings.
    fn trusted(&self) -> Tls {
        Tls { ca_file: Some(self.path("ca.pem")), ..Tls::default() }
    }
}

async fn a_server_of_a_private_authority_is_trusted_when_told(binary: &Path) {
    let authority = Authority::new();
    let server = NatsServer::start_with(binary, &authority.config(""));
    for scheme in ["nats", "tls"] {
        let url = server.url().replace("nats", scheme);
        let connection = connect(url.clone(), Auth::None, authority.trusted()).await.unwrap();
        works(&connection).await;
        let error = connect(url, Auth::None, Tls::default()).await.unwrap_err();
        assert!(error.class().is_some(), "{error}");
        assert!(all_texts(&error).contains("certificate"), "says what is wrong: {}", all_texts(&error));
    }
    // Another authority of the same name.
    let error = connect(server.url(), Auth::None, Authority::new().trusted()).await.unwrap_err();
    assert!(all_texts(&error).contains("certificate"), "says what is wrong: {}", all_texts(&error));
}

async fn a_client_certificate_is_shown(binary: &Path) {
    let authority = Authority::new();
    let server = NatsServer::start_with(binary, &authority.config("verify: true"));
    let client = Some((authority.path("client.pem"), authority.path("client.key")));
    let connection = connect(server.url(), Auth::None, Tls { client, ..authority.trusted() }).await.unwrap();
    works(&connection).await;
    assert!(connect(server.url(), Auth::None, authority.trusted()).await.is_err(), "the server asks for one");
}

async fn a_server_without_tls_is_refused_where_it_is_required(binary: &Path) {
    let server = NatsServer::start(binary);
    let required = Tls { required: true, ..Tls::default() };
    let error = connect(server.url(), Auth::None, required).await.unwrap_err();
    assert_eq!(error.class(), Some(FailureClass::Disconnected), "{error}");
    assert!(connect(server.url().replace("nats", "tls"), Auth::None, Tls::default()).await.is_err());
}

macro_rules! on_every_server {
    ($($name:ident)*) => { mod on_every_server { $(
        #[tokio::test]
        async fn $name() {
            for binary in super::nats_servers() {
                super::$name(&binary).await;
            }
        }
    )* } };
}

on_every_server! {
    a_password_is_asked_for
    a_token_is_asked_for
    a_connection_outlives_a_wrong_password
    a_server_of_a_private_authority_is_trusted_when_told
    a_client_certificate_is_shown
    a_server_without_tls_is_refused_where_it_is_required
}
