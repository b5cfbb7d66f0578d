//! Real change data: a PostgreSQL workload, its logical replication in Sequin's shape, and the tables rebuilt from what the
//! service published.

mod bridge;
mod decode;
mod rebuild;
mod workload;

pub use bridge::Bridge;
pub use rebuild::differences;
pub use workload::{Workload, prepare};
