//! The files themselves: metrics that exist, alerts that somebody has written a page about.

use std::collections::BTreeSet;

use serde_json::Value;

use super::support::world::World;
use super::{poison, with_unknown_column};

/// The alert rules.
pub const RULES: &str = include_str!("../../k8s/components/alerts/rules.yaml");
const RULE_TESTS: &str = include_str!("../../k8s/components/alerts/rules.test.yaml");
const RUNBOOK: &str = include_str!("../../docs/runbook.md");
const DASHBOARD: &str = include_str!("../../k8s/components/dashboard/dashboard.json");
const SCALED_OBJECT: &str = include_str!("../../k8s/components/keda/scaled-object.yaml");

/// Names of the alerts.
fn alerts() -> Vec<&'static str> {
    RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

/// Every query of the dashboard, by the title of its panel.
pub fn dashboard_queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap();
        panel["targets"].as_array().into_iter().flatten().map(move |target| (title, target))
    });
    targets.map(|(title, target)| (title.to_owned(), target["expr"].as_str().unwrap().to_owned())).collect()
}

/// The names of metrics in a text, without what histograms append.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let starts = text.match_indices("cdc_consumer_").map(|(start, _)| &text[start..]);
    let names = starts.map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        rest[..end].trim_end_matches("_bucket").to_owned()
    });
    names.collect()
}

#[tokio::test]
async fn every_metric_that_is_asked_for_exists_and_every_metric_is_shown() {
    let world = World::new().await;
    let service = world.start();
    world.feed(&[poison(), with_unknown_column()]).await;
    world.adds_up(1, 1).await;
    let (_, text) = service.get("/metrics");
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let exist: BTreeSet<String> = types.map(str::to_owned).collect();
    assert!(exist.len() > 20, "{exist:?}");
    for (file, asked) in
        [("rules", RULES), ("rule tests", RULE_TESTS), ("scaling", SCALED_OBJECT), ("runbook", RUNBOOK)]
    {
        let unknown: Vec<_> = metrics_in(asked).difference(&exist).cloned().collect();
        assert_eq!(unknown, Vec::<String>::new(), "{file}");
    }
    let queries = dashboard_queries().into_iter().map(|(_, query)| query).collect::<Vec<_>>().join("\n");
    assert_eq!(metrics_in(&queries), exist, "the dashboard shows every metric, and no other");
    service.stop();
}

#[test]
fn every_alert_has_a_page_in_the_runbook_and_a_test() {
    let alerts = alerts();
    assert!(alerts.len() > 10);
    let sections: Vec<_> = RUNBOOK.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, alerts, "in the order of the rules");
    let links: Vec<_> = RULES.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")).collect();
    assert_eq!(links.len(), alerts.len());
    for (alert, link) in alerts.iter().zip(links) {
        let (page, place) = link.split_once('#').unwrap();
        assert_eq!(place, alert.to_lowercase());
        // As shipped, or wherever whoever runs it has put it.
        assert!(page == "docs/runbook.md" || page.contains("://"), "{page}");
        let (_, section) = RUNBOOK.split_once(&format!("## {alert}\n")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        for part in ["**Means.**", "**Look.**", "**Do.**"] {
            assert!(section.contains(part), "{alert}: {part}");
        }
        // Said to fire, and said to be silent.
        let named = format!("alertname: {alert}");
        assert!(RULE_TESTS.contains(&format!("{named}\n        exp_alerts:")), "{alert} is never seen firing");
        assert!(RULE_TESTS.contains(&format!("{named} }}")), "{alert} is never seen silent");
    }
}
