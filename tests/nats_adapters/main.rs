//! The JetStream adapters against real servers, the oldest and the newest supported alike.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod consumer;
mod dead_letters;
mod publisher;
mod source;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use daisi_cdc_consumer::adapters::nats::{Connection, NatsConfig};
use support::nats::NatsServer;

/// Connects as a user whose password is the name. What is not permitted is not answered, so that the wait for it is short.
async fn connect_as(server: &NatsServer, user: &str) -> Connection {
    let url = server.url().replace("nats://", &format!("nats://{user}:{user}@"));
    let config = NatsConfig { request_timeout: Duration::from_secs(3), ..NatsConfig::new(vec![url], 4096) };
    Connection::connect(&config, |_| {}).await.unwrap()
}

async fn connect(server: &NatsServer) -> Connection {
    Connection::connect(&NatsConfig::new(vec![server.url()], 4096), |_| {}).await.unwrap()
}
