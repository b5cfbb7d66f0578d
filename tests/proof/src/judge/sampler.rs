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
    /// How often the source had been created again before.
    pub epoch: u64,
    /// Every message of the source up to this sequence is acknowledged: the consumer says so, and a work queue holds none of them.
    pub floor: u64,
    /// The last sequence of the target.
    pub target: u64,
    /// The last sequence of the dead letters.
    pub dead_letters: u64,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    /// Rises when a stream is about to be another one, and again when it is.
    life: u64,
    /// Between the two nothing that is seen can be told from what was before.
    changing: bool,
    epoch: u64,
    samples: Vec<Sample>,
}

impl Seen {
    /// What a look that begins now has to tell when it ends; `None` if it should not begin.
    fn begin(&self) -> Option<u64> {
        (!self.changing).then_some(self.life)
    }

    /// A look has ended. One that began before a stream was another tells of no moment.
    fn add(&mut self, begun: u64, look: Sample) {
        let sample = Sample { epoch: self.epoch, ..look };
        if begun == self.life && !self.changing && self.samples.last() != Some(&sample) {
            self.samples.push(sample);
        }
    }

    fn turn(&mut self, changing: bool) {
        self.life += 1;
        self.changing = changing;
    }
}

/// Looks until it is stopped.
#[derive(Debug)]
pub struct Sampler {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Sampler {
    /// Begins to look at the service's streams.
    pub fn start(js: jetstream::Context) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let begun = shared.lock().unwrap().begin();
                // A stream or server that is away gives no sample.
                if let Some(begun) = begun
                    && let Some(sample) = look(&js).await
                {
                    shared.lock().unwrap().add(begun, sample);
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self { seen, task }
    }

    /// A stream is about to be another one: nothing counts that is seen until it is.
    pub fn stream_changes(&self) {
        self.seen.lock().unwrap().turn(true);
    }

    /// The source is another one, whose sequences start over.
    pub fn source_changed(&self) {
        let mut seen = self.seen.lock().unwrap();
        seen.turn(false);
        seen.epoch += 1;
    }

    /// The target is another one, or of an earlier moment: its sequences of before say nothing any more.
    pub fn target_changed(&self) {
        let mut seen = self.seen.lock().unwrap();
        seen.turn(false);
        seen.samples.clear();
    }

    /// Stops looking: what was seen.
    pub async fn stop(&mut self) -> Vec<Sample> {
        self.task.abort();
        // Aborted is how it ends.
        let _ = (&mut self.task).await;
        std::mem::take(&mut self.seen.lock().unwrap().samples)
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
    Some(Sample { epoch: 0, floor, target, dead_letters })
}

async fn info(js: &jetstream::Context, name: &str) -> Option<stream::Info> {
    let stream: stream::Stream = js.get_stream(name).await.ok()?;
    Some(stream.cached_info().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(epoch: u64, floor: u64) -> Sample {
        Sample { epoch, floor, target: 9, dead_letters: 9 }
    }

    #[test]
    fn a_look_counts_only_if_it_begins_and_ends_between_two_changes() {
        let mut seen = Seen::default();
        let before = seen.begin().unwrap();
        seen.add(before, sample(0, 1));
        seen.turn(true);
        assert_eq!(seen.begin(), None);
        seen.add(before, sample(0, 2));
        seen.turn(false);
        seen.epoch += 1;
        seen.add(before, sample(0, 3));
        let after = seen.begin().unwrap();
        seen.add(after, sample(0, 4));
        seen.add(after, sample(0, 4));
        assert_eq!(seen.samples, [sample(0, 1), sample(1, 4)]);
    }
}
