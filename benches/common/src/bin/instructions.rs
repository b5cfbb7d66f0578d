//! Passes so many medium events through all actors, transform and metrics, on ports that answer at once; or, with a configuration
//! named, through its transform alone. Run under callgrind, the difference between two numbers of events is what events cost:
//! `scripts/instructions.sh`.

use std::hint::black_box;

use actix_rt::System;
use cdc_actors::message::Verdict;
use cdc_actors::ports::Transform;
use cdc_bench::path::{Case, Path};
use cdc_bench::shapes::stream;
use cdc_bench::{Size, delivery};
use daisi_cdc_consumer::bootstrap::settings;
use daisi_cdc_consumer::config::Config;
use daisi_cdc_consumer::domain::CdcTransform;

/// As in the service.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let events = arguments.next().and_then(|count| count.parse().ok()).expect("a number of events");
    match arguments.next() {
        None => whole_path(events),
        Some(file) => transform_alone(events, &file),
    }
}

fn whole_path(events: u64) {
    let system = System::new();
    system.block_on(async {
        let path = Path::start(Case::Happy);
        path.pass(stream(&mut 0, events, Size::Medium, false)).await;
        path.stop().await;
    });
}

fn transform_alone(events: u64, file: &str) {
    let config = Config::load(Some(file.as_ref()), []).expect("a configuration");
    let (transform, delivery) = (CdcTransform::new(settings::transform(&config)), delivery(Size::Medium));
    for _ in 0..events {
        let (_, parsed) = transform.order(black_box(&delivery));
        let decision = black_box(transform.decide(&delivery, parsed));
        assert!(matches!(decision.verdict, Verdict::Publish(_)), "{:?}", decision.verdict);
    }
}
