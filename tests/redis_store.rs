//! The dedup stores: one contract for Redis, memory and the fake, and what only a real server can do to its clients.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod support;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc_actors::message::{DeliveryId, EventKey, Record};
use cdc_actors::ports::{DedupStore, Failure, FailureClass, Target};
use cdc_actors::testkit::contract::{dedup_store_contract, malformed_records_contract};
use cdc_actors::testkit::{FakeDedupStore, ManualClock};
use daisi_cdc_consumer::adapters::memory::MemoryStore;
use daisi_cdc_consumer::adapters::redis::{RedisSettings, RedisStore};
use support::redis::RedisServer;

/// Of the stores that are held to the contract.
const TTL: Duration = Duration::from_secs(4);
/// How long anything may take that should happen soon.
const PATIENCE: Duration = Duration::from_secs(20);
const SUSPECT: DeliveryId = DeliveryId { stream_created: 5, sequence: 9, timestamp: 7 };

fn run(test: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(test);
}

/// Settings under which a busy machine has all the time it needs.
fn patient(url: &str) -> RedisSettings {
    let long = Duration::from_secs(60);
    RedisSettings { connect_timeout: long, response_timeout: long, ..RedisSettings::new(url) }
}

fn store_at(url: &str) -> RedisStore {
    RedisStore::new(&patient(url)).unwrap()
}

fn key(name: &str) -> EventKey {
    EventKey::new(name).unwrap()
}

fn record(sequence: u64) -> Record {
    Record { stream_created: 5, generation: 1, sequence }
}

fn class<T: std::fmt::Debug>(result: Result<T, Failure>) -> FailureClass {
    result.unwrap_err().class
}

/// Calls until it succeeds; panics when that takes too long.
async fn eventually<T>(call: impl AsyncFn() -> Result<T, Failure>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Ok(value) => return value,
            Err(failure) => assert!(Instant::now() < deadline, "still failing: {failure}"),
        }
        actix_rt::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn redis_keeps_the_contract() {
    let server = RedisServer::start();
    run(async {
        let store = RedisStore::new(&RedisSettings { ttl: TTL, ..patient(&server.url()) }).unwrap();
        dedup_store_contract(&store, TTL, actix_rt::time::sleep).await;
        malformed_records_contract(&store, async |key, text| {
            server.command(&["SET", &format!("dedup:{key}"), text]);
        })
        .await;
        assert!(store.warnings().await.unwrap().is_empty(), "noeviction is Redis' own default");
    });
}

#[test]
fn memory_keeps_the_contract() {
    let clock = ManualClock::new();
    let store = MemoryStore::with_clock(TTL, 10_000, Arc::new(clock.clone()));
    run(async { dedup_store_contract(&store, TTL, async |time| clock.advance(time)).await });
}

#[test]
fn the_fake_keeps_the_contract() {
    let clock = ManualClock::new();
    let store = FakeDedupStore::new(clock.clone(), TTL);
    run(async { dedup_store_contract(&store, TTL, async |time| clock.advance(time)).await });
}

#[test]
fn memory_evicts_the_oldest_first() {
    let clock = ManualClock::new();
    let store = MemoryStore::with_clock(TTL, 2, Arc::new(clock.clone()));
    run(async {
        for name in ["a", "b", "a", "c"] {
            store.record(vec![(key(name), record(1))]).await.unwrap();
        }
        let found = store.check(vec![key("a"), key("b"), key("c")]).await.unwrap().records;
        let found: Vec<bool> = found.into_iter().map(|entry| entry.unwrap().is_some()).collect();
        assert_eq!(found, [true, false, true], "recording again makes a record young");
        assert_eq!(store.len(), 2);
        clock.advance(TTL);
        store.record(vec![(key("d"), record(2))]).await.unwrap();
        assert_eq!(store.len(), 1, "what has expired takes no room");
    });
}

#[test]
fn memory_forgets_on_the_dot() {
    let clock = ManualClock::new();
    let store = MemoryStore::with_clock(TTL, 10, Arc::new(clock.clone()));
    let instant = std::time::Duration::from_nanos(1);
    run(async {
        assert!(store.is_empty());
        store.record(vec![(key("a"), record(1))]).await.unwrap();
        assert!(!store.is_empty());
        let known = async || store.check(vec![key("a")]).await.unwrap().records[0].as_ref().unwrap().is_some();
        clock.advance(TTL - instant);
        assert!(known().await, "one instant is left");
        clock.advance(instant);
        assert!(!known().await);
        let day = std::time::Duration::from_hours(24);
        store.set_markers(vec![(SUSPECT, 3)]).await.unwrap();
        clock.advance(day - instant);
        assert_eq!(store.markers(vec![SUSPECT]).await.unwrap(), [3], "a marker lives for a day");
        clock.advance(instant);
        assert_eq!(store.markers(vec![SUSPECT]).await.unwrap(), [0]);
    });
}

#[test]
fn replicas_share_records_generation_and_markers() {
    let server = RedisServer::start();
    run(async {
        let (one, two) = (store_at(&server.url()), store_at(&format!("redis+unix://{}", server.socket().display())));
        let generation = one.check(Vec::new()).await.unwrap().generation;
        one.record(vec![(key("k"), record(9))]).await.unwrap();
        let seen = two.check(vec![key("k")]).await.unwrap();
        assert_eq!((seen.generation, *seen.records[0].as_ref().unwrap()), (generation, Some(record(9))));
        let behind = Target { created: 5, last_sequence: 8 };
        let (first, second) = futures::join!(one.reconcile(behind), two.reconcile(behind));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first.generation, second.generation, "raised once");
        assert_eq!(
            [first.regressed_from, second.regressed_from].iter().flatten().count(),
            1,
            "one of them raises the alarm"
        );
        one.set_markers(vec![(SUSPECT, 3)]).await.unwrap();
        assert_eq!(two.markers(vec![SUSPECT]).await.unwrap(), [3]);
        let ttl: i64 = server.command(&["TTL", "dedup:suspect:5-9-7"]).trim_start_matches(':').parse().unwrap();
        assert!((86_000..=86_400).contains(&ttl), "a marker lives a day, not {ttl} s");
    });
}

#[test]
fn a_spoilt_generation_is_made_anew() {
    let server = RedisServer::start();
    run(async {
        let store = store_at(&server.url());
        for spoilt in ["", "junk", "-3", "99999999999999999999999"] {
            server.command(&["SET", "dedup:generation", spoilt]);
            let generation = store.check(Vec::new()).await.unwrap().generation;
            assert_eq!(store.check(Vec::new()).await.unwrap().generation, generation, "and kept: {spoilt:?}");
            let target = Target { created: 1, last_sequence: 0 };
            assert_eq!(store.reconcile(target).await.unwrap().generation, generation);
        }
    });
}

#[test]
fn a_killed_server_fails_fast_and_is_found_again() {
    let mut server = RedisServer::start();
    run(async {
        let store = store_at(&server.url());
        store.check(vec![key("k")]).await.unwrap();
        server.kill();
        let started = Instant::now();
        for _ in 0..3 {
            assert_eq!(class(store.check(vec![key("k")]).await), FailureClass::Disconnected);
            assert_eq!(class(store.record(vec![(key("k"), record(1))]).await), FailureClass::Disconnected);
        }
        assert!(started.elapsed() < PATIENCE, "took {:?}", started.elapsed());
        server.restart();
        eventually(async || store.check(vec![key("k")]).await).await;
        store.record(vec![(key("k"), record(1))]).await.unwrap()[0].clone().unwrap();
    });
}

#[test]
fn a_frozen_server_times_out_and_is_found_again() {
    let server = RedisServer::start();
    run(async {
        let store = RedisStore::new(&RedisSettings::new(server.url())).unwrap();
        eventually(async || store.check(vec![key("k")]).await).await;
        server.stop();
        let started = Instant::now();
        assert_eq!(class(store.check(vec![key("k")]).await), FailureClass::Timeout);
        assert_eq!(class(store.check(vec![key("k")]).await), FailureClass::Timeout, "connecting is bounded, too");
        assert!(started.elapsed() < PATIENCE, "took {:?}", started.elapsed());
        server.cont();
        eventually(async || store.check(vec![key("k")]).await).await;
    });
}

#[test]
fn a_full_server_still_answers_checks() {
    let server = RedisServer::start();
    run(async {
        let store = store_at(&server.url());
        store.check(Vec::new()).await.unwrap();
        store.record(vec![(key("kept"), record(1))]).await.unwrap()[0].clone().unwrap();
        server.command(&["CONFIG", "SET", "maxmemory", "1"]);
        let found = store.check(vec![key("kept")]).await.unwrap();
        assert_eq!(*found.records[0].as_ref().unwrap(), Some(record(1)));
        let results = store.record(vec![(key("a"), record(2)), (key("b"), record(3))]).await.unwrap();
        assert_eq!(results.len(), 2, "one result per record");
        for result in results {
            assert_eq!(class(result), FailureClass::Unavailable);
        }
        assert_eq!(class(store.set_markers(vec![(SUSPECT, 1)]).await), FailureClass::Unavailable);
        server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        store.record(vec![(key("a"), record(2))]).await.unwrap()[0].clone().unwrap();
    });
}

#[test]
fn one_key_of_a_batch_fails_alone() {
    let server = RedisServer::start_with(&[
        "--user",
        "cdc",
        "on",
        ">pw",
        "+@all",
        "~dedup:highest",
        "~dedup:generation",
        "~dedup:mine:*",
    ]);
    run(async {
        let store = store_at(&format!("redis://cdc:pw@127.0.0.1:{}", server.port()));
        let batch = vec![(key("mine:1"), record(1)), (key("other:2"), record(2)), (key("mine:3"), record(3))];
        let results = store.record(batch).await.unwrap();
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(class(results[1].clone()), FailureClass::Denied);
    });
}

#[test]
fn a_demoted_primary_is_unavailable_until_it_is_promoted() {
    let (primary, server) = (RedisServer::start(), RedisServer::start());
    run(async {
        let store = store_at(&server.url());
        store.record(vec![(key("k"), record(1))]).await.unwrap()[0].clone().unwrap();
        server.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
        let failed = store.record(vec![(key("k"), record(2))]).await.unwrap();
        assert_eq!(class(failed[0].clone()), FailureClass::Unavailable, "READONLY");
        let behind = Target { created: 5, last_sequence: 0 };
        assert_eq!(class(store.reconcile(behind).await), FailureClass::Unavailable, "READONLY out of a script");
        let warnings = store.warnings().await.unwrap();
        assert!(warnings.iter().any(|warning| warning.contains("replica")), "{warnings:?}");
        server.command(&["REPLICAOF", "NO", "ONE"]);
        eventually(async || store.record(vec![(key("k"), record(3))]).await?.remove(0)).await;
    });
}

#[test]
fn wrong_credentials_are_denied_and_never_shown() {
    let server = RedisServer::start_with(&["--requirepass", "right"]);
    run(async {
        for url in ["redis://:hunter2@127.0.0.1", "redis://nobody:hunter2@127.0.0.1", "redis://127.0.0.1"] {
            let failure = store_at(&format!("{url}:{}", server.port())).check(vec![key("k")]).await.unwrap_err();
            assert_eq!(failure.class, FailureClass::Denied, "{failure}");
            assert!(!format!("{failure} {failure:?}").contains("hunter2"), "{failure:?}");
        }
        store_at(&format!("redis://:right@127.0.0.1:{}", server.port())).check(vec![key("k")]).await.unwrap();
    });
}

#[test]
fn warns_of_a_server_that_may_evict() {
    let server = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    run(async {
        let warnings = store_at(&server.url()).warnings().await.unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("allkeys-lru"), "{warnings:?}");
    });
}

#[test]
fn a_user_that_may_not_ask_is_a_warning() {
    let server = RedisServer::start_with(&["--user", "cdc", "on", ">pw", "~*", "+@all", "-info"]);
    run(async {
        let store = store_at(&format!("redis://cdc:pw@127.0.0.1:{}", server.port()));
        let warnings = store.warnings().await.unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("INFO"), "{warnings:?}");
        store.check(Vec::new()).await.unwrap();
    });
}

#[test]
fn tls_against_a_plain_server_is_a_failure_not_a_panic() {
    let server = RedisServer::start();
    run(async {
        let store = RedisStore::new(&RedisSettings::new(format!("rediss://127.0.0.1:{}", server.port()))).unwrap();
        let failure = store.check(Vec::new()).await.unwrap_err();
        assert!(matches!(failure.class, FailureClass::Disconnected | FailureClass::Timeout), "{failure:?}");
    });
}
