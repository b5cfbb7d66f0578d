//! Reads what came out and judges it against what was sent.

mod explain;
mod findings;
mod letters;
mod order;
mod read;
mod sampler;
mod verdict;

pub use explain::explain;
pub use findings::{Broken, Findings, Symptom};
pub use letters::{Letter, Original};
pub use read::{Harvest, Stored, Told, read};
pub(crate) use read::{each, is_missing};
pub use sampler::{Sample, Sampler};
pub use verdict::{Rules, judge};
