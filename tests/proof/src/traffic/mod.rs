//! Source events by seed, and the ledger of what was sent.

mod change;
mod feeder;
mod generator;
mod ledger;
mod row;

pub use change::{Change, Expect, Identity};
pub(crate) use change::{Envelope, Metadata};
pub use feeder::Feeder;
pub use generator::{Generator, Mix};
pub(crate) use ledger::hash;
pub use ledger::{Ledger, Sent};
pub(crate) use row::target;
