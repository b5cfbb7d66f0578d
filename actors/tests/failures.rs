//! What the actor system does when dependencies fail: nothing is lost, nothing is doubled, rows keep their order, and it recovers by itself.

mod bench;

use std::time::Duration;

use bench::{Bench, FOR_EVER, Fakes, key, paused_for, run, settings};
use cdc_actors::message::{Reason, Settle};
use cdc_actors::ports::{Budget, Dependency};
use cdc_actors::retry::Backoff;
use cdc_actors::shared::Settings;
use cdc_actors::telemetry::{Outcome, PauseReason};
use cdc_actors::testkit::{Observed, unavailable};

#[test]
fn failing_checks_pause_intake_and_nothing_is_lost_or_reordered() {
    run(async {
        let bench = Bench::start(settings());
        bench.feed_row("a", 1..=5);
        bench.until_done().await;
        bench.dedup.faults.fail_next("check", 8, unavailable());
        bench.feed_row("a", 6..=60);
        bench.until_done().await;
        assert_eq!(bench.row("a"), (1..=60).collect::<Vec<_>>());
        bench.until("paused", |fakes| fakes.observer.count(paused_for(Dependency::Dedup, true)) > 0).await;
        bench.until("resumed", |_| !bench.is_paused(PauseReason::Dependency(Dependency::Dedup))).await;
        bench.stop().await;
    });
}

#[test]
fn a_check_that_fails_for_one_event_holds_the_rest_of_its_row() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        fakes.dedup.faults.fail_next("check key", 1, unavailable());
        // Pulled, and so checked, together.
        fakes.feed_row("a", 1..=20);
        let bench = Bench::start_on(fakes, settings());
        bench.until_done().await;
        assert_eq!(bench.row("a"), (1..=20).collect::<Vec<_>>());
        bench.stop().await;
    });
}

#[test]
fn what_the_store_knows_is_counted() {
    run(async {
        let bench = Bench::start(settings());
        bench.feed_row("a", 1..=9);
        bench.until_done().await;
        bench.feed_row("a", 1..=9);
        bench.until_done().await;
        let hits = bench.observer.events().into_iter().map(|event| match event {
            Observed::DedupChecked { hits, .. } => hits,
            _ => 0,
        });
        assert_eq!(hits.sum::<u64>(), 9);
        bench.until("they are told of", |fakes| fakes.observer.settled(Outcome::Duplicate) == 9).await;
        bench.stop().await;
    });
}

#[test]
fn a_bypassed_store_is_asked_until_it_is_back_even_if_nothing_else_happens() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        fakes.dedup.faults.fail_next("check", 6, unavailable());
        fakes.feed_row("a", 1..=3);
        let bench = Bench::start_on(fakes, Settings { bypass_dedup: true, ..settings() });
        bench.until_done().await;
        bench.until("it is back", |fakes| fakes.dedup.faults.calls("check") > 6).await;
        bench.stop().await;
    });
}

#[test]
fn a_store_that_is_down_at_the_start_delays_the_first_pull() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        fakes.dedup.faults.fail_next("highest", FOR_EVER, unavailable());
        fakes.publisher.faults.fail_next("target", 5, unavailable());
        fakes.feed_row("a", 1..=5);
        let bench = Bench::start_on(fakes, settings());
        bench.until("it is asked", |fakes| fakes.dedup.faults.calls("highest") >= 5).await;
        assert_eq!(bench.watch.pulls(), 0);
        bench.dedup.faults.clear("highest");
        bench.until_done().await;
        bench.stop().await;
    });
}

#[test]
fn a_record_that_fails_for_a_while_is_repeated() {
    run(async {
        let bench = Bench::start(settings());
        bench.dedup.faults.fail_next("record", 4, unavailable());
        bench.dedup.faults.fail_next("record key", 3, unavailable());
        bench.feed_row("a", 1..=10);
        bench.until_done().await;
        assert_eq!(bench.watch.acks_without_record(), 0);
        assert!((1..=10).all(|lsn| bench.dedup.get(&key("a", lsn)).is_some()));
        bench.stop().await;
    });
}

#[test]
fn a_record_that_fails_for_too_long_is_given_up_and_intake_resumes() {
    run(async {
        let bench = Bench::start(Settings { record_patience: Duration::from_millis(100), ..settings() });
        bench.dedup.faults.fail_next("record", FOR_EVER, unavailable());
        bench.feed_row("a", 1..=10);
        bench.until_done().await;
        assert_eq!(bench.watch.acks_without_record(), 10);
        assert_eq!(bench.observer.count(|event| matches!(event, Observed::Unrecorded { .. })), 10);
        bench.dedup.faults.clear("record");
        // Nothing is in flight that could find out: intake must resume all the same.
        bench.until("resumed", |_| !bench.is_paused(PauseReason::Dependency(Dependency::Dedup))).await;
        bench.feed_row("a", 11..=20);
        bench.until_done().await;
        assert_eq!(bench.watch.acks_without_record(), 10);
        bench.stop().await;
    });
}

#[test]
fn a_record_that_fails_is_repeated_more_and_more_slowly_but_several_times() {
    let patience = Duration::from_secs(2);
    // From 1 ms the delays grow until they reach a quarter of the patience; from minutes they have that length at once.
    for (initial, calls) in [(Duration::from_millis(1), 5..=40), (Duration::from_secs(300), 3..=10)] {
        run(async {
            let backoff = Backoff { initial, max: Duration::from_secs(600) };
            let bench = Bench::start(Settings { record_patience: patience, backoff, ..settings() });
            bench.dedup.faults.fail_next("record", FOR_EVER, unavailable());
            bench.feed_row("a", 1..=1);
            bench.until_done().await;
            let called = bench.dedup.faults.calls("record");
            assert!(calls.contains(&called), "{called} times, from {initial:?}");
            bench.dedup.faults.clear("record");
            // The supervisor would ask in ten minutes only.
            bench.until("resumed", |_| !bench.is_paused(PauseReason::Dependency(Dependency::Dedup))).await;
            bench.stop().await;
        });
    }
}

#[test]
fn the_store_is_asked_no_more_than_there_is_a_reason_to() {
    run(async {
        // So that nobody asks because nothing has been heard for long, however slow the machine is.
        let backoff = Backoff { max: Duration::from_secs(600), ..settings().backoff };
        let bench = Bench::start(Settings { backoff, ..settings() });
        bench.feed_row("a", 1..=1);
        bench.until_done().await;
        for (event, failures) in [(2, 0), (3, 3)] {
            let before = bench.dedup.faults.calls("check");
            bench.dedup.faults.fail_next("record", failures, unavailable());
            bench.feed_row("a", event..=event);
            bench.until_done().await;
            assert_eq!(bench.dedup.faults.calls("check") - before, 1, "records failed {failures} times");
        }
        assert_eq!(bench.dedup.faults.calls("markers"), 0, "nobody is a suspect");
        bench.stop().await;
    });
}

#[test]
fn with_bypass_a_store_that_is_down_stops_nothing() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        for operation in ["highest", "check", "record", "markers", "set_markers"] {
            fakes.dedup.faults.fail_next(operation, FOR_EVER, unavailable());
        }
        let backoff = Backoff { initial: Duration::from_secs(600), max: Duration::from_secs(600) };
        let bench = Bench::start_on(fakes, Settings { bypass_dedup: true, backoff, ..settings() });
        bench.feed_row("a", 1..=30);
        bench.until_done().await;
        // The next check is minutes away: these must not wait for it.
        bench.feed_row("a", 31..=60);
        bench.until_done().await;
        assert_eq!(bench.row("a"), (1..=60).collect::<Vec<_>>());
        let bypassed = bench.observer.events().into_iter().map(|event| match event {
            Observed::DedupBypassed { events } => events,
            _ => 0,
        });
        assert_eq!(bypassed.sum::<u64>(), 60);
        bench.stop().await;
    });
}

#[test]
fn failing_publishes_are_repeated_in_order() {
    run(async {
        let bench = Bench::start(settings());
        bench.publisher.faults.fail_next("publish", 37, unavailable());
        bench.feed_row("a", 1..=20);
        bench.feed_row("b", 1..=20);
        bench.until_done().await;
        assert_eq!((bench.row("a").len(), bench.row("b").len()), (20, 20));
        assert!(bench.settled(Outcome::Duplicate) == 0);
        assert_eq!(failed_attempts(&bench), 37);
        bench.stop().await;
    });
}

/// Attempts to publish that failed, as was told.
fn failed_attempts(bench: &Bench) -> u64 {
    let attempts = bench.observer.events().into_iter().map(|event| match event {
        Observed::PublishFailed { attempts, .. } => attempts,
        _ => 0,
    });
    attempts.sum()
}

#[test]
fn a_target_that_is_down_pauses_intake_until_it_is_back() {
    run(async {
        let bench = Bench::start(settings());
        bench.feed_row("a", 1..=3);
        bench.until_done().await;
        bench.publisher.faults.fail_next("target", FOR_EVER, unavailable());
        bench.publisher.faults.fail_next("publish", FOR_EVER, unavailable());
        bench.feed_row("a", 4..=10);
        bench.until("paused", |_| bench.is_paused(PauseReason::Dependency(Dependency::Target))).await;
        bench.publisher.faults.clear("publish");
        bench.publisher.faults.clear("target");
        bench.until_done().await;
        assert_eq!(bench.row("a"), (1..=10).collect::<Vec<_>>());
        bench.until("resumed", |_| !bench.is_paused(PauseReason::Dependency(Dependency::Target))).await;
        bench.stop().await;
    });
}

#[test]
fn a_publish_whose_answer_is_lost_is_processed_and_not_doubled() {
    run(async {
        let bench = Bench::start(settings());
        bench.publisher.faults.fail_next("publish unanswered", 6, unavailable());
        bench.feed_row("a", 1..=5);
        bench.until_done().await;
        assert_eq!(bench.row("a"), [1, 2, 3, 4, 5]);
        bench.until("all are processed", |fakes| fakes.observer.settled(Outcome::Processed) == 5).await;
        assert_eq!(failed_attempts(&bench), 6);
        bench.stop().await;
    });
}

#[test]
fn whatever_publishes_end_in_rows_keep_their_order_or_say_so() {
    for seed in 0..20 {
        run(async move {
            let backoff = Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(2) };
            // With few permits, failing rows also run into the share that they may hold.
            let messages = if seed == 0 { 100 } else { 1_000 };
            let in_flight = Budget { messages, bytes: 1_000_000 };
            let bench = Bench::start(Settings { backoff, in_flight, ..settings() });
            bench.watch.chaos(Some(seed));
            for n in 0..150 {
                bench.feed(format!("r{} {} publish", n % 4, n + 1));
            }
            bench.until_done().await;
            assert_eq!(bench.publisher.stored().len(), 150, "seed {seed}");
            bench.stop().await;
        });
    }
}

/// A consumer that has passed a message and is made anew gives it for the first time, after newer ones. By then the row is
/// forgotten here, and only the place in the stream tells.
#[test]
fn what_is_given_for_the_first_time_behind_what_was_taken_in_says_that_it_may_be_late() {
    run(async {
        let settings = Settings { remembered_rows: 1, ..settings() };
        let fakes = Fakes::new(settings.ack_wait);
        fakes.feed_row("a", 1..=2);
        fakes.source.pass(1);
        let bench = Bench::start_on(fakes, settings);
        for row in ["b", "c", "d"] {
            bench.feed_row(row, 1..=1);
            bench.until("it is stored", |fakes| fakes.is_stored(&key(row, 1))).await;
        }
        bench.publisher.faults.fail_next("publish", 2, unavailable());
        bench.source.redeliver(1);
        bench.until_done().await;
        assert_eq!(bench.row("a"), [2, 1]);
        let told = bench.observer.count(|event| matches!(event, Observed::Late { .. }));
        assert_eq!(told, 1, "once for the event, and not for each attempt");
        bench.stop().await;
    });
}

#[test]
fn a_failing_dead_letter_stream_pauses_intake_and_is_repeated() {
    run(async {
        let bench = Bench::start(settings());
        bench.dead_letters.faults.fail_next("store", 9, unavailable());
        for row in 0..5 {
            bench.feed(format!("x{row} 1 poison"));
        }
        bench.until_done().await;
        assert_eq!(bench.dead_letters.stored().len(), 5);
        bench.until("paused", |fakes| fakes.observer.count(paused_for(Dependency::DeadLetter, true)) > 0).await;
        bench.feed_row("a", 1..=3);
        bench.until_done().await;
        bench.stop().await;
    });
}

#[test]
fn an_event_that_is_too_large_is_a_dead_letter() {
    run(async {
        let bench = Bench::start(settings());
        bench.publisher.set_max_payload(60);
        bench.feed(format!("a 1 publish {}", "s".repeat(100)));
        bench.feed("a 2 publish");
        bench.until_done().await;
        assert_eq!(bench.dead_letters.stored()[0].reason, Reason::TooLarge);
        assert_eq!(bench.row("a"), [2]);
        bench.stop().await;
    });
}

#[test]
fn after_a_long_pause_what_is_unpublished_goes_back_in_order_and_comes_again() {
    for dependency in [Dependency::Dedup, Dependency::Target] {
        run(async move {
            let ack_wait = Duration::from_millis(300);
            let bench = Bench::start(Settings { ack_wait, suspect_after: 1_000, ..settings() });
            bench.feed_row("a", 1..=1);
            bench.until_done().await;
            if dependency == Dependency::Dedup {
                bench.dedup.faults.fail_next("check", FOR_EVER, unavailable());
            } else {
                bench.publisher.faults.fail_next("target", FOR_EVER, unavailable());
                bench.publisher.faults.fail_next("publish", FOR_EVER, unavailable());
            }
            bench.feed_row("a", 2..=20);
            bench.until("handed back", |_| bench.naks().len() >= 19).await;
            let told = |fakes: &Fakes| {
                let deliveries = fakes.observer.events().into_iter().filter_map(|event| match event {
                    Observed::HandedBack { deliveries, .. } => Some(deliveries),
                    _ => None,
                });
                deliveries.collect::<Vec<_>>()
            };
            bench.until("it was told", |fakes| told(fakes).iter().sum::<usize>() >= 19).await;
            assert!(!told(&bench).contains(&0), "nor was anything told of nothing");
            let first = bench.naks()[..19].to_vec();
            assert_eq!(first, (2..=20).collect::<Vec<_>>(), "{dependency}");
            for operation in ["target", "publish"] {
                bench.publisher.faults.clear(operation);
            }
            bench.dedup.faults.clear("check");
            bench.until_done().await;
            assert_eq!(bench.publisher.stored().len(), 20);
            bench.stop().await;
        });
    }
}

#[test]
fn a_source_that_fails_is_asked_again_and_settlements_are_repeated() {
    run(async {
        let bench = Bench::start(settings());
        bench.source.faults.fail_next("pull", 4, unavailable());
        bench.source.faults.fail_next("settle", 4, unavailable());
        bench.feed_row("a", 1..=100);
        bench.until_done().await;
        let acks = bench.source.settlements().iter().filter(|s| s.settle == Settle::Ack).count();
        assert_eq!(acks, 100);
        bench.stop().await;
    });
}

#[test]
fn what_fails_is_tried_again_more_and_more_slowly() {
    for operation in ["pull", "settle", "store"] {
        run(async move {
            let fakes = Fakes::new(settings().ack_wait);
            fakes.feed("a 1 publish");
            fakes.feed("a 2 poison");
            let backoff = Backoff { initial: Duration::from_millis(1), max: Duration::from_secs(1) };
            let bench = Bench::start_on(fakes.clone(), Settings { backoff, ..settings() });
            let faults = if operation == "store" { &fakes.dead_letters.faults } else { &fakes.source.faults };
            faults.fail_next(operation, FOR_EVER, unavailable());
            bench.until("it is tried again", |_| faults.calls(operation) >= 3).await;
            bench.until_after(Duration::from_secs(2)).await;
            // At the first delay it would be a thousand, half of them at least.
            let called = faults.calls(operation);
            assert!(called <= 40, "{operation}: {called} times");
            faults.clear(operation);
            bench.until_done().await;
            bench.stop().await;
        });
    }
}

#[test]
fn while_nothing_can_be_settled_word_of_work_under_way_does_not_pile_up() {
    run(async {
        let bench = Bench::start(Settings { ack_wait: Duration::from_millis(600), ..settings() });
        bench.publisher.hold();
        bench.feed_row("a", 1..=1);
        bench.until("it says so", |fakes| fakes.watch.most_alike() == 1).await;
        let (tried, settled) = (bench.source.faults.calls("settle"), bench.source.settlements().len());
        bench.source.faults.fail_next("settle", FOR_EVER, unavailable());
        bench.until("that fails", |fakes| fakes.source.faults.calls("settle") > tried + 1).await;
        bench.until_after(Duration::from_secs(3)).await;
        bench.source.faults.clear("settle");
        bench.until("it gets through", |fakes| fakes.source.settlements().len() > settled).await;
        assert_eq!(bench.watch.most_alike(), 1);
        bench.publisher.release();
        bench.until_done().await;
        bench.stop().await;
    });
}
