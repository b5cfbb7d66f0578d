//! What the service knows about change events, free of any input and output.
//!
//! The way of an event, and where each step lives:
//!
//! 1. [`subject`] reads the subject it came under: an event of a table that is not allowed goes no further.
//! 2. [`scan`] goes over the payload once, for [`change`], which reads the envelope `{record, changes, action, metadata}`; what
//!    matters of it is kept by its place in the payload ([`excerpt`]), record and changes stay as they are.
//! 3. [`table`], [`mod@column`] and [`tables`] read the record as a typed row and find its key and routing values.
//! 4. [`event_key`], [`subject`] and [`enriched`] build identity, target subject and payload.
//! 5. [`transform`] puts the steps together behind the port of the actors; [`mod@explain`] shows a decision to people,
//!    [`mod@trace`] how it came about.
//!
//! Whatever cannot be published is a [`error::Poison`], which knows its dead-letter reason and never shows a value of the row.

pub mod change;
pub mod column;
pub mod enriched;
pub mod error;
pub mod event_key;
pub mod excerpt;
pub mod explain;
mod json;
pub mod scan;
pub mod settings;
pub mod subject;
pub mod table;
pub mod tables;
pub mod trace;
pub mod transform;

#[cfg(test)]
mod tests;

pub use explain::{Explanation, explain};
pub use settings::{TableSettings, Tables, TransformConfig, UnhandledFields, UnsafeTokens};
pub use subject::{decode_token, encode_token};
pub use trace::{Place, Trace, trace};
pub use transform::{CdcTransform, ORIGINAL_ID, REPLAYS};
