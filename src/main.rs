//! Reads the command line, runs the command, ends with its exit status.

use std::process::ExitCode;

use daisi_cdc_consumer::cli::{self, Command, ExitStatus};
use daisi_cdc_consumer::{commands, demo, privacy};

/// Events are built on one thread and dropped on another, several allocations each: the allocator of glibc takes half as
/// much CPU again for an event (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    privacy::tell_panics_on_standard_error();
    if let Err(error) = privacy::forbid_core_dumps() {
        eprintln!("core dumps could not be forbidden: {error}");
    }
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(refused) => {
            // Nowhere left to say that it cannot be said.
            let _ = refused.print();
            return refused.status().into();
        }
    };
    let status = match command {
        Command::Explain(arguments) => commands::explain(&arguments),
        Command::Run(arguments) => in_system(commands::run(arguments)),
        Command::Check(arguments) => in_system(commands::check(arguments)),
        Command::Healthcheck(arguments) => commands::healthcheck(&arguments),
        Command::Test(arguments) => commands::test(&arguments),
        Command::Preview(arguments) => in_system(commands::preview(arguments)),
        Command::Generate(arguments) => in_system(commands::generate(arguments)),
        Command::DeadLetters(command) => in_system(commands::dead_letters(command)),
        Command::Schema => commands::schema(),
        Command::Completions(arguments) => commands::completions(&arguments),
        Command::Demo(arguments) => in_system(demo::run(arguments)),
    };
    status.into()
}

fn in_system(command: impl Future<Output = ExitStatus>) -> ExitStatus {
    actix_rt::System::new().block_on(command)
}
