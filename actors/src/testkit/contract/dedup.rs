//! The contract of [`DedupStore`].

use std::time::Duration;

use crate::message::{DeliveryId, EventKey, Record};
use crate::ports::{DedupStore, Target};

fn key(name: &str) -> EventKey {
    EventKey::new(format!("db:public:1:t:{name}:0")).expect("a legal key")
}

fn record(stream_created: i64, generation: u64, sequence: u64) -> Record {
    Record { stream_created, generation, sequence }
}

async fn found(store: &dyn DedupStore, names: &[&str]) -> Vec<Option<Record>> {
    let checked = store.check(names.iter().map(|name| key(name)).collect()).await.expect("check");
    assert_eq!(checked.records.len(), names.len(), "one entry per key");
    checked.records.into_iter().map(|entry| entry.expect("a key's entry")).collect()
}

async fn generation(store: &dyn DedupStore) -> u64 {
    store.check(Vec::new()).await.expect("check of nothing").generation
}

async fn keep(store: &dyn DedupStore, records: Vec<(EventKey, Record)>) {
    let asked = records.len();
    let results = store.record(records).await.expect("record");
    assert_eq!(results.len(), asked, "one result per record");
    for result in results {
        result.expect("a record's result");
    }
}

/// Holds an empty store whose records live for `ttl` to the contract. `pass` lets time pass: it moves a fake's clock, or waits.
///
/// # Panics
/// Where the store breaks the contract.
pub async fn dedup_store_contract(store: &dyn DedupStore, ttl: Duration, pass: impl AsyncFn(Duration)) {
    records_are_found_again(store).await;
    many_at_once(store).await;
    a_regression_raises_the_generation_once(store).await;
    markers_are_kept(store).await;
    records_expire(store, ttl, pass).await;
}

async fn records_are_found_again(store: &dyn DedupStore) {
    assert_eq!(found(store, &["a", "b"]).await, [None, None], "an empty store knows nothing");
    let generation = generation(store).await;
    assert!(generation > 0, "a generation is made with the first check");

    keep(store, vec![(key("a"), record(7, generation, 1))]).await;
    assert_eq!(
        found(store, &["b", "a", "a"]).await[1..],
        [Some(record(7, generation, 1)); 2],
        "in the order asked for"
    );
    assert_eq!(found(store, &["b"]).await, [None], "no key knows of another");

    keep(store, vec![(key("a"), record(7, generation, 9))]).await;
    assert_eq!(found(store, &["a"]).await, [Some(record(7, generation, 9))], "the last record of a key stands");

    // Telling which records count is not the store's business.
    keep(store, vec![(key("old"), record(6, generation - 1, 4))]).await;
    assert_eq!(found(store, &["old"]).await, [Some(record(6, generation - 1, 4))]);
    keep(store, Vec::new()).await;
    assert_eq!(self::generation(store).await, generation, "nothing of this raises the generation");
}

async fn many_at_once(store: &dyn DedupStore) {
    let names: Vec<String> = (0..1_500).map(|n| format!("many{n}")).collect();
    let records = (1..).zip(&names).map(|(sequence, name)| (key(name), record(8, 1, sequence)));
    keep(store, records.collect()).await;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (sequence, entry) in (1..).zip(found(store, &names).await) {
        assert_eq!(entry, Some(record(8, 1, sequence)));
    }
}

async fn a_regression_raises_the_generation_once(store: &dyn DedupStore) {
    let target = |created, last_sequence| Target { created, last_sequence };
    let first = generation(store).await;
    assert_eq!(store.highest(100).await.expect("highest"), 0, "of a stream nobody recorded anything of");
    let unknown = store.reconcile(target(100, 0)).await.expect("reconcile");
    assert_eq!((unknown.generation, unknown.regressed_from), (first, None), "an unknown stream is not behind");

    keep(
        store,
        vec![
            (key("r1"), record(100, first, 50)),
            (key("r2"), record(100, first, 40)),
            (key("r3"), record(101, first, 3)),
        ],
    )
    .await;
    keep(store, vec![(key("r4"), record(100, first, 45))]).await;
    assert_eq!(store.highest(100).await.expect("highest"), 50, "the highest, not the last");
    assert_eq!(store.highest(101).await.expect("highest"), 3, "each stream has its own");
    for ahead in [50, 51] {
        let same = store.reconcile(target(100, ahead)).await.expect("reconcile");
        assert_eq!((same.generation, same.regressed_from), (first, None), "a target that holds everything recorded");
    }

    let behind = store.reconcile(target(100, 49)).await.expect("reconcile");
    assert_eq!(behind.regressed_from, Some(50), "a target that has lost data");
    assert!(behind.generation > first, "the generation is raised");
    assert_eq!(generation(store).await, behind.generation, "for everybody");
    assert_eq!(store.highest(100).await.expect("highest"), 49, "the target as it now is");
    let again = store.reconcile(target(100, 49)).await.expect("reconcile");
    assert_eq!((again.generation, again.regressed_from), (behind.generation, None), "one loss, one alarm");
    let other = store.reconcile(target(101, 3)).await.expect("reconcile");
    assert_eq!((other.generation, other.regressed_from), (behind.generation, None), "the other stream lost nothing");

    let further = store.reconcile(target(100, 10)).await.expect("reconcile");
    assert_eq!(further.regressed_from, Some(49), "another loss");
    assert!(further.generation > behind.generation, "raised again");
}

async fn markers_are_kept(store: &dyn DedupStore) {
    let suspect = |stream_created, sequence, timestamp| DeliveryId { stream_created, sequence, timestamp };
    let all = [suspect(1, 1, 1), suspect(2, 1, 1), suspect(1, 2, 1), suspect(1, 1, 2)];
    let markers = async || store.markers(all.to_vec()).await.expect("markers");
    let set = async |markers: &[(DeliveryId, u64)]| store.set_markers(markers.to_vec()).await.expect("set markers");
    assert_eq!(markers().await, [0; 4], "nobody is marked");
    set(&[(all[0], 1), (all[2], 7)]).await;
    assert_eq!(markers().await, [1, 0, 7, 0], "each suspect has its own, in the order asked for");
    set(&[(all[0], 2), (all[2], 0), (all[3], 0)]).await;
    assert_eq!(markers().await, [2, 0, 0, 0], "changed, taken back, and none taken back");
    assert_eq!(store.markers(vec![all[3], all[0]]).await.expect("markers"), [0, 2]);
    set(&[]).await;
    assert!(store.markers(Vec::new()).await.expect("markers").is_empty(), "nothing is asked of nobody");
}

async fn records_expire(store: &dyn DedupStore, ttl: Duration, pass: impl AsyncFn(Duration)) {
    let before = generation(store).await;
    keep(store, vec![(key("short-lived"), record(7, before, 2))]).await;
    assert!(found(store, &["short-lived"]).await[0].is_some(), "a fresh record");
    pass(ttl).await;
    // A server's clock is its own: allow it a little more.
    for _ in 0..20 {
        if found(store, &["short-lived"]).await[0].is_none() {
            break;
        }
        pass(ttl / 10).await;
    }
    assert_eq!(found(store, &["short-lived"]).await, [None], "a record outlives its ttl");
    assert_eq!(generation(store).await, before, "the generation does not expire");
    assert_eq!(store.highest(101).await.expect("highest"), 3, "nor does the highest sequence");
}

/// Holds a store to this: what is no record is taken for none. `plant` puts a text where the record of a key would be.
///
/// # Panics
/// Where the store breaks the contract.
pub async fn malformed_records_contract(store: &dyn DedupStore, plant: impl AsyncFn(&EventKey, &str)) {
    let texts = ["", "1", "1.2", "1.2.3.4", "a.2.3", "1.2.-3", "OK", "\u{fffd}", "1.99999999999999999999.3"];
    for (n, text) in texts.iter().enumerate() {
        plant(&key(&format!("bad{n}")), text).await;
    }
    plant(&key("good"), &record(1, 2, 3).encode()).await;
    for (n, text) in texts.iter().enumerate() {
        let entries = found(store, &[&format!("bad{n}"), "good"]).await;
        assert_eq!(entries, [None, Some(record(1, 2, 3))], "{text:?} is no record and hides no other");
    }
}
