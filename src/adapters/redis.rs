//! Dedup records in Redis, shared by all replicas.
//!
//! Keys, all under one prefix: `generation` (a number), `highest` (a sorted set: stream created -> highest sequence recorded),
//! `suspect:<delivery>` (a number that lives a day) and `<event key>` (a [`Record`] that lives as long as the configured ttl).
//! An event key is six parts joined by colons or 32 hex digits, so it is none of the other names.
//!
//! One Redis, alone or with replicas behind a stable address; not Redis Cluster, where one MGET may not span slots.

mod failure;
mod link;
mod settings;

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use cdc_actors::message::{DeliveryId, EventKey, Record};
use cdc_actors::ports::{Checked, Clock, DedupStore, Failure, FailureClass, Reconciled, SystemClock, Target};
use deadpool_redis::redis::{self, Cmd, FromRedisValue, RedisWrite};
use futures::FutureExt;
use futures::future::BoxFuture;
use link::Link;

pub use settings::{InvalidRedis, RedisSettings, Tls};

/// Room that the command which keeps a record takes beside its key, in bytes.
const ROOM_OF_A_RECORD: usize = 96;

/// How long a suspect's marker outlives the process that left it.
const SUSPECT_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Gives out the generation in force: KEYS generation; ARGV now. What is no number is replaced, so that nobody has to repair it.
const GENERATION: &str = r"
local generation = redis.call('GET', KEYS[1])
if not generation or not string.match(generation, '^%d+$') or #generation > 16 then
  generation = ARGV[1]
  redis.call('SET', KEYS[1], generation)
end
";

/// Holds the target against the records: KEYS generation, highest; ARGV now, created, last sequence.
const RECONCILE: &str = r"
local highest = redis.call('ZSCORE', KEYS[2], ARGV[2])
if highest and tonumber(ARGV[3]) < tonumber(highest) then
  local raised = tonumber(generation) + 1
  if tonumber(ARGV[1]) > raised then raised = tonumber(ARGV[1]) end
  generation = string.format('%.0f', raised)
  redis.call('SET', KEYS[1], generation)
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
  return {generation, string.format('%.0f', tonumber(highest))}
end
return {generation}
";

/// A script failed, not for want of a connection.
#[derive(Debug, thiserror::Error)]
#[error("{cause} (the script needs the right to {needs})")]
struct ScriptFailed {
    needs: &'static str,
    #[source]
    cause: Arc<dyn std::error::Error + Send + Sync>,
}

/// Dedup records in Redis.
pub struct RedisStore {
    link: Link,
    prefix: String,
    ttl_millis: u64,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.prefix)
            .field("ttl_millis", &self.ttl_millis)
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    /// A store that connects with its first call.
    ///
    /// # Errors
    /// If the settings cannot work whatever the server says.
    pub fn new(settings: &RedisSettings) -> Result<Self, InvalidRedis> {
        Self::with_clock(settings, Arc::new(SystemClock))
    }

    /// The same, with a clock of the caller's: new generations are numbered by its microseconds.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_clock(settings: &RedisSettings, clock: Arc<dyn Clock>) -> Result<Self, InvalidRedis> {
        let ttl_millis =
            u64::try_from(settings.ttl.as_millis()).ok().filter(|millis| *millis > 0).ok_or(InvalidRedis::Ttl)?;
        let link = Link::new(settings)?;
        Ok(Self { link, prefix: settings.key_prefix.clone(), ttl_millis, clock })
    }

    /// What an operator should know about this server before relying on it, one sentence each.
    ///
    /// # Errors
    /// If the server cannot be reached or does not let this user in. One that does not permit the question alone is a
    /// warning, not an error.
    pub async fn warnings(&self) -> Result<Vec<String>, Failure> {
        match self.link.command::<String>("ask redis for its state", &redis::cmd("INFO")).await {
            Ok(info) => Ok(warnings_of(&info)),
            Err(failure) if failure.class == FailureClass::Denied => {
                // Whoever may not ask for INFO may still do what matters; whoever cannot even log in may not.
                let mut generation = redis::cmd("GET");
                generation.arg(self.key("generation"));
                self.link.command::<Option<String>>("ask redis for its state", &generation).await?;
                Ok(vec![format!(
                    "this user may not ask for INFO ({}), so maxmemory-policy was not checked: it should be noeviction",
                    failure.cause
                )])
            }
            Err(failure) => Err(failure),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Appends the key of a record as the next argument, without a string of its own: each event has two of these.
    fn push_key(&self, command: &mut redis::Cmd, key: &EventKey) {
        let mut argument = command.writer_for_next_arg();
        argument
            .write_all(self.prefix.as_bytes())
            .and_then(|()| argument.write_all(key.as_str().as_bytes()))
            .expect("writing to memory cannot fail");
    }

    fn suspect_key(&self, suspect: DeliveryId) -> String {
        let DeliveryId { stream_created, sequence, timestamp } = suspect;
        format!("{}suspect:{stream_created}-{sequence}-{timestamp}", self.prefix)
    }

    fn now_micros(&self) -> i64 {
        self.clock.unix_nanos() / 1_000
    }

    /// The generation in force, made if there is none.
    async fn ensure_generation(&self) -> Result<u64, Failure> {
        const ACTION: &str = "set the dedup generation";
        let mut command = redis::cmd("EVAL");
        let script = format!("{GENERATION} return generation");
        command.arg(script).arg(1).arg(self.key("generation")).arg(self.now_micros());
        self.run_script(ACTION, "GET and SET", &command).await
    }

    async fn check_keys(&self, keys: Vec<EventKey>) -> Result<Checked, Failure> {
        let mut command = redis::cmd("MGET");
        command.arg(self.key("generation"));
        for key in &keys {
            self.push_key(&mut command, key);
        }
        // Bytes, since a value that is no text must not fail the others.
        let values: Vec<Option<Vec<u8>>> = self.link.command("check dedup records", &command).await?;
        let mut values = values.iter().map(|value| std::str::from_utf8(value.as_deref()?).ok());
        let generation = match values.next().flatten().and_then(|text| text.parse().ok()) {
            Some(generation) => generation,
            None => self.ensure_generation().await?,
        };
        let records: Vec<_> = values.map(|value| Ok(value.and_then(Record::decode))).collect();
        if records.len() != keys.len() {
            let cause = format!("{} answers to {} keys", records.len(), keys.len());
            return Err(Failure::new("check dedup records", FailureClass::Protocol, cause));
        }
        Ok(Checked { generation, records })
    }

    async fn record_all(&self, records: Vec<(EventKey, Record)>) -> Result<Vec<Result<(), Failure>>, Failure> {
        const ACTION: &str = "record dedup";
        let Some(highest) = highest_by_stream(&records) else { return Ok(Vec::new()) };
        let mut pipeline = redis::Pipeline::with_capacity(records.len() + highest.len());
        for (created, sequence) in &highest {
            // GT: the highest ever wins, whoever comes last.
            pipeline.cmd("ZADD").arg(self.key("highest")).arg("GT").arg(sequence).arg(created);
        }
        for (key, record) in &records {
            let mut command = redis::Cmd::with_capacity(5, key.as_str().len() + ROOM_OF_A_RECORD);
            command.arg("SET");
            self.push_key(&mut command, key);
            command.arg(record.encode()).arg("PX").arg(self.ttl_millis);
            pipeline.add_command(command);
        }
        let mut answers = self.link.pipeline(ACTION, &mut pipeline).await?.into_iter();
        if answers.len() != records.len() + highest.len() {
            let cause = format!("{} answers to {} commands", answers.len(), records.len() + highest.len());
            return Err(Failure::new(ACTION, FailureClass::Protocol, cause));
        }
        let raised: Vec<(i64, Result<(), Failure>)> =
            highest.iter().zip(answers.by_ref()).map(|((created, _), answer)| (*created, answer.map(drop))).collect();
        let results = records.iter().zip(answers).map(|((_, record), answer)| {
            answer?;
            // A record above the highest sequence would hide a target that went backwards: not recorded until both are.
            raised
                .iter()
                .find(|(created, _)| *created == record.stream_created)
                .map_or(Ok(()), |(_, raised)| raised.clone())
        });
        Ok(results.collect())
    }

    async fn read_highest(&self, stream_created: i64) -> Result<u64, Failure> {
        let mut command = redis::cmd("ZSCORE");
        command.arg(self.key("highest")).arg(stream_created);
        let score: Option<f64> = self.link.command("read the highest sequence recorded", &command).await?;
        // Sequences are whole and far below 2^53, where a score is exact.
        Ok(score.map_or(0, |score| score as u64))
    }

    async fn reconcile_with(&self, target: Target) -> Result<Reconciled, Failure> {
        const ACTION: &str = "hold the target against the dedup records";
        let mut command = redis::cmd("EVAL");
        command
            .arg(format!("{GENERATION}{RECONCILE}"))
            .arg(2)
            .arg(self.key("generation"))
            .arg(self.key("highest"))
            .arg(self.now_micros())
            .arg(target.created)
            .arg(target.last_sequence);
        let answer: Vec<u64> = self.run_script(ACTION, "GET, SET, ZSCORE and ZADD", &command).await?;
        match answer[..] {
            [generation] => Ok(Reconciled { generation, regressed_from: None }),
            [generation, highest] => Ok(Reconciled { generation, regressed_from: Some(highest) }),
            _ => Err(Failure::new(ACTION, FailureClass::Protocol, format!("{} numbers for an answer", answer.len()))),
        }
    }

    async fn read_markers(&self, suspects: Vec<DeliveryId>) -> Result<Vec<u64>, Failure> {
        const ACTION: &str = "read the markers of suspects";
        // Redis takes no MGET of nothing.
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("MGET");
        for suspect in &suspects {
            command.arg(self.suspect_key(*suspect));
        }
        let values: Vec<Option<Vec<u8>>> = self.link.command(ACTION, &command).await?;
        if values.len() != suspects.len() {
            let cause = format!("{} answers to {} keys", values.len(), suspects.len());
            return Err(Failure::new(ACTION, FailureClass::Protocol, cause));
        }
        // What is no number was not left by this service.
        let number = |value: Option<Vec<u8>>| std::str::from_utf8(&value?).ok()?.parse().ok();
        Ok(values.into_iter().map(|value| number(value).unwrap_or(0)).collect())
    }

    async fn write_markers(&self, markers: Vec<(DeliveryId, u64)>) -> Result<(), Failure> {
        // Nor does it take a pipeline of nothing.
        if markers.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::Pipeline::with_capacity(markers.len());
        for (suspect, marker) in markers {
            let key = self.suspect_key(suspect);
            match marker {
                0 => pipeline.cmd("DEL").arg(key),
                _ => pipeline.cmd("SET").arg(key).arg(marker).arg("EX").arg(SUSPECT_TTL.as_secs()),
            };
        }
        let answers = self.link.pipeline("mark suspects", &mut pipeline).await?;
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }

    /// Runs a script. Where its user may not do what the script does, Redis does not say what that is: `needs` does.
    async fn run_script<T: FromRedisValue>(
        &self,
        action: &'static str,
        needs: &'static str,
        command: &Cmd,
    ) -> Result<T, Failure> {
        self.link.command(action, command).await.map_err(|failure| match failure.class {
            FailureClass::Denied | FailureClass::Protocol => {
                let cause = ScriptFailed { needs, cause: failure.cause };
                Failure::new(failure.action, failure.class, cause)
            }
            _ => failure,
        })
    }
}

impl DedupStore for RedisStore {
    fn check(&self, keys: Vec<EventKey>) -> BoxFuture<'_, Result<Checked, Failure>> {
        self.check_keys(keys).boxed()
    }

    fn record(&self, records: Vec<(EventKey, Record)>) -> BoxFuture<'_, Result<Vec<Result<(), Failure>>, Failure>> {
        self.record_all(records).boxed()
    }

    fn highest(&self, stream_created: i64) -> BoxFuture<'_, Result<u64, Failure>> {
        self.read_highest(stream_created).boxed()
    }

    fn reconcile(&self, target: Target) -> BoxFuture<'_, Result<Reconciled, Failure>> {
        self.reconcile_with(target).boxed()
    }

    fn markers(&self, suspects: Vec<DeliveryId>) -> BoxFuture<'_, Result<Vec<u64>, Failure>> {
        self.read_markers(suspects).boxed()
    }

    fn set_markers(&self, markers: Vec<(DeliveryId, u64)>) -> BoxFuture<'_, Result<(), Failure>> {
        self.write_markers(markers).boxed()
    }
}

/// The highest sequence of each stream among the records; `None` without records.
fn highest_by_stream(records: &[(EventKey, Record)]) -> Option<Vec<(i64, u64)>> {
    let mut highest: Vec<(i64, u64)> = Vec::new();
    for (_, record) in records {
        match highest.iter_mut().find(|(created, _)| *created == record.stream_created) {
            Some((_, sequence)) => *sequence = record.sequence.max(*sequence),
            None => highest.push((record.stream_created, record.sequence)),
        }
    }
    (!highest.is_empty()).then_some(highest)
}

/// What there is to warn of in the answer to INFO.
fn warnings_of(info: &str) -> Vec<String> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let mut warnings = Vec::new();
    match (field("maxmemory_policy"), field("maxmemory")) {
        (Some("noeviction"), _) | (_, Some("0")) => {}
        (Some(policy), _) => warnings.push(format!(
            "maxmemory-policy is {policy}: records may be evicted before their ttl, which can cost a duplicate (never an event); \
             set noeviction and give the dedup store a Redis of its own"
        )),
        (None, _) => warnings.push("the server does not tell its maxmemory-policy: it should be noeviction".to_owned()),
    }
    if field("cluster_enabled") == Some("1") {
        warnings.push("this is a node of a Redis Cluster, which is not supported: use a single Redis".to_owned());
    }
    if field("role") == Some("slave") {
        warnings.push("this is a read-only replica: point dedup.url at the primary".to_owned());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_of_eviction_where_memory_is_bounded() {
        let info = |policy: &str, max: &str| {
            format!("# Memory\r\nmaxmemory:{max}\r\nmaxmemory_policy:{policy}\r\nrole:master\r\n")
        };
        assert!(warnings_of(&info("noeviction", "1000")).is_empty());
        assert!(warnings_of(&info("allkeys-lru", "0")).is_empty(), "nothing is evicted without a bound");
        assert!(warnings_of(&info("volatile-ttl", "1000"))[0].contains("volatile-ttl"));
        assert_eq!(warnings_of("cluster_enabled:1\r\nrole:slave\r\n").len(), 3);
    }

    #[test]
    fn a_bad_url_is_refused_without_showing_it() {
        for url in [
            "http://:hunter2@x",
            "redis://u:hunter2@x:6379/hunter2",
            "redis://u:hunter2@x:6379?protocol=hunter2",
            "hunter2",
        ] {
            let error = RedisStore::new(&RedisSettings::new(url)).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
            assert!(error.to_string().contains("dedup.url"), "{error}");
        }
        let settings = RedisSettings::new("redis://u:hunter2@localhost");
        assert!(!format!("{settings:?} {:?}", RedisStore::new(&settings).unwrap()).contains("hunter2"));
        let never = RedisSettings { ttl: Duration::ZERO, ..settings };
        assert!(matches!(RedisStore::new(&never), Err(InvalidRedis::Ttl)));
    }

    #[test]
    fn each_stream_has_its_own_highest_sequence() {
        let record = |stream_created, sequence| {
            (EventKey::new("k").unwrap(), Record { stream_created, generation: 1, sequence })
        };
        assert_eq!(highest_by_stream(&[]), None);
        assert_eq!(
            highest_by_stream(&[record(1, 5), record(2, 1), record(1, 9), record(1, 7)]),
            Some(vec![(1, 9), (2, 1)])
        );
    }
}
