//! The one connection to Redis that every call shares.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cdc_actors::ports::{Failure, FailureClass};
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisError, TlsCertificates, Value,
};
use deadpool_redis::{Connection, Manager, Pool, Runtime};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;

use super::failure::{Failures, spoils_connection};
use super::{InvalidRedis, RedisSettings, Tls};

/// A multiplexed connection, which one it is, and how to tell of its failures.
#[derive(Clone)]
struct Numbered {
    number: u64,
    connection: MultiplexedConnection,
    failures: Arc<Failures>,
}

/// Hands out one shared multiplexed connection and makes it anew after it has failed.
///
/// A pool makes each connection, bounded in time; the one in use is taken out of it, since every `Pool::get` costs a round trip. The pool is built
/// anew each time, from the password and the certificates as they are then. The connection is driven by the runtime that was current
/// when it was made: if that ends, the next call connects again.
pub(super) struct Link {
    settings: RedisSettings,
    current: Mutex<Held>,
}

/// The connection in use, if any, and how many have been made.
struct Held {
    made: u64,
    connection: Option<Numbered>,
}

impl Link {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, InvalidRedis> {
        // What can never work is found now.
        pool(settings)?;
        Ok(Self { settings: settings.clone(), current: Mutex::new(Held { made: 0, connection: None }) })
    }

    /// The connection in use; a new one if there is none.
    async fn connection(&self) -> Result<Numbered, Failure> {
        let mut held = self.current.lock().await;
        if let Some(connection) = &held.connection {
            return Ok(connection.clone());
        }
        let (pool, failures) =
            pool(&self.settings).map_err(|error| Failure::new("connect to redis", FailureClass::Denied, error))?;
        let fresh = pool.get().await.map_err(|error| failures.pool(error))?;
        held.made += 1;
        let connection = Connection::take(fresh);
        let numbered = Numbered { number: held.made, connection, failures: Arc::new(failures) };
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

    async fn failed(&self, action: &'static str, number: u64, failures: &Failures, error: RedisError) -> Failure {
        if spoils_connection(&error) {
            self.drop_connection(number).await;
        }
        failures.redis(action, error)
    }

    /// Runs one command.
    pub(super) async fn command<T: FromRedisValue>(&self, action: &'static str, command: &Cmd) -> Result<T, Failure> {
        let Numbered { number, mut connection, failures } = self.connection().await?;
        match command.query_async(&mut connection).await {
            Ok(value) => Ok(value),
            Err(error) => Err(self.failed(action, number, &failures, error).await),
        }
    }

    /// Runs a pipeline and returns what each of its commands answered, so that one error hides no other.
    pub(super) async fn pipeline(
        &self,
        action: &'static str,
        pipeline: &mut Pipeline,
    ) -> Result<Vec<Result<Value, Failure>>, Failure> {
        let Numbered { number, mut connection, failures } = self.connection().await?;
        let values: Vec<Value> = match pipeline.ignore_errors().query_async(&mut connection).await {
            Ok(values) => values,
            Err(error) => return Err(self.failed(action, number, &failures, error).await),
        };
        let mut results = Vec::with_capacity(values.len());
        for value in values {
            results.push(match value {
                Value::ServerError(error) => Err(self.failed(action, number, &failures, error.into()).await),
                value => Ok(value),
            });
        }
        Ok(results)
    }
}

/// A pool for one connection, and how to tell of that one's failures. Reads the files that the settings name.
fn pool(settings: &RedisSettings) -> Result<(Pool, Failures), InvalidRedis> {
    let info = connection_info(settings)?;
    let is_encrypted = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    let failures = Failures::new(info.redis_settings().password().map(str::to_owned), is_encrypted);
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
    Ok((pool, failures))
}

fn connection_info(settings: &RedisSettings) -> Result<ConnectionInfo, InvalidRedis> {
    let mut info = settings.url.expose_secret().into_connection_info().map_err(InvalidRedis::url)?;
    let mut login = info.redis_settings().clone();
    if let Some(user) = &settings.user {
        login = login.set_username(user);
    }
    if let Some(password) = &settings.password {
        login = login.set_password(password.read()?.expose_secret());
    }
    info = info.set_redis_settings(login);
    let Tls { ca_file, client } = &settings.tls;
    if ca_file.is_none() && client.is_none() {
        return Ok(info);
    }
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        return Err(InvalidRedis::TlsWithoutTls);
    }
    let client_tls = client.as_ref().map(|(certificate, key)| {
        Ok::<_, InvalidRedis>(ClientTlsConfig { client_cert: content(certificate)?, client_key: content(key)? })
    });
    let root_cert = ca_file.as_deref().map(content).transpose()?;
    let certificates = TlsCertificates { client_tls: client_tls.transpose()?, root_cert };
    let client = Client::build_with_tls(info, certificates).map_err(InvalidRedis::url)?;
    Ok(client.get_connection_info().clone())
}

fn content(file: &Path) -> Result<Vec<u8>, InvalidRedis> {
    std::fs::read(file).map_err(|cause| InvalidRedis::Certificate { file: file.to_owned(), cause })
}
