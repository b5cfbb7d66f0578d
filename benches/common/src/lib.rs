//! What the benchmarks share: payloads of the makes that are measured, deliveries, and the pipeline on ports that answer at once.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a benchmark that cannot go on must stop")]

mod delivery;
pub mod order;
pub mod path;
mod payload;
pub mod shapes;

pub use delivery::delivery;
pub use payload::{Size, message};
