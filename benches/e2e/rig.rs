//! Servers, streams and processes, and what they cost.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, consumer, stream};
use cdc_proof::replica::{Program, Replica, Settings};
use cdc_proof::servers::{NatsServer, NatsVersion, RedisServer};
use futures::StreamExt;

use cdc_bench::{Size, message};

pub const SOURCE: &str = "cdc_events_stream";
pub const CONSUMER: &str = "cdc_consumers";
const TARGET: &str = "wa_stream";

/// Between two looks at the consumer.
const LOOK: Duration = Duration::from_millis(20);
/// How long a run may go without progress.
const STUCK: Duration = Duration::from_secs(60);

/// Bytes handed to the source before one ack is waited for: a server drops what comes faster than it stores.
const STRETCH: usize = 8 << 20;

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    PassThrough,
    Service,
}

/// What stands in the source.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub events: u64,
    pub size: Size,
    /// How many rows the events are of.
    pub rows: u64,
    /// How many of a hundred events are copies of the one before.
    pub duplicates: u64,
}

/// What a run cost.
#[derive(Debug, Clone)]
pub struct Cost {
    pub events_per_second: f64,
    /// Microseconds of CPU per event: of the process, of nats-server, of redis-server.
    pub cpu: [f64; 3],
    /// Bytes.
    pub peak_resident: u64,
    /// The service's own figures at the end.
    pub metrics: String,
}

impl Cost {
    /// The most that the process had resident, in MiB.
    pub fn peak_mib(&self) -> f64 {
        self.peak_resident as f64 / f64::from(1 << 20)
    }
}

/// The servers.
pub struct Rig {
    pub nats: NatsServer,
    redis: RedisServer,
    pub js: jetstream::Context,
}

/// A process that ends with this value.
pub enum Running {
    PassThrough(Child),
    Service(Replica),
}

impl Running {
    fn id(&self) -> u32 {
        match self {
            Self::PassThrough(child) => child.id(),
            Self::Service(replica) => replica.id(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::PassThrough(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Rig {
    pub async fn start(version: NatsVersion) -> Self {
        let nats = NatsServer::start(&version.binary());
        let js = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
        Self { nats, redis: RedisServer::start(), js }
    }

    /// Puts a load into an empty source.
    pub async fn fill(&self, load: Load) {
        let _ = self.js.delete_stream(SOURCE).await;
        let config = stream::Config { name: SOURCE.into(), subjects: vec!["sequin.>".into()], ..Default::default() };
        let mut source = self.js.create_stream(config).await.unwrap();
        self.feed(load, None).await;
        while source.info().await.unwrap().state.messages < load.events {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Publishes a load to the source, as fast as it goes or so many events a second.
    pub async fn feed(&self, load: Load, rate: Option<u32>) {
        let client = async_nats::connect(self.nats.url()).await.unwrap();
        let js = jetstream::new(client.clone());
        let subject = "sequin.daisi_db.daisi_CID1001.messages.insert";
        let (begun, mut original, mut unheard) = (Instant::now(), 0, 0);
        for number in 0..load.events {
            if let Some(rate) = rate {
                let due = begun + Duration::from_secs_f64(number as f64 / f64::from(rate));
                if due > Instant::now() {
                    client.flush().await.unwrap();
                    tokio::time::sleep_until(due.into()).await;
                }
            }
            if number % 100 >= load.duplicates {
                original = number;
            }
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", format!("source-{number}").as_str());
            let body = message(load.size, original, original % load.rows);
            unheard += body.len();
            if unheard >= STRETCH {
                unheard = 0;
                js.publish_with_headers(subject, headers, body.into()).await.unwrap().await.unwrap();
            } else {
                client.publish_with_headers(subject, headers, body.into()).await.unwrap();
            }
        }
        client.flush().await.unwrap();
    }

    /// Nobody has taken anything, the target is empty, and Redis knows nothing.
    pub async fn reset(&self) {
        let source = self.js.get_stream(SOURCE).await.unwrap();
        let _ = source.delete_consumer(CONSUMER).await;
        let durable = consumer::pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            ack_wait: Duration::from_secs(30),
            max_ack_pending: 5_000,
            filter_subject: "sequin.>".to_owned(),
            ..Default::default()
        };
        source.create_consumer(durable).await.unwrap();
        let _ = self.js.delete_stream(TARGET).await;
        let config = stream::Config {
            name: TARGET.to_owned(),
            subjects: vec!["wa.>".to_owned()],
            duplicate_window: Duration::from_secs(120),
            ..Default::default()
        };
        self.js.create_stream(config).await.unwrap();
        self.redis.command(&["FLUSHALL"]);
    }

    /// Starts the service.
    pub fn service(&self, settings: &Settings) -> Replica {
        let program = Program::service(env!("CARGO_BIN_EXE_daisi-cdc-consumer"));
        let mut all = Settings::from([
            ("nats.url".to_owned(), self.nats.url()),
            ("dedup.url".to_owned(), self.redis.url()),
            ("http.listen".to_owned(), "127.0.0.1:0".to_owned()),
        ]);
        all.extend(settings.clone());
        Replica::spawn(&program, &all, &[])
    }

    /// Starts a contender, with settings of the service.
    fn launch(&self, contender: Contender, settings: &Settings) -> Running {
        if contender == Contender::Service {
            return Running::Service(self.service(settings));
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        Running::PassThrough(command.args(["pass-through", &self.nats.url()]).spawn().unwrap())
    }

    /// Lets a contender do all that stands in the source.
    pub async fn run(&self, contender: Contender, settings: &Settings) -> Cost {
        self.reset().await;
        let servers = [self.nats.pid().unwrap(), self.redis.pid().unwrap()];
        let running = self.launch(contender, settings);
        let pid = running.id();
        let mut consumer: consumer::PullConsumer = self.js.get_consumer_from_stream(CONSUMER, SOURCE).await.unwrap();
        let (mut begun, mut moved, mut last) = (None, Instant::now(), 0);
        let mut before = servers.map(cpu_micros);
        let events = self.js.get_stream(SOURCE).await.unwrap().cached_info().state.messages;
        let elapsed = loop {
            let info = consumer.info().await.unwrap();
            if begun.is_none() && info.delivered.consumer_sequence > 0 {
                begun = Some((Instant::now(), info.ack_floor.stream_sequence));
                before = servers.map(cpu_micros);
            }
            if info.num_pending == 0 && info.num_ack_pending == 0 {
                break begun.map_or(Duration::ZERO, |(at, _)| at.elapsed());
            }
            if info.ack_floor.stream_sequence != last {
                (last, moved) = (info.ack_floor.stream_sequence, Instant::now());
            }
            assert!(moved.elapsed() < STUCK, "{contender:?} has stopped at {last} of {events}");
            tokio::time::sleep(LOOK).await;
        };
        let done = events - begun.map_or(0, |(_, sequence)| sequence);
        let after = servers.map(cpu_micros);
        let per_event = |micros: u64| micros as f64 / events as f64;
        let cpu = [cpu_micros(pid), after[0] - before[0], after[1] - before[1]].map(per_event);
        let metrics = match &running {
            Running::PassThrough(_) => String::new(),
            Running::Service(replica) => replica.metrics().await.unwrap().0,
        };
        let peak_resident = status(pid, "VmHWM:") << 10;
        Cost { events_per_second: done as f64 / elapsed.as_secs_f64(), cpu, peak_resident, metrics }
    }

    /// Microseconds from commit to the target's own time stamp, of every event of the target, in ascending order.
    pub async fn commit_to_published(&self) -> Vec<i64> {
        let mut target = self.js.get_stream(TARGET).await.unwrap();
        let count = target.info().await.unwrap().state.messages;
        let config = consumer::pull::Config { ack_policy: consumer::AckPolicy::None, ..Default::default() };
        let consumer = target.create_consumer(config).await.unwrap();
        let messages = consumer.messages().await.unwrap().take(usize::try_from(count).unwrap());
        let mut latencies: Vec<i64> = messages
            .map(|message| {
                let message = message.unwrap();
                let stored = message.info().unwrap().published.unix_timestamp_nanos() / 1_000;
                let event: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
                let committed: jiff::Timestamp = event["commit_timestamp"].as_str().unwrap().parse().unwrap();
                i64::try_from(stored).unwrap() - committed.as_microsecond()
            })
            .collect()
            .await;
        latencies.sort_unstable();
        latencies
    }
}

/// CPU that a process has used, user and system, in microseconds; clock ticks are 10 ms on Linux.
pub fn cpu_micros(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10_000).sum()
}

/// A figure of `/proc/<pid>/status`, in KiB.
pub fn status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
