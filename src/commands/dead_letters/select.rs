//! Which letters are meant.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{CommandError, Desk};
use crate::adapters::nats::{Letter, Pick};
use crate::cli::{Filter, Selection};

/// Whether a letter is one of those that `filter` asks for.
pub(super) fn fits(desk: &Desk, filter: &Filter, letter: &Letter) -> bool {
    let Filter { table, reason, since, until, tenant } = filter;
    let time: Option<Timestamp> = letter.time.parse().ok();
    table.as_ref().is_none_or(|table| letter.table(desk.prefix()) == table)
        && reason.as_ref().is_none_or(|reason| letter.reason == *reason)
        && since.is_none_or(|since| time.is_some_and(|time| time >= since))
        && until.is_none_or(|until| time.is_some_and(|time| time < until))
        && tenant.as_ref().is_none_or(|tenant| desk.tenant(letter).as_ref() == Some(tenant))
}

/// The letters that were asked for.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// Them, in the order of the source.
    pub picks: Vec<Pick>,
    /// Sequences that no letter has.
    pub missing: Vec<u64>,
}

/// Finds them. Copies of a letter, left behind by a crash right after it was stored, count as one.
pub(super) async fn choose(desk: &Desk, which: &Selection) -> Result<Chosen, CommandError> {
    let by_filter = which.all || which.filter.says_something();
    let mut picks: BTreeMap<String, Pick> = BTreeMap::new();
    let mut meant = Vec::new();
    let mut found = Vec::new();
    desk.each(|letter| {
        let named = letter.sequences.iter().any(|sequence| which.sequences.contains(sequence));
        found.extend(letter.sequences.iter().filter(|sequence| which.sequences.contains(sequence)));
        let pick = Pick::of(&letter);
        let key = match pick.identity.as_str() {
            "" => format!("#{}", pick.sequence()),
            identity => identity.to_owned(),
        };
        if named || by_filter && fits(desk, &which.filter, &letter) {
            meant.push(key.clone());
        }
        match picks.get_mut(&key) {
            None => drop(picks.insert(key, pick)),
            Some(first) => {
                first.subject = first.subject.take().or(pick.subject);
                first.sequences.extend(pick.sequences);
                first.sequences.sort_unstable();
            }
        }
        Ok(())
    })
    .await?;
    meant.sort_unstable();
    meant.dedup();
    let mut chosen: Vec<Pick> = meant.iter().filter_map(|key| picks.remove(key)).collect();
    chosen.sort_by_key(|pick| (pick.source_sequence, pick.sequence()));
    let missing = which.sequences.iter().copied().filter(|sequence| !found.contains(sequence)).collect();
    Ok(Chosen { picks: chosen, missing })
}
