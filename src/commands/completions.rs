//! `completions`: what shells complete the command line with.

use std::io;

use clap_complete::Shell;

use super::{ended, output};
use crate::cli::{self, CompletionsArgs, ExitStatus};

/// Prints the completions of a shell.
pub fn completions(arguments: &CompletionsArgs) -> ExitStatus {
    let mut definition = cli::definition();
    let name = definition.get_name().to_owned();
    // Written at once: a reader that closes early must not turn into a panic in the middle.
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition, &name, &mut text);
    if arguments.shell == Shell::Bash {
        text = reachable(&text, &name);
    }
    let written = output::write(&mut io::stdout(), &text);
    ended(written.map(|()| ExitStatus::Success).map_err(Into::into))
}

/// clap_complete writes a hyphen of the program's name in one way where it finds out what is completed and in another where it
/// completes it, so that nothing is completed behind a command: <https://github.com/clap-rs/clap/issues/6421> and 6529.
fn reachable(script: &[u8], name: &str) -> Vec<u8> {
    let (sought, found) = (name.replace('-', "__subcmd__"), name.replace('-', "__"));
    String::from_utf8_lossy(script).replace(&sought, &found).into_bytes()
}
