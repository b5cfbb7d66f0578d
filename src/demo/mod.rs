//! The whole pipeline on this machine: servers of our own, generated traffic, and a ledger that must add up.

pub mod declared;
pub mod feeding;
pub mod ledger;
mod producer;
mod rows;
pub mod servers;
pub mod traffic;

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context};
use cdc_actors::ports::{Clock, SystemClock};
use tokio::signal::unix::{SignalKind, signal};

use self::ledger::{Counts, Ledger, Tally};
use self::servers::LocalServer;
use self::traffic::Traffic;
use crate::bootstrap::Service;
use crate::cli::{DemoArgs, ExitStatus};
use crate::commands::Pace;
use crate::config::Config;
use crate::logging::{self, chain};

/// How long nothing may happen before the demo gives up.
const STALLED: Duration = Duration::from_secs(30);
/// Enriched events shown in the end.
const SAMPLES: u64 = 3;

type Failed = Box<dyn Error + Send + Sync>;

/// Runs the demo.
pub async fn run(arguments: DemoArgs) -> ExitStatus {
    match demonstrate(&arguments).await {
        Ok(status) => status,
        Err(error) => {
            eprintln!("the demo could not run: {}", chain(&*error));
            ExitStatus::Unreachable
        }
    }
}

async fn demonstrate(arguments: &DemoArgs) -> Result<ExitStatus, Failed> {
    // It reads no configuration again, and ends by itself: its servers end with it, which they would not if a SIGHUP killed it.
    let _ignored = signal(SignalKind::hangup())?;
    let nats = LocalServer::nats()?;
    let redis = match LocalServer::redis() {
        Ok(redis) => Some(redis),
        Err(error) => {
            println!("dedup in memory: {error}");
            None
        }
    };
    let config = configuration(&nats, redis.as_ref())?;
    let (logger, _guard) = logging::logger(&config.log);
    let tally = Arc::new(OnceLock::new());
    let watching = Arc::clone(&tally);
    let mut service = Service::start(&config, logger, move |mut ports| {
        ports.observer = Arc::clone(watching.get_or_init(|| Arc::new(Tally::new(ports.observer)))) as _;
        ports
    })
    .await?;
    let tally = tally.get().ok_or("the service started without its observer")?;
    println!(
        "nats-server on port {}, {}",
        nats.port(),
        match &redis {
            Some(redis) => format!("redis-server on port {}", redis.port()),
            None => "dedup in memory".to_owned(),
        }
    );
    println!("metrics at http://{}/metrics while the demo runs\n", service.address());

    let client = async_nats::connect(format!("127.0.0.1:{}", nats.port())).await?;
    let streams = jetstream::new(client);
    let started = Instant::now();
    let feeding = actix_rt::spawn(feed(streams.clone(), arguments.clone()));
    let fed = watch(tally, arguments.events, started, feeding).await?;
    let took = started.elapsed();
    let ledger = Ledger {
        fed,
        ended: tally.counts(),
        in_target: stored(&streams, &config.target.stream).await?,
        in_dead_letters: stored(&streams, &config.dead_letter.stream).await?,
    };
    show_samples(&streams, &config.target.stream, ledger.in_target).await?;
    service.shutdown();
    let ended = service.ended().await;
    service.close(&ended).await;
    Ok(report(&ledger, tally, took))
}

fn configuration(nats: &LocalServer, redis: Option<&LocalServer>) -> Result<Config, Failed> {
    let mut settings = vec![
        ("NATS__URL", format!("nats://127.0.0.1:{}", nats.port())),
        ("HTTP__LISTEN", "127.0.0.1:0".to_owned()),
        ("LOG__LEVEL", "error".to_owned()),
        ("LOG__FORMAT", "terminal".to_owned()),
    ];
    match redis {
        Some(redis) => settings.push(("DEDUP__URL", format!("redis://127.0.0.1:{}", redis.port()))),
        None => settings.push(("DEDUP__STORE", "memory".to_owned())),
    }
    let environment = settings.into_iter().map(|(key, value)| (format!("DAISI_CDC_{key}"), value));
    Ok(Config::load(None, environment)?)
}

/// Publishes the traffic into the source stream, as Sequin would; returns what should become of it.
async fn feed(streams: Context, arguments: DemoArgs) -> Result<Counts, Failed> {
    let start = SystemClock.unix_nanos() / 1_000;
    let events = Traffic::new(arguments.seed, start).take(usize::try_from(arguments.events)?);
    let mut fed = Counts::default();
    let expected = events.inspect(|event| fed.expect(event.expected));
    feeding::feed(&streams, expected, Pace::new(arguments.rate), None, |_| {}).await?;
    Ok(fed)
}

/// Shows progress until everything that was fed has ended.
async fn watch(
    tally: &Tally,
    events: u64,
    started: Instant,
    feeding: actix_rt::task::JoinHandle<Result<Counts, Failed>>,
) -> Result<Counts, Failed> {
    let live = std::io::stdout().is_terminal();
    let (mut last, mut moved, mut shown) = (0, Instant::now(), Instant::now());
    while last < events {
        actix_rt::time::sleep(Duration::from_millis(50)).await;
        let done = tally.counts().total();
        if done != last {
            (last, moved) = (done, Instant::now());
        } else if moved.elapsed() > STALLED {
            println!("\nnothing has moved for {} s", STALLED.as_secs());
            break;
        }
        if shown.elapsed() >= Duration::from_millis(if live { 200 } else { 2_000 }) || done >= events {
            shown = Instant::now();
            let line = format!("{done} of {events} events, {:.0} a second", rate(done, started.elapsed()));
            print!("{}", if live { format!("\r\x1b[2K{line}") } else { format!("{line}\n") });
            std::io::stdout().flush()?;
        }
    }
    println!();
    feeding.await?
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn rate(events: u64, took: Duration) -> f64 {
    events as f64 / took.as_secs_f64().max(f64::EPSILON)
}

async fn stored(streams: &Context, name: &str) -> Result<u64, Failed> {
    Ok(streams.get_stream(name).await?.get_info().await?.state.messages)
}

async fn show_samples(streams: &Context, name: &str, stored: u64) -> Result<(), Failed> {
    let stream = streams.get_stream(name).await?;
    println!("some of the enriched events in {name}:");
    for sequence in (1..=stored).take(usize::try_from(SAMPLES)?) {
        let message = stream.get_raw_message(sequence).await?;
        println!("  {}\n    {}", message.subject, String::from_utf8_lossy(&message.payload));
    }
    println!();
    Ok(())
}

fn report(ledger: &Ledger, tally: &Tally, took: Duration) -> ExitStatus {
    let fed = ledger.fed.total();
    println!("fed            {fed} in {:.1} s, {:.0} a second, feeding included", took.as_secs_f64(), rate(fed, took));
    println!("               = {}", ledger.ended);
    println!("in the streams {} published, {} dead letters", ledger.in_target, ledger.in_dead_letters);
    if let (Some(p50), Some(p95), Some(p99)) = (tally.percentile(0.5), tally.percentile(0.95), tally.percentile(0.99)) {
        println!("latency        received to acknowledged: P50 {p50:.1?}, P95 {p95:.1?}, P99 {p99:.1?}");
    }
    let faults = ledger.faults();
    if faults.is_empty() {
        println!("\nthe ledger adds up");
        return ExitStatus::Success;
    }
    eprintln!("\nTHE LEDGER DOES NOT ADD UP");
    faults.iter().for_each(|fault| eprintln!("  {fault}"));
    ExitStatus::No
}
