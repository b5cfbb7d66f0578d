//! Declared tables, as a file declares them: held against the typed rows, refused where they are wrong, and used by the program.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod declarations;
mod differential;
mod events;
mod mistakes;
mod places;
mod tools;

use std::io::Write;
use std::path::Path;

use daisi_cdc_consumer::bootstrap::settings;
use daisi_cdc_consumer::config::Config;
use daisi_cdc_consumer::domain::CdcTransform;

/// A file that is there while it is used.
fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// The transform of a file under some settings, named as in the environment without its prefix.
fn transform(path: Option<&Path>, set: &[(&str, &str)]) -> CdcTransform {
    let env = set.iter().map(|(name, value)| (format!("DAISI_CDC_{name}"), (*value).to_owned()));
    let config = Config::load(path, env).unwrap_or_else(|error| panic!("{error}"));
    CdcTransform::new(settings::transform(&config))
}
