//! What can be changed while the pipeline runs.

mod bench;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bench::{Bench, FOR_EVER, run, settings};
use cdc_actors::guard::GuardSettings;
use cdc_actors::ports::{Dependency, FailureClass};
use cdc_actors::shared::{Patience, Settings};
use cdc_actors::supervisor::ExitReason;
use cdc_actors::telemetry::PauseReason;
use cdc_actors::testkit::unavailable;

/// How long a change may take.
const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn a_change_waits_for_what_is_in_flight_and_nothing_is_pulled_meanwhile() {
    run(async {
        let bench = Bench::start(settings());
        bench.publisher.hold();
        for n in 1..=20 {
            bench.feed(format!("r{} {n} publish", n % 3));
        }
        bench.until("twenty are on their way", |fakes| fakes.publisher.held() == 20).await;
        let (fakes, stored) = (bench.fakes.clone(), Arc::new(AtomicUsize::new(usize::MAX)));
        let seen = Arc::clone(&stored);
        let change =
            bench.changes().between_events(move || seen.store(fakes.publisher.stored().len(), Ordering::SeqCst));
        bench.until("intake is paused", |_| bench.is_paused(PauseReason::Reload)).await;
        for n in 21..=320 {
            bench.feed(format!("r{} {n} publish", n % 3));
        }
        bench.publisher.release();
        actix_rt::time::timeout(DEADLINE, change).await.expect("in time").expect("the change is made");
        let stored = stored.load(Ordering::SeqCst);
        // A pull that was under way may bring one more batch of 50.
        assert!((20..=70).contains(&stored), "{stored} were stored when the change was made");
        bench.until_done().await;
        assert_eq!(bench.publisher.stored().len(), 320);
        assert!(!bench.is_paused(PauseReason::Reload));
        bench.stop().await;
    });
}

#[test]
fn with_nothing_in_flight_changes_are_made_at_once_in_their_order() {
    run(async {
        let bench = Bench::start(settings());
        bench.feed("a 1 publish");
        bench.until_done().await;
        let made = Arc::new(std::sync::Mutex::new(Vec::new()));
        let changes = [1, 2, 3].map(|number| {
            let made = Arc::clone(&made);
            bench.changes().between_events(move || made.lock().expect("no test panics here").push(number))
        });
        for change in changes {
            actix_rt::time::timeout(DEADLINE, change).await.expect("in time").expect("the change is made");
        }
        assert_eq!(*made.lock().expect("no test panics here"), [1, 2, 3]);
        bench.stop().await;
    });
}

#[test]
fn a_refused_subject_does_not_keep_a_change_waiting_and_loses_nothing() {
    run(async {
        let bench = Bench::start(settings());
        bench.publisher.refuse_as("nowhere", FailureClass::Denied);
        bench.feed("x 1 publish nowhere");
        bench.feed("x 2 publish nowhere");
        bench.feed("a 1 publish");
        bench.until("it is tried again and again", |fakes| fakes.publisher.faults.calls("publish") >= 5).await;
        let change = bench.changes().between_events(|| {});
        actix_rt::time::timeout(DEADLINE, change).await.expect("in time").expect("the change is made");
        bench.publisher.accept("nowhere");
        bench.until_done().await;
        assert_eq!((bench.row("x"), bench.row("a")), (vec![1, 2], vec![1]));
        bench.stop().await;
    });
}

/// Nobody else could go on with it either, and here it keeps its order.
#[test]
fn while_a_dependency_is_down_a_change_waits_and_what_is_in_flight_stays() {
    run(async {
        let bench = Bench::start(Settings { ack_wait: Duration::from_secs(60), ..settings() });
        bench.feed_row("a", 1..=1);
        bench.until_done().await;
        for operation in ["publish", "target"] {
            bench.publisher.faults.fail_next(operation, FOR_EVER, unavailable());
        }
        bench.feed_row("a", 2..=6);
        bench.until("it is down", |_| bench.is_paused(PauseReason::Dependency(Dependency::Target))).await;
        let change = bench.changes().between_events(|| {});
        // After two seconds what only waits to be tried again would go back.
        bench.until_after(Duration::from_secs(3)).await;
        assert_eq!(bench.naks(), Vec::<u64>::new());
        for operation in ["publish", "target"] {
            bench.publisher.faults.clear(operation);
        }
        actix_rt::time::timeout(DEADLINE, change).await.expect("in time").expect("the change is made");
        bench.until_done().await;
        assert_eq!(bench.row("a"), (1..=6).collect::<Vec<_>>());
        bench.stop().await;
    });
}

#[test]
fn a_change_that_waits_does_not_hold_up_the_shutdown() {
    run(async {
        let mut bench = Bench::start(Settings { grace: Duration::from_millis(500), ..settings() });
        bench.publisher.hold();
        bench.feed("a 1 publish");
        bench.until("it is on its way", |fakes| fakes.publisher.held() == 1).await;
        let change = bench.changes().between_events(|| {});
        bench.ask_to_stop();
        assert_eq!(bench.ended().await.reason, ExitReason::Asked);
        drop(change);
    });
}

#[test]
fn a_guard_that_is_changed_trips_by_what_it_is_now() {
    run(async {
        let mut bench = Bench::start(Settings { grace: Duration::from_millis(500), ..settings() });
        bench.feed("a 1 publish");
        bench.until_done().await;
        bench.dedup.faults.fail_next("check", FOR_EVER, unavailable());
        bench.feed("a 2 publish");
        bench.until("it fails", |fakes| fakes.dedup.faults.calls("check") >= 10).await;
        assert!(!bench.is_paused(PauseReason::Shutdown));
        let guard = GuardSettings { max_consecutive_failures: 5, min_duration: Duration::ZERO, ..settings().guard };
        bench.set_patience(Patience { guard, ..Patience::from(&settings()) });
        assert!(matches!(bench.ended().await.reason, ExitReason::GuardTripped(_)));
    });
}
