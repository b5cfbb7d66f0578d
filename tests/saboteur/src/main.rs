//! The service, with a saboteur between its actors and its ports.
//!
//! It is the library of the service, run as its own program runs it, but for one thing that the environment names in `SABOTAGE`
//! (names separated by commas; none of them for the service as it is):
//!
//! - a **defence taken out**: whatever a scenario proves, it must fail without the defence that it is about;
//! - `panics`: the transform panics on events that ask for it;
//! - `deaths`: each SIGUSR1 kills the next actor in turn, at the next call that it ends.
//!
//! Nothing of this is in the program that is shipped, nor can it be switched on there.

mod deaths;
mod defences;
mod records;
mod transform;

use std::process::ExitCode;
use std::sync::Arc;

use cdc_actors::pipeline::Ports;
use daisi_cdc_consumer::cli::{ConfigArgs, ExitStatus};
use daisi_cdc_consumer::commands;

use crate::defences::{Sabotage, Unknown};
use crate::transform::Sabotaged;

fn main() -> ExitCode {
    let names = std::env::var("SABOTAGE").unwrap_or_default();
    let sabotage = match names.parse::<Sabotage>() {
        Ok(sabotage) => sabotage,
        Err(Unknown(name)) => {
            eprintln!("SABOTAGE={names}: {name:?} is none of {:?}", Sabotage::NAMES);
            return ExitStatus::Usage.into();
        }
    };
    let run = commands::run_with(ConfigArgs::default(), |ports| {
        let ports = deaths::listen(&sabotage, ports);
        let Ports { source, transform, dedup, publisher, dead_letters, observer, clock } =
            defences::take_out(&sabotage, ports);
        let (spread, panics) = (sabotage.has("spread"), sabotage.has("panics"));
        let transform = Arc::new(Sabotaged { inner: transform, spread, panics });
        Ports { source, transform, dedup, publisher, dead_letters, observer, clock }
    });
    actix_rt::System::new().block_on(run).into()
}
