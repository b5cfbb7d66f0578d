//! A connection to NATS and everything that happens to it.

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cdc_actors::ports::FailureClass;
use daisi_cdc_consumer::adapters::nats::{
    Auth, ConnectError, Connection, ConnectionEvent, NatsConfig, StreamSettings, Tls, streams,
};

/// How long anything may take that should happen soon.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that stands, or stood, and its events.
pub struct Link {
    pub connection: Connection,
    events: Arc<Mutex<Vec<ConnectionEvent>>>,
}

/// Settings for these servers, quick to give up and not too quick for a slow machine.
pub fn settings(urls: Vec<String>, auth: Auth, tls: Tls) -> NatsConfig {
    let quick = Duration::from_secs(5);
    NatsConfig { auth, tls, connect_timeout: quick, request_timeout: quick, ..NatsConfig::new(urls, 100) }
}

impl Link {
    /// Connects with these settings.
    pub async fn make(settings: &NatsConfig) -> Result<Self, ConnectError> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = events.clone();
        let connection = Connection::connect(settings, move |event| seen.lock().unwrap().push(event)).await?;
        Ok(Self { connection, events })
    }

    /// Connects to one server.
    pub async fn to(url: String, auth: Auth, tls: Tls) -> Result<Self, ConnectError> {
        Self::make(&settings(vec![url], auth, tls)).await
    }

    /// Makes use of it.
    pub async fn works(&self) {
        let settings = StreamSettings::new("OUT", vec!["out.>".to_owned()]);
        let deadline = Instant::now() + PATIENCE;
        while let Err(failure) = streams::ensure_stream(&self.connection, &settings).await {
            assert!(Instant::now() < deadline, "{failure}: {}", self.events());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything that has happened to it.
    pub fn events(&self) -> String {
        format!("{:?}", self.events.lock().unwrap())
    }

    /// Waits until something happens to it that says so.
    pub async fn until(&self, text: &str) {
        self.until_some(&[text]).await;
    }

    /// Waits until something happens to it that says one of these.
    pub async fn until_some(&self, texts: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        while !texts.iter().any(|text| self.events().contains(text)) {
            assert!(Instant::now() < deadline, "none of {texts:?} in {}", self.events());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it no longer stands.
    pub async fn breaks(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.connection.is_connected() {
            assert!(Instant::now() < deadline, "still connected");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// All that a failure says, to people and to developers, of itself and of its causes.
pub fn all_texts(error: &dyn Error) -> String {
    let causes = error.source().map(all_texts).unwrap_or_default();
    format!("{error} {error:?}\n{causes}")
}

/// What a connection was refused with; it must not be one that trying again may help.
pub fn denied(result: Result<Link, ConnectError>) -> String {
    let error = refused(result);
    assert_eq!(error.class(), Some(FailureClass::Denied), "{error}");
    let said = all_texts(&error);
    assert!(!said.contains("s3cret"), "{said}");
    said
}

/// Why there is no connection.
pub fn refused(result: Result<Link, ConnectError>) -> ConnectError {
    match result {
        Ok(_) => panic!("it is connected"),
        Err(error) => error,
    }
}
