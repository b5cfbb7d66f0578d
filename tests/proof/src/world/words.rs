//! What the service says of itself, held against what is so.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::replicas::dependency_up;
use super::{PAUSE, World};
use crate::judge::{Findings, Harvest};
use crate::replica::Metrics;
use crate::scenarios::Scenario;

/// What is nothing once all is well.
const NOTHING_LEFT: [&str; 4] =
    ["cdc_consumer_in_flight", "cdc_consumer_in_flight_bytes", "cdc_consumer_pending", "cdc_consumer_lag_seconds"];
/// How long readiness may take once all is well.
const PATIENCE: Duration = Duration::from_secs(30);

impl World {
    /// Readiness and figures, now that all is well again.
    pub(super) async fn check_words(&mut self, scenario: &Scenario) {
        if scenario.allowed.ended {
            return;
        }
        for index in 0..self.posts.len() {
            self.until_ready(index).await;
            for gauge in NOTHING_LEFT {
                self.until_metric(index, gauge, |value| value == 0.0).await;
            }
            for dependency in ["source", "target", "dead_letter", "dedup"] {
                self.until_metric(index, &dependency_up(dependency), |value| value == 1.0).await;
            }
        }
    }

    /// Waits until a replica says that it is ready.
    pub async fn until_ready(&mut self, index: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.readiness(index).await != Some(200) {
            if Instant::now() > deadline {
                return self.expect(false, format!("/readyz of replica {index} is 200 once all is well"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What the process has counted, if it is the only one of the run and its target has been the only one.
    pub(super) async fn counted(&self) -> Option<Metrics> {
        let mut lives = self.posts.iter().flat_map(|post| post.lives());
        let (Some((_, life)), None, false) = (lives.next(), lives.next(), self.target_changed) else { return None };
        life.metrics().await.ok()
    }

    /// Holds what the only process has counted against what there is. What was delivered again may have counted twice, the first
    /// time as published, or only then, as a duplicate; where nothing went wrong everything counts once.
    pub(super) fn check_counts(
        &mut self,
        scenario: &Scenario,
        counted: &Metrics,
        harvest: &Harvest,
        findings: &Findings,
    ) {
        let result = |result: &str| counted.value(&format!("cdc_consumer_events_total{{result={result:?}}}"));
        let again = if scenario.calm { 0.0 } else { result("duplicate") };
        let letters = harvest.letters.len();
        let pairs = [
            ("events processed", result("processed") + again, harvest.stored.len()),
            ("events dead-lettered", result("dead_lettered"), letters),
            ("events skipped", result("skipped"), findings.skipped),
            ("dead letters", counted.value("cdc_consumer_dead_letters_total"), letters),
        ];
        for (what, counted, found) in pairs {
            let holds = if scenario.calm { counted == found as f64 } else { counted >= found as f64 };
            self.expect(holds, format!("{what} are counted: {counted}, of {found}"));
        }
        let late = harvest.stored.iter().filter(|event| event.late.is_some()).count();
        let counted_late = counted.value("cdc_consumer_late_total");
        self.expect(counted_late >= late as f64, format!("late events are counted: {counted_late}, of {late}"));
        let mut reasons: HashMap<&str, usize> = HashMap::new();
        for letter in &harvest.letters {
            *reasons.entry(&letter.reason).or_default() += 1;
        }
        for (reason, found) in reasons {
            let counted = counted.value(&format!("cdc_consumer_dead_letters_total{{reason={reason:?}}}"));
            self.expect(counted >= found as f64, format!("{found} dead letters for {reason} are counted: {counted}"));
        }
    }
}
