//! Suspects: deliveries that have been tried so often that one of them may be killing the process. How the one that does is
//! told from its neighbours, and from those that were at hand when the process was killed from outside.
//!
//! Each suspect carries a marker while it runs, which says how often the process has died under it; whoever comes to an
//! orderly end takes its own back. Suspects that never left one behind run with everything else. One that did runs apart from
//! all others, in ever smaller groups, in the end alone; a group that comes through is acquitted. Only deaths of a process that
//! had nothing else in flight convict. So a kill from outside costs its victims a few round trips and not their turn,
//! and the one that kills is known after a few deaths more than a search among all of them would take.

use std::collections::VecDeque;

use foldhash::{HashMap, HashMapExt};

use crate::message::{Delivery, DeliveryId};

/// How many suspects run together at most: those that the process died under once, and twice. After that each runs alone.
const GROUPS: [usize; 2] = [256, 16];
/// So many groups are worth their round trips: where fewer would do, suspects run in smaller ones at once.
const WORTHWHILE: usize = 16;
/// The highest marker that deaths in company leave; what it is above that are deaths alone.
const DIED_IN_COMPANY: u64 = 1 + GROUPS.len() as u64;
/// Deaths alone that convict. A process that is killed from outside all the time may die under an innocent twice.
pub(crate) const DEATHS_ALONE: u64 = 4;

/// A delivery that may not start yet.
#[derive(Debug)]
struct Held {
    delivery: Delivery,
    is_suspect: bool,
    /// The marker that it left behind; not known before the store was asked.
    marker: Option<u64>,
    /// A marker was tried to be set for the coming run, and may stand.
    perhaps_marked: bool,
}

/// Deliveries that are about to run together.
#[derive(Debug, Default)]
pub(crate) struct Group {
    members: Vec<Held>,
    /// Nothing else may be in flight.
    apart: bool,
}

/// What is to be done with what is held.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing, until something else ends.
    Wait,
    /// Ask the store for the markers of these.
    Look(Vec<DeliveryId>),
    /// Set their markers, if there are any to set, and let them run.
    Run(Group),
    /// They kill the process.
    Convict(Vec<Delivery>),
}

/// What is held, and which suspects run.
#[derive(Debug)]
pub(crate) struct Suspects {
    after: u64,
    held: VecDeque<Held>,
    /// Suspects that run, with the markers that they had left behind before.
    running: HashMap<DeliveryId, u64>,
    /// A group is about to run: whatever comes must not overtake it.
    about_to_run: bool,
    /// A group runs, or is about to, that nothing may run beside.
    apart: bool,
    /// Markers as they have to be from now on.
    to_set: Vec<(DeliveryId, u64)>,
}

impl Suspects {
    /// Takes those for suspects that were delivered `after` times.
    pub(crate) fn new(after: u64) -> Self {
        let (held, running, to_set) = (VecDeque::new(), HashMap::new(), Vec::new());
        Self { after, held, running, about_to_run: false, apart: false, to_set }
    }

    /// Whether a delivery must be held: it is a suspect, or must not overtake one or run beside it.
    pub(crate) fn concerns(&self, delivery: &Delivery) -> bool {
        self.is_suspect(delivery) || self.hold_up()
    }

    fn is_suspect(&self, delivery: &Delivery) -> bool {
        delivery.deliveries >= self.after
    }

    /// Whether nothing more may be pulled.
    pub(crate) fn hold_up(&self) -> bool {
        self.apart || self.about_to_run || !self.held.is_empty()
    }

    /// Whether others wait for suspects to run by themselves. That suspects are asked about is no more than a round trip.
    pub(crate) fn run_apart(&self) -> bool {
        self.apart || self.held.iter().any(|held| held.marker.is_some_and(|marker| marker > 0))
    }

    /// Holds a delivery until [`Self::next`] says what becomes of it.
    pub(crate) fn hold(&mut self, delivery: Delivery) {
        let is_suspect = self.is_suspect(&delivery);
        let marker = if is_suspect { None } else { Some(0) };
        self.held.push_back(Held { delivery, is_suspect, marker, perhaps_marked: false });
    }

    /// What is to be done now that so many messages are in flight, those held included.
    pub(crate) fn next(&mut self, in_flight: usize) -> Next {
        if self.apart || self.about_to_run || self.held.is_empty() {
            return Next::Wait;
        }
        let unknown = self.held.iter().filter(|held| held.marker.is_none());
        let unknown: Vec<_> = unknown.map(|held| held.delivery.receipt.id).collect();
        if !unknown.is_empty() {
            return Next::Look(unknown);
        }
        let convicted = self.take(usize::MAX, |marker| marker >= DIED_IN_COMPANY + DEATHS_ALONE);
        if !convicted.is_empty() {
            self.note_running(&convicted);
            return Next::Convict(convicted.into_iter().map(|held| held.delivery).collect());
        }
        let members = self.take(usize::MAX, |marker| marker == 0);
        if !members.is_empty() {
            self.about_to_run = true;
            return Next::Run(Group { members, apart: false });
        }
        if in_flight > self.held.len() {
            return Next::Wait;
        }
        // Those least suspected first: what the others did to the process, or did not, must not keep them waiting.
        let Some(least) = self.held.iter().filter_map(|held| held.marker).min() else { return Next::Wait };
        let alike = self.held.iter().filter(|held| held.marker == Some(least)).count();
        let members = self.take(group_size(least, alike), |marker| marker == least);
        (self.about_to_run, self.apart) = (true, true);
        Next::Run(Group { members, apart: true })
    }

    fn take(&mut self, most: usize, wanted: impl Fn(u64) -> bool) -> Vec<Held> {
        let (mut taken, mut left) = (Vec::new(), VecDeque::with_capacity(self.held.len()));
        for held in self.held.drain(..) {
            if taken.len() < most && held.marker.is_some_and(&wanted) {
                taken.push(held);
            } else {
                left.push_back(held);
            }
        }
        self.held = left;
        taken
    }

    /// The store has been asked: the markers that were left behind.
    pub(crate) fn found(&mut self, markers: impl IntoIterator<Item = (DeliveryId, u64)>) {
        let markers: HashMap<_, _> = markers.into_iter().collect();
        for held in self.held.iter_mut().filter(|held| held.marker.is_none()) {
            held.marker = markers.get(&held.delivery.receipt.id).copied();
        }
    }

    /// Its markers could not be set: the group waits for another attempt.
    pub(crate) fn put_back(&mut self, group: Group) {
        (self.about_to_run, self.apart) = (false, false);
        for mut held in group.members.into_iter().rev() {
            held.perhaps_marked |= held.is_suspect;
            self.held.push_front(held);
        }
    }

    /// The group runs from now on.
    pub(crate) fn start(&mut self, group: Group) -> Vec<Delivery> {
        self.about_to_run = false;
        self.note_running(&group.members);
        group.members.into_iter().map(|held| held.delivery).collect()
    }

    fn note_running(&mut self, members: &[Held]) {
        let suspects = members.iter().filter(|held| held.is_suspect);
        self.running.extend(suspects.map(|held| (held.delivery.receipt.id, held.marker.unwrap_or_default())));
    }

    /// A delivery has come to an orderly end; `tried` if it has gone all the way, whatever came of it.
    pub(crate) fn ended(&mut self, id: DeliveryId, tried: bool) {
        if let Some(marker) = self.running.remove(&id) {
            // Given back, it has not been tried: all stays as it was.
            self.to_set.push((id, if tried { 0 } else { marker }));
            self.apart &= !self.running.is_empty();
        }
    }

    /// Gives up what is held.
    pub(crate) fn take_held(&mut self) -> Vec<Delivery> {
        let held: Vec<_> = self.held.drain(..).collect();
        let marked = held.iter().filter(|held| held.perhaps_marked);
        self.to_set.extend(marked.map(|held| (held.delivery.receipt.id, held.marker.unwrap_or_default())));
        held.into_iter().map(|held| held.delivery).collect()
    }

    /// Markers that must be set to these values; 0 is none. Those of a group that runs apart all together.
    pub(crate) fn take_to_set(&mut self) -> Vec<(DeliveryId, u64)> {
        if self.apart { Vec::new() } else { std::mem::take(&mut self.to_set) }
    }

    /// Whether the store knows all that it has to.
    pub(crate) fn is_settled(&self) -> bool {
        self.to_set.is_empty()
    }
}

impl Group {
    /// The markers that its suspects must carry while they run: what they leave behind if the process dies.
    pub(crate) fn markers(&self) -> Vec<(DeliveryId, u64)> {
        let alone = self.apart && self.members.len() == 1;
        let suspects = self.members.iter().filter(|held| held.is_suspect);
        suspects
            .map(|held| {
                let before = held.marker.unwrap_or_default();
                let marker = if alone { before.max(DIED_IN_COMPANY) } else { before } + 1;
                (held.delivery.receipt.id, marker)
            })
            .collect()
    }
}

/// How many run together of `alike` suspects that left `marker` behind.
fn group_size(marker: u64, alike: usize) -> usize {
    let by_deaths = usize::try_from(marker - 1).ok().and_then(|deaths| GROUPS.get(deaths)).copied().unwrap_or(1);
    let worthwhile = match alike {
        0..=WORTHWHILE => 1,
        _ if alike <= GROUPS[1] * WORTHWHILE => GROUPS[1],
        _ => GROUPS[0],
    };
    by_deaths.min(worthwhile)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Instant;

    use super::*;
    use crate::message::Receipt;

    const AFTER: u64 = 5;

    fn id(sequence: u64) -> DeliveryId {
        DeliveryId { stream_created: 1, sequence, timestamp: 1 }
    }

    fn delivery(sequence: u64, deliveries: u64) -> Delivery {
        Delivery {
            receipt: Receipt { id: id(sequence), consumer: 0, reply: "reply".into() },
            subject: "".into(),
            headers: Vec::new(),
            payload: bytes::Bytes::new(),
            deliveries,
            received: Instant::now(),
        }
    }

    /// Holds these, which left the marker behind that `marker` says.
    fn holding(sequences: impl IntoIterator<Item = u64>, marker: impl Fn(u64) -> u64) -> Suspects {
        let mut suspects = Suspects::new(AFTER);
        sequences.into_iter().for_each(|sequence| suspects.hold(delivery(sequence, AFTER)));
        if let Next::Look(ids) = suspects.next(0) {
            suspects.found(ids.into_iter().map(|id| (id, marker(id.sequence))));
        }
        suspects
    }

    fn sequences(deliveries: &[Delivery]) -> Vec<u64> {
        deliveries.iter().map(|delivery| delivery.receipt.id.sequence).collect()
    }

    /// Lets the next group run: who is in it, and the markers that it carries.
    fn run(suspects: &mut Suspects) -> (Vec<u64>, Vec<u64>) {
        let in_flight = suspects.held.len();
        let Next::Run(group) = suspects.next(in_flight) else { panic!("nothing runs") };
        let markers = group.markers().into_iter().map(|(_, marker)| marker).collect();
        (sequences(&suspects.start(group)), markers)
    }

    #[test]
    fn those_that_left_no_marker_run_beside_others_and_with_those_that_came_behind_them() {
        let mut suspects = Suspects::new(AFTER);
        assert!(!suspects.concerns(&delivery(1, AFTER - 1)));
        assert!(suspects.concerns(&delivery(1, AFTER)));
        suspects.hold(delivery(1, AFTER));
        assert!(suspects.hold_up() && suspects.concerns(&delivery(2, 1)), "it must not overtake");
        suspects.hold(delivery(2, 1));
        let Next::Look(asked) = suspects.next(100) else { panic!("it must be asked about") };
        assert_eq!(asked, [id(1)]);
        suspects.found([(id(1), 0)]);
        let Next::Run(group) = suspects.next(100) else { panic!("they run") };
        assert_eq!(group.markers(), [(id(1), 1)]);
        assert!(suspects.hold_up() && suspects.concerns(&delivery(3, 1)), "while they are being marked");
        suspects.hold(delivery(3, 1));
        assert!(matches!(suspects.next(100), Next::Wait), "what comes meanwhile waits");
        assert!(!suspects.run_apart());
        assert_eq!(sequences(&suspects.start(group)), [1, 2]);
        assert_eq!(run(&mut suspects).0, [3]);
        assert!(!suspects.hold_up());
        suspects.ended(id(1), true);
        assert!(!suspects.is_settled());
        assert_eq!(suspects.take_to_set(), [(id(1), 0)]);
        assert!(suspects.is_settled());
    }

    #[test]
    fn one_that_left_a_marker_waits_until_nothing_else_is_in_flight_and_nothing_starts_beside_it() {
        let mut suspects = holding([1], |_| 2);
        assert!(matches!(suspects.next(2), Next::Wait));
        assert!(suspects.run_apart(), "the others end first");
        assert_eq!(run(&mut suspects), (vec![1], vec![DIED_IN_COMPANY + 1]), "alone");
        assert!(suspects.run_apart());
        assert!(suspects.hold_up() && suspects.concerns(&delivery(9, 1)));
        suspects.hold(delivery(9, 1));
        assert!(matches!(suspects.next(2), Next::Wait));
        suspects.ended(id(1), true);
        assert!(!suspects.run_apart());
        assert!(matches!(suspects.next(1), Next::Run(_)));
    }

    #[test]
    fn groups_grow_smaller_with_every_death_and_are_no_larger_than_is_worthwhile() {
        for (marker, alike, size) in [
            (1, 5_000, 256),
            (1, 257, 256),
            (1, 256, 16),
            (1, 17, 16),
            (1, 16, 1),
            (2, 5_000, 16),
            (2, 16, 1),
            (3, 5_000, 1),
            (4, 1, 1),
        ] {
            assert_eq!(group_size(marker, alike), size, "{alike} with marker {marker}");
        }
    }

    #[test]
    fn deaths_in_company_never_convict_and_deaths_alone_do() {
        let mut suspects = holding(1..=40, |_| 2);
        assert_eq!(run(&mut suspects), ((1..=16).collect(), vec![3; 16]));
        let mut alone = holding([1], |_| DIED_IN_COMPANY);
        assert_eq!(run(&mut alone).1, [DIED_IN_COMPANY + 1]);
        let mut guilty = holding([1, 2, 3], |sequence| DIED_IN_COMPANY + DEATHS_ALONE - sequence % 2);
        let Next::Convict(convicted) = guilty.next(9) else { panic!("one is convicted") };
        assert_eq!(sequences(&convicted), [2]);
        assert_eq!((run(&mut guilty).0, guilty.held.len()), (vec![1], 1));
        // Its letter cannot be stored now: what is known of it stays known.
        guilty.ended(id(2), false);
        guilty.ended(id(1), true);
        assert_eq!(guilty.take_to_set(), [(id(2), DIED_IN_COMPANY + DEATHS_ALONE), (id(1), 0)]);
    }

    #[test]
    fn markers_of_a_group_apart_are_taken_back_together_and_those_of_what_was_not_tried_stay_as_they_were() {
        let mut suspects = holding(1..=300, |_| 1);
        assert_eq!(run(&mut suspects).0.len(), 256);
        (1..=255).for_each(|sequence| suspects.ended(id(sequence), true));
        assert!(suspects.take_to_set().is_empty() && !suspects.is_settled());
        suspects.ended(id(256), false);
        let set = suspects.take_to_set();
        assert_eq!((set.len(), set[255]), (256, (id(256), 1)));
    }

    #[test]
    fn a_group_that_cannot_be_marked_waits_and_what_may_have_been_set_is_taken_back_when_it_is_given_up() {
        let mut suspects = holding([1, 2], |_| 0);
        suspects.hold(delivery(3, 1));
        let Next::Run(group) = suspects.next(9) else { panic!("they run") };
        suspects.put_back(group);
        assert_eq!(suspects.held.len(), 3);
        assert_eq!(sequences(&suspects.take_held()), [1, 2, 3]);
        assert_eq!(suspects.take_to_set(), [(id(1), 0), (id(2), 0)]);
    }

    /// What became of messages of which some kill the process whenever they are run.
    struct Trial {
        deaths: u64,
        convicted: BTreeSet<u64>,
        markers: HashMap<DeliveryId, u64>,
    }

    /// Lets one process after another run `messages`, of which the `killers` end it; now and then it is killed from outside.
    fn try_all(messages: u64, killers: &BTreeSet<u64>, mut kill: impl FnMut() -> bool) -> Trial {
        let mut trial = Trial { deaths: 0, convicted: BTreeSet::new(), markers: HashMap::new() };
        let mut left: BTreeSet<u64> = (1..=messages).collect();
        let mut deliveries = 0;
        while !left.is_empty() {
            deliveries += 1;
            let mut suspects = Suspects::new(AFTER);
            let (held, mut flying): (Vec<_>, Vec<_>) = left
                .iter()
                .map(|sequence| delivery(*sequence, deliveries))
                .partition(|delivery| suspects.concerns(delivery));
            held.into_iter().for_each(|delivery| suspects.hold(delivery));
            loop {
                if kill() || flying.iter().any(|delivery| killers.contains(&delivery.receipt.id.sequence)) {
                    trial.deaths += 1;
                    assert!(trial.deaths < 1_000, "no end of it");
                    break;
                }
                for Delivery { receipt, .. } in flying.drain(..) {
                    left.remove(&receipt.id.sequence);
                    suspects.ended(receipt.id, true);
                }
                trial.markers.extend(suspects.take_to_set());
                match suspects.next(suspects.held.len()) {
                    Next::Wait => break,
                    Next::Look(ids) => {
                        let marker = |id| (id, trial.markers.get(&id).copied().unwrap_or(0));
                        suspects.found(ids.into_iter().map(marker));
                    }
                    Next::Run(group) => {
                        trial.markers.extend(group.markers());
                        flying = suspects.start(group);
                    }
                    Next::Convict(convicted) => {
                        for Delivery { receipt, .. } in convicted {
                            trial.convicted.insert(receipt.id.sequence);
                            left.remove(&receipt.id.sequence);
                            suspects.ended(receipt.id, true);
                        }
                    }
                }
            }
        }
        trial
    }

    #[test]
    fn whoever_kills_the_process_is_found_and_nobody_else() {
        let in_company = AFTER - 1 + DIED_IN_COMPANY;
        for (messages, killers, most) in [
            (1, vec![1], AFTER + DEATHS_ALONE),
            (16, vec![16], AFTER + DEATHS_ALONE),
            (200, vec![77], AFTER + 1 + DEATHS_ALONE),
            (5_000, vec![4_999], in_company + DEATHS_ALONE),
            (5_000, vec![1, 2], in_company + 2 * DEATHS_ALONE),
            (5_000, vec![1, 4_000, 5_000], in_company + 2 * 2 + 3 * DEATHS_ALONE),
        ] {
            let killers: BTreeSet<u64> = killers.into_iter().collect();
            let trial = try_all(messages, &killers, || false);
            assert_eq!(trial.convicted, killers, "of {messages}");
            assert!(trial.deaths <= most, "{} deaths for {killers:?} of {messages}", trial.deaths);
            assert!(trial.markers.values().all(|marker| *marker == 0), "no marker is left behind");
        }
    }

    /// A process that is killed from outside at every twentieth step: whoever kills it is found all the same, and hardly
    /// anybody else. It takes four such kills while the same message runs alone.
    #[test]
    fn kills_from_outside_convict_hardly_anybody() {
        let (mut deaths, mut innocents) = (0, 0);
        for seed in 0..200 {
            let mut dice = fastrand::Rng::with_seed(seed);
            let messages = dice.u64(1..=1_000);
            let killers: BTreeSet<u64> = (0..seed % 3).map(|_| dice.u64(1..=messages)).collect();
            let trial = try_all(messages, &killers, || dice.u8(0..20) == 0);
            assert!(trial.convicted.is_superset(&killers), "seed {seed}");
            innocents += trial.convicted.len() - killers.len();
            deaths += trial.deaths;
        }
        assert!(innocents <= 1, "{innocents} innocents in {deaths} deaths");
    }
}
