//! A target that comes back without what it had confirmed: whatever is not acknowledged yet is published again.

mod bench;

use std::time::Duration;

use bench::{Bench, FOR_EVER, Fakes, LONG_GRACE, key, paused_for, run, settings};
use cdc_actors::message::Settle;
use cdc_actors::ports::{Dependency, FailureClass};
use cdc_actors::retry::Backoff;
use cdc_actors::shared::Settings;
use cdc_actors::telemetry::{Outcome, PauseReason};
use cdc_actors::testkit::{Observed, unavailable};

#[test]
fn a_target_that_lost_data_makes_its_records_void() {
    run(async {
        let bench = Bench::start(settings());
        bench.feed_row("a", 1..=10);
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
        bench.feed_row("a", 3..=7);
        bench.until_done().await;
        bench.until("all are told", |fakes| fakes.observer.settled(Outcome::Duplicate) == 2).await;
        assert_eq!(bench.row("a"), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(bench.dedup.get(&key("a", 6)).map(|record| record.generation), Some(2));
        bench.publisher.reconnect();
        bench.feed_row("a", 11..=11);
        bench.until_done().await;
        let raised = bench.observer.count(|event| matches!(event, Observed::TargetRegressed { .. }));
        assert_eq!(raised, 1);
        bench.stop().await;
    });
}

#[test]
fn a_reconnect_of_the_source_alone_has_the_target_looked_at_as_well() {
    run(async {
        let bench = Bench::start(settings());
        bench.feed_row("a", 1..=10);
        bench.until_done().await;
        bench.publisher.regress_to(4);
        bench.source.reconnect();
        // Those that the target has lost are on record. They wait until somebody has looked.
        bench.feed_row("a", 3..=7);
        bench.until_done().await;
        assert_eq!(bench.row("a"), [1, 2, 3, 4, 5, 6, 7]);
        bench.source.reconnect();
        bench.feed_row("a", 11..=11);
        bench.until_done().await;
        bench.stop().await;
    });
}

/// The target loses events 5 to 10 after it has confirmed them, while `step` of theirs fails.
fn lost_before(step: &'static str) {
    run(async move {
        let bench = Bench::start(Settings { record_patience: Duration::from_secs(60), ..settings() });
        let faults = if step == "settle" { &bench.source.faults } else { &bench.dedup.faults };
        faults.fail_next(step, FOR_EVER, unavailable());
        bench.feed_row("a", 1..=10);
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

/// Behind another server of its cluster the connection stands while the target is away, and comes back with less. Publishes may
/// get through before the next probe does, or after it.
#[test]
fn what_the_target_loses_in_an_outage_without_a_reconnect_is_published_again() {
    for heals_first in ["publish", "target"] {
        run(async {
            let backoff = Backoff { initial: Duration::from_millis(200), max: Duration::from_millis(200) };
            let bench = Bench::start(Settings { record_patience: Duration::from_secs(60), backoff, ..settings() });
            bench.dedup.faults.fail_next("record", FOR_EVER, unavailable());
            bench.feed_row("a", 1..=10);
            bench.until("all are stored", |fakes| fakes.publisher.stored().len() == 10).await;
            bench.publisher.faults.fail_next("publish", FOR_EVER, unavailable());
            bench.feed_row("b", 1..=1);
            bench.until("one fails", |fakes| fakes.publisher.faults.calls("publish") > 12).await;
            // In hand, these go out as soon as they may.
            bench.dedup.faults.fail_next("check", FOR_EVER, unavailable());
            bench.feed_row("c", 1..=6);
            bench.until("they are in hand", |fakes| fakes.watch.outstanding() == 17).await;
            bench.publisher.faults.fail_next("target", FOR_EVER, unavailable());
            let before = bench.publisher.faults.calls("target");
            bench.until("it is away", |fakes| fakes.publisher.faults.calls("target") > before + 2).await;
            bench.publisher.regress_to(4);
            bench.publisher.faults.clear(heals_first);
            bench.dedup.faults.clear("check");
            // What gets through now would pass for the end of the outage, if the next probe finds the target well.
            let before = bench.publisher.faults.calls("target");
            bench
                .until("it is asked in vain, or gets through", |fakes| {
                    fakes.publisher.stored().len() > 4 || fakes.publisher.faults.calls("target") > before + 4
                })
                .await;
            bench.dedup.faults.clear("record");
            let before = bench.publisher.faults.calls("target");
            bench
                .until("nothing is recorded, or what is lost", |fakes| {
                    fakes.dedup.get(&key("a", 10)).is_some() || fakes.publisher.faults.calls("target") > before + 4
                })
                .await;
            bench.publisher.faults.clear("target");
            bench.publisher.faults.clear("publish");
            bench.until_done().await;
            assert_eq!(bench.row("a"), (1..=10).collect::<Vec<_>>(), "{heals_first} heals first");
            bench.stop().await;
        });
    }
}

#[test]
fn what_is_sent_again_after_a_reconnect_does_not_hide_that_the_target_is_behind() {
    run(async {
        let bench = Bench::start(settings());
        bench.source.faults.fail_next("settle", FOR_EVER, unavailable());
        bench.feed_row("a", 1..=10);
        bench.until("all are recorded", |fakes| fakes.dedup.get(&key("a", 10)).is_some()).await;
        bench.publisher.faults.fail_next("publish", FOR_EVER, unavailable());
        bench.feed_row("b", 1..=6);
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
fn nothing_is_acknowledged_before_the_target_was_looked_at() {
    run(async {
        let bench = Bench::start(settings());
        bench.source.faults.fail_next("settle", FOR_EVER, unavailable());
        bench.feed_row("a", 1..=10);
        bench.until("all are recorded", |fakes| fakes.dedup.get(&key("a", 10)).is_some()).await;
        // The look takes its time, and meanwhile acknowledgements would get through.
        bench.dedup.faults.fail_next("highest", 10, unavailable());
        bench.publisher.regress_to(4);
        bench.source.reconnect();
        bench.until("it is looked at", |_| bench.is_paused(PauseReason::Reconcile)).await;
        bench.source.faults.clear("settle");
        bench.until_done().await;
        // Every acknowledgement is held against what is stored at that moment.
        assert_eq!(bench.row("a"), (1..=10).collect::<Vec<_>>());
        bench.stop().await;
    });
}

#[test]
fn what_the_target_loses_while_it_is_looked_at_is_published_again() {
    run(async {
        let bench = Bench::start(settings());
        bench.source.faults.fail_next("settle", FOR_EVER, unavailable());
        bench.feed_row("a", 1..=10);
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
        bench.feed_row("a", 1..=10);
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
        bench.feed_row("a", 1..=10);
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
        // What the target had kept was our own.
        bench.until("all are processed", |fakes| fakes.observer.settled(Outcome::Processed) == 11).await;
        bench.stop().await;
    });
}

#[test]
fn while_the_target_cannot_be_looked_at_what_was_not_sent_goes_back() {
    run(async {
        let ack_wait = Duration::from_millis(300);
        let bench = Bench::start(Settings { ack_wait, suspect_after: 1_000, ..settings() });
        bench.publisher.faults.fail_next("publish", FOR_EVER, unavailable());
        bench.feed_row("a", 1..=6);
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

/// It is the store that is away. To say that of the target as well would send people the wrong way.
#[test]
fn what_was_not_sent_for_want_of_a_look_says_nothing_against_the_target() {
    run(async {
        let bench = Bench::start(Settings { ack_wait: Duration::from_millis(300), suspect_after: 1_000, ..settings() });
        bench.feed_row("z", 1..=1);
        bench.until_done().await;
        bench.dedup.faults.fail_next("check", FOR_EVER, unavailable());
        bench.feed_row("a", 1..=3);
        bench.until("they are in hand", |fakes| fakes.watch.outstanding() == 3).await;
        bench.dedup.faults.fail_next("highest", FOR_EVER, unavailable());
        bench.publisher.reconnect();
        bench.until("nobody can look", |_| bench.is_paused(PauseReason::Reconcile)).await;
        bench.dedup.faults.clear("check");
        bench.until("handed back", |_| bench.naks().len() >= 3).await;
        bench.dedup.faults.clear("highest");
        bench.until_done().await;
        assert_eq!(bench.observer.count(|event| matches!(event, Observed::PublishFailed { .. })), 0);
        assert_eq!(bench.observer.count(paused_for(Dependency::Target, true)), 0);
        let stored = bench.publisher.stored();
        let late = stored.iter().filter(|message| message.header("Cdc-Late") == Some("true")).count();
        assert_eq!(late, 0, "nor does it make what it gave back late");
        bench.stop().await;
    });
}

/// The store is away with the connection, so that nobody can look at the target.
#[test]
fn a_service_that_leaves_acknowledges_nothing_that_rests_on_a_target_in_doubt() {
    run(async {
        // Nothing comes again meanwhile, however busy the machine is.
        let ack_wait = Duration::from_secs(60);
        let mut bench = Bench::start(Settings { grace: LONG_GRACE, ack_wait, ..settings() });
        bench.source.faults.fail_next("settle", FOR_EVER, unavailable());
        bench.feed_row("a", 1..=10);
        bench.until("all are recorded", |fakes| fakes.dedup.get(&key("a", 10)).is_some()).await;
        bench.dedup.faults.fail_next("highest", FOR_EVER, unavailable());
        bench.publisher.regress_to(4);
        bench.publisher.reconnect();
        bench.until("nobody can look", |_| bench.is_paused(PauseReason::Reconcile)).await;
        bench.ask_to_stop_and_go_on().await;
        bench.source.faults.clear("settle");
        let ended = bench.ended().await;
        assert!(ended.drained, "{ended:?}");
        assert_eq!(bench.source.unacknowledged(), (1..=10).collect::<Vec<_>>());
        assert_eq!(bench.naks().len(), 10, "others need not wait for them");
    });
}

#[test]
fn a_service_that_leaves_looks_at_the_target_and_acknowledges_what_it_has() {
    run(async {
        let mut bench = Bench::start(settings());
        bench.source.faults.fail_next("settle", FOR_EVER, unavailable());
        bench.feed_row("a", 1..=10);
        bench.until("all are recorded", |fakes| fakes.dedup.get(&key("a", 10)).is_some()).await;
        bench.source.reconnect();
        bench.ask_to_stop();
        bench.until("it is leaving", |_| bench.is_paused(PauseReason::Shutdown)).await;
        bench.source.faults.clear("settle");
        let ended = bench.ended().await;
        assert!(ended.drained, "{ended:?}");
        assert_eq!(bench.source.unacknowledged(), Vec::<u64>::new());
    });
}

/// So long that others have been given it and may be done with it, for longer than anybody remembers.
#[test]
fn what_has_waited_for_a_look_beyond_ack_wait_is_left_to_others() {
    run(async {
        let ack_wait = Duration::from_millis(500);
        let bench = Bench::start(Settings { ack_wait, suspect_after: 1_000, ..settings() });
        bench.feed_row("a", 1..=1);
        bench.until_done().await;
        bench.dedup.faults.fail_next("highest", FOR_EVER, unavailable());
        bench.source.reconnect();
        bench.feed_row("a", 2..=6);
        bench.until("they wait", |_| bench.is_paused(PauseReason::Reconcile) && bench.watch.outstanding() == 5).await;
        bench.clock.advance(ack_wait);
        let said = |fakes: &Fakes| {
            fakes.source.settlements().iter().filter(|settlement| settlement.settle != Settle::InProgress).count()
        };
        let (before, published) = (said(&bench), bench.publisher.stored().len());
        (2..=6).for_each(|sequence| bench.source.acknowledge_elsewhere(sequence));
        bench.dedup.faults.clear("highest");
        bench.until("it was looked at", |_| !bench.is_paused(PauseReason::Reconcile)).await;
        bench.feed_row("b", 1..=1);
        bench.until_done().await;
        assert_eq!(bench.publisher.stored().len(), published + 1);
        assert_eq!(said(&bench), before + 1, "nor is anything said of them");
        bench.stop().await;
    });
}

/// What gets through before the next probe must not pass for the end of the outage, nor hide that the target is behind.
#[test]
fn what_is_confirmed_after_the_first_failed_probe_is_published_again() {
    run(async {
        let pause = Duration::from_secs(2);
        let bench = Bench::start(Settings { backoff: Backoff { initial: pause, max: pause }, ..settings() });
        bench.feed_row("a", 1..=4);
        bench.until_done().await;
        bench.publisher.refuse_as("nowhere", FailureClass::Unavailable);
        bench.publisher.hold();
        bench.feed("x 1 publish nowhere");
        bench.until("one will have failed", |fakes| fakes.publisher.held() == 1).await;
        bench.feed_row("a", 5..=10);
        bench.until("six are stored, and nothing was heard", |fakes| fakes.publisher.held() == 7).await;
        bench.dedup.faults.fail_next("check", FOR_EVER, unavailable());
        bench.feed_row("c", 1..=8);
        bench.until("eight are in hand", |fakes| fakes.watch.outstanding() == 15).await;
        bench.publisher.faults.fail_next("target", 1, unavailable());
        bench.publisher.regress_to(4);
        bench.publisher.release_first();
        bench.until("it is away", |_| bench.is_paused(PauseReason::Dependency(Dependency::Target))).await;
        bench.dedup.faults.clear("check");
        bench.until("these are stored as well", |_| bench.row("c").len() == 8).await;
        bench.publisher.accept("nowhere");
        bench.publisher.release();
        // Every acknowledgement is held against what is stored at that moment.
        bench.until_done().await;
        assert_eq!((bench.row("a"), bench.row("x")), ((1..=10).collect(), vec![1]));
        bench.stop().await;
    });
}

#[test]
fn a_target_that_was_created_anew_makes_its_records_void_while_the_connection_stands() {
    run(async {
        let bench = Bench::start(settings());
        bench.feed_row("a", 1..=3);
        bench.until_done().await;
        let looked =
            |event: &Observed| matches!(event, Observed::Paused { reason: PauseReason::Reconcile, paused: false });
        assert_eq!(bench.observer.count(looked), 1, "the stream is the one that was looked at");
        bench.publisher.begin_new_life();
        bench.feed_row("b", 1..=3);
        bench.until("it was looked at", |fakes| fakes.observer.count(looked) == 2).await;
        // These come again, and are on record.
        bench.feed_row("a", 1..=3);
        bench.until_done().await;
        assert_eq!((bench.row("a"), bench.row("b")), (vec![1, 2, 3], vec![1, 2, 3]));
        assert_eq!(bench.observer.count(looked), 2, "once");
        bench.stop().await;
    });
}
