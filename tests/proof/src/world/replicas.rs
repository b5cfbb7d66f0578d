//! Replicas of the service, each behind links of its own.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::watch::{Peaks, Watch};
use super::{Options, PATIENCE, PAUSE, World};
use crate::proxy::frames::{self, FrameFilter};
use crate::proxy::{Author, LifeId, Protocol, Proxy};
use crate::replica::{Replica, Settings};
use crate::servers::{Clock, NatsVersion};

/// The pause between two questions to a replica whether it is ready.
const LOOKS: Duration = Duration::from_millis(100);

/// The figure that tells whether a dependency is there.
pub(super) fn dependency_up(dependency: &str) -> String {
    format!("cdc_consumer_dependency_up{{dependency={dependency:?}}}")
}

/// Transform actors of each replica: one, which shares the pipeline's thread and is what two cores get by default, or four, with
/// threads of their own. Of a seed's runs on the two servers one has the one, the other the other, and which has which differs from
/// scenario to scenario. Where a defence is left out there are always four.
pub(super) fn workers(scenario: &str, options: &Options) -> usize {
    let drawn = scenario.bytes().map(u64::from).sum::<u64>() + u64::from(options.nats == NatsVersion::Newest);
    if options.without.is_none() && drawn.wrapping_add(options.seed).is_multiple_of(2) { 1 } else { 4 }
}

/// One replica's place: its links stay while its processes come and go.
pub(super) struct Post {
    pub nats: Proxy,
    pub redis: Proxy,
    pub settings: Settings,
    pub life: Option<Life>,
    past: Vec<(LifeId, Arc<Replica>)>,
    pub peaks: Peaks,
}

/// One process.
pub(super) struct Life {
    id: LifeId,
    pub replica: Arc<Replica>,
    watch: Watch,
}

impl Post {
    /// Files the process that has ended.
    fn bury(&mut self) {
        if let Some(life) = self.life.take() {
            self.peaks = self.peaks.max(life.watch.peaks());
            self.past.push((life.id, life.replica));
        }
    }

    /// The highest of all lives so far.
    pub fn peaks(&self) -> Peaks {
        self.life.as_ref().map_or(self.peaks, |life| self.peaks.max(life.watch.peaks()))
    }

    /// Every process so far.
    pub fn lives(&self) -> impl Iterator<Item = (LifeId, &Arc<Replica>)> {
        let past = self.past.iter().map(|(id, replica)| (*id, replica));
        past.chain(self.life.iter().map(|life| (life.id, &life.replica)))
    }
}

impl World {
    /// A new place for a replica.
    pub(super) async fn post(&self) -> Post {
        let nats = Proxy::start(self.nats.address(), Protocol::Nats).await;
        let redis = Proxy::start(self.redis.primary.address(), Protocol::Redis).await;
        let mut settings: Settings = [
            ("nats.url", format!("nats://127.0.0.1:{}", nats.port())),
            ("nats.user", "service".to_owned()),
            ("nats.password", self.nats.password()),
            ("dedup.url", format!("redis://:{}@127.0.0.1:{}", self.redis.password, redis.port())),
            ("http.listen", "127.0.0.1:0".to_owned()),
            ("source.ack_wait", "2s".to_owned()),
            ("retry.max", "500ms".to_owned()),
            ("shutdown.grace", "10s".to_owned()),
            ("workers", self.workers.to_string()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        settings.extend(self.setup.settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        settings.extend(self.options.settings.clone());
        Post { nats, redis, settings, life: None, past: Vec::new(), peaks: Peaks::default() }
    }

    /// Starts a replica, again if it ended; it waits until the service says that it has started.
    pub async fn start(&mut self, index: usize) {
        self.start_replica(index).await;
    }

    pub(super) async fn start_replica(&mut self, index: usize) {
        let post = &mut self.posts[index];
        if post.life.is_some() {
            return;
        }
        let environment = self.clock.as_ref().map(Clock::environment).unwrap_or_default();
        let id = self.next_life;
        self.next_life.0 += 1;
        // With one replica a row's order is judged across its lives.
        if self.setup.replicas > 1 {
            post.nats.belongs_to(Author { life: id, authors: Arc::clone(&self.authors) });
        }
        let replica = Arc::new(Replica::spawn(&self.options.program, &post.settings, &environment));
        let started = tokio::time::timeout(PATIENCE, replica.started()).await;
        let watch = Watch::over(&replica);
        post.life = Some(Life { id, replica, watch });
        self.expect(matches!(started, Ok(Ok(()))), format!("replica {index} starts: {started:?}"));
    }

    /// Ends a replica at once.
    pub fn kill(&mut self, index: usize) {
        if let Some(life) = &self.posts[index].life {
            life.replica.kill();
        }
        self.posts[index].bury();
    }

    /// Sends a replica a signal, by its name without SIG.
    pub fn signal(&self, index: usize, name: &str) {
        if let Some(life) = &self.posts[index].life {
            life.replica.signal(name);
        }
    }

    /// Asks a replica for its controlled shutdown: its exit status.
    pub async fn terminate(&mut self, index: usize) -> Option<i32> {
        self.signal(index, "TERM");
        self.ended(index).await
    }

    /// Waits for the end of a replica: its exit status.
    pub async fn ended(&mut self, index: usize) -> Option<i32> {
        let replica = Arc::clone(&self.posts[index].life.as_ref()?.replica);
        let status = self.within("the replica ends", replica.ended()).await.flatten();
        self.posts[index].bury();
        status
    }

    /// The link between a replica and NATS.
    pub fn nats_link(&self, index: usize) -> &Proxy {
        &self.posts[index].nats
    }

    /// The link between a replica and Redis.
    pub fn redis_link(&self, index: usize) -> &Proxy {
        &self.posts[index].redis
    }

    /// Lets the `nth` frame of a kind pass between a replica and NATS, and then nothing between it and any server.
    pub fn isolate_at(&self, index: usize, filter: FrameFilter, nth: usize) -> impl Future<Output = ()> + use<> {
        let Post { nats, redis, .. } = &self.posts[index];
        nats.trip_with(Some(redis), filter, nth)
    }

    /// As [`Self::isolate_at`], for a frame between a replica and Redis.
    pub fn isolate_at_redis(&self, index: usize, filter: FrameFilter, nth: usize) -> impl Future<Output = ()> + use<> {
        let Post { nats, redis, .. } = &self.posts[index];
        redis.trip_with(Some(nats), filter, nth)
    }

    /// Has the consumer give a replica nothing more, although messages wait and so, it says, do requests; until it is deleted. No
    /// server can be brought to this at will, so it is the link that keeps requests back and says that one waits.
    pub fn silence_consumer(&self, index: usize) {
        let link = self.nats_link(index);
        link.drop_frames(frames::publish("$JS.API.CONSUMER.MSG.NEXT."), usize::MAX);
        link.forge(br#""num_waiting":0"#, br#""num_waiting":1"#);
        link.heal_at(frames::publish("$JS.API.CONSUMER.DELETE."));
    }

    /// Buries what is held back on the links of a replica that was killed, and heals them: nothing of it reaches a server.
    pub async fn sever_links(&mut self, index: usize) {
        let Post { nats, redis, .. } = &self.posts[index];
        let severed = async { tokio::join!(nats.sever(), redis.sever()) };
        let gone = tokio::time::timeout(PATIENCE, severed).await;
        self.expect(gone.is_ok(), format!("the connections of replica {index} are gone within {PATIENCE:?}"));
    }

    /// Breaks every connection to NATS once.
    pub fn reset_links(&self) {
        for post in &self.posts {
            post.nats.reset();
        }
    }

    /// The status of `/readyz`, and what it says.
    async fn said(&self, index: usize) -> Option<(u16, String)> {
        let life = self.posts[index].life.as_ref()?;
        life.replica.get("/readyz").await.ok()
    }

    /// The status of `/readyz`.
    pub async fn readiness(&self, index: usize) -> Option<u16> {
        self.said(index).await.map(|(status, _)| status)
    }

    /// Waits until a replica says that it is not ready and that it is for want of this dependency, in words and figures, while it
    /// stays alive.
    pub async fn until_not_ready(&mut self, index: usize, dependency: &str) {
        let deadline = Instant::now() + PATIENCE;
        let (name, up) = (format!("{dependency:?}"), dependency_up(dependency));
        loop {
            let named = self.said(index).await.is_some_and(|(status, body)| status == 503 && body.contains(&name));
            if named && self.metric(index, &up).await == Some(0.0) {
                break;
            }
            if Instant::now() > deadline {
                let said = self.said(index).await;
                let what =
                    format!("replica {index} says that it is not ready for want of {dependency}: it says {said:?}");
                return self.expect(false, what);
            }
            tokio::time::sleep(PAUSE).await;
        }
        let life = self.posts[index].life.as_ref();
        let alive = match life {
            Some(life) => life.replica.get("/healthz").await.is_ok_and(|(status, _)| status == 200),
            None => false,
        };
        self.expect(alive, "/healthz stays 200 while a dependency is retried");
    }

    /// Lets time pass: the length of a fault in which a replica has to say, as often as it is asked, that it is not ready and that
    /// it is for want of this dependency.
    pub async fn wait_not_ready(&mut self, index: usize, dependency: &str, time: Duration) {
        self.until_not_ready(index, dependency).await;
        let (name, end) = (format!("{dependency:?}"), Instant::now() + time);
        let (mut looks, mut others) = (0, Vec::new());
        while Instant::now() < end {
            // A process that gets no time to answer says nothing wrong.
            if let Some((status, body)) = self.said(index).await {
                looks += 1;
                if status != 503 || !body.contains(&name) {
                    others.push((status, body));
                }
            }
            tokio::time::sleep(LOOKS).await;
        }
        let what = format!(
            "replica {index} says all the while that it is not ready for want of {dependency}: {} of {looks} times it says {:?}",
            others.len(),
            others.first(),
        );
        self.expect(looks > 0 && others.is_empty(), what);
    }

    /// Whether a replica's present process has said something in its log.
    pub fn has_said(&self, index: usize, what: &str) -> bool {
        self.posts[index].life.as_ref().is_some_and(|life| life.replica.log().contains(what))
    }

    /// A figure of a replica.
    pub async fn metric(&self, index: usize, sample: &str) -> Option<f64> {
        let life = self.posts[index].life.as_ref()?;
        life.replica.metrics().await.ok().and_then(|metrics| metrics.find(sample))
    }

    /// Waits until a replica's figure is as it should be.
    pub async fn until_metric(&mut self, index: usize, sample: &str, is: impl Fn(f64) -> bool) {
        self.until_metric_of_any(index..=index, sample, is).await;
    }

    /// Waits until a figure of one of these replicas is as it should be.
    pub async fn until_metric_of_any(&mut self, of: RangeInclusive<usize>, sample: &str, is: impl Fn(f64) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Vec::new();
        while Instant::now() < deadline {
            last.clear();
            for index in of.clone() {
                last.push(self.metric(index, sample).await);
            }
            if last.iter().flatten().copied().any(&is) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.expect(false, format!("{sample} becomes what it should be: it is {last:?}"));
    }

    /// Sets the bound that bytes in flight are held against.
    pub fn bound_in_flight_bytes(&mut self, bytes: u64) {
        self.in_flight_bytes = Some(bytes);
    }

    /// Sets the bound that resident memory is held against.
    pub fn bound_resident(&mut self, bytes: u64) {
        self.resident = Some(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::Program;
    use crate::scenarios;

    #[test]
    fn the_runs_of_any_seed_have_one_transform_actor_here_and_several_there() {
        let mut options = Options {
            program: Program::service(""),
            without: None,
            settings: Vec::new(),
            nats: NatsVersion::Oldest,
            seed: 0,
            backlog: 0,
            duration: Duration::ZERO,
            explained: 0,
        };
        for seed in [9600, 9601] {
            options.seed = seed;
            let mut of_newest = Vec::new();
            for scenario in scenarios::all() {
                let mut of = |nats| {
                    options.nats = nats;
                    workers(scenario.name, &options)
                };
                let (oldest, newest) = (of(NatsVersion::Oldest), of(NatsVersion::Newest));
                assert_ne!(oldest, newest, "{} of seed {seed}", scenario.name);
                of_newest.push(newest);
            }
            let several = of_newest.iter().filter(|workers| **workers > 1).count();
            assert!((of_newest.len() / 4..=of_newest.len() * 3 / 4).contains(&several), "{several} of seed {seed}");
        }
    }
}
