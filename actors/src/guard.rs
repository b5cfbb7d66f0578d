//! Counts consecutive failures and says when the service should give up and be restarted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::ports::Dependency;

/// When the guard trips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardSettings {
    /// Failures in a row that trip it, once the streak is `min_duration` old.
    pub max_consecutive_failures: u64,
    /// How old a streak must be before its count matters.
    pub min_duration: Duration,
    /// The age at which a streak trips it whatever its count.
    pub max_duration: Duration,
}

/// What a call tells of its dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Whether it answers.
    Answers,
    /// Whether it takes what it is for; a target that is full answers all the same.
    Stores,
}

/// What a success means for the streak of its dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Success {
    /// There was none.
    Nothing,
    /// It is over.
    Ends,
    /// The dependency answers, and did so while it took nothing: whether it does now only trying can tell.
    SaysNothing,
}

#[derive(Debug, Clone, Copy)]
struct Streak {
    failures: u64,
    since: Instant,
    /// It has answered meanwhile, and taken nothing.
    stores_nothing: bool,
}

/// One streak per dependency; only a success of the same dependency ends it, and where it answered and stored nothing only one that
/// stores.
#[derive(Debug)]
pub struct Guard {
    settings: GuardSettings,
    streaks: HashMap<Dependency, Streak>,
}

impl Guard {
    /// A guard without streaks.
    pub fn new(settings: GuardSettings) -> Self {
        Self { settings, streaks: HashMap::new() }
    }

    /// Trips by these settings from now on; the streaks stay.
    pub fn follow(&mut self, settings: GuardSettings) {
        self.settings = settings;
    }

    /// Counts a failed call and returns the length of the streak.
    pub fn failed(&mut self, dependency: Dependency, evidence: Evidence, now: Instant) -> u64 {
        let streak =
            self.streaks.entry(dependency).or_insert(Streak { failures: 0, since: now, stores_nothing: false });
        streak.failures += 1;
        streak.stores_nothing |= evidence == Evidence::Stores;
        streak.failures
    }

    /// A call succeeded, which may end the streak.
    pub fn succeeded(&mut self, dependency: Dependency, evidence: Evidence) -> Success {
        let Some(streak) = self.streaks.get(&dependency) else { return Success::Nothing };
        if streak.stores_nothing && evidence == Evidence::Answers {
            return Success::SaysNothing;
        }
        self.streaks.remove(&dependency);
        Success::Ends
    }

    /// Says why it trips now, if it does.
    pub fn tripped(&self, now: Instant) -> Option<String> {
        self.streaks.iter().find_map(|(dependency, streak)| {
            let age = now.saturating_duration_since(streak.since);
            let counted =
                streak.failures >= self.settings.max_consecutive_failures && age >= self.settings.min_duration;
            (counted || age >= self.settings.max_duration)
                .then(|| format!("{dependency} failed {} times in a row over {} s", streak.failures, age.as_secs()))
        })
    }
}

/// How often an actor may die before it counts as one that cannot be kept alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartLimit {
    /// Deaths tolerated within `window`.
    pub deaths: usize,
    /// The window.
    pub window: Duration,
}

/// The deaths of one actor.
#[derive(Debug, Default)]
pub struct Restarts(Vec<Instant>);

impl Restarts {
    /// Notes a death; true if there were too many.
    pub fn died(&mut self, limit: RestartLimit, now: Instant) -> bool {
        self.0.retain(|at| now.saturating_duration_since(*at) < limit.window);
        self.0.push(now);
        self.0.len() > limit.deaths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: GuardSettings = GuardSettings {
        max_consecutive_failures: 3,
        min_duration: Duration::from_secs(10),
        max_duration: Duration::from_secs(60),
    };

    #[test]
    fn trips_on_count_only_when_the_streak_is_old_enough() {
        let (mut guard, start) = (Guard::new(SETTINGS), Instant::now());
        for _ in 0..5 {
            guard.failed(Dependency::Dedup, Evidence::Answers, start);
        }
        assert_eq!(guard.tripped(start + Duration::from_secs(9)), None);
        assert!(guard.tripped(start + Duration::from_secs(10)).is_some());
    }

    #[test]
    fn trips_on_age_alone() {
        let (mut guard, start) = (Guard::new(SETTINGS), Instant::now());
        guard.failed(Dependency::Target, Evidence::Answers, start);
        assert_eq!(guard.tripped(start + Duration::from_secs(59)), None);
        assert!(guard.tripped(start + Duration::from_secs(60)).is_some());
    }

    #[test]
    fn only_a_success_of_the_same_dependency_ends_a_streak() {
        let (mut guard, start) = (Guard::new(SETTINGS), Instant::now());
        for _ in 0..3 {
            guard.failed(Dependency::Target, Evidence::Answers, start);
            assert_eq!(guard.succeeded(Dependency::Dedup, Evidence::Stores), Success::Nothing);
        }
        assert!(guard.tripped(start + Duration::from_secs(10)).is_some());
        assert_eq!(guard.succeeded(Dependency::Target, Evidence::Answers), Success::Ends);
        assert_eq!(guard.tripped(start + Duration::from_secs(100)), None);
    }

    #[test]
    fn who_answers_and_stores_nothing_has_not_succeeded() {
        let (mut guard, start) = (Guard::new(SETTINGS), Instant::now());
        guard.failed(Dependency::Target, Evidence::Stores, start);
        assert_eq!(guard.succeeded(Dependency::Target, Evidence::Answers), Success::SaysNothing);
        assert!(guard.tripped(start + Duration::from_secs(60)).is_some());
        // Gone and back: it has stored nothing all the same.
        guard.failed(Dependency::Target, Evidence::Answers, start);
        assert_eq!(guard.succeeded(Dependency::Target, Evidence::Answers), Success::SaysNothing);
        assert_eq!(guard.succeeded(Dependency::Target, Evidence::Stores), Success::Ends);
    }

    #[test]
    fn an_actor_that_keeps_dying_is_noticed() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        let limit = RestartLimit { deaths: 2, window: Duration::from_secs(60) };
        assert!(!restarts.died(limit, start));
        assert!(!restarts.died(limit, start));
        assert!(restarts.died(limit, start));
        assert!(!restarts.died(limit, start + limit.window), "those before have left the window");
        assert!(!restarts.died(limit, start + limit.window * 3 / 2));
        assert!(restarts.died(limit, start + limit.window * 2 - Duration::from_nanos(1)));
    }
}
