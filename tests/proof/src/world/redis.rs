//! Redis, with a password, alone or with a replica beside it.

use std::time::Duration;

use super::{PATIENCE, PAUSE, World};
use crate::scenarios::Setup;
use crate::servers::RedisServer;

/// The servers of a world.
pub(super) struct Redis {
    pub primary: RedisServer,
    replica: Option<RedisServer>,
    pub password: String,
}

impl Redis {
    pub fn start(setup: &Setup, seed: u64) -> Self {
        let password = format!("planted-redis-secret-{seed}");
        let mut arguments = vec!["--requirepass", &password, "--masterauth", &password];
        arguments.extend(setup.redis);
        let primary = RedisServer::start_with(&arguments);
        let replica = setup.redis_replica.then(|| RedisServer::replica_of(&primary, &arguments));
        Self { primary, replica, password }
    }
}

impl World {
    /// Sends Redis a command, on a connection of its own.
    pub async fn redis_command(&self, parts: &[&str]) {
        command(&self.redis.primary, &self.redis.password, parts).await;
    }

    /// How many records Redis has dropped for want of memory.
    pub async fn redis_evicted(&self) -> u64 {
        let answer = command(&self.redis.primary, &self.redis.password, &["INFO", "stats"]).await;
        let stats: String = redis::from_redis_value(answer).unwrap();
        stats.lines().find_map(|line| line.strip_prefix("evicted_keys:")?.trim().parse().ok()).unwrap()
    }

    /// Ends Redis at once; it forgets everything.
    pub async fn kill_redis(&mut self) {
        self.redis.primary.kill();
    }

    /// Starts Redis again, empty.
    pub async fn restart_redis(&mut self) {
        self.redis.primary.restart();
    }

    /// Lets Redis stand still.
    pub fn freeze_redis(&self) {
        self.redis.primary.stop();
    }

    /// Lets Redis go on.
    pub fn thaw_redis(&self) {
        self.redis.primary.cont();
    }

    /// Makes the primary a replica of its replica.
    pub async fn demote_redis(&mut self) {
        let Some(replica) = &self.redis.replica else { return self.expect(false, "Redis has a replica") };
        let port = replica.port().to_string();
        command(replica, &self.redis.password, &["REPLICAOF", "NO", "ONE"]).await;
        self.redis_command(&["REPLICAOF", "127.0.0.1", &port]).await;
        self.tell("the primary of Redis is a replica now");
    }

    /// Makes it the primary again.
    pub async fn promote_redis(&mut self) {
        self.redis_command(&["REPLICAOF", "NO", "ONE"]).await;
    }

    /// Asks for another password from now on, or for the right one again; connections are closed.
    pub async fn change_redis_password(&mut self, wrong: bool) {
        let next = format!("{}{}", self.redis.password.trim_end_matches("-other"), if wrong { "-other" } else { "" });
        self.redis_command(&["CONFIG", "SET", "requirepass", &next]).await;
        self.redis.password = next;
        self.redis_command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    }
}

/// Runs a command as soon as the server takes it.
async fn command(server: &RedisServer, password: &str, parts: &[&str]) -> redis::Value {
    let url = format!("redis://:{password}@127.0.0.1:{}", server.port());
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let client = redis::Client::open(url.as_str()).unwrap();
        let asked = async {
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd(parts[0]).arg(&parts[1..]).query_async::<redis::Value>(&mut connection).await
        };
        match tokio::time::timeout(Duration::from_secs(5), asked).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) if std::time::Instant::now() > deadline => panic!("redis {parts:?}: {error}"),
            _ => assert!(std::time::Instant::now() < deadline, "redis {parts:?} got no answer"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
