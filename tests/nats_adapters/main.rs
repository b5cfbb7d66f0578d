//! The JetStream adapters against real servers, the oldest and the newest supported alike.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod dead_letters;
mod publisher;
mod source;
#[path = "../support/mod.rs"]
mod support;

use daisi_cdc_consumer::adapters::nats::{Connection, NatsConfig};
use support::nats::NatsServer;

async fn connect(server: &NatsServer) -> Connection {
    Connection::connect(&NatsConfig::new(vec![server.url()], 4096), |_| {}).await.unwrap()
}
