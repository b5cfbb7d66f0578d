//! What a dying process may tell: its place, and none of the data it held.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::panic::{self, PanicHookInfo};

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use slog::{Logger, error};

/// No core dump is ever written of this process: neither to a file nor to a program that collects them, which heeds no size limit.
/// It also keeps other processes of the same user from reading its memory.
///
/// # Errors
/// If the system refuses, which Linux has no reason to.
pub fn forbid_core_dumps() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// From now on a panic is one line on standard error.
pub fn tell_panics_on_standard_error() {
    panic::set_hook(Box::new(|info| eprintln!("panicked at {}: {}{}", place(info), message(info), backtrace())));
}

/// From now on a panic is one line of this log.
pub fn tell_panics_in(logger: Logger) {
    panic::set_hook(Box::new(move |info| {
        error!(logger, "panicked"; "place" => place(info), "error" => message(info), "backtrace" => backtrace());
    }));
}

fn place(info: &PanicHookInfo<'_>) -> String {
    info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string)
}

/// A message that was put together when it happened may quote the data at hand, as those of slices of text and of `unwrap` do.
fn message<'a>(info: &PanicHookInfo<'a>) -> &'a str {
    info.payload().downcast_ref::<&str>().copied().unwrap_or("its message is withheld: it may quote data")
}

/// Names of functions and places in files, if RUST_BACKTRACE asks for them.
fn backtrace() -> String {
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured { format!("\n{backtrace}") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn there_is_no_core_dump() {
        forbid_core_dumps().expect("Linux allows it");
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
        assert_eq!(dumpable_behavior().ok(), Some(DumpableBehavior::NotDumpable));
    }
}
