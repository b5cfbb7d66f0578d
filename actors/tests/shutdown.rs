//! The controlled shutdown: what is in flight is finished or handed back, in time, and nothing is acknowledged that is not stored.

mod bench;

use std::time::{Duration, Instant};

use bench::{Bench, FOR_EVER, Fakes, LONG_GRACE, run, settings, suspect};
use cdc_actors::message::Settle;
use cdc_actors::retry::Backoff;
use cdc_actors::shared::Settings;
use cdc_actors::supervisor::ExitReason;
use cdc_actors::telemetry::PauseReason;
use cdc_actors::testkit::unavailable;

#[test]
fn what_is_in_flight_is_finished_and_what_has_not_started_goes_back() {
    run(async {
        let mut bench = Bench::start(settings());
        bench.publisher.hold();
        for lsn in 1..=30 {
            bench.feed(format!("a {lsn} publish"));
        }
        bench.until("all are on the wire", |fakes| fakes.publisher.held() == 30).await;
        bench.source.arrive_at_stop(2);
        bench.ask_to_stop();
        bench.until("intake has ended", |fakes| fakes.source.stopped()).await;
        bench.feed("a 31 publish");
        bench.publisher.release();
        let ended = bench.ended().await;
        assert_eq!((ended.drained, ended.reason), (true, ExitReason::Asked));
        assert_eq!(bench.source.unacknowledged(), [31], "what came too late stays");
        assert!(bench.is_paused(PauseReason::Shutdown));
        assert!(bench.source.faults.calls("confirm_settled") > 0);
    });
}

#[test]
fn messages_that_arrive_while_intake_stops_are_handed_back() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        fakes.dedup.faults.fail_next("highest", FOR_EVER, unavailable());
        let mut bench = Bench::start_on(fakes, settings());
        // Nothing is pulled before the target has been held against the records: these two arrive unasked for.
        bench.feed("b 1 publish");
        bench.feed("b 2 publish");
        bench.source.arrive_at_stop(2);
        bench.ask_to_stop();
        assert!(bench.ended().await.drained);
        assert_eq!((bench.naks(), bench.watch.pulls()), (vec![1, 2], 0));
        assert!(bench.publisher.stored().is_empty());
    });
}

#[test]
fn an_idle_pipeline_ends_at_once() {
    run(async {
        let mut bench = Bench::start(settings());
        bench.feed("a 1 publish");
        bench.until_done().await;
        let start = Instant::now();
        bench.ask_to_stop();
        bench.ask_to_stop();
        assert!(bench.ended().await.drained);
        assert!(start.elapsed() < settings().grace / 2);
    });
}

#[test]
fn acknowledgements_that_the_server_has_not_confirmed_are_waited_for() {
    run(async {
        let mut bench = Bench::start(settings());
        bench.source.faults.fail_next("confirm_settled", 3, unavailable());
        bench.source.faults.fail_next("settle", 3, unavailable());
        bench.feed("a 1 publish");
        bench.until("it is stored", |fakes| fakes.publisher.stored().len() == 1).await;
        bench.ask_to_stop();
        assert!(bench.ended().await.drained);
        assert_eq!(bench.source.faults.calls("confirm_settled"), 4);
        assert!(bench.source.unacknowledged().is_empty());
    });
}

#[test]
fn acknowledgements_that_may_have_gone_down_with_their_connection_are_not_called_heard() {
    run(async {
        let mut bench = Bench::start(settings());
        bench.feed_row("a", 1..=3);
        bench.until_done().await;
        bench.source.lose_settlements();
        bench.ask_to_stop();
        assert!(!bench.ended().await.drained);
    });
}

#[test]
fn with_the_target_down_everything_goes_back_within_the_grace() {
    run(async {
        let mut bench = Bench::start(Settings { grace: LONG_GRACE, ..settings() });
        bench.publisher.faults.fail_next("publish", FOR_EVER, unavailable());
        for lsn in 1..=20 {
            bench.feed(format!("a {lsn} publish"));
        }
        bench.until("it fails", |fakes| fakes.publisher.faults.calls("publish") > 20).await;
        bench.ask_to_stop_and_go_on().await;
        assert!(bench.ended().await.drained, "handed back in time");
        assert_eq!(bench.source.unacknowledged().len(), 20);
        assert_eq!(bench.naks(), (1..=20).collect::<Vec<_>>());
    });
}

/// The target itself is well, and would be asked again in minutes.
#[test]
fn with_a_subject_refused_what_waits_goes_back_within_the_grace() {
    run(async {
        let long = Duration::from_secs(600);
        let backoff = Backoff { initial: long, max: long };
        let mut bench = Bench::start(Settings { grace: LONG_GRACE, backoff, ..settings() });
        bench.publisher.refuse("nowhere");
        for lsn in 1..=3 {
            bench.feed(format!("x {lsn} publish nowhere"));
        }
        bench.until("it is refused", |fakes| fakes.publisher.faults.calls("publish") >= 3).await;
        bench.ask_to_stop_and_go_on().await;
        assert!(bench.ended().await.drained, "handed back in time");
        assert_eq!(bench.naks(), [1, 2, 3]);
    });
}

#[test]
fn with_outcomes_unknown_it_ends_at_the_deadline_and_acknowledges_nothing() {
    run(async {
        let mut bench = Bench::start(Settings { grace: LONG_GRACE, ..settings() });
        bench.publisher.hold();
        bench.feed("a 1 publish");
        bench.until("it is on the wire", |fakes| fakes.publisher.held() == 1).await;
        bench.ask_to_stop_and_go_on().await;
        bench.clock.advance(LONG_GRACE.mul_f64(0.2));
        assert!(!bench.ended().await.drained);
        assert!(bench.source.settlements().iter().all(|settlement| settlement.settle == Settle::InProgress));
    });
}

#[test]
fn with_the_store_down_everything_goes_back_within_the_grace() {
    run(async {
        let mut bench = Bench::start(Settings { grace: LONG_GRACE, ..settings() });
        bench.feed("a 1 publish");
        bench.until_done().await;
        bench.dedup.faults.fail_next("check", FOR_EVER, unavailable());
        for lsn in 2..=20 {
            bench.feed(format!("a {lsn} publish"));
        }
        bench.until("it fails", |fakes| fakes.dedup.faults.calls("check") > 5).await;
        bench.ask_to_stop_and_go_on().await;
        assert!(bench.ended().await.drained);
        assert_eq!(bench.naks(), (2..=20).collect::<Vec<_>>());
    });
}

#[test]
fn an_actor_that_dies_during_shutdown_is_drained_all_the_same() {
    run(async {
        let mut bench = Bench::start(settings());
        bench.publisher.hold();
        for lsn in 1..=5 {
            bench.feed(format!("a {lsn} publish"));
        }
        bench.until("all are on the wire", |fakes| fakes.publisher.held() == 5).await;
        bench.ask_to_stop();
        bench.until("intake has ended", |fakes| fakes.source.stopped()).await;
        bench.watch.panic_next("settle", 1);
        bench.publisher.release();
        assert!(bench.ended().await.drained);
        assert_eq!(bench.restarts("ingest"), 1);
    });
}

/// A suspect whose marker is being set when the shutdown comes must not be left with it: that would count as a death.
#[test]
fn no_marker_is_left_behind_by_a_shutdown() {
    for delay in [0, 1, 2, 4, 8] {
        run(async move {
            let fakes = Fakes::new(settings().ack_wait);
            let sequence = fakes.feed("a 1 publish");
            fakes.source.set_deliveries(sequence, 7);
            fakes.feed("a 2 publish");
            fakes.dedup.faults.fail_next("set_markers", delay, unavailable());
            let mut bench = Bench::start_on(fakes, settings());
            bench.until("it is tried", |fakes| fakes.dedup.faults.calls("set_markers") > 0).await;
            bench.ask_to_stop();
            assert!(bench.ended().await.drained);
            assert_eq!(bench.dedup.marker(suspect(sequence)), 0);
        });
    }
}
