//! Encryption and credentials of the connection to Redis.

use std::time::{Duration, Instant};

use cdc_actors::message::EventKey;
use cdc_actors::ports::{DedupStore, Failure, FailureClass};
use daisi_cdc_consumer::adapters::redis::{InvalidRedis, RedisSettings, RedisStore, Tls};
use daisi_cdc_consumer::secret::Secret;
use tempfile::TempDir;

use crate::authority::Authority;
use crate::support::redis::RedisServer;

/// How long anything may take that should happen soon.
const PATIENCE: Duration = Duration::from_secs(20);

async fn ask(store: &RedisStore) -> Result<(), Failure> {
    store.check(vec![EventKey::new("k").unwrap()]).await.map(drop)
}

async fn works(store: &RedisStore) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(failure) = ask(store).await {
        assert!(Instant::now() < deadline, "{failure}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The failure of a call, which shows no secret.
async fn failure(store: &RedisStore) -> Failure {
    let failure = ask(store).await.unwrap_err();
    assert!(!format!("{failure} {failure:?}").contains("s3cret"), "{failure:?}");
    failure
}

fn store(settings: RedisSettings) -> RedisStore {
    RedisStore::new(&settings).unwrap()
}

/// A server with TLS on one port, and without on another.
pub struct Encrypted {
    pub server: RedisServer,
    port: u16,
}

impl Encrypted {
    /// Starts it; `clients` says whether they must show a certificate: yes or no.
    pub fn start(authority: &Authority, clients: &str) -> Self {
        let files = ["server.pem", "server.key", "ca.pem"].map(|file| authority.path(file).display().to_string());
        let [certificate, key, ca] = &files;
        let (server, port) = RedisServer::start_on_ports(|port| {
            let port = port.to_string();
            let arguments =
                ["--tls-port", &port, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", ca];
            arguments.into_iter().chain(["--tls-auth-clients", clients]).map(str::to_owned).collect()
        });
        Self { server, port }
    }

    /// Has it read its files again, and everybody connect again.
    pub fn reload(&self, authority: &Authority) {
        let [ca, certificate, key] = ["ca.pem", "server.pem", "server.key"].map(|file| authority.path(file));
        let [ca, certificate, key] = [&ca, &certificate, &key].map(|file| file.to_str().unwrap());
        let files = ["tls-ca-cert-file", ca, "tls-cert-file", certificate, "tls-key-file", key];
        let answer = self.server.command(&[&["CONFIG", "SET"][..], &files].concat());
        assert_eq!(answer, "+OK");
        self.server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }

    /// Where it listens with TLS.
    pub fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }

    fn settings(&self, authority: &Authority, client: bool) -> RedisSettings {
        let tls = Tls { ca_file: Some(authority.path("ca.pem")), client: client.then(|| authority.client()) };
        // Why it is refused is of interest, not that a slow machine takes its time.
        let long = Duration::from_secs(20);
        RedisSettings { tls, connect_timeout: long, response_timeout: long, ..RedisSettings::new(self.url()) }
    }
}

#[tokio::test]
async fn a_server_of_a_private_authority_is_trusted_when_told() {
    let authority = Authority::new();
    let server = Encrypted::start(&authority, "no");
    works(&store(server.settings(&authority, false))).await;
    let system = RedisSettings { tls: Tls::default(), ..server.settings(&authority, false) };
    for stranger in [system, server.settings(&Authority::new(), false)] {
        let failure = failure(&store(stranger)).await;
        assert!(failure.cause.to_string().contains("certificate"), "{failure}");
    }
    authority.sign("server", -1);
    server.reload(&authority);
    let failure = failure(&store(server.settings(&authority, false))).await;
    assert!(failure.cause.to_string().contains("xpired"), "{failure}");
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let authority = Authority::new();
    let server = Encrypted::start(&authority, "yes");
    works(&store(server.settings(&authority, true))).await;
    failure(&store(server.settings(&authority, false))).await;
    let stranger = Authority::new();
    let foreign = Tls { client: Some(stranger.client()), ca_file: Some(authority.path("ca.pem")) };
    failure(&store(RedisSettings { tls: foreign, ..server.settings(&authority, true) })).await;
    authority.sign("client", -1);
    failure(&store(server.settings(&authority, true))).await;
}

#[tokio::test]
async fn rotated_certificates_are_taken_from_their_files() {
    let (authority, next) = (Authority::new(), Authority::new());
    let server = Encrypted::start(&authority, "yes");
    let store = store(server.settings(&authority, true));
    works(&store).await;
    server.reload(&next);
    let deadline = Instant::now() + PATIENCE;
    while !failure(&store).await.cause.to_string().contains("certificate") {
        assert!(Instant::now() < deadline, "the old authority is still trusted");
    }
    authority.rotate_to(&next);
    works(&store).await;
}

#[tokio::test]
async fn what_asks_for_tls_is_never_done_without() {
    let (server, authority) = (RedisServer::start(), Authority::new());
    let tls = Tls { ca_file: Some(authority.path("ca.pem")), client: None };
    let encrypted = server.url().replace("redis://", "rediss://");
    failure(&store(RedisSettings { tls: tls.clone(), ..RedisSettings::new(encrypted) })).await;
    let refused = RedisStore::new(&RedisSettings { tls, ..RedisSettings::new(server.url()) }).unwrap_err();
    assert!(matches!(refused, InvalidRedis::TlsWithoutTls), "{refused}");
}

/// As an ACL user, by TCP and by Unix socket: right, wrong, rotated.
#[tokio::test]
async fn a_user_and_a_password_are_asked_for() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "s3cret-one\n").unwrap();
    let server =
        RedisServer::start_with(&["--requirepass", "admin", "--user", "cdc", "on", ">s3cret-one", "~*", "+@all"]);
    let socket = format!("redis+unix://{}", server.socket().display());
    let as_user = |url: &str, user: &str, password: Secret| {
        let (user, password) = (Some(user.to_owned()), Some(password));
        let long = Duration::from_secs(20);
        let settings = RedisSettings { connect_timeout: long, response_timeout: long, ..RedisSettings::new(url) };
        store(RedisSettings { user, password, ..settings })
    };
    let stores = [server.url(), socket].map(|url| (url.clone(), as_user(&url, "cdc", Secret::File(file.clone()))));
    for (url, right) in &stores {
        works(right).await;
        for wrong in [as_user(url, "cdc", "s3cret-no".into()), as_user(url, "nobody", "s3cret-one".into())] {
            assert_eq!(failure(&wrong).await.class, FailureClass::Denied);
        }
        assert_eq!(failure(&store(RedisSettings::new(url.clone()))).await.class, FailureClass::Denied, "{url}");
    }
    let admin = format!("redis://:admin@127.0.0.1:{}", server.port());
    tell(&admin, &[&["ACL", "SETUSER", "cdc", "resetpass", ">s3cret-two"], &["CLIENT", "KILL", "USER", "cdc"]]).await;
    for (url, right) in &stores {
        let deadline = Instant::now() + PATIENCE;
        while failure(right).await.class != FailureClass::Denied {
            assert!(Instant::now() < deadline, "{url}: the old password still works");
        }
    }
    std::fs::write(&file, "s3cret-two\n").unwrap();
    for (_, right) in &stores {
        works(right).await;
    }
    // As close as Redis comes to a user that has expired.
    tell(&admin, &[&["ACL", "SETUSER", "cdc", "off"], &["CLIENT", "KILL", "USER", "cdc"]]).await;
    for (url, right) in &stores {
        let deadline = Instant::now() + PATIENCE;
        while failure(right).await.class != FailureClass::Denied {
            assert!(Instant::now() < deadline, "{url}: the user may still do something");
        }
    }
}

/// Has the server do something in the administrator's name.
async fn tell(admin: &str, commands: &[&[&str]]) {
    use deadpool_redis::redis::{Client, cmd};
    let mut connection = Client::open(admin).unwrap().get_multiplexed_async_connection().await.unwrap();
    for command in commands {
        cmd(command[0]).arg(&command[1..]).exec_async(&mut connection).await.unwrap();
    }
}
