//! The scanner and the payloads of the service, without the rest of it.

#[path = "../common/src/payload.rs"]
mod payload;
#[path = "../../src/domain/scan.rs"]
mod scan;

pub use payload::{Size, message};
pub use scan::Scanner;
