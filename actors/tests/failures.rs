//! What the actor system does when dependencies fail: nothing is lost, nothing is doubled, rows keep their order, and it recovers by itself.

mod bench;

use std::time::Duration;

use bench::{Bench, Fakes, key, run, settings};
use cdc_actors::message::{Reason, Settle};
use cdc_actors::ports::{Budget, Dependency, FailureClass};
use cdc_actors::retry::Backoff;
use cdc_actors::shared::Settings;
use cdc_actors::telemetry::{Outcome, PauseReason};
use cdc_actors::testkit::{Observed, unavailable};

const FOR_EVER: usize = 1_000_000;

fn feed(fakes: &Fakes, row: &str, lsns: std::ops::RangeInclusive<u64>) {
    for lsn in lsns {
        fakes.feed(format!("{row} {lsn} publish"));
    }
}

fn paused_for(dependency: Dependency, wanted: bool) -> impl Fn(&Observed) -> bool {
    move |event| matches!(event, Observed::Paused { reason, paused } if *reason == PauseReason::Dependency(dependency) && *paused == wanted)
}

#[test]
fn failing_checks_pause_intake_and_nothing_is_lost_or_reordered() {
    run(async {
        let bench = Bench::start(settings());
        feed(&bench, "a", 1..=5);
        bench.until_done().await;
        bench.dedup.faults.fail_next("check", 8, unavailable());
        feed(&bench, "a", 6..=60);
        bench.until_done().await;
        assert_eq!(bench.row("a"), (1..=60).collect::<Vec<_>>());
        assert!(bench.observer.count(paused_for(Dependency::Dedup, true)) > 0);
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
        feed(&fakes, "a", 1..=20);
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
        feed(&bench, "a", 1..=9);
        bench.until_done().await;
        feed(&bench, "a", 1..=9);
        bench.until_done().await;
        let hits = bench.observer.events().into_iter().map(|event| match event {
            Observed::DedupChecked { hits, .. } => hits,
            _ => 0,
        });
        assert_eq!((hits.sum::<u64>(), bench.settled(Outcome::Duplicate)), (9, 9));
        bench.stop().await;
    });
}

#[test]
fn a_bypassed_store_is_asked_until_it_is_back_even_if_nothing_else_happens() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        fakes.dedup.faults.fail_next("check", 6, unavailable());
        feed(&fakes, "a", 1..=3);
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
        fakes.dedup.faults.fail_next("highest", 5, unavailable());
        fakes.publisher.faults.fail_next("target", 5, unavailable());
        feed(&fakes, "a", 1..=5);
        let bench = Bench::start_on(fakes, settings());
        assert_eq!(bench.watch.pulls(), 0);
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
        feed(&bench, "a", 1..=10);
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
        feed(&bench, "a", 1..=10);
        bench.until_done().await;
        assert_eq!(bench.watch.acks_without_record(), 10);
        assert_eq!(bench.observer.count(|event| matches!(event, Observed::Unrecorded { .. })), 10);
        bench.dedup.faults.clear("record");
        // Nothing is in flight that could find out: intake must resume all the same.
        bench.until("resumed", |_| !bench.is_paused(PauseReason::Dependency(Dependency::Dedup))).await;
        feed(&bench, "a", 11..=20);
        bench.until_done().await;
        assert_eq!(bench.watch.acks_without_record(), 10);
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
        feed(&bench, "a", 1..=30);
        bench.until_done().await;
        // The next check is minutes away: these must not wait for it.
        feed(&bench, "a", 31..=60);
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
        feed(&bench, "a", 1..=20);
        feed(&bench, "b", 1..=20);
        bench.until_done().await;
        assert_eq!((bench.row("a").len(), bench.row("b").len()), (20, 20));
        assert!(bench.settled(Outcome::Duplicate) == 0);
        bench.stop().await;
    });
}

#[test]
fn a_target_that_is_down_pauses_intake_until_it_is_back() {
    run(async {
        let bench = Bench::start(settings());
        feed(&bench, "a", 1..=3);
        bench.until_done().await;
        bench.publisher.faults.fail_next("target", FOR_EVER, unavailable());
        bench.publisher.faults.fail_next("publish", FOR_EVER, unavailable());
        feed(&bench, "a", 4..=10);
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
        feed(&bench, "a", 1..=5);
        bench.until_done().await;
        assert_eq!(bench.row("a"), [1, 2, 3, 4, 5]);
        bench.until("all are processed", |fakes| fakes.observer.settled(Outcome::Processed) == 5).await;
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

#[test]
fn a_refused_subject_ends_as_refused_and_holds_up_nobody() {
    run(async {
        let bench = Bench::start(Settings { refused_for: Duration::from_millis(300), ..settings() });
        bench.publisher.refuse("nowhere");
        let refused = bench.feed("x 1 publish nowhere");
        let mut lsn = 0;
        while bench.dead_letters.stored().is_empty() {
            lsn += 1;
            assert!(lsn < 20_000, "never refused");
            bench.feed(format!("a {lsn} publish"));
            bench.until("others flow", |fakes| fakes.source.unacknowledged().iter().all(|s| *s == refused)).await;
        }
        bench.until_done().await;
        assert_eq!(bench.dead_letters.stored()[0].reason, Reason::Refused);
        assert_eq!(bench.observer.count(paused_for(Dependency::Target, true)), 0);
        bench.stop().await;
    });
}

#[test]
fn refused_rows_leave_most_permits_to_others() {
    run(async {
        let in_flight = Budget { messages: 40, bytes: 100_000 };
        let bench = Bench::start(Settings { in_flight, ..settings() });
        bench.feed("a 1 publish");
        bench.until_done().await;
        bench.publisher.refuse("nowhere");
        for row in 0..200 {
            bench.feed(format!("x{row} 1 publish nowhere"));
        }
        feed(&bench, "a", 2..=50);
        bench.until("others flow", |_| bench.row("a").len() == 50).await;
        bench.publisher.accept("nowhere");
        bench.clock.advance(Duration::from_secs(3));
        bench.until_done().await;
        bench.stop().await;
    });
}

#[test]
fn refused_events_that_find_no_room_to_wait_are_dead_letters_while_others_flow() {
    run(async {
        let in_flight = Budget { messages: 40, bytes: 100_000 };
        let bench = Bench::start(Settings { in_flight, max_ack_pending: 64, ..settings() });
        bench.source.set_max_ack_pending(64);
        bench.feed("a 1 publish");
        bench.until_done().await;
        bench.publisher.refuse("nowhere");
        for lsn in 2..=200 {
            feed(&bench, "a", lsn..=lsn);
            for row in 0..4 {
                bench.feed(format!("x{lsn}-{row} 1 publish nowhere"));
            }
        }
        bench.until("others flow", |_| bench.row("a").len() == 200).await;
        let waiting = bench.source.unacknowledged().len();
        assert!(waiting >= 8, "some wait for a better time: {waiting}");
        bench.publisher.accept("nowhere");
        bench.clock.advance(Duration::from_secs(3));
        bench.until_done().await;
        let (letters, stored) = (bench.dead_letters.stored(), bench.publisher.stored().len());
        assert!(letters.iter().all(|letter| letter.reason == Reason::Refused && letter.detail.contains("room")));
        assert_eq!(letters.len() + stored, 200 + 199 * 4);
        bench.stop().await;
    });
}

#[test]
fn refused_events_make_room_where_other_replicas_need_it() {
    run(async {
        let bench = Bench::start(settings());
        bench.source.set_unacknowledged_elsewhere(990);
        bench.publisher.refuse("nowhere");
        for row in 0..20 {
            bench.feed(format!("x{row} 1 publish nowhere"));
        }
        let mut lsn = 0;
        // A sixty-fourth of the 1 000 may stay.
        while bench.dead_letters.stored().len() < 5 {
            lsn += 1;
            assert!(lsn < 20_000, "they stay");
            bench.feed(format!("a {lsn} publish"));
            bench.until("others flow", |_| bench.row("a").len() == lsn).await;
        }
        bench.publisher.accept("nowhere");
        bench.until_done().await;
        assert_eq!(bench.dead_letters.stored().len(), 5);
        bench.stop().await;
    });
}

#[test]
fn nothing_is_a_dead_letter_while_nothing_at_all_is_stored() {
    run(async {
        let in_flight = Budget { messages: 40, bytes: 100_000 };
        let refused_for = Duration::from_millis(50);
        let bench = Bench::start(Settings { in_flight, max_ack_pending: 64, refused_for, ..settings() });
        feed(&bench, "a", 1..=10);
        bench.until_done().await;
        for subject in 0..20 {
            bench.publisher.refuse(&format!("nowhere{subject}"));
        }
        for event in 0..200 {
            bench.feed(format!("x{event} 1 publish nowhere{}", event % 20));
        }
        bench.until("they wait, here and at the source", |_| bench.naks().len() >= 100).await;
        bench.until("and are tried again", |fakes| fakes.publisher.faults.calls("publish") >= 200).await;
        assert!(bench.dead_letters.stored().is_empty());
        for subject in 0..20 {
            bench.publisher.accept(&format!("nowhere{subject}"));
        }
        bench.clock.advance(Duration::from_secs(3));
        bench.until_done().await;
        assert_eq!(bench.publisher.stored().len(), 210);
        bench.stop().await;
    });
}

#[test]
fn two_refused_subjects_do_not_stop_the_rest() {
    run(async {
        let bench = Bench::start(Settings { ack_wait: Duration::from_millis(500), ..settings() });
        // Such as a limit per subject: not told by its class from a target that can store nothing at all.
        bench.publisher.refuse_as("nowhere", FailureClass::Unavailable);
        bench.publisher.refuse_as("nirvana", FailureClass::Unavailable);
        bench.feed("x 1 publish nowhere");
        bench.feed("y 1 publish nirvana");
        bench.until("the target looks down", |_| bench.is_paused(PauseReason::Dependency(Dependency::Target))).await;
        // Takes the pull that was under way when intake was paused: only a new one brings what can be stored.
        bench.feed("x 2 publish nowhere");
        bench.until("it was pulled", |fakes| fakes.watch.outstanding() == 3).await;
        feed(&bench, "a", 1..=50);
        bench.until("others flow", |_| bench.row("a").len() == 50).await;
        bench.publisher.accept("nowhere");
        bench.publisher.accept("nirvana");
        bench.until_done().await;
        bench.stop().await;
    });
}

#[test]
fn subjects_that_nobody_listens_on_pause_nobody() {
    run(async {
        let bench = Bench::start(settings());
        bench.publisher.refuse("nowhere");
        bench.publisher.refuse("nirvana");
        bench.feed("x 1 publish nowhere");
        bench.feed("y 1 publish nirvana");
        let failed = |event: &Observed| matches!(event, Observed::PublishFailed { .. });
        bench.until("they failed repeatedly", |_| bench.observer.count(failed) >= 6).await;
        feed(&bench, "a", 1..=50);
        bench.until("others flow", |_| bench.row("a").len() == 50).await;
        assert_eq!(bench.observer.count(paused_for(Dependency::Target, true)), 0);
        bench.publisher.accept("nowhere");
        bench.publisher.accept("nirvana");
        bench.until_done().await;
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
        assert!(bench.observer.count(paused_for(Dependency::DeadLetter, true)) > 0);
        feed(&bench, "a", 1..=3);
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
            feed(&bench, "a", 1..=1);
            bench.until_done().await;
            if dependency == Dependency::Dedup {
                bench.dedup.faults.fail_next("check", FOR_EVER, unavailable());
            } else {
                bench.publisher.faults.fail_next("target", FOR_EVER, unavailable());
                bench.publisher.faults.fail_next("publish", FOR_EVER, unavailable());
            }
            feed(&bench, "a", 2..=20);
            bench.until("handed back", |_| bench.naks().len() >= 19).await;
            bench
                .until("it was told", |fakes| {
                    fakes.observer.count(|event| matches!(event, Observed::HandedBack { .. })) > 0
                })
                .await;
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
fn a_target_that_lost_data_makes_its_records_void() {
    run(async {
        let bench = Bench::start(settings());
        feed(&bench, "a", 1..=10);
        bench.until_done().await;
        bench.publisher.regress_to(4);
        bench.publisher.reconnect();
        bench
            .until("it was noticed", |fakes| {
                fakes
                    .observer
                    .count(|event| matches!(event, Observed::TargetRegressed { recorded: 10, last_sequence: 4 }))
                    == 1
            })
            .await;
        // These come again. What the target has is taken for what it is, what it lost is stored again.
        feed(&bench, "a", 3..=7);
        bench.until_done().await;
        bench.until("all are told", |fakes| fakes.observer.settled(Outcome::Duplicate) == 2).await;
        assert_eq!(bench.row("a"), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(bench.dedup.get(&key("a", 6)).map(|record| record.generation), Some(2));
        bench.publisher.reconnect();
        feed(&bench, "a", 11..=11);
        bench.until_done().await;
        let raised = bench.observer.count(|event| matches!(event, Observed::TargetRegressed { .. }));
        assert_eq!(raised, 1);
        bench.stop().await;
    });
}

/// The target loses events 5 to 10 after it has confirmed them, while `step` of theirs fails.
fn lost_before(step: &'static str) {
    run(async move {
        let bench = Bench::start(Settings { record_patience: Duration::from_secs(60), ..settings() });
        let faults = if step == "settle" { &bench.source.faults } else { &bench.dedup.faults };
        faults.fail_next(step, FOR_EVER, unavailable());
        feed(&bench, "a", 1..=10);
        bench.until("all are stored", |fakes| fakes.publisher.stored().len() == 10).await;
        bench.until("the step has failed", |fakes| fakes.source.unacknowledged().len() == 10).await;
        bench.publisher.regress_to(4);
        bench.publisher.reconnect();
        let noticed = |fakes: &Fakes| match step {
            "settle" => fakes.observer.count(|event| matches!(event, Observed::TargetRegressed { .. })) == 1,
            // Without records nobody can tell a loss, but what is in hand is above the target's end.
            _ => fakes.source.settlements().iter().filter(|s| s.settle != Settle::InProgress).count() >= 6,
        };
        bench.until("it was noticed", noticed).await;
        faults.clear(step);
        // Every acknowledgement is held against what is stored at that moment.
        bench.until_done().await;
        assert_eq!(bench.row("a"), (1..=10).collect::<Vec<_>>());
        bench.stop().await;
    });
}

#[test]
fn what_the_target_loses_before_it_is_acknowledged_is_published_again() {
    lost_before("settle");
}

#[test]
fn what_the_target_loses_before_it_is_recorded_is_published_again() {
    lost_before("record");
}

#[test]
fn what_is_sent_again_after_a_reconnect_does_not_hide_that_the_target_is_behind() {
    run(async {
        let bench = Bench::start(settings());
        bench.source.faults.fail_next("settle", FOR_EVER, unavailable());
        feed(&bench, "a", 1..=10);
        bench.until("all are recorded", |fakes| fakes.dedup.get(&key("a", 10)).is_some()).await;
        bench.publisher.faults.fail_next("publish", FOR_EVER, unavailable());
        feed(&bench, "b", 1..=6);
        bench.until("these are in hand", |fakes| fakes.watch.outstanding() == 16).await;
        bench.until("they failed", |fakes| fakes.publisher.faults.calls("publish") >= 16).await;
        // Six are lost, six are about to be sent, and the look at the target takes its time.
        bench.dedup.faults.fail_next("highest", 10, unavailable());
        bench.publisher.regress_to(4);
        bench.publisher.reconnect();
        bench.publisher.faults.clear("publish");
        let noticed = |event: &Observed| matches!(event, Observed::TargetRegressed { recorded: 10, last_sequence: 4 });
        bench.until("it was noticed", |fakes| fakes.observer.count(noticed) == 1).await;
        bench.source.faults.clear("settle");
        bench.until_done().await;
        assert_eq!((bench.row("a").len(), bench.row("b").len()), (10, 6));
        bench.stop().await;
    });
}

#[test]
fn what_the_target_loses_while_it_is_looked_at_is_published_again() {
    run(async {
        let bench = Bench::start(settings());
        bench.source.faults.fail_next("settle", FOR_EVER, unavailable());
        feed(&bench, "a", 1..=10);
        bench.until("all are recorded", |fakes| fakes.dedup.get(&key("a", 10)).is_some()).await;
        bench.watch.regress_after_look(4);
        bench.publisher.reconnect();
        bench.until("it was lost", |fakes| fakes.watch.has_regressed()).await;
        bench.source.faults.clear("settle");
        // Every acknowledgement is held against what is stored at that moment.
        bench.until_done().await;
        assert_eq!(bench.row("a"), (1..=10).collect::<Vec<_>>());
        bench.stop().await;
    });
}

#[test]
fn what_the_target_lost_and_another_replica_filled_up_is_published_again() {
    run(async {
        let bench = Bench::start(Settings { record_patience: Duration::from_secs(60), ..settings() });
        bench.dedup.faults.fail_next("record", FOR_EVER, unavailable());
        feed(&bench, "a", 1..=10);
        bench.until("all are stored", |fakes| fakes.publisher.stored().len() == 10).await;
        bench.publisher.regress_to(4);
        bench.publisher.store_others(6);
        bench.publisher.reconnect();
        bench.until("it was looked at", |_| bench.naks().len() >= 10).await;
        bench.dedup.faults.clear("record");
        bench.until_done().await;
        assert_eq!(bench.row("a"), (1..=10).collect::<Vec<_>>());
        bench.stop().await;
    });
}

#[test]
fn what_is_heard_of_an_earlier_connection_after_the_look_is_asked_again() {
    run(async {
        let bench = Bench::start(settings());
        bench.publisher.hold();
        feed(&bench, "a", 1..=10);
        bench.until("all are stored, and nothing was heard", |fakes| fakes.publisher.held() == 10).await;
        bench.publisher.regress_to(4);
        bench.publisher.store_others(6);
        bench.publisher.reconnect();
        bench.feed("b 1 publish");
        bench.until("the target was looked at: more is sent", |fakes| fakes.publisher.held() == 11).await;
        bench.publisher.release();
        // Every acknowledgement is held against what is stored at that moment.
        bench.until_done().await;
        assert_eq!(bench.row("a"), (1..=10).collect::<Vec<_>>());
        assert_eq!(bench.settled(Outcome::Processed), 11, "what the target had kept was our own");
        bench.stop().await;
    });
}

#[test]
fn while_the_target_cannot_be_looked_at_what_was_not_sent_goes_back() {
    run(async {
        let ack_wait = Duration::from_millis(300);
        let bench = Bench::start(Settings { ack_wait, suspect_after: 1_000, ..settings() });
        bench.publisher.faults.fail_next("publish", FOR_EVER, unavailable());
        feed(&bench, "a", 1..=6);
        bench.until("they failed", |fakes| fakes.publisher.faults.calls("publish") >= 6).await;
        for operation in ["highest", "check"] {
            bench.dedup.faults.fail_next(operation, FOR_EVER, unavailable());
        }
        bench.publisher.reconnect();
        bench.publisher.faults.clear("publish");
        bench.until("handed back", |_| bench.naks().len() >= 6).await;
        assert!(bench.publisher.stored().is_empty());
        for operation in ["highest", "check"] {
            bench.dedup.faults.clear(operation);
        }
        bench.until_done().await;
        assert_eq!(bench.publisher.stored().len(), 6);
        bench.stop().await;
    });
}

#[test]
fn a_source_that_fails_is_asked_again_and_settlements_are_repeated() {
    run(async {
        let bench = Bench::start(settings());
        bench.source.faults.fail_next("pull", 4, unavailable());
        bench.source.faults.fail_next("settle", 4, unavailable());
        feed(&bench, "a", 1..=100);
        bench.until_done().await;
        let acks = bench.source.settlements().iter().filter(|s| s.settle == Settle::Ack).count();
        assert_eq!(acks, 100);
        bench.stop().await;
    });
}
