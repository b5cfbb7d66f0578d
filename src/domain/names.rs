//! Names with places: found by a few of their bytes, whatever order they are asked for in.

use std::iter;

/// What tells most names apart: the first and the last eight bytes, and the length. Names of 16 bytes at most are the same if these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Glance {
    first: u64,
    last: u64,
    length: usize,
}

/// Names no longer than that are known by a glance.
const SEEN_WHOLE: usize = 16;

impl Glance {
    fn at(name: &str) -> Self {
        let (bytes, length) = (name.as_bytes(), name.len());
        if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
            return Self { first: u64::from_le_bytes(*first), last: u64::from_le_bytes(*last), length };
        }
        let (first, last) = match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) => (u32::from_le_bytes(*first), u32::from_le_bytes(*last)),
            _ => (bytes.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)), 0),
        };
        Self { first: first.into(), last: last.into(), length }
    }

    /// A number in which the glance is mixed by a seed, of so many bits less.
    fn mixed(self, seed: u64, shift: u32) -> usize {
        let both = self.first.wrapping_mul(MIXER) ^ self.last ^ self.length as u64;
        usize::try_from(both.wrapping_mul(seed) >> shift).unwrap_or_default()
    }
}

/// An odd number whose bits are as good as random: the golden ratio's.
const MIXER: u64 = 0x9E37_79B9_7F4A_7C15;
/// Seeds that are tried for one by which no two names meet.
const TRIES: usize = 256;
/// Where no name is.
const NOBODY: u16 = u16::MAX;

/// Names, each with its place among them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    names: Vec<(Glance, Box<str>)>,
    /// Places of names, by their mixed glances; of names that meet the later one stands further on. At least three of four are
    /// nobody's.
    table: Vec<u16>,
    seed: u64,
    shift: u32,
}

impl Names {
    /// These names in their order: as many as there may be columns.
    pub fn new<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let names: Vec<(Glance, Box<str>)> = names.map(|name| (Glance::at(name), name.into())).collect();
        let size = (4 * names.len()).next_power_of_two().max(4);
        let mut this = Self { names, table: Vec::new(), seed: MIXER, shift: u64::BITS - size.trailing_zeros() };
        let seeds = iter::successors(Some(MIXER), |seed| Some(seed.wrapping_mul(MIXER) | 1));
        let meetings = |seed: &u64| this.table(size, *seed).1;
        let seed = seeds.take(TRIES).min_by_key(meetings);
        this.seed = seed.unwrap_or(MIXER);
        this.table = this.table(size, this.seed).0;
        this
    }

    /// The table by a seed, and how often a name had to stand further on.
    fn table(&self, size: usize, seed: u64) -> (Vec<u16>, usize) {
        let (mut table, mut meetings) = (vec![NOBODY; size], 0);
        for (place, (glance, _)) in (0..).zip(&self.names) {
            let mut at = glance.mixed(seed, self.shift);
            while table[at] != NOBODY {
                meetings += 1;
                at = (at + 1) % size;
            }
            table[at] = place;
        }
        (table, meetings)
    }

    /// The place of a name.
    pub fn place(&self, name: &str) -> Option<usize> {
        let glance = Glance::at(name);
        let mut at = glance.mixed(self.seed, self.shift);
        loop {
            // Nobody's place is beyond all names.
            let place = usize::from(*self.table.get(at)?);
            let (known, whole) = self.names.get(place)?;
            if *known == glance && (glance.length <= SEEN_WHOLE || **whole == *name) {
                return Some(place);
            }
            at = (at + 1) & (self.table.len() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_name_is_found_and_no_other(
            known in prop::collection::btree_set("[ab]{0,5}|[a-c]{8,20}|aaaaaaaa[a-c]{1,4}bbbbbbbb|\\PC{0,12}", 0..256),
            others in prop::collection::vec("[ab]{0,6}|[a-c]{8,20}|aaaaaaaa[a-c]{1,4}bbbbbbbb|\\PC{0,12}", 0..64),
        ) {
            let known: Vec<_> = known.into_iter().collect();
            let names = Names::new(known.iter().map(String::as_str));
            for (place, name) in known.iter().enumerate() {
                prop_assert_eq!(names.place(name), Some(place));
            }
            for name in others.iter().filter(|name| !known.contains(name)) {
                prop_assert_eq!(names.place(name), None);
            }
        }
    }

    #[test]
    fn names_of_columns_seldom_meet() {
        let columns =
            ["id", "message_id", "chat_id", "agent_id", "company_id", "from", "to", "from_user", "to_user", "status"];
        let many: Vec<_> = (0..256).map(|number| format!("column_{number}")).collect();
        for (names, most) in [(&columns.map(str::to_owned)[..], 0), (&many, 24)] {
            let made = Names::new(names.iter().map(String::as_str));
            let (_, meetings) = made.table(made.table.len(), made.seed);
            assert!(meetings <= most, "{meetings} of {}", names.len());
        }
    }
}
