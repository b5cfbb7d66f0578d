//! End to end on servers of its own: the service against the pass-through, in turn, in one run.
//!
//! `cargo bench --bench e2e -- --help` tells what can be chosen.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on must stop")]

mod pass_through;
mod rig;
mod sweep;

use std::time::Duration;

use cdc_bench::Size;
use cdc_proof::replica::Settings;
use cdc_proof::servers::NatsVersion;
use clap::{Parser, Subcommand};
use rig::{Contender, Cost, Load, Rig};

/// As in the service, so that the pass-through has the same.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures the service against a loop that only passes messages on.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// Events in the source.
    #[arg(long, default_value_t = 150_000)]
    events: u64,
    /// Times that each contender runs, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// small, medium, large or a number of bytes.
    #[arg(long, default_value = "medium")]
    payload: Size,
    /// Rows that the events are of.
    #[arg(long, default_value_t = 50_000)]
    rows: u64,
    /// How many of a hundred events are copies of the one before.
    #[arg(long, default_value_t = 0)]
    duplicates: u64,
    /// Settings of the service, as in `dedup.store=memory`.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// The service alone, without the pass-through.
    #[arg(long)]
    alone: bool,
    /// The oldest supported nats-server in place of the newest.
    #[arg(long)]
    oldest: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Latency and cost of the service alone at a steady rate.
    Steady {
        /// Events a second.
        #[arg(long, default_value_t = 5_000)]
        rate: u32,
        /// For how long.
        #[arg(long, default_value_t = 20)]
        seconds: u32,
    },
    /// One factor at a time, as CSV: store, rows, backlog, workers, duplicates, payload.
    Factors,
    /// Latency at rates from 1 000 to 40 000 events a second, as CSV.
    Load {
        /// For how long at each rate.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
    },
    /// What it costs while nothing happens, how soon it publishes, and how soon it ends at saturation.
    Life,
    /// The loop that only passes on.
    #[command(hide = true)]
    PassThrough { url: String },
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    if let Some(What::PassThrough { url }) = &arguments.what {
        return pass_through::run(url).await;
    }
    let rig = Rig::start(if arguments.oldest { NatsVersion::Oldest } else { NatsVersion::Newest }).await;
    let load = Load {
        events: arguments.events,
        size: arguments.payload,
        rows: arguments.rows,
        duplicates: arguments.duplicates,
    };
    let setting = |text: &String| {
        let (name, value) = text.split_once('=').expect("NAME=VALUE");
        (name.to_owned(), value.to_owned())
    };
    let settings: Settings = arguments.settings.iter().map(setting).collect();
    match arguments.what {
        Some(What::Steady { rate, seconds }) => {
            let figures = steady(&rig, load, rate, seconds, &settings).await;
            figures.show(rate, seconds);
        }
        Some(What::Factors) => sweep::factors(&rig, load, arguments.rounds, &settings).await,
        Some(What::Load { seconds }) => sweep::load(&rig, load, seconds, &settings).await,
        Some(What::Life) => life(&rig, load, &settings).await,
        _ if arguments.alone => alone(&rig, load, arguments.rounds, &settings).await,
        _ => compare(&rig, load, arguments.rounds, &settings).await,
    }
}

async fn alone(rig: &Rig, load: Load, rounds: usize, settings: &Settings) {
    rig.fill(load).await;
    for _ in 0..rounds {
        show("Service", &rig.run(Contender::Service, settings).await);
    }
}

/// A B A B: the ratio within one run is what counts.
async fn compare(rig: &Rig, load: Load, rounds: usize, settings: &Settings) {
    rig.fill(load).await;
    let mut costs: [Vec<Cost>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (contender, costs) in [Contender::PassThrough, Contender::Service].into_iter().zip(&mut costs) {
            let cost = rig.run(contender, settings).await;
            show(&format!("{contender:?}"), &cost);
            costs.push(cost);
        }
    }
    let figure = |of: &dyn Fn(&Cost) -> f64| costs.each_ref().map(|costs| median_of(costs, of));
    let (speed, cpu) = (figure(&|cost| cost.events_per_second), figure(&|cost| cost.cpu[0]));
    let ratios = |of: &dyn Fn(&Cost) -> f64| {
        median(costs[1].iter().zip(&costs[0]).map(|(service, limit)| of(service) / of(limit)).collect())
    };
    println!(
        "median: pass-through {:.0} events/s, service {:.0} events/s; ratio {:.3}; CPU of the process {:.1} and {:.1} µs an event, ratio {:.2}",
        speed[0],
        speed[1],
        ratios(&|cost| cost.events_per_second),
        cpu[0],
        cpu[1],
        ratios(&|cost| cost.cpu[0]),
    );
}

fn show(name: &str, cost: &Cost) {
    let [process, nats, redis] = cost.cpu;
    println!(
        "{name:12} {:>8.0} events/s   CPU µs an event: process {process:.1}, nats-server {nats:.1}, redis-server {redis:.1}   at most {:.1} MiB{}",
        cost.events_per_second,
        cost.peak_mib(),
        acknowledged_within(received_to_acknowledged(&cost.metrics)),
    );
}

/// What was seen at a steady rate.
struct Steady {
    published: usize,
    /// P50, P95, P99 and P99.9 in milliseconds.
    commit_to_published: [f64; 4],
    /// P50, P95, P99 and P99.9 in milliseconds: upper ends of the histogram's buckets.
    received_to_acknowledged: [f64; 4],
    /// Microseconds of the process per event.
    cpu: f64,
    resident_mib: f64,
    peak_mib: f64,
}

impl Steady {
    fn show(&self, rate: u32, seconds: u32) {
        let [p50, p95, p99, p999] = self.commit_to_published;
        println!(
            "{rate} events/s for {seconds} s: {} published; commit to published P50 {p50:.1} ms, P95 {p95:.1} ms, P99 {p99:.1} ms, P99.9 {p999:.1} ms; CPU {:.1} µs an event; resident {:.1} MiB, at most {:.1}{}",
            self.published,
            self.cpu,
            self.resident_mib,
            self.peak_mib,
            acknowledged_within(self.received_to_acknowledged),
        );
    }
}

async fn steady(rig: &Rig, load: Load, rate: u32, seconds: u32, settings: &Settings) -> Steady {
    rig.fill(Load { events: 0, ..load }).await;
    rig.reset().await;
    let service = rig.service(settings);
    service.started().await.unwrap();
    let before = rig::cpu_micros(service.id());
    let load = Load { events: u64::from(rate * seconds), ..load };
    rig.feed(load, Some(rate)).await;
    let used = rig::cpu_micros(service.id()) - before;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let latencies = rig.commit_to_published().await;
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1_000.0;
    let mib = |name| rig::status(service.id(), name) as f64 / 1024.0;
    Steady {
        published: latencies.len(),
        commit_to_published: [0.5, 0.95, 0.99, 0.999].map(at),
        received_to_acknowledged: received_to_acknowledged(&service.metrics().await.unwrap().0),
        cpu: used as f64 / load.events as f64,
        resident_mib: mib("VmRSS:"),
        peak_mib: mib("VmHWM:"),
    }
}

async fn life(rig: &Rig, load: Load, settings: &Settings) {
    rig.fill(load).await;
    rig.reset().await;
    let begun = std::time::Instant::now();
    let service = rig.service(settings);
    let mut target = rig.js.get_stream("wa_stream").await.unwrap();
    while target.info().await.unwrap().state.messages == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!("start to first published event: {} ms", begun.elapsed().as_millis());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = std::time::Instant::now();
    service.signal("TERM");
    let status = service.ended().await;
    println!("SIGTERM at saturation to the end: {} ms (exit status {status:?})", asked.elapsed().as_millis());
    rig.fill(Load { events: 0, ..load }).await;
    rig.reset().await;
    let service = rig.service(settings);
    service.started().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = rig::cpu_micros(service.id());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let used = rig::cpu_micros(service.id()) - before;
    println!("idle: {:.2} % of a core over 20 s", used as f64 / 20e6 * 100.0);
}

/// From received to acknowledged, as the histogram of `/metrics` bounds it: the upper end of the bucket.
fn received_to_acknowledged(metrics: &str) -> [f64; 4] {
    let buckets: Vec<(f64, f64)> = metrics
        .lines()
        .filter(|line| line.starts_with("cdc_consumer_processing_seconds_bucket") && line.contains("messages"))
        .filter_map(|line| {
            let bound = line.rsplit("le=\"").next()?.split('"').next()?.parse().unwrap_or(f64::INFINITY);
            Some((bound, line.rsplit(' ').next()?.parse().ok()?))
        })
        .collect();
    let all = buckets.last().map_or(f64::NAN, |(_, count)| *count);
    [0.5, 0.95, 0.99, 0.999].map(|share| {
        let bucket = buckets.iter().find(|(_, count)| *count >= all * share);
        bucket.map_or(f64::NAN, |(bound, _)| bound * 1_000.0)
    })
}

/// The same as words; none for the pass-through, which has no metrics.
fn acknowledged_within([p50, p95, p99, p999]: [f64; 4]) -> String {
    if p50.is_nan() {
        return String::new();
    }
    format!("   received to acknowledged P50 ≤ {p50} ms, P95 ≤ {p95} ms, P99 ≤ {p99} ms, P99.9 ≤ {p999} ms")
}

fn median_of(costs: &[Cost], figure: &dyn Fn(&Cost) -> f64) -> f64 {
    median(costs.iter().map(figure).collect())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
