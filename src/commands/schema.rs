//! `schema`: what config.yaml may hold, for editors.

use std::io;

use super::{ended, output};
use crate::cli::ExitStatus;
use crate::config;

/// Prints the JSON Schema of config.yaml.
pub fn schema() -> ExitStatus {
    let text = format!("{:#}\n", config::schema());
    let written = output::write(&mut io::stdout(), text.as_bytes());
    ended(written.map(|()| ExitStatus::Success).map_err(Into::into))
}
