//! What the service knows about change events, free of any input and output.
//!
//! The way of an event, and where each step lives:
//!
//! 1. [`subject`] reads the subject it came under: an event of a table that is not allowed goes no further.
//! 2. [`scan`] goes over the payload once, for [`change`], which reads the envelope `{record, changes, action, metadata}`; what
//!    matters of it is kept by its place in the payload ([`excerpt`]), record and changes stay as they are.
//! 3. A [`table`] reads the record and finds what identifies, routes and decides: a typed row of [`tables`], or one that was
//!    [`declared`]. Its [`layout`] says what becomes of that, in the same words for both.
//! 4. [`event_key`], [`subject`] and [`enriched`] build identity, target subject and payload.
//! 5. [`transform`] puts the steps together behind the port of the actors; [`mod@explain`] shows a decision to people,
//!    [`mod@trace`] how it came about.
//!
//! A [`declaration`] is what users say of a table; [`plan`] makes a table of it, or tells everything that is wrong.
//!
//! Whatever cannot be published is a [`error::Poison`], which knows its dead-letter reason and never shows a value of the row.

pub mod change;
pub mod column;
pub mod declaration;
pub mod declared;
mod edits;
pub mod enriched;
pub mod error;
pub mod event_key;
pub mod excerpt;
pub mod explain;
mod filter;
mod json;
pub mod layout;
mod names;
pub mod path;
pub mod plan;
pub mod scan;
pub mod settings;
pub mod specimen;
pub mod subject;
pub mod table;
pub mod tables;
mod template;
pub mod trace;
pub mod transform;
mod wildcards;

#[cfg(test)]
mod tests;

pub use declaration::Declaration;
pub use declared::DeclaredTable;
pub use explain::{Explanation, explain, explain_for};
pub use plan::Mistake;
pub use settings::{TableSettings, Tables, TransformConfig, UnhandledFields, UnsafeTokens};
pub use subject::{decode_token, encode_token};
pub use trace::{Field, Filtered, Place, Routing, Tested, Trace, routed, trace};
pub use transform::{CdcTransform, ORIGINAL_ID, REPLAYS};
pub use wildcards::{cover, overlap};
