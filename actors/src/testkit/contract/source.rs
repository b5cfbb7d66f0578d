//! The contract of [`Source`].

use std::collections::BTreeSet;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::timeout;

use crate::message::{Delivery, Settle, Settlement};
use crate::ports::{Budget, Source};

/// How long a delivery may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An empty source stream that can be fed.
pub trait SourceBench {
    /// The port.
    fn source(&self) -> &dyn Source;
    /// Adds a message to the stream and returns when it is stored.
    fn feed<'a>(&'a self, payload: &'a str) -> BoxFuture<'a, ()>;
    /// The consumer's ack_wait; half a second or more.
    fn ack_wait(&self) -> Duration;
    /// Lets time pass: moves a fake's clock, or waits.
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()>;
}

const WIDE: Budget = Budget { messages: 100, bytes: 8 * 1024 * 1024 };

fn texts(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| std::str::from_utf8(&delivery.payload).expect("text")).collect()
}

fn settlement(delivery: &Delivery, settle: Settle) -> Settlement {
    Settlement { receipt: delivery.receipt.clone(), settle }
}

/// Pulls until `count` deliveries have come; an empty batch means: ask again.
async fn pull(source: &dyn Source, count: usize, budget: Budget) -> Vec<Delivery> {
    let mut got = Vec::new();
    let all = async {
        while got.len() < count {
            let batch = source.pull(budget).await.expect("pull");
            assert!(batch.len() <= budget.messages, "{} messages are over the budget", batch.len());
            let bytes: usize = batch.iter().map(|delivery| delivery.payload.len()).sum();
            assert!(bytes <= budget.bytes, "{bytes} bytes are over the budget");
            got.extend(batch);
        }
    };
    timeout(PATIENCE, all).await.expect("deliveries in time");
    assert_eq!(got.len(), count, "no more than was fed: {:?}", texts(&got));
    got
}

async fn settle(source: &dyn Source, deliveries: &[Delivery], how: Settle) {
    source.settle(deliveries.iter().map(|delivery| settlement(delivery, how)).collect()).await.expect("settle");
}

/// Asserts that nothing is delivered for now.
async fn nothing_comes(source: &dyn Source, why: &str) {
    let mut got = Vec::new();
    let pulls = async {
        while got.is_empty() {
            got = source.pull(WIDE).await.expect("pull");
        }
    };
    let _ = timeout(Duration::from_millis(150), pulls).await;
    assert!(got.is_empty(), "{why}: {:?}", texts(&got));
}

/// Holds a source to the contract.
///
/// # Panics
/// Where it breaks the contract.
pub async fn source_contract(bench: &dyn SourceBench) {
    delivers_in_order_within_the_budget(bench).await;
    an_abandoned_pull_loses_nothing(bench).await;
    hands_back(bench).await;
    another_life_is_not_settled(bench).await;
    tells_its_backlog_and_stops(bench).await;
}

async fn delivers_in_order_within_the_budget(bench: &dyn SourceBench) {
    let source = bench.source();
    for payload in ["a", "b", "c", "d", "e"] {
        bench.feed(payload).await;
    }
    let got = pull(source, 5, Budget { messages: 2, ..WIDE }).await;
    assert_eq!(texts(&got), ["a", "b", "c", "d", "e"], "in stream order");
    assert!(got.iter().all(|delivery| delivery.deliveries == 1), "for the first time");
    assert!(got.windows(2).all(|pair| pair[0].receipt.id.sequence < pair[1].receipt.id.sequence));
    assert_eq!(
        got.iter().map(|delivery| delivery.receipt.id.stream_created).collect::<BTreeSet<_>>().len(),
        1,
        "of one life"
    );
    settle(source, &got, Settle::Ack).await;
    settle(source, &[], Settle::Ack).await;
    source.confirm_settled().await.expect("confirm");

    let large = "x".repeat(40_000);
    for _ in 0..3 {
        bench.feed(&large).await;
    }
    // The budget holds one and not two, whatever subject and headers add.
    let got = pull(source, 3, Budget { messages: 100, bytes: 60_000 }).await;
    settle(source, &got, Settle::Ack).await;
}

async fn an_abandoned_pull_loses_nothing(bench: &dyn SourceBench) {
    let source = bench.source();
    for _ in 0..3 {
        // Polled, so that a request may be on its way, and dropped.
        let early = source.pull(WIDE).now_or_never();
        assert!(early.is_none_or(|batch| batch.expect("pull").is_empty()), "nothing was fed");
    }
    bench.feed("kept").await;
    let got = pull(source, 1, WIDE).await;
    assert_eq!((texts(&got), got[0].deliveries), (vec!["kept"], 1));
    settle(source, &got, Settle::Ack).await;
}

async fn hands_back(bench: &dyn SourceBench) {
    let source = bench.source();
    let ack_wait = bench.ack_wait();
    bench.feed("again").await;
    let got = pull(source, 1, WIDE).await;
    settle(source, &got, Settle::Nak(Duration::ZERO)).await;
    let again = pull(source, 1, WIDE).await;
    assert_eq!((texts(&again), again[0].deliveries), (vec!["again"], 2), "handed back at once");
    assert_eq!(again[0].receipt.id, got[0].receipt.id, "one identity for every delivery");

    settle(source, &again, Settle::Nak(ack_wait)).await;
    nothing_comes(source, "handed back for later").await;
    bench.pass(ack_wait).await;
    let third = pull(source, 1, WIDE).await;
    assert_eq!(third[0].deliveries, 3);

    // Three times half of ack_wait: without the in-progress it would have come back.
    for _ in 0..3 {
        bench.pass(ack_wait / 2).await;
        settle(source, &third, Settle::InProgress).await;
    }
    nothing_comes(source, "still at work").await;
    bench.pass(ack_wait).await;
    let fourth = pull(source, 1, WIDE).await;
    assert_eq!(fourth[0].deliveries, 4, "not settled within ack_wait");
    settle(source, &fourth, Settle::Ack).await;
    source.confirm_settled().await.expect("confirm");
    bench.pass(ack_wait).await;
    nothing_comes(source, "acknowledged for good").await;
}

async fn another_life_is_not_settled(bench: &dyn SourceBench) {
    let source = bench.source();
    bench.feed("alive").await;
    let got = pull(source, 1, WIDE).await;
    let mut foreign = settlement(&got[0], Settle::Ack);
    foreign.receipt.id.stream_created -= 1;
    source.settle(vec![foreign]).await.expect("a foreign settlement is dropped, not an error");
    source.confirm_settled().await.expect("confirm");
    bench.pass(bench.ack_wait()).await;
    let again = pull(source, 1, WIDE).await;
    assert_eq!(texts(&again), ["alive"], "a receipt of another life settles nothing");
    settle(source, &again, Settle::Ack).await;
}

async fn tells_its_backlog_and_stops(bench: &dyn SourceBench) {
    let source = bench.source();
    source.confirm_settled().await.expect("confirm");
    let empty = source.backlog().await.expect("backlog");
    let told = (empty.pending, empty.unacknowledged, empty.oldest_unacknowledged);
    assert_eq!(told, (0, 0, None), "everything is acknowledged");
    bench.feed("last").await;
    // A consumer hears of a message a moment after the stream has stored it.
    let mut waiting = source.backlog().await.expect("backlog");
    for _ in 0..100 {
        if waiting.pending + waiting.unacknowledged == 1 {
            break;
        }
        bench.pass(Duration::from_millis(50)).await;
        waiting = source.backlog().await.expect("backlog");
    }
    assert_eq!(waiting.pending + waiting.unacknowledged, 1, "one message is not acknowledged");
    assert!(waiting.oldest_unacknowledged.is_some_and(|at| at > 0));

    let mut left = source.stop().await;
    if left.is_empty() {
        // Had it not arrived yet, it stays with the server.
        let backlog = source.backlog().await.expect("backlog");
        assert!(backlog.oldest_unacknowledged.is_some());
        return;
    }
    assert_eq!(texts(&left), ["last"], "what had arrived");
    assert_eq!(source.backlog().await.expect("backlog").unacknowledged, 1);
    settle(source, &left, Settle::Ack).await;
    left.clear();
    source.confirm_settled().await.expect("settling still works after stop");
}
