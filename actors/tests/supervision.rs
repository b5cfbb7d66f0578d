//! Actors that die are noticed, counted and built again, and what they held comes again from the source.

mod bench;

use std::time::Duration;

use bench::{Bench, FOR_EVER, Fakes, paused_for, run, settings};
use cdc_actors::guard::{GuardSettings, RestartLimit};
use cdc_actors::ports::Dependency;
use cdc_actors::shared::Settings;
use cdc_actors::supervisor::ExitReason;
use cdc_actors::telemetry::PauseReason;
use cdc_actors::testkit::{Observed, unavailable};

/// Which actor dies when this operation panics.
const DEADLY: [(&str, &str, &str); 7] = [
    ("pull", "ingest", "publish"),
    ("settle", "ingest", "publish"),
    ("remark", "transform", "remark"),
    ("check", "dedup", "publish"),
    ("record", "dedup", "publish"),
    ("publish", "publish", "publish"),
    ("store", "publish", "poison"),
];

#[test]
fn an_actor_that_dies_is_built_again_and_what_it_held_is_processed() {
    // A single worker shares the thread of the others.
    let deadly = DEADLY.map(|deadly| (3, deadly)).into_iter().chain([(1, ("remark", "transform", "remark"))]);
    for (workers, (operation, actor, action)) in deadly {
        run(async move {
            let ack_wait = Duration::from_millis(400);
            let bench = Bench::start(Settings { workers, ack_wait, suspect_after: 1_000, ..settings() });
            bench.feed("a 1 publish");
            bench.until_done().await;
            bench.watch.panic_next(operation, 2);
            for n in 0..60 {
                bench.feed(format!("r{} {} {action}", n % 5, n + 1));
            }
            bench.until_done().await;
            bench.until("two deaths", |_| bench.restarts(actor) == 2).await;
            let total = bench.observer.count(|event| matches!(event, Observed::ActorRestarted { .. }));
            assert_eq!(total, 2, "{operation} kills {actor} alone");
            let ended = bench.publisher.stored().len() + bench.dead_letters.stored().len();
            assert_eq!(ended, 61, "{operation}");
            bench.stop().await;
        });
    }
}

#[test]
fn an_actor_that_keeps_dying_trips_the_guard() {
    run(async {
        let restarts = RestartLimit { deaths: 2, window: Duration::from_secs(60) };
        let mut bench = Bench::start(Settings { restarts, suspect_after: 1_000, ..settings() });
        bench.watch.panic_next("check", FOR_EVER);
        bench.feed("a 1 publish");
        let ended = bench.ended().await;
        assert!(matches!(&ended.reason, ExitReason::GuardTripped(why) if why.contains("dedup")), "{ended:?}");
        assert_eq!(bench.restarts("dedup"), 3);
        assert_eq!(bench.source.unacknowledged(), [1], "it was not lost");
    });
}

#[test]
fn intake_resumes_when_the_actor_that_knew_of_the_outage_is_dead() {
    for (operation, dependency) in [("check", Dependency::Dedup), ("publish", Dependency::Target)] {
        run(async move {
            let bench = Bench::start(Settings { suspect_after: 1_000, ..settings() });
            bench.feed("a 1 publish");
            bench.until_done().await;
            bench.dedup.faults.fail_next("check", if operation == "check" { FOR_EVER } else { 0 }, unavailable());
            if operation == "publish" {
                bench.publisher.faults.fail_next("publish", FOR_EVER, unavailable());
                bench.publisher.faults.fail_next("target", FOR_EVER, unavailable());
            }
            bench.feed("a 2 publish");
            let of_target = usize::from(dependency == Dependency::Target);
            if of_target == 1 {
                // Others ask for the target as well, but nobody else stores letters.
                bench.dead_letters.faults.fail_next("store", FOR_EVER, unavailable());
                bench.feed("p 1 poison");
            }
            bench.until("paused", |_| bench.is_paused(PauseReason::Dependency(dependency))).await;
            // Takes the pull that was under way when intake was paused.
            bench.feed("b 1 publish");
            bench.until("it was pulled", |fakes| fakes.watch.outstanding() == 2 + of_target).await;
            // The actor dies at the next attempt; its successor holds nothing and has nothing to ask for.
            bench.watch.panic_next(["check", "store"][of_target], 1);
            bench
                .until("its death", |fakes| {
                    fakes.observer.count(|event| matches!(event, Observed::ActorRestarted { .. })) == 1
                })
                .await;
            bench.dedup.faults.clear("check");
            bench.dead_letters.faults.clear("store");
            bench.publisher.faults.clear("publish");
            bench.publisher.faults.clear("target");
            bench.until_done().await;
            assert_eq!(bench.row("a"), [1, 2]);
            bench.stop().await;
        });
    }
}

#[test]
fn a_streak_of_failures_trips_the_guard() {
    run(async {
        let guard = GuardSettings {
            max_consecutive_failures: 5,
            min_duration: Duration::from_millis(200),
            max_duration: Duration::from_secs(60),
        };
        let mut bench = Bench::start(Settings { guard, grace: Duration::from_millis(500), ..settings() });
        bench.feed("a 1 publish");
        bench.until_done().await;
        bench.dedup.faults.fail_next("check", FOR_EVER, unavailable());
        bench.feed("a 2 publish");
        let ended = bench.ended().await;
        assert!(matches!(&ended.reason, ExitReason::GuardTripped(why) if why.contains("dedup")), "{ended:?}");
        assert_eq!(bench.source.unacknowledged(), [2]);
        assert_eq!(bench.observer.count(|event| matches!(event, Observed::GuardTripped { .. })), 1);
    });
}

/// As with a full disk: the target answers whenever it is asked, and takes nothing.
#[test]
fn a_target_that_answers_and_stores_nothing_is_down_until_it_stores_and_trips_the_guard() {
    run(async {
        let ack_wait = Duration::from_millis(300);
        let guard = GuardSettings { max_duration: 8 * ack_wait, ..settings().guard };
        let mut bench = Bench::start(Settings { ack_wait, guard, suspect_after: 1_000, ..settings() });
        bench.feed("a 1 publish");
        bench.until_done().await;
        let changes = |fakes: &Fakes| {
            let events = fakes.observer.events().into_iter();
            let of_target = |event| match event {
                Observed::DependencyChanged { dependency: Dependency::Target, failure } => Some(failure.is_some()),
                _ => None,
            };
            events.filter_map(of_target).collect::<Vec<_>>()
        };
        // It stores again before it is too late, and then not any more.
        bench.publisher.faults.fail_next("publish", FOR_EVER, unavailable());
        for row in ["b", "c", "d"] {
            bench.feed(format!("{row} 1 publish of-{row}"));
        }
        let again = paused_for(Dependency::Target, true);
        bench.until("tried again in vain", |fakes| fakes.observer.count(&again) >= 3).await;
        assert_eq!(changes(&bench), [true]);
        bench.publisher.faults.clear("publish");
        bench.until_done().await;
        bench.until("up", |fakes| changes(fakes) == [true, false]).await;
        bench.publisher.faults.fail_next("publish", FOR_EVER, unavailable());
        for row in ["b", "c", "d"] {
            bench.feed(format!("{row} 2 publish of-{row}"));
        }
        let ended = bench.ended().await;
        assert!(matches!(&ended.reason, ExitReason::GuardTripped(why) if why.contains("target")), "{ended:?}");
        assert_eq!(changes(&bench), [true, false, true]);
    });
}

#[test]
fn a_success_in_between_ends_the_streak() {
    run(async {
        let guard = GuardSettings {
            max_consecutive_failures: 5,
            min_duration: Duration::ZERO,
            max_duration: Duration::from_secs(60),
        };
        let bench = Bench::start(Settings { guard, ..settings() });
        for lsn in 1..=10 {
            bench.dedup.faults.fail_next("check", 3, unavailable());
            bench.feed(format!("a {lsn} publish"));
            bench.until_done().await;
        }
        assert_eq!(bench.observer.count(|event| matches!(event, Observed::GuardTripped { .. })), 0);
        bench.stop().await;
    });
}
