//! Faults of the process itself.

use std::time::Duration;

use futures::FutureExt;

use super::{Scenario, Setup, unmet, without};
use crate::judge::Symptom::{AckedEarly, Doubled, Inverted, Lost};
use crate::proxy::frames;
use crate::traffic::Mix;
use crate::world::World;

/// How the process and its servers are cut apart at a step of the protocol.
enum Step {
    Checked,
    Sent,
    Confirmed,
    Recorded,
    Acknowledged,
}

/// How often a process is killed at each step.
const KILLS_AT_A_STEP: usize = 5;

async fn killed_at(w: &mut World, step: Step) {
    for _ in 0..KILLS_AT_A_STEP {
        // A round trip that takes its time, so that there is always a batch in hand.
        w.redis_link(0).delay(Duration::from_millis(10));
        w.until_flowing().await;
        // Not always the first frame of its kind, so that the batch is cut in different places.
        let nth = w.rng.usize(1..40);
        let tripwire = match step {
            // Every check asks for the generation, and nothing else does: other things are read by MGET as well.
            Step::Checked => {
                w.isolate_at_redis(0, frames::redis_reply_about("MGET", ":generation"), nth.min(4)).boxed()
            }
            Step::Sent => w.isolate_at(0, frames::publish("wa."), nth).boxed(),
            Step::Confirmed => w.isolate_at(0, frames::publish_ack(), nth).boxed(),
            Step::Recorded => w.isolate_at_redis(0, frames::redis_reply_to("SET"), nth).boxed(),
            Step::Acknowledged => w.isolate_at(0, frames::source_ack(), nth).boxed(),
        };
        let tripped = w.within("the process comes to this step", tripwire).await;
        if tripped.is_some() {
            w.count("kills", 1);
        }
        w.kill(0);
        w.sever_links(0).await;
        w.start(0).await;
    }
}

macro_rules! killed_at {
    ($name:literal, $what:literal, $step:ident, $controls:expr) => {
        Scenario::new(
            $name,
            concat!("kill -9 right after ", $what, ", five times; nothing of the process reaches a server afterwards"),
            "what was in hand is delivered again and published once",
            |w| Box::pin(killed_at(w, Step::$step)),
        )
        .on(Setup { mix: super::load::plain(), ..Setup::default() })
        .controls($controls)
    };
}

/// The scenarios of this file.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "kill-at-random",
            "kill -9 at random, 200 times, within 3 s of work each, the process started again each time",
            "nothing lost, nothing doubled, whatever was in hand",
            |w| Box::pin(kill_at_random(w, 200, Duration::from_secs(3))),
        ),
        Scenario::new(
            "kill-in-short-lives",
            "kill -9 at random, 200 times, within 0.1 s of work each, which is five round trips",
            "nothing lost, nothing doubled, although messages are delivered many times before they are through",
            |w| Box::pin(kill_at_random(w, 200, Duration::from_millis(100))),
        ),
        Scenario::new(
            "kill-a-few",
            "kill -9 at random, 10 times, within 1 s of work each, the process started again each time",
            "nothing lost, nothing doubled, whatever was in hand",
            |w| Box::pin(kill_at_random(w, 10, Duration::from_secs(1))),
        )
        .fast()
        .controls([without("ack-first", AckedEarly), without("no-late", Inverted)]),
        killed_at!("kill-after-check", "the check was answered", Checked, [without("mark-first", Lost)]).fast(),
        killed_at!(
            "kill-after-send",
            "an event was sent",
            Sent,
            [without("ack-first", AckedEarly), without("no-late", Inverted)]
        ),
        killed_at!("kill-after-confirm", "an event was confirmed", Confirmed, [without("no-msg-id", Doubled)]),
        killed_at!("kill-after-record", "an event was recorded", Recorded, []),
        killed_at!("kill-after-ack", "the source was acknowledged", Acknowledged, []),
        Scenario::new(
            "paused-beyond-ack-wait",
            "one of two replicas stands still (SIGSTOP) for three times ack_wait, then goes on with what it held",
            "the other takes its messages over; what the first one sends late is not stored twice",
            |w| {
                Box::pin(async move {
                    for _ in 0..3 {
                        w.until_flowing().await;
                        // Stopped between sending and hearing, it does not know what came of it.
                        let tripwire = w.nats_link(0).trip(frames::publish("wa."), 1);
                        w.within("an event is sent", tripwire).await;
                        w.signal(0, "STOP");
                        w.nats_link(0).heal();
                        w.wait(Duration::from_secs(6)).await;
                        w.signal(0, "CONT");
                    }
                })
            },
        )
        .on(Setup { replicas: 2, ..Setup::default() })
        .controls([without("no-msg-id", Doubled), without("spread", Inverted), without("no-late", Inverted)]),
        Scenario::new(
            "term-ample-grace",
            "SIGTERM with 500 messages in hand, over a link of 400 ms and with grace to spare, three times",
            "exit status 0; everything in hand is finished first, and not delivered again",
            |w| Box::pin(terminated_with_grace(w)),
        )
        .fast()
        .on(Setup { rate: 0, settings: &[("source.ack_wait", "4s")], ..Setup::default() }),
        Scenario::new(
            "term-short-grace",
            "SIGTERM under load with a grace of 50 ms over a link of 40 ms, three times",
            "the process ends all the same; what it left is delivered again",
            |w| {
                Box::pin(async move {
                    w.nats_link(0).delay(Duration::from_millis(40));
                    terminated(w, 3).await;
                })
            },
        )
        .on(Setup { settings: &[("shutdown.grace", "50ms")], ..Setup::default() })
        .controls([without("ack-first", AckedEarly)]),
        Scenario::new(
            "rolling-restart",
            "three replicas under load, restarted in turn, twice round",
            "nothing lost, nothing doubled; the others carry on",
            |w| {
                Box::pin(async move {
                    for turn in 0..6 {
                        w.until_flowing().await;
                        let status = w.terminate(turn % 3).await;
                        w.expect(status == Some(0), format!("exit status 0 after SIGTERM, not {status:?}"));
                        w.until_flowing().await;
                        w.start(turn % 3).await;
                    }
                })
            },
        )
        .fast()
        .on(Setup { replicas: 3, ..Setup::default() })
        .controls([without("spread", Inverted)]),
        Scenario::new(
            "hot-row-kills",
            "one row takes half of all changes; kill -9 at random 10 times",
            "the row's changes in order within each life, later ones marked",
            |w| Box::pin(kill_at_random(w, 10, Duration::from_secs(1))),
        )
        .on(Setup { mix: super::load::hot(), ..Setup::default() })
        .controls([without("spread", Inverted), without("no-late", Inverted)]),
        Scenario::new(
            "input-kills-process",
            "one event of many kills the process whenever its check reaches Redis; it is started again each time",
            "the event ends in the dead letters as crashes_process, no neighbour with it, the others flow",
            |w| Box::pin(input_kills(w)),
        )
        .on(Setup { mix: super::load::plain(), rate: 200, ..Setup::default() })
        .controls([unmet("dead_letter.suspect_after=1000", "becomes a dead letter")]),
        Scenario::new(
            "transform-panics",
            "the transform panics on one event of fifty, half of the times already when its row is looked for",
            "these end in the dead letters as panic, no neighbour with them; no actor dies of it",
            |w| {
                Box::pin(async move {
                    w.feed(3_000).await;
                    w.until_idle().await;
                    let restarts = w.metric(0, "cdc_consumer_actor_restarts_total").await;
                    w.expect(restarts.unwrap_or_default() == 0.0, format!("no actor dies: {restarts:?}"));
                })
            },
        )
        .fast()
        .on(Setup {
            rate: 0,
            mix: Mix { panicking: 0.02, ..Mix::default() },
            sabotage: Some("panics"),
            ..Setup::default()
        }),
        Scenario::new(
            "actors-killed",
            "every actor dies in the middle of its work, twice for each of its calls, and then the supervisor",
            "built again at once, and what it held comes again; without its supervisor the process ends with status 70",
            |w| Box::pin(actors_killed(w)),
        )
        .fast()
        .on(Setup { sabotage: Some("deaths"), ..Setup::default() }),
        Scenario::new(
            "guard-trips",
            "Redis away for longer than the guard allows",
            "exit status 70; started again by the orchestrator, it finishes the rest",
            |w| Box::pin(guard_trips(w)),
        )
        .on(Setup {
            settings: &[
                ("guard.max_consecutive_failures", "3"),
                ("guard.min_duration", "1s"),
                ("guard.max_duration", "4s"),
            ],
            ..Setup::default()
        })
        .controls([unmet("guard.max_consecutive_failures=1000000,guard.max_duration=1h", "exit status 70")]),
    ]
}

async fn kill_at_random(w: &mut World, times: usize, longest: Duration) {
    // Slow links, so that there is something in every step of the protocol to kill.
    w.nats_link(0).delay(Duration::from_millis(10));
    w.redis_link(0).delay(Duration::from_millis(10));
    for _ in 0..times {
        w.until_flowing().await;
        let moment = longest.mul_f64(w.rng.f64());
        w.wait(moment).await;
        w.kill(0);
        w.count("kills", 1);
        w.start(0).await;
    }
}

async fn terminated(w: &mut World, times: usize) {
    for _ in 0..times {
        w.until_flowing().await;
        let status = w.terminate(0).await;
        w.expect(status == Some(0), format!("exit status 0 after SIGTERM, not {status:?}"));
        w.start(0).await;
    }
}

async fn terminated_with_grace(w: &mut World) {
    let mut not_in_hand = 0;
    for _ in 0..3 {
        w.until_ready(0).await;
        // Nothing is confirmed before most of them are in hand.
        w.nats_link(0).delay(Duration::from_millis(400));
        w.feed(500).await;
        let (held, on_their_way) = w.until_in_hand(0, 100.0).await;
        w.count("in hand", held);
        not_in_hand += on_their_way;
        let status = w.terminate(0).await;
        w.expect(status == Some(0), format!("exit status 0 after SIGTERM, not {status:?}"));
        let left = w.consumer_counts().await;
        let finished = left.is_some_and(|(pending, given)| pending + given <= on_their_way);
        w.expect(
            finished,
            format!("what was in hand is finished: of {held}, and {on_their_way} on their way, {left:?}"),
        );
        w.nats_link(0).heal();
        w.start(0).await;
    }
    let again = w.delivered_again().await;
    let few = again.is_some_and(|again| again <= not_in_hand);
    w.expect(few, format!("nothing that was in hand is delivered again: {again:?}, with {not_in_hand} on their way"));
}

/// Suspects are watched from the fifth delivery on; one death in company then, or three where thousands are at hand, and four
/// alone are a verdict: eleven deaths at most, and some to spare for deliveries whose count the server forgot. Twice that, since a
/// producer may have sent it again.
const MOST_DEATHS: usize = 30;
/// How long the next death, or the verdict, may take.
const UNTIL_DEATH: Duration = Duration::from_secs(60);

async fn input_kills(w: &mut World) {
    w.until_flowing().await;
    let (victim, sign) = w.draw_deadly().await;
    let trip = |w: &World| w.redis_link(0).trip(frames::redis_request_about("MGET", &sign), 1);
    // Laid before the event can be checked: the service takes less than a millisecond.
    let mut tripwire = trip(w);
    w.feed_these([victim]).await;
    w.resume_load();
    for _ in 0..MOST_DEATHS {
        tokio::select! {
            () = tripwire => {}
            () = w.letter("crashes_process") => break,
            () = w.wait(UNTIL_DEATH) => break,
        }
        w.kill(0);
        w.count("deaths", 1);
        w.sever_links(0).await;
        tripwire = trip(w);
        w.start(0).await;
    }
    w.redis_link(0).heal();
    let letter = w.letter("crashes_process");
    w.within("the event that kills the process becomes a dead letter", letter).await;
    w.until_flowing().await;
}

/// Actors but for the supervisor, once for each call that they die at (package cdc-saboteur).
const DEATHS: u32 = 7;

async fn actors_killed(w: &mut World) {
    for round in 0..2 {
        for death in 1..=DEATHS {
            w.until_flowing().await;
            w.signal(0, "USR1");
            // In the second round another process counts.
            w.until_metric(0, "cdc_consumer_actor_restarts_total", |dead| dead >= f64::from(death)).await;
            w.count("deaths", 1);
        }
        w.until_flowing().await;
        w.signal(0, "USR1");
        let status = w.ended(0).await;
        w.expect(status == Some(70), format!("exit status 70 without the supervisor, not {status:?} in round {round}"));
        w.start(0).await;
    }
}

async fn guard_trips(w: &mut World) {
    w.until_flowing().await;
    w.redis_link(0).cut();
    let status = w.ended(0).await;
    w.expect(status == Some(70), format!("exit status 70 once the guard trips, not {status:?}"));
    w.redis_link(0).heal();
    w.start(0).await;
}
