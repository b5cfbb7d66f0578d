//! The end of a scenario: everything heals, the rest comes out, and the judge reads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{DEAD_LETTERS, Peaks, TARGET, World};
use crate::judge::{self, Findings, Harvest, Letter, Rules};
use crate::replica::Metrics;
use crate::scenarios::Scenario;

/// Resident memory that no life of the service may exceed, in bytes.
const MOST_RESIDENT: u64 = 400 << 20;
/// File descriptors that no life of the service may exceed.
const MOST_DESCRIPTORS: usize = 256;
/// The service's default for `in_flight.messages`.
const MOST_IN_FLIGHT: f64 = 4096.0;

/// What came of one run.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The scenario.
    pub scenario: String,
    /// The defence that the service ran without, for a control.
    pub without: Option<String>,
    /// What it was drawn from.
    pub seed: u64,
    /// The version of nats-server.
    pub nats: String,
    /// Transform actors of each process.
    pub workers: usize,
    /// Processes that were started.
    pub lives: usize,
    /// What the judge found.
    pub findings: Findings,
    /// From healing to the last acknowledgement, in seconds.
    pub recovery_seconds: f64,
    /// The whole run, in seconds.
    pub seconds: f64,
    /// The highest resident memory of any life, in bytes.
    pub peak_resident: u64,
    /// What the story counted.
    pub counts: BTreeMap<String, u64>,
    /// What did not hold; empty is what it should be.
    pub broken: Vec<String>,
}

impl World {
    /// Heals everything, waits for the rest, ends the replicas and judges.
    pub async fn finish(mut self, scenario: &Scenario) -> Outcome {
        self.pause_load().await;
        let healed = Instant::now();
        self.heal().await;
        self.until_idle().await;
        let recovery = healed.elapsed();
        self.check_words(scenario).await;
        let counted = self.counted().await;
        self.end_replicas(scenario).await;
        let findings = self.judge(scenario, counted).await;
        self.check_bounds();
        self.check_secrets();
        self.count_stalls();
        if !self.broken.is_empty() && self.options.without.is_none() {
            self.keep_ledger();
        }
        self.outcome(scenario, findings, recovery)
    }

    async fn heal(&mut self) {
        for index in 0..self.posts.len() {
            self.posts[index].nats.heal();
            self.posts[index].redis.heal();
            self.signal(index, "CONT");
            self.start_replica(index).await;
        }
    }

    async fn end_replicas(&mut self, scenario: &Scenario) {
        for index in 0..self.posts.len() {
            if self.posts[index].life.is_none() {
                continue;
            }
            let status = self.terminate(index).await;
            let fine = status == Some(0) || scenario.allowed.ended;
            self.expect(fine, format!("exit status 0 at the end, not {status:?}"));
        }
    }

    async fn judge(&mut self, scenario: &Scenario, counted: Option<Metrics>) -> Findings {
        let rules =
            Rules { across_replicas: self.posts.len() > 1, excused: self.excused.clone(), fair_end: self.fair_end };
        let samples = self.sampler.stop().await;
        let mut harvest = judge::read(&self.js, TARGET, DEAD_LETTERS).await;
        for event in &mut harvest.stored {
            event.author = event.id.as_ref().and_then(|id| self.authors.of(id, event.sequence));
        }
        let sent = self.ledger.sent();
        let findings = judge::judge(&sent, &harvest, &samples, &rules);
        let unattributed = findings.unattributed;
        // Otherwise order within a life would not be judged, and nobody would know.
        self.expect(
            unattributed * 10 <= findings.stored,
            format!("nearly every event has a life: {unattributed} have none"),
        );
        if let Some(counted) = counted {
            self.check_counts(scenario, &counted, &harvest, &findings);
        }
        if scenario.calm {
            let marked = harvest.stored.iter().filter(|event| event.late.is_some()).count();
            self.expect(marked == 0, format!("no event is marked late where nothing went wrong, not {marked}"));
        }
        for broken in findings.broken() {
            // No more than was under way when a life ended.
            let under_way = MOST_IN_FLIGHT as usize * self.posts.iter().flat_map(|post| post.lives()).count();
            let few = findings.doubled.count <= under_way;
            let excused = scenario.allowed.doubled && few && broken.symptom == judge::Symptom::Doubled
                || scenario.allowed.lost && broken.symptom == judge::Symptom::Lost;
            if !excused {
                self.broken.push(broken.to_string());
            }
        }
        if !self.broken.is_empty() && self.options.without.is_none() {
            self.keep_harvest(&harvest);
        }
        // The saboteur has nothing to explain.
        let program = &self.options.program;
        if program.sabotage.is_none() {
            let differences = judge::explain(&program.binary, &sent, &harvest, self.options.explained).await;
            self.broken.extend(differences);
        }
        findings
    }

    /// What stands in target and dead letters, beside the ledger: for whoever looks for the cause.
    fn keep_harvest(&self, harvest: &Harvest) {
        let target = harvest.stored.iter().map(|event| {
            let (id, late) = (event.id.as_deref().unwrap_or("-"), event.late.as_deref().unwrap_or("-"));
            let author = event.author.map_or("-".to_owned(), |life| format!("life-{}", life.0));
            format!("{}\t{id}\t{late}\t{author}\n", event.sequence)
        });
        let letters = harvest.letters.iter().map(|letter| {
            let Letter { sequence, source_sequence, reason, parts, original } = letter;
            let whole = if original.is_ok() { "whole" } else { "broken" };
            format!("{sequence}\t{source_sequence}\t{reason}\t{parts}\t{whole}\n")
        });
        for (name, lines) in [("target", target.collect::<String>()), ("dead-letters", letters.collect())] {
            std::fs::write(self.directory.path().join(name), lines).unwrap();
        }
    }

    /// What was sent and what was said, for whoever looks into it.
    fn keep_ledger(&mut self) {
        for (id, replica) in self.posts.iter().flat_map(|post| post.lives()) {
            std::fs::write(self.directory.path().join(format!("life-{}.log", id.0)), replica.log()).unwrap();
        }
        self.directory.disable_cleanup(true);
        self.broken.push(format!("ledger, streams and logs are in {}", self.directory.path().display()));
    }

    /// A consumer that stands still is the server's defect: told, not judged.
    fn count_stalls(&mut self) {
        let lives = self.posts.iter().flat_map(|post| post.lives());
        let stalls: usize = lives.map(|(_, life)| life.log().matches("the consumer stands still").count()).sum();
        if stalls > 0 {
            self.count("consumers that stood still", stalls as u64);
        }
    }

    fn check_bounds(&mut self) {
        let peaks = self.peaks();
        let bytes = self.in_flight_bytes.unwrap_or(64 << 20);
        let resident = self.resident.unwrap_or(MOST_RESIDENT);
        self.expect(peaks.resident <= resident, format!("at most {resident} bytes resident: {peaks:?}"));
        self.expect(
            peaks.descriptors <= MOST_DESCRIPTORS,
            format!("at most {MOST_DESCRIPTORS} descriptors: {peaks:?}"),
        );
        self.expect(peaks.in_flight <= MOST_IN_FLIGHT, format!("at most {MOST_IN_FLIGHT} in flight: {peaks:?}"));
        self.expect(peaks.in_flight_bytes <= bytes as f64, format!("at most {bytes} bytes in flight: {peaks:?}"));
    }

    fn check_secrets(&mut self) {
        let secrets = [self.nats.password(), self.redis.password.clone()];
        let lives: Vec<_> = self.posts.iter().flat_map(|post| post.lives().map(|(_, life)| Arc::clone(life))).collect();
        for replica in lives {
            let told = secrets.iter().any(|secret| replica.log().contains(secret));
            self.expect(!told, "no secret in any log");
        }
    }

    fn peaks(&self) -> Peaks {
        self.posts.iter().fold(Peaks::default(), |peaks, post| peaks.max(post.peaks()))
    }

    fn outcome(self, scenario: &Scenario, findings: Findings, recovery: Duration) -> Outcome {
        Outcome {
            scenario: scenario.name.to_owned(),
            without: self.options.without.clone(),
            seed: self.options.seed,
            nats: self.nats.version.clone(),
            workers: self.workers,
            lives: self.posts.iter().map(|post| post.lives().count()).sum(),
            findings,
            recovery_seconds: recovery.as_secs_f64(),
            seconds: self.begun.elapsed().as_secs_f64(),
            peak_resident: self.peaks().resident,
            counts: self.counts,
            broken: self.broken,
        }
    }
}
