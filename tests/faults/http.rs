//! Clients that mean ill: thousands of connections, slow ones, floods. Events flow, and probes are answered in time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::support::bench::{Bench, Consumer, eventually, pause};

/// Idle connections, as many as this machine lets one process have.
const CROWD: usize = 10_000;
/// What a probe is given at the most here. A kubelet gives 1 s on machines that are not busy with every other test.
const PROBE: Duration = Duration::from_secs(5);

/// Raises the limit of open files of this process, if the system allows; returns how many connections fit.
fn room_for(connections: usize) -> usize {
    let id = std::process::id().to_string();
    let wanted = connections + 500;
    let raised = std::process::Command::new("prlimit").args(["--pid", &id, &format!("--nofile={wanted}:")]).status();
    if raised.is_ok_and(|status| status.success()) {
        return connections;
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: usize = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    let fits = connections.min(soft.saturating_sub(500));
    eprintln!("the limit of open files cannot be raised: {fits} connections instead of {connections}");
    fits
}

/// What probes and scrapes came to.
#[derive(Debug, Default)]
struct Watched {
    answered: u64,
    failed: u64,
    slowest: Duration,
}

/// Probes and scrapes as a cluster would, until told to stop and often enough to tell one failure from many. One is what a
/// network has now and then; three in a row make a kubelet end the pod.
async fn watch(address: String, stop: Arc<AtomicBool>) -> Watched {
    let (mut seen, mut in_a_row) = (Watched::default(), 0);
    while !stop.load(Ordering::SeqCst) || seen.answered < 100 {
        for path in ["/healthz", "/readyz", "/metrics", "/status.json"] {
            let began = Instant::now();
            match tokio::time::timeout(PROBE, get(&address, path)).await {
                Ok(Ok(answer)) => {
                    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
                    (seen.answered, in_a_row) = (seen.answered + 1, 0);
                    seen.slowest = seen.slowest.max(began.elapsed());
                }
                failed => {
                    (seen.failed, in_a_row) = (seen.failed + 1, in_a_row + 1);
                    assert!(in_a_row < 3, "{path} for the third time: {failed:?}; {seen:?}");
                }
            }
        }
        pause().await;
    }
    seen
}

async fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Feeds events, probes and scrapes while harm is done by the tasks that `harm` starts, until they are told to stop; then
/// everything fed has come out once.
async fn unharmed(what: &str, harm: impl AsyncFnOnce(&Bench, &Consumer, &Arc<AtomicBool>) -> JoinSet<()>) {
    let bench = Bench::start().await;
    // Redis has half a second to answer in, which it may not keep on a machine that is busy enough.
    let consumer = bench.consumer(&[("DEDUP__STORE", "memory")]).await;
    let load = bench.load();
    bench.until_target(100).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(consumer.address().to_owned(), Arc::clone(&stop)));
    let over = Arc::new(AtomicBool::new(false));
    let harm = harm(&bench, &consumer, &over).await;
    // Events flow in the midst of it.
    bench.until_target(bench.count("wa_stream").await + 200).await;
    stop.store(true, Ordering::SeqCst);
    let seen = watching.await.unwrap();
    println!("{what}: {seen:?}");
    over.store(true, Ordering::SeqCst);
    harm.join_all().await;
    assert!(seen.answered > 20 * seen.failed, "{seen:?}");
    load.stop().await;
    bench.assert_once_each().await;
    consumer.until_idle().await;
    assert_eq!(consumer.metrics().value("cdc_consumer_nats_reconnects_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_do_no_harm() {
    let crowd = room_for(CROWD);
    unharmed("idle connections", async |bench, consumer, over| {
        let mut held = Vec::with_capacity(crowd);
        for _ in 0..crowd {
            held.push(TcpStream::connect(consumer.address()).await.unwrap());
        }
        bench.until_target(bench.count("wa_stream").await + 200).await;
        let (over, mut harm) = (Arc::clone(over), JoinSet::new());
        harm.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                pause().await;
            }
            drop(held);
        });
        harm
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_loris_does_no_harm() {
    unharmed("slow loris", async |bench, consumer, over| {
        let (dripped, mut harm) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        for _ in 0..600 {
            let (address, over, dripped) = (consumer.address().to_owned(), Arc::clone(over), Arc::clone(&dripped));
            harm.spawn(async move {
                // Whoever is cut off begins again.
                while !over.load(Ordering::SeqCst) {
                    let Ok(mut stream) = TcpStream::connect(&address).await else { break };
                    let mut sent = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: loris\r\nX-Slow: ").await;
                    while sent.is_ok() && !over.load(Ordering::SeqCst) {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        sent = stream.write_all(b"a").await;
                        dripped.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        // Long enough for every one of them to have been at it for a while.
        eventually("they drip", async || (dripped.load(Ordering::SeqCst) > 3_000).then_some(())).await;
        bench.until_target(bench.count("wa_stream").await + 200).await;
        harm
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_requests_does_no_harm() {
    unharmed("flood", async |bench, consumer, over| {
        let (answered, mut harm) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        for _ in 0..16 {
            let (address, over, answered) = (consumer.address().to_owned(), Arc::clone(over), Arc::clone(&answered));
            harm.spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    answered.fetch_add(u64::from(get(&address, "/status.json").await.is_ok()), Ordering::SeqCst);
                }
            });
        }
        eventually("they are answered", async || (answered.load(Ordering::SeqCst) > 200).then_some(())).await;
        bench.until_target(bench.count("wa_stream").await + 200).await;
        harm
    })
    .await;
}
