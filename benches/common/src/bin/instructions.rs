//! Passes so many medium events through all actors, transform and metrics, on ports that answer at once. Run under callgrind,
//! the difference between two numbers of events is what events cost: `scripts/instructions.sh`.

use actix_rt::System;
use cdc_bench::Size;
use cdc_bench::path::{Case, Path};
use cdc_bench::shapes::stream;

/// As in the service.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let events = std::env::args().nth(1).and_then(|count| count.parse().ok()).expect("a number of events");
    let system = System::new();
    system.block_on(async {
        let path = Path::start(Case::Happy);
        path.pass(stream(&mut 0, events, Size::Medium, false)).await;
        path.stop().await;
    });
}
