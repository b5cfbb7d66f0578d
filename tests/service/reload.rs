//! SIGHUP: the configuration is read again while events flow.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::NamedTempFile;

use crate::support::change::{Change, Input};
use crate::support::service::Service;
use crate::support::world::{PATIENCE, Stored, TARGET, World};

const RELOADED: &str = "configuration reloaded";
const REFUSED: &str = "configuration refused, the one in force stays";
const RELOADS: &str = "cdc_consumer_config_reloads_total";

/// A table whose order is kept by this.
fn notes(order_by: &str) -> String {
    format!(
        "tables: {{notes: {{key: id, routing: [company_id, agent_id], subject: '{{prefix}}.{{company_id}}.notes', \
         order_by: {order_by}, columns: {{id: string not null, company_id: string not null, agent_id: string not null}}}}}}\n"
    )
}

fn note(row: u64, lsn: u64) -> Input {
    let record = json!({"id": format!("n-{row}"), "company_id": "acme", "agent_id": format!("agent-{}", row % 3)});
    Change::new("notes", &record).action("update").at(lsn, 0).input()
}

fn message(row: u64, lsn: u64) -> Input {
    Change::message(&format!("m-{row}")).at(lsn, 0).input()
}

/// The service with a file of its own.
struct Reloading {
    service: Service,
    file: NamedTempFile,
}

impl Reloading {
    fn start(world: &World, text: &str) -> Self {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let service = Service::spawn(&world.settings, &["run", "--config", file.path().to_str().unwrap()]).started();
        Self { service, file }
    }

    /// Has the file read again, and waits until that is done with as `said`.
    async fn reload(&self, text: &str, said: &str) {
        let before = self.service.log().find(said).len();
        fs::write(self.file.path(), text).unwrap();
        self.service.signal("HUP");
        until(&self.service, || self.service.log().find(said).len() > before).await;
    }

    fn reloads(&self, result: &str) -> f64 {
        self.service.metric(RELOADS, &[&format!("result=\"{result}\"")])
    }
}

async fn until(service: &Service, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to that:\n{}", service.log().text());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// By row, what was published of it in the order of the stream.
fn rows(published: &[Stored]) -> HashMap<String, Vec<u64>> {
    let mut rows: HashMap<String, Vec<u64>> = HashMap::new();
    for event in published {
        assert_eq!(event.header("Cdc-Late"), None, "{}", event.text());
        let json = event.json();
        let key = json["row_data"]["message_id"].as_str().or(json["row_data"]["id"].as_str()).unwrap().to_owned();
        rows.entry(key).or_default().push(json["commit_lsn"].as_u64().unwrap());
    }
    rows
}

#[tokio::test]
async fn tables_change_under_load_and_nothing_is_lost_doubled_or_out_of_order() {
    const ROWS: u64 = 7;
    const BEFORE: u64 = 400;
    const PORTIONS: u64 = 12;
    // Few enough to be fed before the service, frozen meanwhile, takes its pull request for lost.
    const EVENTS: u64 = 800;
    let world = World::new().await;
    world.create_source().await;
    let running = Reloading::start(&world, "");
    // Without a declaration they are skipped.
    world.feed(&(1..=BEFORE).map(|lsn| note(lsn % ROWS, lsn)).collect::<Vec<_>>()).await;
    world.adds_up(0, 0).await;
    running.reload(&notes("row"), RELOADED).await;
    assert_eq!(
        running.service.metric("cdc_consumer_events_total", &[r#"table="notes""#, r#"result="processed""#]),
        0.0
    );
    assert!(running.service.get("/metrics").1.contains(r#"table="notes",result="processed""#), "its series are there");

    // One row keeps its worker busy while others have little to do: whatever overtook it would be quick.
    let of = |lsn| match lsn % 8 {
        0 | 4 => message(lsn % ROWS, lsn),
        1 => note(lsn % ROWS, lsn),
        _ => note(0, lsn),
    };
    let own = |table: &str| {
        running.service.metric("cdc_consumer_events_total", &[&format!("table=\"{table}\""), r#"result="processed""#])
    };
    // Each sends every row to another worker, and another lane.
    let order = |reloads: u32| notes(["row", "agent_id", "company_id"][reloads as usize % 3]);
    let (mut last, mut reloads) = (BEFORE, 1);
    for _ in 0..PORTIONS {
        // All of it is there at once, so that whatever may be in flight is, many events of each row among it; and so is the signal,
        // however fast the service is.
        running.service.freeze();
        world.feed(&(last + 1..=last + EVENTS).map(of).collect::<Vec<_>>()).await;
        last += EVENTS;
        let before = running.service.log().find(RELOADED).len();
        fs::write(running.file.path(), order(reloads)).unwrap();
        running.service.signal("HUP");
        running.service.signal("CONT");
        until(&running.service, || running.service.log().find(RELOADED).len() > before).await;
        reloads += 1;
        while own("notes") + own("messages") < (last - BEFORE) as f64 {
            running.reload(&order(reloads), RELOADED).await;
            reloads += 1;
        }
    }
    let (published, _) = world.adds_up(usize::try_from(last - BEFORE).unwrap(), 0).await;
    for (row, positions) in rows(&published) {
        assert!(positions.is_sorted_by(|one, other| one < other), "{row}: {positions:?}");
    }
    let events = PORTIONS * EVENTS;
    assert_eq!((own("notes"), own("messages")), ((events / 4 * 3) as f64, (events / 4) as f64));
    assert_eq!((running.reloads("applied"), running.reloads("refused")), (f64::from(reloads), 0.0));
    // A table that is gone is skipped again; its series stay.
    running.reload("", RELOADED).await;
    world.feed(&[note(1, last + 1)]).await;
    world.adds_up(usize::try_from(last - BEFORE).unwrap(), 0).await;
    assert_eq!(own("notes"), (events / 4 * 3) as f64);
    running.service.stop();
}

#[tokio::test]
async fn tables_that_wait_are_neither_shown_nor_counted_as_applied() {
    let world = World::new().await;
    let running = Reloading::start(&world, "");
    world.feed(&[message(1, 1)]).await;
    world.adds_up(1, 0).await;
    // Without Redis what is in flight stays so, and the tables must wait.
    world.redis.stop();
    world.feed(&[message(1, 2)]).await;
    until(&running.service, || running.service.metric("cdc_consumer_in_flight", &[]) > 0.0).await;
    const READ: &str = "reading the configuration again";
    fs::write(running.file.path(), format!("retry: {{initial: 70ms}}\n{}", notes("row"))).unwrap();
    // Told before it is done: with the third it is certain that the second has been dealt with.
    for read in 1..=3 {
        running.service.signal("HUP");
        until(&running.service, || running.service.log().find(READ).len() == read).await;
    }
    let state = || serde_json::from_str::<serde_json::Value>(&running.service.get("/status.json").1).unwrap();
    let shown = |key: &str| {
        state()["settings"].as_array().unwrap().iter().find(|s| s["key"] == key).map(|s| s["value"].clone())
    };
    assert_eq!((shown("retry.initial"), shown("tables.notes.key")), (Some(json!("70ms")), None));
    assert_eq!((running.service.log().find(RELOADED).len(), running.reloads("applied")), (0, 0.0));
    world.redis.cont();
    until(&running.service, || running.service.log().find(RELOADED).len() == 3).await;
    assert_eq!((shown("tables.notes.key"), running.reloads("applied")), (Some(json!("id")), 3.0));
    world.feed(&[note(1, 3)]).await;
    world.adds_up(3, 0).await;
    running.service.stop();
}

#[tokio::test]
async fn a_bad_file_is_refused_whole_and_the_old_one_stays() {
    let world = World::new().await;
    let running = Reloading::start(&world, &notes("row"));
    let bad = "log: {level: debug}\nnats: {password: hunter2}\nretry: {max: soon}\nnonsense: 1\ntables: {messages: {enabled: false}}";
    running.reload(bad, REFUSED).await;
    // A line each.
    for wrong in ["retry.max = \"soon\"", "nonsense", "nats.user"] {
        let told = || running.service.log().find(REFUSED);
        until(&running.service, || told().iter().any(|line| line["error"].as_str().unwrap().contains(wrong))).await;
    }
    world.feed(&[note(1, 1), message(1, 2)]).await;
    world.adds_up(2, 0).await;
    // As does one that is not there.
    fs::remove_file(running.file.path()).unwrap();
    let before = running.reloads("refused");
    running.service.signal("HUP");
    until(&running.service, || running.reloads("refused") > before).await;
    world.feed(&[note(1, 3)]).await;
    world.adds_up(3, 0).await;
    assert_eq!((running.reloads("applied"), running.reloads("refused")), (0.0, 2.0));
    let log = running.service.stop();
    assert!(!log.text().contains("hunter2") && log.find("event settled").is_empty(), "{}", log.text());
}

#[tokio::test]
async fn the_level_of_the_log_changes_and_what_needs_a_restart_is_named() {
    let world = World::new().await;
    let running = Reloading::start(&world, "");
    world.feed(&[message(1, 1)]).await;
    world.adds_up(1, 0).await;
    assert!(running.service.log().find("event settled").is_empty());
    let text =
        "log: {level: debug, format: terminal}\nsource: {batch: 7}\nshutdown: {grace: 9s}\nretry: {initial: 70ms}";
    running.reload(text, RELOADED).await;
    let log = running.service.log();
    assert_eq!(log.find(RELOADED)[0]["changed"], "log.level, retry.initial");
    let named = &log.find("settings have changed that need a restart")[0];
    assert_eq!(
        (&named["settings"], &named["level"]),
        (&json!("log.format, shutdown.grace, source.batch"), &json!("warning"))
    );
    world.feed(&[message(1, 2)]).await;
    world.adds_up(2, 0).await;
    // The page shows what is in force.
    let state: serde_json::Value = serde_json::from_str(&running.service.get("/status.json").1).unwrap();
    let shown =
        |key: &str| state["settings"].as_array().unwrap().iter().find(|s| s["key"] == key).unwrap()["value"].clone();
    assert_eq!((shown("log.level"), shown("retry.initial")), (json!("debug"), json!("70ms")));
    assert_eq!((shown("source.batch"), shown("log.format")), (json!("500"), json!("json")));
    let log = running.service.stop();
    assert_eq!(log.find("event settled").len(), 1, "{}", log.text());
}

#[tokio::test]
async fn a_signal_during_the_start_or_the_shutdown_does_no_harm() {
    let mut world = World::new().await;
    let nats = world.settings["nats.url"].clone();
    // A port that nobody can listen on.
    world.set("nats.url", "nats://127.0.0.1:1");
    let mut starting = Service::spawn(&world.settings, &["run"]);
    until(&starting, || !starting.log().find("waiting for a dependency").is_empty()).await;
    starting.signal("HUP");
    starting.signal("TERM");
    assert_eq!(starting.wait(), Some(0), "{}", starting.log().text());

    world.set("nats.url", &nats);
    let mut ending = world.start();
    for signal in ["HUP", "TERM", "HUP"] {
        ending.signal(signal);
    }
    assert_eq!(ending.wait(), Some(0), "{}", ending.log().text());
}

#[tokio::test]
async fn a_table_that_the_target_does_not_store_is_warned_of_when_it_is_enabled() {
    let world = World::new().await;
    let subjects = vec!["wa.*.*.>".to_owned()];
    let config = async_nats::jetstream::stream::Config { name: TARGET.to_owned(), subjects, ..Default::default() };
    world.jetstream().create_stream(config).await.unwrap();
    let running = Reloading::start(&world, "");
    let told = || running.service.log().text().contains("leave out some or all of wa.*.notes");
    assert!(!told(), "{}", running.service.log().text());
    running.reload(&notes("row"), RELOADED).await;
    until(&running.service, told).await;
    assert!(!running.service.log().text().contains("of wa.*.*.messages"), "what is stored is not named");
    running.service.stop();
}
