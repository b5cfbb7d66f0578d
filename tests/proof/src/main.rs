//! The command line of the proof.
#![allow(clippy::unwrap_used, reason = "a harness that cannot go on must stop, and say where")]

use std::path::PathBuf;
use std::process::ExitCode;

use cdc_proof::runner::{self, Plan};
use cdc_proof::servers::NatsVersion;
use clap::{Parser, Subcommand};

/// Runs the service through faults on real servers and judges what came out.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the scenarios: name, fault, expectation.
    List,
    /// Runs scenarios; exit status 1 if an invariant was broken or a control passed.
    Run(RunArguments),
}

#[derive(clap::Args)]
struct RunArguments {
    /// Names of scenarios; all if there are none.
    names: Vec<String>,
    /// The program under test.
    #[arg(long, default_value = "target/release/daisi-cdc-consumer")]
    binary: PathBuf,
    /// The same service with a saboteur before its ports, for controls and for actors that die.
    #[arg(long, default_value = "target/release/saboteur")]
    saboteur: PathBuf,
    /// Draws traffic and faults; the same seed replays a run.
    #[arg(long)]
    seed: Option<u64>,
    /// How often each scenario is run, with seed, seed + 1 and so on.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// The nats-server: oldest or newest supported; both if it is not given.
    #[arg(long)]
    nats: Option<NatsVersion>,
    /// Only scenarios that take seconds.
    #[arg(long)]
    fast: bool,
    /// Runs the service without a defence instead, again and again, which must fail.
    #[arg(long)]
    controls: bool,
    /// How many run side by side.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Messages of the scenario `backlog`.
    #[arg(long, default_value_t = 200_000)]
    backlog: u64,
    /// Seconds of the scenarios `everything-at-once` and `everything-remembered`.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Events of each run whose payload is held against `explain`.
    #[arg(long, default_value_t = 5)]
    explained: usize,
    /// A file that gets one JSON object a run.
    #[arg(long)]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match Arguments::parse().command {
        Command::List => {
            runner::list();
            ExitCode::SUCCESS
        }
        Command::Run(arguments) => match runtime.block_on(runner::run(&arguments.plan())) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
    }
}

impl RunArguments {
    fn plan(self) -> Plan {
        Plan {
            names: self.names,
            binary: self.binary,
            // Any seed will do: it is printed with every run.
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..1_000_000)),
            runs: self.runs,
            nats: self.nats.map_or_else(|| vec![NatsVersion::Oldest, NatsVersion::Newest], |version| vec![version]),
            fast: self.fast,
            controls: self.controls,
            saboteur: Some(self.saboteur),
            jobs: self.jobs,
            backlog: self.backlog,
            duration: std::time::Duration::from_secs(self.seconds),
            explained: self.explained,
            report: self.report,
        }
    }
}
