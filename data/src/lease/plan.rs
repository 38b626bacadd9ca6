//! Who should have which partition, and what is to be done about it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Who has a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    pub epoch: u64,
    pub holder: Uuid,
    pub released: bool,
}

/// What somebody has seen in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Those who live, and the partitions that they were told to take; none takes its share of all others.
    pub live: BTreeMap<Uuid, Option<BTreeSet<u32>>>,
    /// The newest lease of each partition that ever had one.
    pub leases: BTreeMap<u32, Lease>,
    /// Whether one that seems dead is: not as long as nobody could say that he lives.
    pub dead_known: bool,
    /// Partitions of which it cannot be told who has them, because that changes just now.
    pub unclear: BTreeSet<u32>,
}

/// What one process is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Partitions to take, each with the epoch to take it with.
    pub take: BTreeMap<u32, u64>,
    /// Partitions that it has and another should have.
    pub give_up: BTreeSet<u32>,
    /// Partitions that it had and another has.
    pub lost: BTreeSet<u32>,
}

/// The partitions that a process may have: all, by hashing, or those that it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Shared(u32),
    Fixed(BTreeSet<u32>),
}

impl Wanted {
    fn is_mine(&self, partition: u32, me: Uuid, seen: &Seen) -> bool {
        let others = seen.live.iter().filter(|(id, _)| **id != me);
        let (mut told, mut sharing) = (Vec::new(), Vec::new());
        for (id, only) in others.map(|(id, only)| (*id, only.as_ref())).chain([(me, self.only())]) {
            match only {
                Some(only) if only.contains(&partition) => told.push(id),
                Some(_) => {}
                None => sharing.push(id),
            }
        }
        // Who was told to take it goes before those who share.
        best(partition, if told.is_empty() { sharing } else { told }.into_iter()) == Some(me)
    }

    /// The partitions that a process was told to take.
    pub const fn only(&self) -> Option<&BTreeSet<u32>> {
        match self {
            Self::Fixed(only) => Some(only),
            Self::Shared(_) => None,
        }
    }

    fn all(&self) -> Box<dyn Iterator<Item = u32> + '_> {
        match self {
            Self::Fixed(partitions) => Box::new(partitions.iter().copied()),
            Self::Shared(partitions) => Box::new(0..*partitions),
        }
    }
}

/// What `me`, who holds `held` (with their epochs), is to do.
pub(super) fn plan(me: Uuid, wanted: &Wanted, held: &BTreeMap<u32, u64>, seen: &Seen) -> Plan {
    let mut plan = Plan::default();
    for (partition, epoch) in held {
        let is_still = seen.leases.get(partition).is_none_or(|lease| lease.epoch == *epoch && lease.holder == me);
        if !is_still {
            plan.lost.insert(*partition);
        } else if !wanted.is_mine(*partition, me, seen) {
            plan.give_up.insert(*partition);
        }
    }
    for partition in wanted.all().filter(|partition| !held.contains_key(partition) && !seen.unclear.contains(partition))
    {
        let lease = seen.leases.get(&partition);
        let is_dead = |holder: &Uuid| seen.dead_known && !seen.live.contains_key(holder);
        let is_free = lease.is_none_or(|lease| lease.released || lease.holder == me || is_dead(&lease.holder));
        if is_free && wanted.is_mine(partition, me, seen) {
            plan.take.insert(partition, lease.map_or(1, |lease| lease.epoch + 1));
        }
    }
    plan
}

/// The member that a partition falls to: the one whose hash with it is highest (rendezvous hashing, Thaler and Ravishankar
/// 1998). When a member comes, only partitions that fall to it move; when it goes, only those it had.
fn best(partition: u32, members: impl Iterator<Item = Uuid>) -> Option<Uuid> {
    members.max_by_key(|member| (xxh3_64_with_seed(member.as_bytes(), u64::from(partition)), *member))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARTITIONS: u32 = 16;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// Members with what each holds, over one store that all see as it is.
    #[derive(Default)]
    struct World {
        seen: Seen,
        held: BTreeMap<Uuid, BTreeMap<u32, u64>>,
    }

    impl World {
        fn turn(&mut self, me: Uuid) -> Plan {
            self.seen.live.insert(me, None);
            self.seen.dead_known = true;
            let held = self.held.entry(me).or_default();
            let plan = plan(me, &Wanted::Shared(PARTITIONS), held, &self.seen);
            for partition in plan.lost.iter().chain(&plan.give_up) {
                if let Some(epoch) = held.remove(partition)
                    && let Some(lease) = self.seen.leases.get_mut(partition)
                    && (lease.epoch, lease.holder) == (epoch, me)
                {
                    lease.released = true;
                }
            }
            for (partition, epoch) in &plan.take {
                let before = self.seen.leases.insert(*partition, Lease { epoch: *epoch, holder: me, released: false });
                assert!(before.is_none_or(|before| before.epoch < *epoch), "an epoch was taken twice");
                held.insert(*partition, *epoch);
            }
            plan
        }

        fn settle(&mut self) {
            for _ in 0..3 {
                for member in self.seen.live.clone().into_keys() {
                    self.turn(member);
                }
            }
        }

        fn holder(&self, partition: u32) -> Option<Uuid> {
            self.seen.leases.get(&partition).filter(|lease| !lease.released).map(|lease| lease.holder)
        }
    }

    proptest! {
        /// Whoever comes, goes or sleeps: in the end each partition has one holder, who lives and knows it.
        #[test]
        fn every_partition_has_one_holder(moves in prop::collection::vec((0_u128..5, 0..3), 1..40)) {
            let mut world = World::default();
            for (member, what) in moves {
                match what {
                    0 => drop(world.turn(id(member))),
                    // It is taken for dead, and may wake up later.
                    1 => drop(world.seen.live.remove(&id(member))),
                    _ => world.settle(),
                }
            }
            world.turn(id(0));
            world.settle();
            for partition in 0..PARTITIONS {
                let holder = world.holder(partition).unwrap();
                prop_assert!(world.seen.live.contains_key(&holder));
                prop_assert!(world.held[&holder].contains_key(&partition));
            }
        }
    }

    #[test]
    fn who_was_told_goes_before_those_who_share() {
        let only = |partitions: &[u32]| partitions.iter().copied().collect::<BTreeSet<u32>>();
        let live = BTreeMap::from([(id(1), None), (id(2), Some(only(&[0, 1])))]);
        let seen = Seen { live, ..Seen::default() };
        let sharing = plan(id(1), &Wanted::Shared(4), &BTreeMap::new(), &seen);
        assert_eq!(sharing.take.into_keys().collect::<Vec<_>>(), [2, 3], "none of the rest is left to nobody");
        let told = plan(id(2), &Wanted::Fixed(only(&[0, 1])), &BTreeMap::new(), &seen);
        assert_eq!(told.take.into_keys().collect::<Vec<_>>(), [0, 1]);
        let had = BTreeMap::from([(0, 1), (2, 1)]);
        assert_eq!(plan(id(1), &Wanted::Shared(4), &had, &seen).give_up, only(&[0]));
    }

    #[test]
    fn few_partitions_move() {
        let mut world = World::default();
        (0..4).for_each(|member| drop(world.turn(id(member))));
        world.settle();
        let before: Vec<_> = (0..PARTITIONS).map(|partition| world.holder(partition)).collect();
        world.turn(id(4));
        world.settle();
        for (partition, before) in (0..).zip(before) {
            let after = world.holder(partition);
            assert!(after == before || after == Some(id(4)), "partition {partition} moved between others");
        }
    }

    #[test]
    fn one_that_slept_learns_what_it_lost_and_one_that_was_told_takes_no_other() {
        let mut world = World::default();
        world.turn(id(1));
        world.seen.live.remove(&id(1));
        world.turn(id(2));
        assert_eq!(world.turn(id(1)).lost.len(), PARTITIONS as usize);
        let wanted = Wanted::Fixed(BTreeSet::from([3, 5]));
        let plan = plan(id(9), &wanted, &BTreeMap::new(), &Seen::default());
        assert_eq!(plan.take, BTreeMap::from([(3, 1), (5, 1)]));
    }
}
