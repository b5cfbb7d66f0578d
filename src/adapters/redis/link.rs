//! The one connection to Redis that every call shares.

use std::time::Duration;

use cdc_actors::ports::Failure;
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{
    AsyncConnectionConfig, Cmd, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError, Value,
};
use deadpool_redis::{Connection, Manager, Pool, Runtime};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;

use super::failure::{Failures, spoils_connection};
use super::{InvalidRedis, RedisSettings};

/// A multiplexed connection and which one it is.
#[derive(Clone)]
struct Numbered {
    number: u64,
    connection: MultiplexedConnection,
}

/// Hands out one shared multiplexed connection and makes it anew after it has failed.
///
/// The pool makes connections, bounded in time; the one in use is taken out of it, since every `Pool::get` costs a round trip. The
/// connection is driven by the runtime that was current when it was made: if that ends, the next call connects again.
pub(super) struct Link {
    pool: Pool,
    current: Mutex<Held>,
    failures: Failures,
}

/// The connection in use, if any, and how many have been made.
struct Held {
    made: u64,
    connection: Option<Numbered>,
}

impl Link {
    pub(super) fn new(settings: &RedisSettings, url: &str) -> Result<Self, InvalidRedis> {
        let mut info = url.into_connection_info().map_err(InvalidRedis::url)?;
        if let Some(password) = &settings.password {
            let with_password = info.redis_settings().clone().set_password(password.expose_secret());
            info = info.set_redis_settings(with_password);
        }
        let failures = Failures::new(info.redis_settings().password().map(str::to_owned));
        let timeouts = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(Some(settings.response_timeout));
        let manager = Manager::new_with_config(info, timeouts).map_err(InvalidRedis::url)?;
        // Above the client's own limits, which say more about what went wrong.
        let patience = settings.connect_timeout + settings.response_timeout + Duration::from_millis(100);
        let pool = Pool::builder(manager)
            .max_size(1)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(patience))
            .create_timeout(Some(patience))
            .recycle_timeout(Some(patience))
            .build()?;
        Ok(Self { pool, current: Mutex::new(Held { made: 0, connection: None }), failures })
    }

    /// The connection in use; a new one if there is none.
    async fn connection(&self) -> Result<Numbered, Failure> {
        let mut held = self.current.lock().await;
        if let Some(connection) = &held.connection {
            return Ok(connection.clone());
        }
        let fresh = self.pool.get().await.map_err(|error| self.failures.pool(error))?;
        held.made += 1;
        let numbered = Numbered { number: held.made, connection: Connection::take(fresh) };
        held.connection = Some(numbered.clone());
        Ok(numbered)
    }

    /// Forgets a connection that failed, unless another has already taken its place.
    async fn drop_connection(&self, number: u64) {
        let mut held = self.current.lock().await;
        if held.connection.as_ref().is_some_and(|current| current.number == number) {
            held.connection = None;
        }
    }

    async fn failed(&self, action: &'static str, number: u64, error: RedisError) -> Failure {
        if spoils_connection(&error) {
            self.drop_connection(number).await;
        }
        self.failures.redis(action, error)
    }

    /// Runs one command.
    pub(super) async fn command<T: FromRedisValue>(&self, action: &'static str, command: &Cmd) -> Result<T, Failure> {
        let Numbered { number, mut connection } = self.connection().await?;
        match command.query_async(&mut connection).await {
            Ok(value) => Ok(value),
            Err(error) => Err(self.failed(action, number, error).await),
        }
    }

    /// Runs a pipeline and returns what each of its commands answered, so that one error hides no other.
    pub(super) async fn pipeline(
        &self,
        action: &'static str,
        pipeline: &mut Pipeline,
    ) -> Result<Vec<Result<Value, Failure>>, Failure> {
        let Numbered { number, mut connection } = self.connection().await?;
        let values: Vec<Value> = match pipeline.ignore_errors().query_async(&mut connection).await {
            Ok(values) => values,
            Err(error) => return Err(self.failed(action, number, error).await),
        };
        let mut results = Vec::with_capacity(values.len());
        for value in values {
            results.push(match value {
                Value::ServerError(error) => Err(self.failed(action, number, error.into()).await),
                value => Ok(value),
            });
        }
        Ok(results)
    }

    /// Turns an error met in an answer into a failure.
    pub(super) fn unexpected(&self, action: &'static str, error: RedisError) -> Failure {
        self.failures.redis(action, error)
    }
}
