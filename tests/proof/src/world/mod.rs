//! One scenario's world: servers, the links to them, replicas of the service, traffic, and everyone who watches.

mod nats;
mod outcome;
mod redis;
mod replicas;
mod watch;
mod words;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use tempfile::TempDir;

pub use outcome::Outcome;
pub use watch::Peaks;

use self::nats::Nats;
use self::redis::Redis;
use self::replicas::Post;
use crate::judge::Sampler;
use crate::postgres;
use crate::proxy::{Authors, LifeId, frames};
use crate::replica::Program;
use crate::scenarios::{Scenario, Setup};
use crate::servers::{Clock, NatsVersion, PostgresServer};
use crate::traffic::{Change, Expect, Feeder, Generator, Identity, Ledger};

/// The stream that changes come from.
pub const SOURCE: &str = "cdc_events_stream";
/// The stream that events go to.
pub const TARGET: &str = "wa_stream";
/// The stream of dead letters.
pub const DEAD_LETTERS: &str = "cdc_dead_letters";
/// The durable consumer that replicas share.
pub const CONSUMER: &str = "cdc_consumers";

/// How long anything may take that should happen soon, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the rest may take to come out after everything has healed.
const SETTLING: Duration = Duration::from_secs(180);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// How a run is to be made.
#[derive(Debug, Clone)]
pub struct Options {
    /// What runs as the service.
    pub program: Program,
    /// The defence that it runs without, for a control.
    pub without: Option<String>,
    /// Settings in place of the scenario's own, for a control.
    pub settings: Vec<(String, String)>,
    /// The nats-server, where the scenario leaves it open.
    pub nats: NatsVersion,
    /// Draws traffic and faults.
    pub seed: u64,
    /// Messages of the scenario `backlog`.
    pub backlog: u64,
    /// Time of the scenarios `everything-at-once` and `everything-remembered`.
    pub duration: Duration,
    /// Events whose payload is held against what `explain` says.
    pub explained: usize,
}

/// See the module.
pub struct World {
    /// Draws what a story leaves to chance.
    pub rng: fastrand::Rng,
    options: Options,
    setup: Setup,
    nats: Nats,
    redis: Redis,
    posts: Vec<Post>,
    /// Transform actors of each replica.
    workers: usize,
    /// The next process that is started.
    next_life: LifeId,
    /// Who stored what, where several replicas run at a time.
    authors: Arc<Authors>,
    clock: Option<Clock>,
    js: jetstream::Context,
    ledger: Arc<Ledger>,
    generator: Generator,
    feeder: Option<Feeder>,
    sampler: Sampler,
    directory: TempDir,
    counts: BTreeMap<String, u64>,
    broken: Vec<String>,
    in_flight_bytes: Option<u64>,
    /// The bound on resident memory, if the story has one of its own.
    resident: Option<u64>,
    excused: HashSet<u64>,
    /// The target was deleted or taken back.
    target_changed: bool,
    swallowed_from: u64,
    fair_end: Option<(&'static str, &'static str)>,
    begun: Instant,
}

impl World {
    /// Starts servers, links and replicas, and the load.
    pub async fn begin(scenario: &Scenario, options: &Options) -> Self {
        let setup = scenario.setup.clone();
        let version = setup.only.unwrap_or(options.nats);
        let nats = Nats::start(version, &setup, options.seed);
        let redis = Redis::start(&setup, options.seed);
        let js = nats.client().await;
        let directory = TempDir::new().unwrap();
        let ledger = Arc::new(Ledger::create(&directory.path().join("ledger")).unwrap());
        let sampler = Sampler::start(js.clone());
        let mut world = Self {
            rng: fastrand::Rng::with_seed(options.seed),
            options: options.clone(),
            nats,
            redis,
            posts: Vec::new(),
            workers: replicas::workers(scenario.name, options),
            next_life: LifeId(0),
            authors: Arc::default(),
            clock: setup.clock.then(Clock::start),
            js,
            generator: Generator::new(options.seed, setup.mix.clone()),
            ledger,
            feeder: None,
            sampler,
            directory,
            counts: BTreeMap::new(),
            broken: Vec::new(),
            in_flight_bytes: None,
            resident: None,
            excused: HashSet::new(),
            target_changed: false,
            swallowed_from: 0,
            fair_end: None,
            begun: Instant::now(),
            setup,
        };
        for index in 0..world.setup.replicas {
            world.posts.push(world.post().await);
            world.start_replica(index).await;
        }
        world.resume_load();
        world
    }

    /// How the run is made.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Notes what does not hold; the scenario goes on.
    pub fn expect(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            let what = what.into();
            self.tell(format!("broken: {what}"));
            self.broken.push(format!("expected: {what}"));
        }
    }

    /// Adds to a figure of the report.
    pub fn count(&mut self, name: &str, by: u64) {
        *self.counts.entry(name.to_owned()).or_default() += by;
    }

    /// Says on standard error what goes on, for who replays a seed.
    pub fn tell(&self, what: impl AsRef<str>) {
        eprintln!("  {:>8.2}s {}", self.begun.elapsed().as_secs_f64(), what.as_ref());
    }

    /// Lets time pass: the length of a fault.
    pub async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Sets the service's wall clock this many minutes before (or, negative, behind) the right time.
    pub fn set_clock(&mut self, minutes: i64) {
        self.tell(format!("the service's clock is {minutes:+} min off"));
        match &self.clock {
            Some(clock) => clock.set(minutes),
            None => self.expect(false, "there is a clock to set"),
        }
    }

    /// Waits for something that should come soon; `None`, and noted, if it does not.
    pub async fn within<R>(&mut self, what: &str, future: impl Future<Output = R>) -> Option<R> {
        let result = tokio::time::timeout(PATIENCE, future).await.ok();
        self.expect(result.is_some(), format!("{what} within {PATIENCE:?}"));
        result
    }

    /// Waits until the target has grown by 50 events, at least once round every worker's batch.
    pub async fn until_flowing(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let (mut last, mut grown) = (None, 0);
        while grown < 50 {
            if Instant::now() > deadline {
                return self.expect(false, "events flow");
            }
            if let Some(now) = self.target_last().await {
                // A target that was created again or was taken back begins lower.
                grown += last.map_or(0, |last| now.saturating_sub(last));
                last = Some(now);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Feeds so many changes and waits until the source has stored them.
    pub async fn feed(&mut self, count: u64) {
        let changes: Vec<_> = self.generator.by_ref().take(usize::try_from(count).unwrap_or(usize::MAX)).collect();
        self.feed_these(changes).await;
    }

    /// Feeds these changes and waits until the source has stored them.
    pub async fn feed_these(&self, changes: impl IntoIterator<Item = Change>) {
        Feeder::feed_all(&self.js, &self.ledger, changes).await;
    }

    /// What differs between a database's tables and what came out of their changes.
    pub async fn differences(&self, server: &PostgresServer) -> Vec<String> {
        postgres::differences(&self.js, server).await
    }

    /// Stops the load and draws a change of a message that must end as a dead letter for `crashes_process`, with the part of
    /// its event key that no other change has.
    pub async fn draw_deadly(&mut self) -> (Change, String) {
        self.pause_load().await;
        let publishable =
            |change: &Change| matches!(change.expect, Expect::Target(_)) && change.identity.row.contains("/messages/");
        let mut change = self.generator.find(publishable).unwrap();
        change.expect = Expect::DeadLetter("crashes_process");
        let Identity { row, lsn, idx } = change.identity.clone();
        let sign = format!(":{lsn}:messages:{}:{idx}\r", row.rsplit('/').next().unwrap_or_default());
        (change, sign)
    }

    /// Ends once there is a dead letter for a reason.
    pub fn letter(&self, reason: &str) -> impl Future<Output = ()> + use<> {
        let (js, subject) = (self.js.clone(), format!("cdc.dead_letters.*.{reason}"));
        async move {
            loop {
                if let Ok(stream) = js.get_stream(DEAD_LETTERS).await
                    && stream.get_last_raw_message_by_subject(&subject).await.is_ok()
                {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Swallows a replica's acks to the source from now on.
    pub fn swallow_acks(&mut self, index: usize) {
        self.swallowed_from = self.ledger.last_number();
        self.nats_link(index).drop_frames(frames::source_ack(), usize::MAX);
    }

    /// Waits until an ack of every change since [`Self::swallow_acks`] has been swallowed.
    pub async fn until_acks_are_gone(&mut self, index: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.nats_link(index).dropped() < self.ledger.last_number() - self.swallowed_from {
            if Instant::now() > deadline {
                return self.expect(false, "every change is acknowledged");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Takes it as it comes if changes fed so far are not in the target in the end: the story takes them away.
    pub fn excuse_missing_so_far(&mut self) {
        self.excused.extend(1..=self.ledger.last_number());
    }

    /// Takes a dead letter for this reason as a fair end of a change whose source subject has this part.
    pub fn allow_letters(&mut self, reason: &'static str, of: &'static str) {
        self.fair_end = Some((reason, of));
    }

    /// Stops the load; what was begun is stored.
    pub async fn pause_load(&mut self) {
        if let Some(feeder) = self.feeder.take() {
            self.generator = feeder.stop().await;
        }
    }

    /// Goes on with the load.
    pub fn resume_load(&mut self) {
        if self.setup.rate > 0 && self.feeder.is_none() {
            let generator = std::mem::replace(&mut self.generator, Generator::new(0, self.setup.mix.clone()));
            self.feeder = Some(Feeder::start(self.js.clone(), Arc::clone(&self.ledger), generator, self.setup.rate));
        }
    }

    /// Waits until everything fed is settled; whether it came to that.
    pub async fn until_idle(&mut self) -> bool {
        let deadline = Instant::now() + SETTLING;
        loop {
            if self.settled().await {
                return true;
            }
            if Instant::now() > deadline {
                self.expect(false, format!("nothing is left over {SETTLING:?} after everything has healed"));
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// How often the consumer has delivered something again, as its two sequences tell; `None` if it cannot be asked.
    pub async fn delivered_again(&self) -> Option<u64> {
        let consumer = self.js.get_consumer_from_stream::<jetstream::consumer::pull::Config, _, _>(CONSUMER, SOURCE);
        let mut consumer = consumer.await.ok()?;
        let delivered = consumer.info().await.ok()?.delivered;
        Some(delivered.consumer_sequence.saturating_sub(delivered.stream_sequence))
    }

    /// Waits until the source has given a replica everything, of which it holds this much at least: what it holds, and how much
    /// more may still be on its way to it.
    pub async fn until_in_hand(&mut self, index: usize, least: f64) -> (u64, u64) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some((0, given)) = self.consumer_counts().await
                && let Some(held) = self.metric(index, "cdc_consumer_in_flight").await.filter(|held| *held >= least)
            {
                return (held as u64, given.saturating_sub(held as u64));
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.expect(false, format!("replica {index} comes to hold {least} messages"));
        (0, 0)
    }

    /// What the consumer has yet to give, and what it has given and has not heard of again; `None` if it cannot be asked.
    pub async fn consumer_counts(&self) -> Option<(u64, u64)> {
        let consumer = self.js.get_consumer_from_stream::<jetstream::consumer::pull::Config, _, _>(CONSUMER, SOURCE);
        let mut consumer = consumer.await.ok()?;
        let info = consumer.info().await.ok()?;
        Some((info.num_pending, u64::try_from(info.num_ack_pending).unwrap_or_default()))
    }

    /// Whether the consumer has nothing to come and nothing unacknowledged, and a work queue holds nothing.
    async fn settled(&self) -> bool {
        let consumer = self.js.get_consumer_from_stream::<jetstream::consumer::pull::Config, _, _>(CONSUMER, SOURCE);
        let Ok(mut consumer) = consumer.await else { return false };
        let Ok(source) = self.js.get_stream(SOURCE).await else { return false };
        let state = source.cached_info();
        let held = state.config.retention == jetstream::stream::RetentionPolicy::WorkQueue && state.state.messages > 0;
        !held && consumer.info().await.is_ok_and(|info| info.num_pending == 0 && info.num_ack_pending == 0)
    }
}
