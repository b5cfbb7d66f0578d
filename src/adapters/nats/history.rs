//! What travels with an event that is brought back from the dead letters: how often, and what it failed of before.

use cdc_actors::message::Headers;
use serde_json::{Value, json};

use super::letters::{Damage, Letter, Original};
use crate::domain::{ORIGINAL_ID, REPLAYS};

/// Earlier failures that an event carries with it; [`REPLAYS`] counts all.
const HISTORY_KEPT: usize = 10;
/// The longest detail in the history, in characters.
const DETAIL_KEPT: usize = 200;
/// What it failed of before, oldest first: a JSON array.
const HISTORY: &str = "Cdc-History";

/// The original as it goes back: its own subject, body and headers without those that speak to servers, with its history.
///
/// # Errors
/// The [`Damage`] of the letter.
pub fn replayed(letter: &Letter) -> Result<Original, Damage> {
    let original = letter.original.clone()?;
    let own = [REPLAYS, HISTORY, ORIGINAL_ID];
    let is_own = |name: &str| own.iter().any(|own| own.eq_ignore_ascii_case(name));
    let is_servers = |name: &str| name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("nats-"));
    let kept = original.headers.iter().filter(|(name, _)| !is_own(name) && !is_servers(name));
    let mut headers: Headers = kept.cloned().collect();
    let before = original.header(REPLAYS);
    let replays = before.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    // The id of the first time: later ones are those of replays.
    let first_id = if before.is_some() { original.header(ORIGINAL_ID) } else { original.header("Nats-Msg-Id") };
    headers.extend(first_id.map(|id| (ORIGINAL_ID.to_owned(), id.to_owned())));
    headers.push((REPLAYS.to_owned(), replays.saturating_add(1).to_string()));
    headers.push((HISTORY.to_owned(), Value::Array(history(letter, original.header(HISTORY))).to_string()));
    Ok(Original { headers, ..original })
}

/// What it failed of before and what it failed of now.
fn history(letter: &Letter, before: Option<&str>) -> Vec<Value> {
    let mut history = before.and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok()).unwrap_or_default();
    history.push(json!({
        "time": letter.time, "reason": letter.reason, "detail": letter.detail.chars().take(DETAIL_KEPT).collect::<String>(),
        "sequence": letter.source_sequence, "deliveries": letter.deliveries,
    }));
    let older = history.len().saturating_sub(HISTORY_KEPT);
    history.split_off(older)
}

/// The replays of a letter so far, and what it failed of before this time.
pub fn past(original: &Original) -> (u64, Vec<Value>) {
    let replays = original.header(REPLAYS).and_then(|count| count.parse().ok()).unwrap_or(0);
    let history = original.header(HISTORY).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    (replays, history)
}
