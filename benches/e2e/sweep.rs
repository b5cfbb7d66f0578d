//! One factor at a time, and latency against load, as lines of CSV: `scripts/plots.py` makes the plots of docs/performance.md.

use cdc_bench::{Size, message};
use cdc_proof::replica::Settings;

use super::rig::{Contender, Cost, Load, Rig};
use super::{median_of, steady};

/// Bytes of payload that one point may put into the source: as many again come into the target.
const POINT_BYTES: u64 = 768 << 20;
/// The acks of the pass-through time out here: it waits for each in turn, and the client gives each five seconds.
const TOO_LARGE_TO_PASS_THROUGH: usize = 256_000;
/// Events a second at which latency is measured.
const RATES: [u32; 6] = [1_000, 2_500, 5_000, 10_000, 20_000, 40_000];

/// A point: what is varied, its value, and what that means.
struct Point {
    factor: &'static str,
    value: String,
    load: Load,
    settings: Settings,
}

fn points(base: Load) -> Vec<Point> {
    let point = |factor, value: &str, load, settings: &[(&str, &str)]| Point {
        factor,
        value: value.to_owned(),
        load,
        settings: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let mut points =
        vec![point("store", "redis", base, &[]), point("store", "memory", base, &[("dedup.store", "memory")])];
    points.extend([1, 1_000, base.events].map(|rows| point("rows", &rows.to_string(), Load { rows, ..base }, &[])));
    let backlogs = [10_000, 100_000, 800_000];
    points.extend(backlogs.map(|events| point("backlog", &events.to_string(), Load { events, ..base }, &[])));
    points.extend(["1", "2", "4", "8"].map(|workers| point("workers", workers, base, &[("workers", workers)])));
    points
        .extend([10, 90].map(|share| point("duplicates", &share.to_string(), Load { duplicates: share, ..base }, &[])));
    let sizes = [
        Size::Small,
        Size::Medium,
        Size::Large,
        Size::Bytes(16_000),
        Size::Bytes(64_000),
        Size::Bytes(TOO_LARGE_TO_PASS_THROUGH),
    ];
    for size in sizes {
        let bytes = message(size, 0, 0).len() as u64;
        let load = Load { size, events: base.events.min(POINT_BYTES / bytes), ..base };
        points.push(point("payload", &bytes.to_string(), load, &[]));
    }
    points
}

/// Measures every point: pass-through and service in turn.
pub async fn factors(rig: &Rig, base: Load, rounds: usize, common: &Settings) {
    println!("factor,value,contender,events,events_per_second,cpu_process,cpu_nats,cpu_redis,peak_mib");
    for Point { factor, value, load, settings } in points(base) {
        let settings = common.clone().into_iter().chain(settings).collect();
        rig.fill(load).await;
        let mut contenders = vec![(Contender::PassThrough, Vec::new()), (Contender::Service, Vec::new())];
        if load.size == Size::Bytes(TOO_LARGE_TO_PASS_THROUGH) {
            contenders.remove(0);
        }
        for _ in 0..rounds {
            for (contender, costs) in &mut contenders {
                costs.push(rig.run(*contender, &settings).await);
            }
        }
        for (contender, costs) in &contenders {
            let figure = |of: &dyn Fn(&Cost) -> f64| median_of(costs, of);
            println!(
                "{factor},{value},{contender:?},{},{:.0},{:.2},{:.2},{:.2},{:.1}",
                load.events,
                figure(&|cost| cost.events_per_second),
                figure(&|cost| cost.cpu[0]),
                figure(&|cost| cost.cpu[1]),
                figure(&|cost| cost.cpu[2]),
                figure(&Cost::peak_mib),
            );
        }
    }
}

/// Latency and cost at steady rates.
pub async fn load(rig: &Rig, base: Load, seconds: u32, settings: &Settings) {
    println!(
        "rate,published,p50_ms,p95_ms,p99_ms,p999_ms,cpu_process,resident_mib,peak_mib,acked_p50_ms,acked_p95_ms,acked_p99_ms,acked_p999_ms"
    );
    for rate in RATES {
        let figures = steady(rig, base, rate, seconds, settings).await;
        let [p50, p95, p99, p999] = figures.commit_to_published;
        let [a50, a95, a99, a999] = figures.received_to_acknowledged;
        println!(
            "{rate},{},{p50:.2},{p95:.2},{p99:.2},{p999:.2},{:.1},{:.1},{:.1},{a50},{a95},{a99},{a999}",
            figures.published, figures.cpu, figures.resident_mib, figures.peak_mib
        );
    }
}
