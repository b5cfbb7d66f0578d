//! A real Prometheus scrapes the real service through an outage of Redis, and the right alerts fire and clear.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::files::{RULES, dashboard_queries};
use super::support::prometheus::Prometheus;
use super::support::world::World;
use super::{poison, traffic, with_unknown_column};

/// How long an alert may take, with rules that wait for seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// What follows from an outage of Redis.
const OUTAGE: [&str; 4] =
    ["CdcConsumerDependencyDown", "CdcConsumerGuardAboutToTrip", "CdcConsumerLagging", "CdcConsumerStalled"];
/// What may follow, if events were between publish and record just then.
const PERHAPS: &str = "CdcConsumerDedupUnrecorded";

/// The rules with a second wherever they say a minute, so that what takes ten minutes takes ten seconds.
fn hurried(rules: &str) -> String {
    let mut out = String::with_capacity(rules.len());
    let mut rest = rules;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        let ends = !after[1.min(after.len())..].starts_with(|c: char| c.is_ascii_alphanumeric());
        let number: u64 = digits.parse().unwrap();
        match after.chars().next() {
            Some('m') if ends => out.push_str(&format!("{number}s")),
            Some('h') if ends => out.push_str(&format!("{number}m")),
            _ => {
                out.push_str(digits);
                rest = after;
                continue;
            }
        }
        rest = &after[1..];
    }
    out.push_str(rest);
    // The one threshold that is a duration.
    assert!(out.contains("(cdc_consumer_lag_seconds) > 300"));
    out.replace("(cdc_consumer_lag_seconds) > 300", "(cdc_consumer_lag_seconds) > 5")
}

/// Waits until what fires is as wanted, and gives back the names.
async fn until(prometheus: &Prometheus, what: &str, wanted: impl Fn(&BTreeSet<String>) -> bool) -> BTreeSet<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let firing: BTreeSet<String> =
            prometheus.firing().iter().map(|labels| labels["alertname"].as_str().unwrap().to_owned()).collect();
        if wanted(&firing) {
            return firing;
        }
        assert!(Instant::now() < deadline, "{what}: after {PATIENCE:?} these fire: {firing:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn hurrying_changes_durations_alone() {
    let text =
        "for: 5m [10m] offset 1h; status 70 after 5 minutes, 500ms, 15min, P99 (cdc_consumer_lag_seconds) > 300\n1m";
    let hurried = hurried(text);
    assert_eq!(
        hurried,
        "for: 5s [10s] offset 1m; status 70 after 5 minutes, 500ms, 15min, P99 (cdc_consumer_lag_seconds) > 5\n1s"
    );
}

#[tokio::test]
async fn the_right_alerts_fire_and_clear_through_an_outage() {
    if !Prometheus::is_installed() {
        println!("SKIPPED: prometheus is not installed (Debian: prometheus)");
        return;
    }
    let mut world = World::new().await;
    let service = world.start();
    let prometheus = Prometheus::start("daisi-cdc-consumer", service.http(), &hurried(RULES));
    let traffic = traffic(&world);

    // Prometheus takes up to 5 s to begin, and till then may miss the service.
    until(&prometheus, "the first scrape", |firing| {
        firing.is_empty() && !prometheus.query("cdc_consumer_pending").unwrap().is_empty()
    })
    .await;
    // Healthy: events pass, for longer than any rule waits, and nothing fires.
    let deadline = Instant::now() + PATIENCE;
    let steady =
        "(count_over_time(cdc_consumer_pending[20s]) > 30) and on () (sum(rate(cdc_consumer_events_total[20s])) > 0)";
    while prometheus.query(steady).unwrap().is_empty() {
        assert_eq!(prometheus.firing(), Vec::<serde_json::Value>::new());
        assert!(Instant::now() < deadline, "no steady flow");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    world.redis.kill();
    let firing = until(&prometheus, "the outage", |firing| OUTAGE.iter().all(|name| firing.contains(*name))).await;
    assert!(firing.iter().all(|name| OUTAGE.contains(&name.as_str()) || name == PERHAPS), "{firing:?}");
    let down: Vec<_> =
        prometheus.firing().iter().filter_map(|labels| labels["dependency"].as_str().map(str::to_owned)).collect();
    assert_eq!(down, ["dedup", "dedup"], "DependencyDown and GuardAboutToTrip");
    world.redis.restart();
    until(&prometheus, "the end of the outage", BTreeSet::is_empty).await;

    world.feed(&[poison(), with_unknown_column()]).await;
    let data = ["CdcConsumerDeadLetters", "CdcConsumerUnhandledFields"];
    let firing =
        until(&prometheus, "events that are wrong", |firing| data.iter().all(|name| firing.contains(*name))).await;
    assert_eq!(firing.len(), data.len(), "{firing:?}");
    the_dashboard_shows_something_everywhere(&prometheus).await;
    until(&prometheus, "the dead letter is ten minutes old", |firing| !firing.contains(data[0])).await;

    traffic.abort();
    service.stop();
    until(&prometheus, "the service is gone", |firing| firing.contains("CdcConsumerAbsent")).await;
}

/// Every query is one that Prometheus takes and, once it has scraped often enough, finds something for.
async fn the_dashboard_shows_something_everywhere(prometheus: &Prometheus) {
    let queries = dashboard_queries();
    assert!(queries.len() > 20);
    let deadline = Instant::now() + PATIENCE;
    for (title, query) in queries {
        let query = query.replace("$__rate_interval", "60s").replace("$job", ".*");
        let found = || prometheus.query(&query).unwrap_or_else(|error| panic!("{title}: {query}: {error}"));
        while found().is_empty() {
            assert!(Instant::now() < deadline, "{title} shows nothing: {query}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
