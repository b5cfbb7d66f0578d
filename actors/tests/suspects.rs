//! Suspects, while the store that knows of them fails, and when they have to go back.

mod bench;

use std::time::Duration;

use bench::{Bench, FOR_EVER, Fakes, key, paused_for, run, settings, suspect};
use cdc_actors::ports::Dependency;
use cdc_actors::retry::Backoff;
use cdc_actors::shared::Settings;
use cdc_actors::telemetry::PauseReason;
use cdc_actors::testkit::{Observed, unavailable};

/// Feeds `s 1`, which has been delivered seven times and has left this marker behind.
fn feed_suspect(fakes: &Fakes, marker: u64) -> u64 {
    let sequence = fakes.feed("s 1 publish");
    fakes.source.set_deliveries(sequence, 7);
    fakes.dedup.mark(suspect(sequence), marker);
    sequence
}

#[test]
fn others_do_not_wait_for_a_store_that_cannot_be_told_of_a_suspect() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        feed_suspect(&fakes, 1);
        fakes.feed_row("a", 1..=3);
        fakes.dedup.faults.fail_next("set_markers", FOR_EVER, unavailable());
        let bench = Bench::start_on(fakes, settings());
        bench.until("the others are stored", |_| bench.row("a") == [1, 2, 3]).await;
        bench.until("it is tried", |fakes| fakes.dedup.faults.calls("set_markers") > 0).await;
        assert!(!bench.is_stored(&key("s", 1)), "it must not run unmarked");
        bench.dedup.faults.clear("set_markers");
        bench.until_done().await;
        bench.stop().await;
    });
}

#[test]
fn it_is_told_once_that_others_wait_for_a_suspect_and_once_that_they_do_not_any_more() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        feed_suspect(&fakes, 1);
        fakes.feed_row("a", 1..=3);
        let bench = Bench::start_on(fakes, settings());
        bench.until_done().await;
        // Nobody waits for these.
        bench.feed_row("b", 1..=9);
        bench.until_done().await;
        let told = bench.observer.events().into_iter().filter_map(|event| match event {
            Observed::Paused { reason: PauseReason::Suspect, paused } => Some(paused),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [true, false]);
        bench.stop().await;
    });
}

#[test]
fn a_marker_that_cannot_be_taken_back_pauses_nobody() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        feed_suspect(&fakes, 0);
        fakes.publisher.hold();
        let bench = Bench::start_on(fakes, settings());
        bench.until("it runs, and is marked", |fakes| fakes.publisher.held() == 1).await;
        bench.dedup.faults.fail_next("set_markers", 1, unavailable());
        bench.publisher.release();
        bench.until("it is to be unmarked", |fakes| fakes.dedup.faults.calls("set_markers") == 2).await;
        bench.feed_row("a", 1..=1);
        let back = |event: &Observed| {
            matches!(event, Observed::DependencyChanged { dependency: Dependency::Dedup, failure: None })
        };
        bench.until("the store is well, as is known", |fakes| fakes.observer.count(back) == 1).await;
        assert_eq!(bench.observer.count(paused_for(Dependency::Dedup, true)), 0);
        bench.until_done().await;
        bench.stop().await;
    });
}

#[test]
fn a_store_that_does_not_answer_about_suspects_is_asked_more_and_more_slowly() {
    for operation in ["markers", "set_markers"] {
        run(async move {
            let backoff = Backoff { initial: Duration::from_millis(1), max: Duration::from_secs(1) };
            let settings = Settings { ack_wait: Duration::from_secs(60), backoff, ..settings() };
            let fakes = Fakes::new(settings.ack_wait);
            feed_suspect(&fakes, 0);
            fakes.dedup.faults.fail_next(operation, FOR_EVER, unavailable());
            let bench = Bench::start_on(fakes, settings);
            bench.until("it is asked again", |fakes| fakes.dedup.faults.calls(operation) >= 3).await;
            bench.until_after(Duration::from_secs(2)).await;
            // At the first delay it would be a thousand, half of them at least.
            let called = bench.dedup.faults.calls(operation);
            assert!(called <= 40, "{operation}: {called} times");
            assert_eq!(bench.naks(), Vec::<u64>::new(), "it waits here");
            bench.dedup.faults.clear(operation);
            bench.until_done().await;
            bench.stop().await;
        });
    }
}

#[test]
fn with_bypass_suspects_run_although_the_store_cannot_be_asked_or_told() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        feed_suspect(&fakes, 1);
        fakes.feed_row("a", 1..=3);
        for operation in ["markers", "set_markers"] {
            fakes.dedup.faults.fail_next(operation, FOR_EVER, unavailable());
        }
        // To wait for the next attempt would take minutes.
        let backoff = Backoff { initial: Duration::from_secs(600), max: Duration::from_secs(600) };
        let bench = Bench::start_on(fakes, Settings { bypass_dedup: true, backoff, ..settings() });
        bench.until_done().await;
        assert_eq!(bench.observer.count(paused_for(Dependency::Dedup, true)), 0);
        bench.stop().await;
    });
}

#[test]
fn suspects_that_cannot_be_asked_about_go_back_after_a_long_pause() {
    run(async {
        let settings = Settings { ack_wait: Duration::from_millis(300), ..settings() };
        let fakes = Fakes::new(settings.ack_wait);
        let sequence = feed_suspect(&fakes, 0);
        fakes.dedup.faults.fail_next("markers", FOR_EVER, unavailable());
        let bench = Bench::start_on(fakes, settings);
        bench.until("it goes back", |_| bench.naks().contains(&sequence)).await;
        assert!(!bench.is_stored(&key("s", 1)));
        bench.dedup.faults.clear("markers");
        bench.until_done().await;
        bench.stop().await;
    });
}

#[test]
fn a_suspect_that_cannot_be_asked_about_goes_back_when_the_service_leaves() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        let sequence = feed_suspect(&fakes, 0);
        fakes.dedup.faults.fail_next("markers", FOR_EVER, unavailable());
        let mut bench = Bench::start_on(fakes, settings());
        bench.until("it is asked about", |fakes| fakes.dedup.faults.calls("markers") > 0).await;
        bench.ask_to_stop();
        assert!(bench.ended().await.drained);
        assert_eq!(bench.naks(), [sequence]);
        assert_eq!(bench.dedup.marker(suspect(sequence)), 0);
    });
}

/// What stays would count as a death.
#[test]
fn a_service_that_leaves_waits_until_markers_are_taken_back() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        let sequence = feed_suspect(&fakes, 0);
        fakes.publisher.hold();
        let mut bench = Bench::start_on(fakes, settings());
        bench.until("it runs, and is marked", |fakes| fakes.publisher.held() == 1).await;
        bench.watch.hold("set_markers");
        bench.ask_to_stop();
        bench.until("intake has ended", |fakes| fakes.source.stopped()).await;
        bench.publisher.release();
        bench.until("it is acknowledged", |fakes| fakes.source.unacknowledged().is_empty()).await;
        let beats = |fakes: &Fakes| fakes.observer.count(|event| matches!(event, Observed::Alive { actor: "ingest" }));
        let before = beats(&bench);
        bench.until("there was time enough to end", |fakes| beats(fakes) >= before + 2).await;
        assert_eq!((bench.source.faults.calls("confirm_settled"), bench.dedup.marker(suspect(sequence))), (0, 1));
        bench.watch.release("set_markers");
        assert!(bench.ended().await.drained);
        assert_eq!(bench.dedup.marker(suspect(sequence)), 0);
    });
}
