//! Events whose subject alone is refused: they wait, hold up nobody, and end as dead letters when others are stored and they are not.

mod bench;

use std::time::Duration;

use bench::{Bench, FOR_EVER, Fakes, key, paused_for, run, settings, suspect};
use cdc_actors::message::Reason;
use cdc_actors::ports::{Budget, Dependency, FailureClass};
use cdc_actors::retry::Backoff;
use cdc_actors::shared::Settings;
use cdc_actors::telemetry::PauseReason;
use cdc_actors::testkit::{Observed, unavailable};

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
        bench.feed_row("a", 2..=50);
        bench.until("others flow", |_| bench.row("a").len() == 50).await;
        bench.publisher.accept("nowhere");
        bench.clock.advance(Duration::from_secs(3));
        bench.until_done().await;
        bench.stop().await;
    });
}

#[test]
fn a_refused_row_of_many_events_leaves_most_permits_to_others() {
    run(async {
        let pause = Duration::from_millis(300);
        let (in_flight, backoff) = (Budget { messages: 40, bytes: 100_000 }, Backoff { initial: pause, max: pause });
        let bench = Bench::start(Settings { in_flight, backoff, ..settings() });
        bench.publisher.refuse("nowhere");
        // Tried one by one they would take a minute.
        for lsn in 1..=240 {
            bench.feed(format!("x {lsn} publish nowhere"));
        }
        bench.feed_row("a", 1..=50);
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
            bench.feed_row("a", lsn..=lsn);
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
        for row in 0..80 {
            bench.feed(format!("x{row} 1 publish nowhere"));
        }
        let mut lsn = 0;
        // A sixteenth of the 1 000 may stay.
        while bench.dead_letters.stored().len() < 18 {
            lsn += 1;
            assert!(lsn < 20_000, "they stay");
            bench.feed(format!("a {lsn} publish"));
            bench.until("others flow", |_| bench.row("a").len() == lsn).await;
        }
        bench.publisher.accept("nowhere");
        bench.clock.advance(Duration::from_secs(3));
        bench.until_done().await;
        assert_eq!(bench.dead_letters.stored().len(), 18);
        bench.stop().await;
    });
}

#[test]
fn nothing_is_a_dead_letter_while_nothing_at_all_is_stored_nor_when_all_is_again() {
    run(async {
        let in_flight = Budget { messages: 40, bytes: 100_000 };
        let (pause, refused_for) = (Duration::from_millis(300), Duration::from_millis(50));
        let backoff = Backoff { initial: pause, max: pause };
        let bench = Bench::start(Settings { in_flight, max_ack_pending: 64, refused_for, backoff, ..settings() });
        bench.feed_row("a", 1..=10);
        bench.until_done().await;
        let subjects: Vec<_> = (0..20).map(|number| format!("nowhere{number}")).collect();
        subjects.iter().for_each(|subject| bench.publisher.refuse(subject));
        for (row, subject) in subjects.iter().cycle().take(200).enumerate() {
            bench.feed(format!("x{row} 1 publish {subject}"));
        }
        bench.until("they wait, here and at the source", |_| bench.naks().len() >= 100).await;
        bench.until("and are tried again", |fakes| fakes.publisher.faults.calls("publish") >= 200).await;
        assert!(bench.dead_letters.stored().is_empty());
        subjects.iter().for_each(|subject| bench.publisher.accept(subject));
        // Others are stored while these rows have not been tried again yet, and more of theirs arrives.
        bench.feed_row("a", 11..=11);
        bench.until("others are stored", |_| bench.row("a").len() == 11).await;
        for (row, subject) in subjects.iter().cycle().take(200).enumerate() {
            bench.feed(format!("x{row} 2 publish {subject}"));
        }
        bench.until("most of it is stored", |fakes| fakes.publisher.stored().len() >= 190).await;
        bench.clock.advance(Duration::from_secs(3));
        bench.until_done().await;
        assert!(bench.dead_letters.stored().is_empty());
        assert_eq!(bench.publisher.stored().len(), 411);
        bench.stop().await;
    });
}

#[test]
fn rows_that_fail_for_a_moment_are_not_taken_for_refused() {
    run(async {
        let in_flight = Budget { messages: 40, bytes: 100_000 };
        let bench = Bench::start(Settings { in_flight, max_ack_pending: 64, ..settings() });
        bench.source.set_max_ack_pending(64);
        bench.publisher.refuse("nowhere");
        for round in 1..=40 {
            // Fewer than it takes for a row that is refused.
            bench.publisher.faults.fail_next("publish", 2, unavailable());
            for row in ["a", "b", "c"] {
                bench.feed_row(row, 5 * round - 4..=5 * round);
                bench.feed(format!("x{row}{round} 1 publish nowhere"));
                bench.feed(format!("x{row}{round} 2 publish nowhere"));
            }
            let flowed = |row: &&str| bench.row(row).len() as u64 == 5 * round;
            bench.until("others flow", |_| ["a", "b", "c"].iter().all(flowed)).await;
        }
        let letters = bench.dead_letters.stored();
        assert!(!letters.is_empty(), "the room was full");
        assert!(letters.iter().all(|letter| letter.delivery.payload.starts_with(b"x")));
        bench.publisher.accept("nowhere");
        bench.clock.advance(Duration::from_secs(3));
        bench.until_done().await;
        bench.stop().await;
    });
}

/// A suspect that left a marker behind must run apart, while the events of `refused` rows wait.
fn suspects_beside(refused: u64, suspect_is_refused: bool) {
    run(async move {
        let fakes = Fakes::new(settings().ack_wait);
        fakes.publisher.refuse("nowhere");
        for row in 0..refused {
            fakes.feed(format!("x{row} 1 publish nowhere"));
        }
        let subject = if suspect_is_refused { "nowhere" } else { "somewhere" };
        let sequence = fakes.feed(format!("s 1 publish {subject}"));
        fakes.source.set_deliveries(sequence, settings().suspect_after);
        fakes.dedup.mark(suspect(sequence), 1);
        fakes.feed_row("a", 1..=50);
        let bench = Bench::start_on(fakes, settings());
        bench.until("others flow", |_| bench.row("a").len() == 50).await;
        // It has gone all the way and killed nothing, stored or not.
        bench.until("it is acquitted", |fakes| fakes.dedup.marker(suspect(sequence)) == 0).await;
        bench.publisher.accept("nowhere");
        bench.clock.advance(Duration::from_secs(3));
        bench.until_done().await;
        assert!(bench.dead_letters.stored().is_empty());
        bench.stop().await;
    });
}

#[test]
fn a_suspect_that_is_refused_holds_up_nobody() {
    suspects_beside(0, true);
}

#[test]
fn refused_events_do_not_keep_a_suspect_from_running_apart() {
    suspects_beside(20, false);
}

#[test]
fn a_publish_actor_built_anew_hears_that_a_suspect_must_run_apart() {
    run(async {
        let fakes = Fakes::new(Duration::from_millis(400));
        fakes.publisher.refuse("nowhere");
        fakes.feed("x 1 publish nowhere");
        fakes.feed("p 1 poison");
        let sequence = fakes.feed("s 1 publish somewhere");
        fakes.source.set_deliveries(sequence, settings().suspect_after);
        fakes.dedup.mark(suspect(sequence), 1);
        fakes.source.faults.fail_next("pull", FOR_EVER, unavailable());
        let bench = Bench::start_on(fakes, settings());
        bench.until("the target has been looked at", |fakes| fakes.source.faults.calls("pull") > 0).await;
        bench.dedup.faults.fail_next("check", FOR_EVER, unavailable());
        bench.watch.panic_next("store", 1);
        bench.source.faults.clear("pull");
        bench.until("it is built anew", |_| bench.restarts("publish") == 1).await;
        bench.dedup.faults.clear("check");
        bench.until("the suspect has run", |fakes| fakes.dedup.marker(suspect(sequence)) == 0).await;
        bench.stop().await;
    });
}

#[test]
fn two_refused_subjects_do_not_stop_the_rest() {
    run(async {
        // A busy machine that takes longer makes no suspects.
        let ack_wait = Duration::from_millis(500);
        let bench = Bench::start(Settings { ack_wait, suspect_after: 1_000, ..settings() });
        // What was stored before says nothing of what fails later.
        bench.feed_row("z", 1..=1);
        bench.until_done().await;
        bench.clock.advance(Duration::from_millis(1));
        // Such as a limit per subject: not told by its class from a target that can store nothing at all.
        bench.publisher.refuse_as("nowhere", FailureClass::Unavailable);
        bench.publisher.refuse_as("nirvana", FailureClass::Unavailable);
        bench.feed("x 1 publish nowhere");
        bench.feed("y 1 publish nirvana");
        bench.until("the target looks down", |_| bench.is_paused(PauseReason::Dependency(Dependency::Target))).await;
        // Takes the pull that was under way when intake was paused: only a new one brings what can be stored.
        bench.feed("x 2 publish nowhere");
        bench.until("it was pulled", |fakes| fakes.watch.outstanding() == 3).await;
        bench.feed_row("a", 1..=50);
        bench.until("others flow", |_| bench.row("a").len() == 50).await;
        assert_eq!(bench.naks(), Vec::<u64>::new(), "elsewhere they would be refused as well");
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
        bench.feed_row("a", 1..=50);
        bench.until("others flow", |_| bench.row("a").len() == 50).await;
        assert_eq!(bench.observer.count(paused_for(Dependency::Target, true)), 0);
        bench.publisher.accept("nowhere");
        bench.publisher.accept("nirvana");
        bench.until_done().await;
        bench.stop().await;
    });
}

/// Events that the store has been asked about, and does not know.
fn checked(bench: &Bench) -> u64 {
    let misses = bench.observer.events().into_iter().map(|event| match event {
        Observed::DedupChecked { misses, .. } => misses,
        _ => 0,
    });
    misses.sum()
}

#[test]
fn what_a_target_refuses_that_looks_down_waits_in_place() {
    run(async {
        let fakes = Fakes::new(Duration::from_secs(60));
        for (row, subject) in ["nowhere", "nirvana"].into_iter().cycle().take(40).enumerate() {
            fakes.publisher.refuse_as(subject, FailureClass::Unavailable);
            fakes.feed(format!("x{row} 1 publish {subject}"));
        }
        fakes.publisher.hold();
        let in_flight = Budget { messages: 60, bytes: 100_000 };
        let bench = Bench::start_on(fakes, Settings { in_flight, ack_wait: Duration::from_secs(60), ..settings() });
        bench.until("all are on their way", |fakes| fakes.publisher.held() == 40).await;
        bench.dedup.faults.fail_next("check", FOR_EVER, unavailable());
        bench.feed("x0 2 publish nowhere");
        bench.until("another is in hand", |fakes| fakes.watch.outstanding() == 41).await;
        bench.publisher.release();
        bench.until("it looks down", |_| bench.is_paused(PauseReason::Dependency(Dependency::Target))).await;
        bench.until("all are tried repeatedly", |fakes| fakes.publisher.faults.calls("publish") >= 400).await;
        bench.dedup.faults.clear("check");
        bench.until("the other is checked", |_| checked(&bench) == 41).await;
        bench.until("all are tried again", |fakes| fakes.publisher.faults.calls("publish") >= 800).await;
        assert_eq!(bench.naks(), Vec::<u64>::new(), "no more than a quarter of a few refused ones could stay");
        bench.publisher.accept("nowhere");
        bench.publisher.accept("nirvana");
        bench.until_done().await;
        bench.stop().await;
    });
}

/// It is taken for down as a whole once it has refused more in a row than may be unacknowledged.
#[test]
fn a_target_that_refused_some_and_refuses_all_by_now_makes_no_more_dead_letters() {
    run(async {
        let in_flight = Budget { messages: 40, bytes: 100_000 };
        let bench = Bench::start(Settings { in_flight, max_ack_pending: 64, ..settings() });
        bench.publisher.refuse("nowhere");
        let mut lsn = 0;
        while bench.dead_letters.stored().is_empty() {
            lsn += 1;
            assert!(lsn < 20_000, "never refused");
            for row in 0..4 {
                bench.feed(format!("x{lsn}-{row} 1 publish nowhere"));
            }
            bench.feed_row("a", lsn..=lsn);
            bench.until("others flow", |_| bench.row("a").len() as u64 == lsn).await;
        }
        let (letters, naks) = (bench.dead_letters.stored().len(), bench.naks().len());
        for row in 0..300 {
            bench.feed(format!("y{row} 1 publish nowhere"));
        }
        let more = |fakes: &Fakes| fakes.dead_letters.stored().len() - letters;
        // Those in flight at the last success were refused before it.
        let most = 64 + 40;
        bench.until("they wait at the source", |fakes| bench.naks().len() > naks + 150 || more(fakes) > most).await;
        assert!(more(&bench) <= most, "{} more dead letters", more(&bench));
        bench.publisher.accept("nowhere");
        bench.clock.advance(Duration::from_secs(3));
        bench.until_done().await;
        bench.stop().await;
    });
}

/// Of what was handed over together some may have been refused just before the target was back, and the rest stored.
#[test]
fn what_is_refused_beside_what_is_stored_at_the_same_time_is_tried_once_more() {
    run(async {
        // As long as that nothing is tried again before the clock is moved on.
        let (long, ack_wait) = (Duration::from_secs(100_000), Duration::from_secs(1_000_000));
        let backoff = Backoff { initial: long, max: long };
        let bench = Bench::start(Settings { workers: 1, ack_wait, refused_for: Duration::ZERO, backoff, ..settings() });
        for (row, subject) in [("a", "somewhere"), ("x", "nowhere")] {
            bench.publisher.refuse(subject);
            bench.feed(format!("{row} 1 publish {subject}"));
        }
        let failed = |event: &Observed| match event {
            Observed::PublishFailed { attempts, .. } => *attempts,
            _ => 0,
        };
        let failures = |fakes: &Fakes| fakes.observer.events().iter().map(failed).sum::<u64>();
        bench.until("both are refused", |fakes| failures(fakes) == 2).await;
        bench.publisher.accept("somewhere");
        bench.publisher.hold();
        bench.clock.advance(long);
        // After a look at the target whatever is due goes out at once.
        bench.publisher.reconnect();
        bench.until("both are tried again", |fakes| fakes.publisher.held() == 2).await;
        bench.publisher.release_first();
        bench.until("one is stored", |fakes| fakes.source.unacknowledged().len() == 1).await;
        bench.publisher.accept("nowhere");
        bench.publisher.release();
        bench.until("the other was refused", |fakes| failures(fakes) == 3).await;
        bench.clock.advance(long);
        bench.publisher.reconnect();
        bench.until_done().await;
        assert!(bench.dead_letters.stored().is_empty());
        bench.stop().await;
    });
}

/// It was on its way when the others of its kind went back.
#[test]
fn what_is_refused_while_a_suspect_waits_to_run_apart_goes_back_at_once() {
    run(async {
        let ack_wait = Duration::from_secs(60);
        let fakes = Fakes::new(ack_wait);
        fakes.publisher.refuse("nowhere");
        fakes.feed("x 1 publish nowhere");
        let sequence = fakes.feed("s 1 publish somewhere");
        fakes.source.set_deliveries(sequence, settings().suspect_after);
        fakes.dedup.mark(suspect(sequence), 1);
        fakes.source.pass(sequence);
        // Every look at the backlog sends back what waits.
        fakes.watch.hold("backlog");
        let bench = Bench::start_on(fakes, Settings { ack_wait, ..settings() });
        bench.until("it is refused", |fakes| fakes.publisher.faults.calls("publish") >= 5).await;
        bench.publisher.hold();
        bench.until("it is on its way", |fakes| fakes.publisher.held() == 1).await;
        bench.source.redeliver(sequence);
        bench.until("a suspect waits", |_| bench.is_paused(PauseReason::Suspect)).await;
        bench.publisher.release();
        bench.until("the suspect has run", |fakes| fakes.is_stored(&key("s", 1))).await;
        assert_eq!(bench.naks(), [1]);
        bench.watch.release("backlog");
        bench.publisher.accept("nowhere");
        bench.clock.advance(ack_wait);
        bench.until_done().await;
        bench.stop().await;
    });
}
