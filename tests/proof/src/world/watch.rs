//! Watches one life of the service from outside: what it uses, and what it says of itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::replica::Replica;

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// The highest that was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Peaks {
    /// Resident memory in bytes.
    pub resident: u64,
    /// Open file descriptors.
    pub descriptors: usize,
    /// Messages in flight, as `/metrics` says.
    pub in_flight: f64,
    /// Bytes in flight, as `/metrics` says.
    pub in_flight_bytes: f64,
}

impl Peaks {
    /// The higher of two, figure by figure.
    pub fn max(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            descriptors: self.descriptors.max(other.descriptors),
            in_flight: self.in_flight.max(other.in_flight),
            in_flight_bytes: self.in_flight_bytes.max(other.in_flight_bytes),
        }
    }
}

/// Looks at a process again and again until it is dropped.
#[derive(Debug)]
pub struct Watch {
    peaks: Arc<Mutex<Peaks>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins to watch.
    pub fn over(replica: &Arc<Replica>) -> Self {
        let peaks = Arc::new(Mutex::new(Peaks::default()));
        let (seen, replica) = (Arc::clone(&peaks), Arc::clone(replica));
        let task = tokio::spawn(async move {
            loop {
                let mut now = Peaks {
                    resident: replica.rss_bytes().unwrap_or_default(),
                    descriptors: replica.open_files().unwrap_or_default(),
                    ..Peaks::default()
                };
                if let Ok(metrics) = replica.metrics().await {
                    now.in_flight = metrics.value("cdc_consumer_in_flight");
                    now.in_flight_bytes = metrics.value("cdc_consumer_in_flight_bytes");
                }
                if let Ok(mut peaks) = seen.lock() {
                    *peaks = peaks.max(now);
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self { peaks, task }
    }

    /// What was seen so far.
    pub fn peaks(&self) -> Peaks {
        *self.peaks.lock().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
