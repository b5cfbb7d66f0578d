//! Looks again and again at what the source takes for done, and at what is stored by then.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use tokio::task::JoinHandle;

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_millis(50);

/// One look. The floor was read first: what lies at or below it must be stored at or below the other two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Every message of the source up to this sequence is acknowledged: the consumer says so, and a work queue holds none of them.
    pub floor: u64,
    /// The last sequence of the target.
    pub target: u64,
    /// The last sequence of the dead letters.
    pub dead_letters: u64,
}

/// Looks until it is stopped.
#[derive(Debug)]
pub struct Sampler {
    samples: Arc<Mutex<Vec<Sample>>>,
    task: JoinHandle<()>,
}

impl Sampler {
    /// Begins to look at the service's streams.
    pub fn start(js: jetstream::Context) -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&samples);
        let task = tokio::spawn(async move {
            loop {
                // A stream or server that is away gives no sample.
                let begun = seen.lock().unwrap().len();
                if let Some(sample) = look(&js).await {
                    let mut samples = seen.lock().unwrap();
                    // Begun before everything was begun again: it tells of streams that are no more.
                    if samples.len() == begun && samples.last() != Some(&sample) {
                        samples.push(sample);
                    }
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self { samples, task }
    }

    /// Forgets what was seen: a stream is about to be another one.
    pub fn begin_again(&self) {
        self.samples.lock().unwrap().clear();
    }

    /// Stops looking: what was seen.
    pub async fn stop(&mut self) -> Vec<Sample> {
        self.task.abort();
        // Aborted is how it ends.
        let _ = (&mut self.task).await;
        std::mem::take(&mut *self.samples.lock().unwrap())
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(js: &jetstream::Context) -> Option<Sample> {
    let name = (crate::world::CONSUMER, crate::world::SOURCE);
    let mut consumer = js.get_consumer_from_stream::<consumer::pull::Config, _, _>(name.0, name.1).await.ok()?;
    let mut floor = consumer.info().await.ok()?.ack_floor.stream_sequence;
    let source = info(js, crate::world::SOURCE).await?;
    if source.config.retention == stream::RetentionPolicy::WorkQueue {
        // What is there is not acknowledged, whatever the consumer of a server that was killed says: 2.9.10 restores some that have
        // passed messages which they never gave.
        floor = floor.min(source.state.first_sequence.saturating_sub(1));
    }
    let target = info(js, crate::world::TARGET).await?.state.last_sequence;
    let dead_letters = info(js, crate::world::DEAD_LETTERS).await?.state.last_sequence;
    Some(Sample { floor, target, dead_letters })
}

async fn info(js: &jetstream::Context, name: &str) -> Option<stream::Info> {
    let stream: stream::Stream = js.get_stream(name).await.ok()?;
    Some(stream.cached_info().clone())
}
