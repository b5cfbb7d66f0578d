//! `completions`: what shells complete the command line with.

use std::io;

use super::{ended, output};
use crate::cli::{self, CompletionsArgs, ExitStatus};

/// Prints the completions of a shell.
pub fn completions(arguments: &CompletionsArgs) -> ExitStatus {
    let mut definition = cli::definition();
    let name = definition.get_name().to_owned();
    // Written at once: a reader that closes early must not turn into a panic in the middle.
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition, name, &mut text);
    let written = output::write(&mut io::stdout(), &text);
    ended(written.map(|()| ExitStatus::Success).map_err(Into::into))
}
