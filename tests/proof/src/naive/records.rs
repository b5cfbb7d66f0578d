//! Records of the naive service in Redis.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use super::Flaw;

/// How long a record is kept, in seconds.
const KEPT: u64 = 300;
/// The pause before another attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// Redis, asked until it answers.
pub(super) struct Records {
    client: redis::Client,
    connection: Option<MultiplexedConnection>,
    flaw: Option<Flaw>,
}

impl Records {
    pub fn new(url: &str, flaw: Option<Flaw>) -> Self {
        Self { client: redis::Client::open(url).unwrap(), connection: None, flaw }
    }

    /// Runs commands until Redis has answered them all.
    async fn ask<R: redis::FromRedisValue>(&mut self, pipe: &redis::Pipeline) -> R {
        loop {
            if self.connection.is_none() {
                self.connection = self.client.get_multiplexed_async_connection().await.ok();
            }
            if let Some(connection) = &mut self.connection
                && let Ok(Ok(answer)) = tokio::time::timeout(PAUSE * 10, pipe.query_async(connection)).await
            {
                return answer;
            }
            self.connection = None;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The generation in force, after the target's last sequence has been held against the highest that was recorded.
    pub async fn generation(&mut self, target: &str, last: impl AsyncFn() -> u64) -> u64 {
        let highest = format!("naive:highest:{target}");
        // Read before the target is asked: what another replica stores in between is no loss.
        let (recorded, generation): (Option<u64>, Option<u64>) =
            self.ask(redis::pipe().get(&highest).get("naive:generation")).await;
        if last().await >= recorded.unwrap_or_default() {
            return generation.unwrap_or_default();
        }
        let (_, generation): ((), u64) = self.ask(redis::pipe().del(&highest).incr("naive:generation", 1)).await;
        generation
    }

    /// Which of these keys have a valid record.
    pub async fn check(&mut self, keys: &[String], target: &str) -> Vec<bool> {
        if self.flaw == Some(Flaw::MarkFirst) {
            return self.mark(keys).await;
        }
        if self.flaw == Some(Flaw::NoDedup) {
            return vec![false; keys.len()];
        }
        let mut pipe = redis::pipe();
        pipe.mget(keys);
        let (found,): (Vec<Option<String>>,) = self.ask(&pipe).await;
        let any = self.flaw == Some(Flaw::NoRecordGeneration);
        found.into_iter().map(|record| record.is_some_and(|record| any || record == target)).collect()
    }

    async fn mark(&mut self, keys: &[String]) -> Vec<bool> {
        let mut pipe = redis::pipe();
        for key in keys {
            pipe.cmd("SET").arg(key).arg("marked").arg("NX").arg("EX").arg(KEPT);
        }
        let set: Vec<Option<String>> = self.ask(&pipe).await;
        // For nothing but the place in which a scenario cuts it off: after its answer.
        let _: redis::Value = self.ask(redis::pipe().mget(keys)).await;
        set.into_iter().map(|answer| answer.is_none()).collect()
    }

    /// Records that these are stored.
    pub async fn record(&mut self, keys: &[String], target: &str, created: &str, sequence: u64) {
        if matches!(self.flaw, Some(Flaw::MarkFirst | Flaw::NoDedup)) || keys.is_empty() {
            return;
        }
        let mut pipe = redis::pipe();
        for key in keys {
            pipe.set_ex(key, target, KEPT).ignore();
        }
        pipe.set_ex(format!("naive:highest:{created}"), sequence, 10 * KEPT).ignore();
        let () = self.ask(&pipe).await;
    }
}
