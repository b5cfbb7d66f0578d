//! The page for people: self-contained, no script, no outside resource.

use std::fmt::Write;

use crate::adapters::telemetry::Figures;
use crate::adapters::telemetry::status::{Liveness, Readiness};

const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta http-equiv=\"refresh\" content=\"5\">
<title>daisi-cdc-consumer</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem; margin-bottom: 0 }
.good { color: #1a7f37 } .bad { color: #cf222e }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
td.error { overflow-wrap: anywhere }
footer { color: #888; font-size: .9rem }
</style>
</head>
<body>
";

/// Renders the page.
pub(super) fn render(readiness: &Readiness, liveness: &Liveness, figures: &Figures) -> String {
    let mut html = String::from(HEAD);
    let (class, verdict) = match (liveness.alive, readiness.ready) {
        (false, _) => ("bad", "not alive"),
        (true, false) => ("bad", "not ready"),
        (true, true) => ("good", "ready"),
    };
    // Writing to a String cannot fail.
    let _ = write!(
        html,
        "<h1>daisi-cdc-consumer</h1>\n<p>This replica is <strong class=\"{class}\">{verdict}</strong>.</p>\n"
    );
    reasons(&mut html, readiness, liveness);
    numbers(&mut html, figures);
    let _ = write!(
        html,
        "<footer><a href=\"/metrics\">metrics</a> · <a href=\"/readyz\">readiness</a> · <a href=\"/healthz\">liveness</a> · version {} · renewed every 5 s</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
    );
    html
}

fn reasons(html: &mut String, readiness: &Readiness, liveness: &Liveness) {
    if readiness.ready && liveness.alive {
        return;
    }
    html.push_str("<table>\n<tr><th>What</th><th>Error</th><th>Since</th></tr>\n");
    for reason in &readiness.reasons {
        let (what, error, since) = (escape(reason.dependency), escape(&reason.error), escape(&reason.since));
        let _ = writeln!(html, "<tr><td>{what}</td><td class=\"error\">{error}</td><td>{since}</td></tr>");
    }
    for silent in &liveness.silent {
        let (actor, seconds) = (escape(&silent.actor), silent.seconds);
        let _ = writeln!(
            html,
            "<tr><td>{actor}</td><td class=\"error\">makes no progress</td><td>for {seconds} s</td></tr>"
        );
    }
    html.push_str("</table>\n");
}

fn numbers(html: &mut String, figures: &Figures) {
    let rows = [
        ("Published", figures.processed.to_string()),
        ("Duplicates dropped", figures.duplicates.to_string()),
        ("Skipped (other tables)", figures.skipped.to_string()),
        ("Dead letters", figures.dead_lettered.to_string()),
        ("In flight", figures.in_flight.to_string()),
        ("Waiting in the source", figures.pending.to_string()),
        ("Age of the oldest unacknowledged", format!("{:.1} s", figures.lag.as_secs_f64())),
    ];
    html.push_str("<table>\n<tr><th>Since the start of this process</th><th></th></tr>\n");
    for (name, value) in rows {
        let _ = writeln!(html, "<tr><td>{name}</td><td class=\"number\">{value}</td></tr>");
    }
    html.push_str("</table>\n");
}

/// Errors come from servers: nothing in them may be taken for markup.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
        safe
    })
}
