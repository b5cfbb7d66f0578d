//! Starting, healthy, lagging, without a dependency, shutting down, gone.

use std::path::PathBuf;

use serde_json::Value;

use super::chromium::{LOOKS, Page};
use super::support::bench::{Bench, Consumer};

const READY: &str = "document.getElementById('verdict-text').textContent === 'ready'";

/// The text of an element as JavaScript.
fn says(id: &str) -> String {
    format!("document.getElementById('{id}').textContent")
}

/// A number that an element shows.
fn shown(id: &str) -> String {
    format!("Number({}.replaceAll(',', ''))", says(id))
}

fn open(consumer: &Consumer) -> Option<Page> {
    let mut page = Page::new()?;
    page.look(LOOKS[0]);
    page.open(&format!("http://{}/", consumer.address()));
    Some(page)
}

/// Takes pictures in every look, and makes sure that everybody can use the page as it is now.
fn inspect(page: &mut Page, state: &str) {
    for look in LOOKS {
        page.look(look);
        page.picture(&format!("{state}-{}", look.name));
        let wide = page.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(wide, 0, "{state}, {}: the page itself scrolls sideways", look.name);
    }
    // Both widths and both schemes; the other two looks hold nothing new for a program.
    for look in [LOOKS[3], LOOKS[0]] {
        page.look(look);
        accessible(page, &format!("{state}, {}", look.name));
    }
}

/// Holds the page against the rules of WCAG 2.1 AA that a program can check, and axe-core's best practices.
fn accessible(page: &mut Page, what: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".tools/axe.min.js");
    let Ok(axe) = std::fs::read_to_string(&file) else {
        eprintln!("SKIPPED: {} is missing; `make test` installs it", file.display());
        return;
    };
    page.eval(&format!("{axe};0"));
    // It takes what a closed section holds for an overlap with what comes after.
    let open = page.eval("document.querySelector('details').open");
    page.eval("document.querySelector('details').open = true");
    let found = page.eval(
        "axe.run().then(found => found.violations.concat(found.incomplete)
            .map(rule => `${rule.id}: ${rule.help}: ${rule.nodes.map(node => node.html).join(' ')}`))",
    );
    page.eval(&format!("document.querySelector('details').open = {open}"));
    assert_eq!(found, Value::Array(Vec::new()), "{what}");
}

// The browser is waited for without giving way: what feeds needs a thread of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthy_and_live() {
    let bench = Bench::start().await;
    let consumer = bench.consumer(&[("SOURCE__CONSUMER", "page_consumers")]).await;
    let load = bench.load();
    let Some(mut page) = open(&consumer) else { return };
    page.until(READY);
    page.until(&format!("{} > 0 && {} > 0", shown("rate-published"), shown("published")));
    page.until("[...document.querySelectorAll('#latencies tr')].some(row => /received .*\\d/.test(row.textContent))");
    assert_eq!(page.eval("document.title"), "ready – daisi-cdc-consumer");
    let before = page.text("published");
    page.eval("window.sameDocument = true");
    page.until(&format!("{} > Number({:?}.replaceAll(',', ''))", shown("published"), before));

    let poison = ("sequin.changes.daisi_db.daisi.messages.update".to_owned(), b"{not json".to_vec());
    bench.feed_one(poison, "poison").await;
    page.until("/not_json.*messages.*1/.test(document.getElementById('letters').textContent)");
    page.until("/event is a dead letter: messages not_json/.test(document.getElementById('troubles').textContent)");
    page.until("document.getElementById('chart').querySelector('polyline').points.length > 2");
    assert_eq!(page.eval("window.sameDocument"), true, "without reload");

    let settings = page.text("settings");
    assert!(settings.contains("source.consumer") && settings.contains("page_consumers"), "{settings}");
    assert!(settings.contains("environment DAISI_CDC_SOURCE__CONSUMER"), "{settings}");
    keyboard(&mut page);
    page.eval("document.querySelector('details').open = false");
    inspect(&mut page, "healthy");
    page.eval("document.querySelector('details').open = true");
    inspect(&mut page, "settings");

    page.eval("document.body.classList.add('moving')");
    let animation = "getComputedStyle(document.querySelector('.stage'), '::after').animationName";
    assert_eq!(page.eval(animation), "move");
    page.prefer(&[("prefers-reduced-motion", "reduce")]);
    assert_eq!(page.eval(animation), "none");

    let home = format!("http://{}/", consumer.address());
    let outside: Vec<_> =
        page.requests().into_iter().filter(|url| !url.starts_with(&home) && url != "data:,").collect();
    assert!(outside.is_empty(), "{outside:?}");
    assert!(page.complaints().is_empty(), "{:#?}", page.complaints());
    load.stop().await;
}

/// Everything that can be operated is reached by the tab key, seen to be, and works.
fn keyboard(page: &mut Page) {
    page.eval("document.querySelector('details').open = false");
    let focused =
        "(() => { const on = document.activeElement; return on.id || on.getAttribute('href') || on.tagName })()";
    let outline = "getComputedStyle(document.activeElement).outlineStyle";
    let mut seen = Vec::new();
    for _ in 0..20 {
        page.press("Tab", 9);
        let name = page.eval(focused).as_str().unwrap().to_owned();
        if name == "BODY" || seen.contains(&name) && name != "DIV" {
            break;
        }
        assert_ne!(page.eval(outline), "none", "{name}");
        if name == "SUMMARY" {
            page.press("Enter", 13);
            assert_eq!(page.eval("document.querySelector('details').open"), true);
            page.press("Enter", 13);
        }
        seen.push(name);
    }
    for wanted in ["#main", "SUMMARY", "/metrics", "/status.json", "/readyz", "/healthz"] {
        assert!(seen.iter().any(|name| name == wanted), "{wanted} in {seen:?}");
    }
    assert_eq!(seen[0], "#main", "the way past the header comes first");
}

#[tokio::test]
async fn starting_while_a_server_is_away() {
    let mut bench = Bench::start().await;
    bench.redis.kill();
    let consumer = Consumer::starting(&bench.settings(&[])).await;
    let Some(mut page) = open(&consumer) else { return };
    page.until("/^dedup: .+ \\(since .+ UTC\\)/m.test(document.getElementById('reasons').innerText)");
    assert_eq!(page.text("verdict-text"), "starting");
    assert_eq!(page.eval("document.getElementById('stage-dedup').dataset.state"), "down");
    assert_eq!(page.eval("document.getElementById('stage-source').dataset.state"), "unknown");
    page.until("/dedup.?down/.test(document.getElementById('dependencies').textContent)");
    page.until("/waiting for a dependency: dedup/.test(document.getElementById('troubles').textContent)");
    inspect(&mut page, "starting");
    bench.redis.restart();
    page.until(READY);
}

#[tokio::test]
async fn lagging() {
    let bench = Bench::start().await;
    // One at a time: slower than what is fed.
    let consumer = bench.consumer(&[("IN_FLIGHT__MESSAGES", "1"), ("SOURCE__BATCH", "1"), ("WORKERS", "1")]).await;
    let Some(mut page) = open(&consumer) else { return };
    page.until(READY);
    bench.feed(20_000).await;
    page.until(&format!("{} > 1000", shown("pending")));
    page.until("/^[\\d.]+ (s|min)$/.test(document.getElementById('lag').textContent)");
    page.until(&format!("{} > 0", shown("rate-in")));
    assert_eq!(page.text("verdict-text"), "ready", "behind is not broken");
    inspect(&mut page, "lagging");
    assert!(page.complaints().is_empty(), "{:#?}", page.complaints());
}

#[tokio::test]
async fn without_a_dependency_then_recovered_then_shutting_down_then_gone() {
    let mut bench = Bench::start().await;
    // Nothing comes a second time while Redis is away, however long looking takes: it would count as a duplicate.
    let mut consumer = bench.consumer(&[("SHUTDOWN__GRACE", "20s"), ("SOURCE__ACK_WAIT", "60s")]).await;
    let Some(mut page) = open(&consumer) else { return };
    page.until(READY);
    bench.redis.kill();
    bench.feed(50).await;
    page.until(&format!("{} === 'not ready'", says("verdict-text")));
    page.until("document.getElementById('stage-dedup').dataset.state === 'down'");
    page.until("/intake paused: .*dedup/.test(document.getElementById('stage-flight').textContent)");
    page.until("/^dedup: .+ \\(since .+ UTC\\)/.test(document.getElementById('reasons').textContent)");
    page.until("/call failed: dedup check/.test(document.getElementById('troubles').textContent)");
    page.until("/dedup.?down/.test(document.getElementById('dependencies').textContent)");
    page.until("/^not ready: .*dedup/.test(document.getElementById('announce').textContent)");
    assert_eq!(page.eval("document.getElementById('stage-target').dataset.state"), "up");
    inspect(&mut page, "dependency-down");

    bench.redis.restart();
    page.until(READY);
    page.until(&format!("{} === 50", shown("published")));
    assert_eq!(page.eval("document.getElementById('reasons').hidden"), true);

    // What is in flight cannot be finished, so the shutdown takes its time.
    bench.redis.kill();
    bench.feed(50).await;
    page.until("document.getElementById('stage-dedup').dataset.state === 'down'");
    consumer.signal("TERM");
    page.until(&format!("{} === 'shutting down'", says("verdict-text")));
    inspect(&mut page, "shutting-down");
    consumer.signal("TERM");
    consumer.ended().await;
    page.until(&format!("{} === 'no answer'", says("verdict-text")));
    page.until("!document.getElementById('offline').hidden");
    assert!(page.text("offline").contains("as of"));
    inspect(&mut page, "gone");
}
