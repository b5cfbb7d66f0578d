//! Real servers on free ports, with data of their own; they end with their values.

mod clock;
mod cluster;
mod nats;
mod postgres;
mod process;
mod redis;

pub use clock::Clock;
pub use cluster::NatsCluster;
pub use nats::{NatsServer, NatsVersion, nats_servers};
pub use postgres::PostgresServer;
pub use redis::RedisServer;

pub(crate) use process::signal;
use process::{free_port, pause};
