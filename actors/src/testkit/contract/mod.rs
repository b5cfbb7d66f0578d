//! What every implementation of a port must do, as suites that panic where one does not.
//!
//! A suite takes the port and, where the port alone cannot show what happened, a bench: the test's own view of the server behind it.

mod dead_letters;
mod dedup;
mod publisher;
mod source;

pub use dead_letters::{DeadLetterBench, dead_letters_contract};
pub use dedup::{dedup_store_contract, malformed_records_contract};
pub use publisher::{PublisherBench, publisher_contract};
pub use source::{SourceBench, source_contract};
