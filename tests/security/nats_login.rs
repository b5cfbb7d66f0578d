//! Who the service is, to NATS: every way to say so, wrong, expired and rotated.

use std::path::Path;

use daisi_cdc_consumer::adapters::nats::{Auth, ConnectError, NatsConfig, Tls};
use daisi_cdc_consumer::secret::Secret;
use nkeys::KeyPair;
use tempfile::TempDir;

use crate::jwt::{Operator, now};
use crate::link::{Link, all_texts, denied, refused, settings};
use crate::support::nats::{NatsServer, on_every_server};

/// Must not be found in any message.
const SECRET: &str = "s3cret@:/%x";

fn user(password: &str) -> Auth {
    Auth::UserPassword { user: "cdc".to_owned(), password: password.into() }
}

async fn connect(url: String, auth: Auth) -> Result<Link, ConnectError> {
    Link::to(url, auth, Tls::default()).await
}

async fn a_password_is_asked_for(binary: &Path) {
    let server = NatsServer::start_with(binary, &format!("authorization {{ user: cdc, password: \"{SECRET}\" }}"));
    connect(server.url(), user(SECRET)).await.unwrap().works().await;
    denied(connect(server.url(), user("s3cret wrong")).await);
    denied(connect(server.url(), Auth::None).await);
    let with = |login: &str| server.url().replace("nats://", &format!("nats://{login}@"));
    connect(with("cdc:s3cret%40%3A%2F%25x"), Auth::None).await.unwrap().works().await;
    denied(connect(with("cdc:s3cret%40wrong"), Auth::None).await);
    // What is configured counts more than what a URL says.
    connect(with("cdc:s3cret%40wrong"), user(SECRET)).await.unwrap().works().await;
}

async fn a_token_is_asked_for(binary: &Path) {
    let server = NatsServer::start_with(binary, &format!("authorization {{ token: \"{SECRET}\" }}"));
    connect(server.url(), Auth::Token(SECRET.into())).await.unwrap().works().await;
    denied(connect(server.url(), Auth::Token("s3cret wrong".into())).await);
    let with = |login: &str| server.url().replace("nats://", &format!("nats://{login}@"));
    connect(with("s3cret%40%3A%2F%25x"), Auth::None).await.unwrap().works().await;
    denied(connect(with("s3cret%40wrong"), Auth::None).await);
}

fn nkey_config(key: &KeyPair) -> String {
    format!("authorization {{ users: [ {{ nkey: {} }} ] }}", key.public_key())
}

async fn an_nkey_is_asked_for(binary: &Path) {
    let (right, wrong) = (KeyPair::new_user(), KeyPair::new_user());
    let server = NatsServer::start_with(binary, &nkey_config(&right));
    let seed = |key: &KeyPair| Auth::NKey(key.seed().unwrap().into());
    connect(server.url(), seed(&right)).await.unwrap().works().await;
    denied(connect(server.url(), seed(&wrong)).await);
    let broken = refused(connect(server.url(), Auth::NKey("s3cret".into())).await);
    assert!(broken.class().is_none() && !all_texts(&broken).contains("s3cret"), "{broken}");
}

async fn a_jwt_is_asked_for(binary: &Path) {
    let (operator, other) = (Operator::new(), Operator::new());
    let server = NatsServer::start_with(binary, &operator.config());
    let with = |creds: String| Auth::Credentials(creds.into());
    connect(server.url(), with(operator.creds(Some(now() + 600)))).await.unwrap().works().await;
    denied(connect(server.url(), with(other.creds(None))).await);
    denied(connect(server.url(), with(operator.creds(Some(now() - 5)))).await);
    // The seed of another user: what the server asked to be signed is not signed by the user of the JWT.
    let (one, two) = (operator.creds(None), operator.creds(None));
    let at = one.find("-----BEGIN USER NKEY").unwrap();
    let mixed = format!("{}{}", &one[..at], &two[two.find("-----BEGIN USER NKEY").unwrap()..]);
    denied(connect(server.url(), with(mixed)).await);
    let broken = refused(connect(server.url(), with("s3cret".to_owned())).await);
    assert!(broken.class().is_none() && !all_texts(&broken).contains("s3cret"), "{broken}");
}

/// A way to log in, before and after a rotation: what the server is told, and what stands in the file.
struct Rotation {
    name: &'static str,
    auth: fn(Secret) -> Auth,
    server: [String; 2],
    file: [String; 2],
}

fn rotations() -> [Rotation; 3] {
    let keys = [KeyPair::new_user(), KeyPair::new_user()];
    let secrets = ["s3cret one", "s3cret two"].map(str::to_owned);
    [
        Rotation {
            name: "password",
            auth: |password| Auth::UserPassword { user: "cdc".to_owned(), password },
            server: secrets.clone().map(|secret| format!("authorization {{ user: cdc, password: \"{secret}\" }}")),
            file: secrets.clone(),
        },
        Rotation {
            name: "token",
            auth: Auth::Token,
            server: secrets.clone().map(|secret| format!("authorization {{ token: \"{secret}\" }}")),
            file: secrets,
        },
        Rotation {
            name: "nkey",
            auth: Auth::NKey,
            server: [&keys[0], &keys[1]].map(nkey_config),
            file: [&keys[0], &keys[1]].map(|key| key.seed().unwrap()),
        },
    ]
}

async fn a_rotated_secret_is_taken_from_its_file(binary: &Path) {
    let directory = TempDir::new().unwrap();
    for Rotation { name, auth, server: [old_config, new_config], file: [old, new] } in rotations() {
        let file = directory.path().join(name);
        std::fs::write(&file, format!("{old}\n")).unwrap();
        let mut server = NatsServer::start_with(binary, &old_config);
        let link = connect(server.url(), auth(Secret::File(file.clone()))).await.unwrap();
        link.works().await;
        server.reload(&new_config);
        link.breaks().await;
        link.until("authorization violation").await;
        std::fs::remove_file(&file).unwrap();
        link.until(&format!("cannot read the secret in {}", file.display())).await;
        std::fs::write(&file, new).unwrap();
        link.works().await;
        assert!(!link.events().contains("s3cret"), "{name}: {}", link.events());
    }
}

async fn a_jwt_that_expires_is_replaced_from_its_file(binary: &Path) {
    let (operator, directory) = (Operator::new(), TempDir::new().unwrap());
    let server = NatsServer::start_with(binary, &operator.config());
    let file = directory.path().join("cdc.creds");
    // Time enough to log in and to be let work.
    std::fs::write(&file, operator.creds(Some(now() + 6))).unwrap();
    let link = connect(server.url(), Auth::Credentials(Secret::File(file.clone()))).await.unwrap();
    link.works().await;
    link.until("Expired").await;
    link.breaks().await;
    link.until("authorization violation").await;
    std::fs::write(&file, operator.creds(None)).unwrap();
    link.works().await;
}

async fn replies_come_under_a_prefix_of_ones_own(binary: &Path) {
    let permissions = "publish: \">\", subscribe: \"_INBOX_cdc.>\"";
    let config =
        format!("authorization {{ users: [ {{ user: cdc, password: pw, permissions: {{ {permissions} }} }} ] }}");
    let server = NatsServer::start_with(binary, &config);
    let shared = settings(vec![server.url()], user("pw"), Tls::default());
    let own = NatsConfig { inbox_prefix: Some("_INBOX_cdc".to_owned()), ..shared.clone() };
    Link::make(&own).await.unwrap().works().await;
    let link = Link::make(&shared).await.unwrap();
    let failure = daisi_cdc_consumer::adapters::nats::streams::find_stream(&link.connection, "OUT").await;
    assert!(failure.is_err(), "no reply can reach the shared prefix");
    link.until("Permissions Violation for Subscription to \\\"_INBOX.").await;
}

async fn any_of_several_servers_will_do(binary: &Path) {
    let (mut one, two) = (NatsServer::start(binary), NatsServer::start(binary));
    let urls = vec![one.url(), two.url()];
    let link = Link::make(&settings(urls.clone(), Auth::None, Tls::default())).await.unwrap();
    link.works().await;
    one.kill();
    link.works().await;
    Link::make(&settings(urls, Auth::None, Tls::default())).await.unwrap().works().await;
}

on_every_server! {
    a_password_is_asked_for
    a_token_is_asked_for
    an_nkey_is_asked_for
    a_jwt_is_asked_for
    a_rotated_secret_is_taken_from_its_file
    a_jwt_that_expires_is_replaced_from_its_file
    replies_come_under_a_prefix_of_ones_own
    any_of_several_servers_will_do
}
