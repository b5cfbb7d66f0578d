//! Passes so many medium events through all actors, transform and metrics, on ports that answer at once; or, with a configuration
//! named, through its transform alone, their columns in an order that is named as well. Run under callgrind, the difference between two numbers of events is what events cost:
//! `scripts/instructions.sh`.

use std::hint::black_box;

use actix_rt::System;
use cdc_actors::message::Verdict;
use cdc_actors::ports::Transform;
use cdc_bench::Size;
use cdc_bench::order::{Order, deliveries};
use cdc_bench::path::{Case, Path};
use cdc_bench::shapes::stream;
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
        None => whole_path(events as u64),
        Some(file) => {
            let order = arguments.next().map_or(Ok(Order::Same), |order| order.parse()).expect("an order");
            transform_alone(events, &file, order);
        }
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

/// Deliveries that come again and again; numbers of events should be multiples of it.
const DELIVERIES: usize = 500;

fn transform_alone(events: usize, file: &str, order: Order) {
    let config = Config::load(Some(file.as_ref()), []).expect("a configuration");
    let transform = CdcTransform::new(settings::transform(&config));
    let deliveries = deliveries(Size::Medium, order, DELIVERIES);
    for delivery in deliveries.iter().cycle().take(events) {
        let (_, parsed) = transform.order(black_box(delivery));
        let decision = black_box(transform.decide(delivery, parsed));
        assert!(matches!(decision.verdict, Verdict::Publish(_)), "{:?}", decision.verdict);
    }
}
