//! Puts changes into the source, in the order of their numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{
    self,
    context::{PublishAckFuture, PublishError},
};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::task::JoinHandle;

use super::{Change, Generator, Ledger};

/// How often a second changes are fed.
const TICKS: u32 = 40;
/// How many are on their way at a time when they are fed as fast as possible.
const WINDOW: usize = 256;
/// How long the source may be away.
const PATIENCE: Duration = Duration::from_secs(180);
/// The pause before another attempt.
const PAUSE: Duration = Duration::from_millis(50);

/// Feeds in the background.
#[derive(Debug)]
pub struct Feeder {
    stop: Arc<AtomicBool>,
    task: Option<JoinHandle<Generator>>,
}

impl Drop for Feeder {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Feeder {
    /// Feeds so many changes a second.
    pub fn start(js: jetstream::Context, ledger: Arc<Ledger>, mut generator: Generator, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / TICKS);
            let batch = usize::try_from((rate / TICKS).max(1)).unwrap();
            while !stopped.load(Ordering::SeqCst) {
                ticks.tick().await;
                Self::feed_all(&js, &ledger, generator.by_ref().take(batch)).await;
            }
            generator
        });
        Self { stop, task: Some(task) }
    }

    /// Stops; what was begun is stored.
    pub async fn stop(mut self) -> Generator {
        self.stop.store(true, Ordering::SeqCst);
        // It is there until here.
        self.task.take().unwrap().await.unwrap()
    }

    /// Feeds these changes and returns once the source has stored them.
    pub async fn feed_all(js: &jetstream::Context, ledger: &Ledger, changes: impl IntoIterator<Item = Change>) {
        // Publishing is one after the other, waiting for acks is not.
        let mut stored = FuturesOrdered::new();
        for change in changes {
            let ack = publish(js, &change).await;
            stored.push_back(store(js, change, ack));
            if stored.len() == WINDOW
                && let Some((change, sequence)) = stored.next().await
            {
                ledger.enter(&change, sequence);
            }
        }
        while let Some((change, sequence)) = stored.next().await {
            ledger.enter(&change, sequence);
        }
    }
}

async fn publish(js: &jetstream::Context, change: &Change) -> Result<PublishAckFuture, PublishError> {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", change.id.as_str());
    js.publish_with_headers(change.subject.clone(), headers, change.payload.clone()).await
}

/// Waits for the ack, and publishes again under the same id until there is one.
async fn store(
    js: &jetstream::Context,
    change: Change,
    mut sent: Result<PublishAckFuture, PublishError>,
) -> (Change, u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stored = match sent {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        match stored {
            Ok(stored) => return (change, stored.sequence),
            Err(error) if Instant::now() > deadline => {
                panic!("the source did not store change {}: {error}", change.number)
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
        sent = publish(js, &change).await;
    }
}
