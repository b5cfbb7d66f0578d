//! The real binary with everything on: mutual TLS to both servers, an NKey, an inbox prefix, an ACL user; and all of it rotated under way.

use async_nats::{Client, ConnectOptions, jetstream};
use nkeys::KeyPair;

use crate::authority::Authority;
use crate::nats_tls::config;
use crate::redis::Encrypted;
use crate::support::bench::{event, eventually};
use crate::support::nats::{NatsServer, nats_servers};
use crate::support::service::{Service, Settings};

/// A server that knows the service by its NKey, and the test by a password, both only with a certificate.
fn server_config(authority: &Authority, key: &KeyPair) -> String {
    let permissions = "publish: \">\", subscribe: \"_INBOX_cdc.>\"";
    let service = format!("{{ nkey: {}, permissions: {{ {permissions} }} }}", key.public_key());
    let users = format!("authorization {{ users: [ {service}, {{ user: test, password: test }} ] }}");
    format!("{}\n{users}", config(authority, "verify: true"))
}

async fn client(authority: &Authority, url: &str) -> Client {
    let (certificate, key) = authority.client();
    ConnectOptions::with_user_and_password("test".to_owned(), "test".to_owned())
        .add_root_certificates(authority.path("ca.pem"))
        .add_client_certificate(certificate, key)
        .connect(url)
        .await
        .unwrap()
}

/// Feeds events and waits until as many as all of those so far have been published.
async fn feed(client: &Client, numbers: std::ops::Range<u64>) {
    let last = numbers.end;
    for number in numbers {
        let (subject, payload) = event(number, "CID1");
        client.publish(subject, payload.into()).await.unwrap();
    }
    client.flush().await.unwrap();
    let stream = jetstream::new(client.clone());
    eventually("every event is published", async || {
        let mut target = stream.get_stream("wa_stream").await.ok()?;
        (target.info().await.ok()?.state.messages == last).then_some(())
    })
    .await;
}

#[tokio::test]
async fn everything_at_once_and_rotated_under_way() {
    for binary in nats_servers() {
        let (authority, next) = (Authority::new(), Authority::new());
        let keys = [KeyPair::new_user(), KeyPair::new_user()];
        let mut nats = NatsServer::start_with(&binary, &server_config(&authority, &keys[0]));
        let redis = Encrypted::start(&authority, "yes");
        redis.server.command(&["ACL", "SETUSER", "cdc", "on", ">one", "~*", "+@all"]);
        let path = |file: &str| authority.path(file).display().to_string();
        let write = |file: &str, text: &str| std::fs::write(authority.path(file), text).unwrap();
        write("cdc.nk", &keys[0].seed().unwrap());
        write("redis", "one");
        let mut settings: Settings = [
            ("nats.url", nats.url().replace("nats", "tls")),
            ("nats.nkey_seed_file", path("cdc.nk")),
            ("nats.inbox_prefix", "_INBOX_cdc".to_owned()),
            ("dedup.url", redis.url()),
            ("dedup.user", "cdc".to_owned()),
            ("dedup.password_file", path("redis")),
            ("http.listen", "127.0.0.1:0".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for section in ["nats", "dedup"] {
            for (setting, file) in [("ca_file", "ca.pem"), ("cert_file", "client.pem"), ("key_file", "client.key")] {
                settings.insert(format!("{section}.tls.{setting}"), path(file));
            }
        }
        let service = Service::start(&settings);
        feed(&client(&authority, &nats.url()).await, 0..50).await;
        authority.rotate_to(&next);
        write("cdc.nk", &keys[1].seed().unwrap());
        write("redis", "two");
        redis.server.command(&["ACL", "SETUSER", "cdc", "resetpass", ">two"]);
        redis.reload(&authority);
        nats.reload(&server_config(&authority, &keys[1]));
        nats.restart();
        feed(&client(&authority, &nats.url()).await, 50..100).await;
        service.stop();
    }
}
