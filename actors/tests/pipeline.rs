//! The whole actor system on fakes, while nothing or little fails.

mod bench;

use std::ops::RangeInclusive;
use std::time::Duration;

use bench::{Bench, Fakes, key, run, settings, suspect};
use cdc_actors::message::{Reason, Record, Settle};
use cdc_actors::ports::{Budget, Stall, Stalled};
use cdc_actors::shared::Settings;
use cdc_actors::telemetry::Outcome;
use cdc_actors::testkit::{Observed, unavailable};

#[test]
fn every_event_is_stored_once_recorded_and_then_acknowledged() {
    run(async {
        let bench = Bench::start(settings());
        for n in 0..400 {
            bench.feed(format!("r{} {} publish", n % 7, n + 1));
        }
        bench.until_done().await;
        assert_eq!(bench.publisher.stored().len(), 400);
        assert!((0..400).all(|n| bench.dedup.get(&key(&format!("r{}", n % 7), n + 1)).is_some()));
        assert_eq!(bench.watch.acks_without_record(), 0);
        bench.until("400 are processed", |fakes| fakes.observer.settled(Outcome::Processed) == 400).await;
        assert!(bench.publisher.stored().iter().all(|message| message.header("Cdc-Late").is_none()));
        bench.stop().await;
    });
}

#[test]
fn every_actor_says_again_and_again_that_it_lives() {
    run(async {
        let bench = Bench::start(settings());
        for kind in ["ingest", "transform", "dedup", "publish", "supervisor"] {
            let alive = |event: &Observed| matches!(event, Observed::Alive { actor } if *actor == kind);
            // Each of the transform actors says so when it starts.
            let times = if kind == "transform" { settings().workers + 1 } else { 2 };
            bench.until(kind, |fakes| fakes.observer.count(alive) >= times).await;
        }
        bench.stop().await;
    });
}

#[test]
fn a_consumer_that_stands_still_is_told_of_once_for_each_finding() {
    run(async {
        let bench = Bench::start(settings());
        let told = |fakes: &Fakes| fakes.observer.count(|event| matches!(event, Observed::Stalled(_)));
        for times in 1..=2 {
            bench.source.stall(Stalled { stall: Stall::Silent, made_anew: false });
            bench.until("it is told of", |fakes| told(fakes) == times).await;
        }
        bench.stop().await;
    });
}

#[test]
fn what_is_recorded_already_is_a_duplicate_and_not_published() {
    run(async {
        let bench = Bench::start(settings());
        let record = Record { stream_created: 7, generation: 1, sequence: 1 };
        bench.dedup.plant(&key("a", 2), &Record { stream_created: 6, ..record }.encode());
        bench.dedup.plant(&key("a", 3), &Record { generation: 9, ..record }.encode());
        bench.dedup.plant(&key("a", 4), "nonsense");
        for lsn in 2..=4 {
            bench.feed(format!("a {lsn} publish"));
        }
        bench.until_done().await;
        assert_eq!(bench.row("a"), [2, 3, 4], "records of another stream or generation are none");
        bench.feed("a 3 publish");
        bench.until_done().await;
        bench.until("a duplicate", |fakes| fakes.observer.settled(Outcome::Duplicate) == 1).await;
        assert_eq!(bench.publisher.faults.calls("publish"), 3, "the duplicate was not published");
        bench.stop().await;
    });
}

#[test]
fn what_the_target_has_already_is_a_duplicate() {
    run(async {
        let bench = Bench::start(settings());
        bench.feed("a 1 publish");
        bench.until_done().await;
        bench.dedup.flush();
        bench.feed("a 1 publish");
        bench.until_done().await;
        bench.until("a duplicate", |fakes| fakes.observer.settled(Outcome::Duplicate) == 1).await;
        assert_eq!(bench.row("a"), [1]);
        bench.stop().await;
    });
}

#[test]
fn skipped_and_poisoned_events_end_as_such_and_panics_are_poison() {
    run(async {
        let bench = Bench::start(settings());
        for action in ["skip", "leave_out", "poison", "panic_order", "panic_decide", "publish"] {
            bench.feed(format!("a 1 {action}"));
        }
        bench.until_done().await;
        bench.until("all are told", |fakes| fakes.observer.settled(Outcome::DeadLettered) == 3).await;
        let skipped = |whose: Option<&'static str>| {
            let is_it = |event: &Observed| matches!(event, Observed::Settled { table, outcome: Outcome::Skipped, .. } if *table == whose);
            bench.observer.count(is_it)
        };
        assert_eq!((skipped(None), skipped(Some("orders")), bench.row("a").len()), (1, 1, 1));
        let mut letters: Vec<_> = bench.dead_letters.stored().into_iter().map(|l| (l.reason, l.detail)).collect();
        letters.sort();
        let expected = [
            (Reason::WrongShape, "poison".to_owned()),
            (Reason::Panic, "told to panic in decide".to_owned()),
            (Reason::Panic, "told to panic in order".to_owned()),
        ];
        assert_eq!(letters, expected);
        assert_eq!(bench.observer.count(|e| matches!(e, Observed::ActorRestarted { .. })), 0, "the actors lived on");
        bench.stop().await;
    });
}

#[test]
fn it_is_told_how_long_after_its_commit_an_event_was_published() {
    run(async {
        let bench = Bench::start(settings());
        let age = Duration::from_secs(5);
        bench.clock.advance(age);
        bench.feed("a 1 dated");
        bench.feed("b 1 publish");
        bench.until_done().await;
        let told = |wanted| {
            let events = bench.observer.events().into_iter().filter_map(|event| match event {
                Observed::Published { key, since_commit, .. } if key == wanted => Some(since_commit),
                _ => None,
            });
            events.collect::<Vec<_>>()
        };
        let [Some(since)] = told(key("a", 1))[..] else { panic!("once, with a time: {:?}", told(key("a", 1))) };
        assert!(since >= age && since <= bench.clock.elapsed(), "{since:?}");
        assert_eq!(told(key("b", 1)), [None], "when it was committed is not known");
        bench.stop().await;
    });
}

#[test]
fn no_more_is_out_than_permits_allow() {
    run(async {
        let settings = Settings { in_flight: Budget { messages: 20, bytes: 600 }, largest_message: 100, ..settings() };
        let bench = Bench::start(settings);
        bench.publisher.hold();
        for n in 1..=100 {
            bench.feed(format!("r{n} {n} publish"));
        }
        bench.until("permits are used up", |fakes| fakes.publisher.held() > 10).await;
        bench.publisher.release();
        bench.until_done().await;
        let (messages, bytes) = bench.watch.most_outstanding();
        assert!(messages <= 20 && bytes <= 600 && messages > 10, "{messages} messages, {bytes} bytes");
        bench
            .until("permits are given back", |fakes| {
                fakes.observer.events().iter().rev().find_map(|e| match e {
                    Observed::InFlight { messages, bytes } => Some((*messages, *bytes)),
                    _ => None,
                }) == Some((0, 0))
            })
            .await;
        bench.stop().await;
    });
}

#[test]
fn what_takes_long_is_kept_alive_and_a_redelivery_is_not_processed_twice() {
    run(async {
        let ack_wait = Duration::from_millis(600);
        let bench = Bench::start(Settings { ack_wait, ..settings() });
        bench.publisher.hold();
        let sequence = bench.feed("a 1 publish");
        bench
            .until("in-progress", |fakes| {
                fakes.source.settlements().iter().filter(|s| s.settle == Settle::InProgress).count() >= 3
            })
            .await;
        assert_eq!(bench.publisher.held(), 1);
        bench.source.redeliver(sequence);
        let pulls = bench.watch.pulls();
        bench.until("the redelivery is pulled", |fakes| fakes.watch.pulls() > pulls).await;
        bench.publisher.release();
        bench.until_done().await;
        assert_eq!((bench.publisher.faults.calls("publish"), bench.row("a")), (1, vec![1]));
        bench.stop().await;
    });
}

#[test]
fn a_redelivery_of_what_was_finished_is_acknowledged_from_memory() {
    run(async {
        let bench = Bench::start(settings());
        // The first acknowledgement does not reach the server.
        let sequence = bench.feed("a 1 publish");
        bench.source.faults.fail_next("settle", 3, unavailable());
        bench.until("it is stored", |fakes| fakes.publisher.stored().len() == 1).await;
        bench.source.redeliver(sequence);
        bench.until_done().await;
        assert_eq!(bench.publisher.faults.calls("publish"), 1);
        bench.stop().await;
    });
}

/// Feeds so many changes of a row that have been delivered seven times, and left this marker behind.
fn feed_suspects(fakes: &Fakes, row: &str, lsns: RangeInclusive<u64>, marker: u64) -> Vec<u64> {
    let feed = |lsn| {
        let sequence = fakes.feed(format!("{row} {lsn} publish"));
        fakes.source.set_deliveries(sequence, 7);
        fakes.dedup.mark(suspect(sequence), marker);
        sequence
    };
    lsns.map(feed).collect()
}

#[test]
fn suspects_that_left_no_marker_run_with_everything_else_and_take_theirs_back() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        let sequences: Vec<u64> = (1..=20).map(|lsn| fakes.feed(format!("a {lsn} publish"))).collect();
        for of_many in [5, 6, 12] {
            fakes.source.set_deliveries(sequences[of_many], 7);
        }
        fakes.publisher.hold();
        let bench = Bench::start_on(fakes, settings());
        bench.until("all of them are published", |fakes| fakes.publisher.held() == 20).await;
        let markers =
            |fakes: &Fakes| sequences.iter().map(|sequence| fakes.dedup.marker(suspect(*sequence))).sum::<u64>();
        assert_eq!(markers(&bench), 3, "a death would be laid at the door of the suspects");
        bench.publisher.release();
        bench.until_done().await;
        assert_eq!(bench.row("a"), (1..=20).collect::<Vec<_>>(), "those behind a suspect wait for it");
        bench.until("markers are taken back", |fakes| markers(fakes) == 0).await;
        bench.stop().await;
    });
}

#[test]
fn a_suspect_that_left_a_marker_runs_with_nothing_else_in_flight() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        let [sequence] = feed_suspects(&fakes, "a", 1..=1, 1)[..] else { unreachable!("one was fed") };
        fakes.publisher.hold();
        let bench = Bench::start_on(fakes, settings());
        bench.until("the suspect is published", |fakes| fakes.publisher.held() == 1).await;
        assert_eq!(bench.dedup.marker(suspect(sequence)), 4, "a death alone weighs more");
        // A pause that ends resumes intake; the suspect must stay alone all the same.
        bench.publisher.reconnect();
        bench.feed("b 1 publish");
        let checks = bench.publisher.faults.calls("target");
        bench.until("it was reconciled", |fakes| fakes.publisher.faults.calls("target") >= checks + 2).await;
        actix_rt::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(bench.watch.most_outstanding().0, 1);
        bench.publisher.release();
        bench.until_done().await;
        bench.until("the marker is taken back", |fakes| fakes.dedup.marker(suspect(sequence)) == 0).await;
        bench.stop().await;
    });
}

#[test]
fn many_suspects_that_left_markers_run_in_groups_the_least_suspected_first() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        feed_suspects(&fakes, "a", 1..=20, 2);
        feed_suspects(&fakes, "b", 1..=20, 1);
        let bench = Bench::start_on(fakes, settings());
        bench.until_done().await;
        let rows: Vec<_> = bench.publisher.stored().iter().map(|stored| stored.subject.clone()).collect();
        assert_eq!(rows, [["out.b"; 20], ["out.a"; 20]].concat());
        // Sixteen at once and four alone, twice; each group is marked and unmarked.
        bench.until("markers are taken back", |fakes| fakes.dedup.faults.calls("set_markers") == 20).await;
        bench.stop().await;
    });
}

#[test]
fn a_message_that_the_process_died_under_alone_is_a_dead_letter_in_the_end() {
    run(async {
        let fakes = Fakes::new(settings().ack_wait);
        let sequence = feed_suspects(&fakes, "a", 1..=1, 7)[0];
        feed_suspects(&fakes, "a", 2..=2, 6);
        fakes.feed("a 3 publish");
        let bench = Bench::start_on(fakes, settings());
        bench.until_done().await;
        let letters = bench.dead_letters.stored();
        let reasons: Vec<_> = letters.iter().map(|letter| (letter.reason, letter.delivery.receipt.id)).collect();
        assert_eq!(reasons, [(Reason::CrashesProcess, suspect(sequence))]);
        assert_eq!(bench.row("a"), [3, 2], "one that may be innocent runs once more");
        bench.until("its marker is taken back", |fakes| fakes.dedup.marker(suspect(sequence)) == 0).await;
        bench.stop().await;
    });
}

#[test]
fn suspects_wait_for_a_store_that_cannot_be_asked_or_told() {
    for operation in ["markers", "set_markers"] {
        run(async move {
            let fakes = Fakes::new(settings().ack_wait);
            feed_suspects(&fakes, "a", 1..=1, 0);
            fakes.dedup.faults.fail_next(operation, 5, unavailable());
            let bench = Bench::start_on(fakes, settings());
            bench.until("it is tried again", |fakes| fakes.dedup.faults.calls(operation) >= 6).await;
            bench.until_done().await;
            assert_eq!(bench.row("a"), [1]);
            bench.feed("a 2 publish");
            bench.until_done().await;
            bench.stop().await;
        });
    }
}
