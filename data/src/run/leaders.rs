//! The entities with the largest counts over many runs, without adding up all of them.
//!
//! Each run knows its largest entities in order. Going down these lists, every entity that comes up is counted exactly
//! over all runs. One that has not come up has in each run at most what comes next in its list. So as soon as the sum of
//! these is less than the n-th largest count found, nothing that has not come up can be among the n.
//!
//! This is the threshold algorithm of Fagin, Lotem and Naor, "Optimal aggregation algorithms for middleware", Journal
//! of Computer and System Sciences 66 (2003). Counts of popularity fall off steeply, so it ends after a few hundred
//! entities; where they do not, [`leaders`] gives up in time and everything is added up. Three things make it short:
//!
//! - An entity is in one partition's runs, not in those of others. So the sum is taken for each class of hashes,
//!   by which partitions are chosen, over the runs that have any such, and the largest of these sums counts.
//! - Lists are gone down in step, always in the one whose next count is the largest part of its first: runs of all sizes
//!   come to the same place in the order of popularity together. Those that have little left come last.
//! - An entity that comes up is looked up in the runs of large counts first, and no further once what it has and the bounds
//!   of the other runs are together less than the n-th largest count.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::ops::Range;
use std::sync::OnceLock;

use hashbrown::HashTable;

use super::entities::{CLASSES, class_of};
use super::{DimCondition, Overlap, Run};

/// A list has this part of a run's entities, and at least [`HEADS_MIN`], at most [`HEADS_MAX`].
const HEADS_PART: usize = 8;
const HEADS_MIN: usize = 512;
const HEADS_MAX: usize = 8_192;
/// Looking an entity up in a run costs about as much as adding so many entities of it to a table.
const LOOKUP_COST: usize = 4;
/// To choose the next list, so many of them are looked at in the time that adding an entity takes.
const VIEWS_COST: usize = 16;
/// Up to so many entities' worth of work is always done: adding everything up is not worth thinking about then.
const WORK_MIN: usize = 1 << 18;

/// Lists of so many types are made beforehand; those of others when they are asked for. How many types there are is up
/// to clients.
const TYPES_PREPARED: usize = 16;

/// Part of a top list's window.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    /// Counts.
    pub run: &'a Run,
    /// Which of its minutes count.
    pub minutes: Range<i64>,
    /// Whether batch has counted it.
    pub is_batch: bool,
}

/// Which rows a top list is about.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// One event type; all when none.
    pub event_type: Option<&'a str>,
    /// All of them must be met.
    pub conditions: &'a [DimCondition],
    /// Entities whose ids begin so are left out.
    pub reserved_prefixes: &'a [String],
}

/// An entity of a top list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its id.
    pub entity: String,
    /// How often; `u64::MAX` is an overflow.
    pub count: u64,
    /// What of it lies in scopes of batch.
    pub batch: u64,
}

/// The `n` entities with the largest counts over all scopes: count descending, then id ascending. None when finding
/// them would be more work than adding up everything.
#[must_use]
pub fn leaders(scopes: &[Scope<'_>], wanted: Wanted<'_>, n: usize) -> Option<Vec<Leader>> {
    let mut views: Vec<View<'_>> = scopes.iter().filter_map(|scope| View::of(scope, &wanted)).collect();
    views.sort_by_key(|view| Reverse(view.bound));
    let entities: usize = views.iter().map(|view| view.run.entities.len()).sum();
    let mut search = Search { unseen: unseen(&views), views, wanted, found: Vec::new(), best: BinaryHeap::new(), n };
    search.run(entities.max(WORK_MIN)).then(|| search.ranked())
}

/// Of each class of hashes, the most that an entity of it can have that has not come up.
fn unseen(views: &[View<'_>]) -> [u128; CLASSES] {
    let mut unseen = [0; CLASSES];
    for view in views {
        view.for_each_class(|class| unseen[class] += u128::from(view.bound));
    }
    unseen
}

/// A scope, made ready, and how far its list has been gone down.
struct View<'a> {
    run: &'a Run,
    heads: &'a Heads,
    depth: usize,
    /// The most that an entity can have here that has not come up here.
    bound: u64,
    /// What part of its first count its next count is; negative when the list is at its end.
    share: f64,
    /// None when all of the run's minutes are meant.
    minutes: Option<Range<i64>>,
    type_id: Option<u32>,
    /// Of each combination of dimensions, whether it is meant; none when all are.
    accepted: Option<Vec<bool>>,
    is_batch: bool,
}

impl<'a> View<'a> {
    /// None when nothing of the run is meant.
    fn of(scope: &Scope<'a>, wanted: &Wanted<'_>) -> Option<Self> {
        let run = scope.run;
        let minutes = match run.overlap(&scope.minutes) {
            Overlap::Nothing => return None,
            Overlap::Part => Some(scope.minutes.clone()),
            Overlap::Whole => None,
        };
        let type_id = match wanted.event_type {
            Some(name) => Some(run.type_id(name)?),
            None => None,
        };
        let meets = |dims: &super::DimValues| wanted.conditions.iter().all(|condition| condition.accepts(dims));
        let accepted = (!wanted.conditions.is_empty()).then(|| run.dims.iter().map(meets).collect());
        let heads = run.heads(type_id);
        let (bound, share) = heads.at(0);
        Some(Self { run, heads, depth: 0, bound, share, minutes, type_id, accepted, is_batch: scope.is_batch })
    }

    /// Goes on to what comes next in its list.
    fn go_down(&mut self) {
        self.depth += 1;
        (self.bound, self.share) = self.heads.at(self.depth);
    }

    fn has_class(&self, class: usize) -> bool {
        self.run.entities.classes() & (1 << class) != 0
    }

    fn for_each_class(&self, each: impl FnMut(usize)) {
        (0..CLASSES).filter(|class| self.has_class(*class)).for_each(each);
    }

    fn count(&self, hash: u64, entity: &str) -> u64 {
        if self.minutes.is_none() && self.accepted.is_none() {
            match self.heads.count(self.run, hash, entity) {
                Some(count) => return count,
                None if self.heads.rest == 0 => return 0,
                None => {}
            }
        }
        let Some(rows) = self.run.find(hash, entity) else { return 0 };
        let (mut sum, counts) = (0_u64, &self.run.rows.counts);
        self.run.for_each_span(rows, self.type_id, self.minutes.as_ref(), |span| {
            for row in span {
                if self.accepted.as_ref().is_none_or(|accepted| accepted[self.run.rows.dim_id(row) as usize]) {
                    sum = sum.saturating_add(counts[row]);
                }
            }
        });
        sum
    }
}

struct Search<'a> {
    /// Those of the largest counts first.
    views: Vec<View<'a>>,
    /// See [`unseen`].
    unseen: [u128; CLASSES],
    wanted: Wanted<'a>,
    found: Vec<(&'a str, u64, u64)>,
    /// The `n` largest counts found.
    best: BinaryHeap<Reverse<u64>>,
    n: usize,
}

impl<'a> Search<'a> {
    /// Whether the list is found; not if it takes more work than adding up so many entities.
    fn run(&mut self, work_max: usize) -> bool {
        let (mut seen, mut work) = (HashSet::new(), 0);
        loop {
            let (class, unseen) = self.most_unseen();
            if self.is_settled(unseen) || unseen == 0 {
                return true;
            }
            // Lists that are at their end, though their runs are not: their bounds stay as they are.
            let Some(at) = self.next_of(class) else { return false };
            let view = &self.views[at];
            let (run, entity) = (view.run, view.heads.entities[view.depth] as usize);
            let (hash, id) = (run.entities.hash(entity), run.entities.id(entity));
            work += 1 + self.views.len() / VIEWS_COST;
            if seen.insert(id) && !self.wanted.reserved_prefixes.iter().any(|prefix| id.starts_with(prefix.as_str())) {
                work += self.count(hash, id) * LOOKUP_COST;
            }
            if work > work_max {
                return false;
            }
            self.go_down(at);
        }
    }

    fn most_unseen(&self) -> (usize, u128) {
        let most = self.unseen.iter().copied().enumerate().max_by_key(|(_, unseen)| *unseen);
        most.unwrap_or_default()
    }

    /// The view whose list is gone down next.
    fn next_of(&self, class: usize) -> Option<usize> {
        // Of lists that have less left than this all together are no more than a quarter of what is wanted. They may be
        // long: in a short time nearly all entities have one event.
        let own = self.views.iter().enumerate().filter(|(_, view)| view.has_class(class));
        let little = self.least().unwrap_or(0) / (4 * own.clone().count() as u64).max(1);
        let more = own.filter(|(_, view)| view.share >= 0.0).map(|(at, view)| (at, view.bound > little, view.share));
        more.max_by(|a, b| a.1.cmp(&b.1).then(a.2.total_cmp(&b.2))).map(|(at, ..)| at)
    }

    /// The `n`-th largest count found; none when there are fewer.
    fn least(&self) -> Option<u64> {
        let least = self.best.peek().map(|Reverse(least)| *least);
        least.filter(|_| self.best.len() == self.n)
    }

    fn go_down(&mut self, at: usize) {
        let before = self.views[at].bound;
        self.views[at].go_down();
        let (view, unseen) = (&self.views[at], &mut self.unseen);
        let less = u128::from(before - view.bound);
        view.for_each_class(|class| unseen[class] -= less);
    }

    /// Whether no entity of such a count at most can be among the first: not even with the same count and a smaller id.
    fn is_settled(&self, count: u128) -> bool {
        self.n == 0 || self.least().is_some_and(|least| u128::from(least) > count)
    }

    /// Counts an entity as long as it may be among the first; in how many runs it was looked up.
    fn count(&mut self, hash: u64, id: &'a str) -> usize {
        let class = class_of(hash);
        let (mut total, mut batch, mut lookups) = (0_u64, 0_u64, 0);
        // It has not come up anywhere, or it would have been counted then.
        let mut most = self.unseen[class];
        for view in self.views.iter().filter(|view| view.has_class(class)) {
            if self.is_settled(most) {
                return lookups;
            }
            let count = view.count(hash, id);
            lookups += 1;
            most = most.saturating_sub(u128::from(view.bound.saturating_sub(count)));
            total = total.saturating_add(count);
            if view.is_batch {
                batch = batch.saturating_add(count);
            }
        }
        if total > 0 {
            self.put(id, total, batch);
        }
        lookups
    }

    fn put(&mut self, id: &'a str, total: u64, batch: u64) {
        self.found.push((id, total, batch));
        if self.best.len() < self.n {
            self.best.push(Reverse(total));
        } else if self.best.peek().is_some_and(|Reverse(least)| *least < total) {
            self.best.pop();
            self.best.push(Reverse(total));
        }
    }

    fn ranked(mut self) -> Vec<Leader> {
        self.found.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        self.found.truncate(self.n);
        let leader = |(id, count, batch): (&str, u64, u64)| Leader { entity: id.to_owned(), count, batch };
        self.found.into_iter().map(leader).collect()
    }
}

/// The largest entities of a run, in order.
#[derive(Debug, Default)]
struct Heads {
    entities: Vec<u32>,
    counts: Vec<u64>,
    /// The largest count that is not listed; 0 when all are.
    rest: u64,
    /// Places in the list, by the hashes of entities: those that come up are at the head of most lists, and often have many
    /// rows.
    places: HashTable<u32>,
}

impl Heads {
    /// The count of an entity of the run; none when it is not listed.
    fn count(&self, run: &Run, hash: u64, id: &str) -> Option<u64> {
        let is = |place: &u32| {
            let entity = self.entities[*place as usize] as usize;
            run.entities.hash(entity) == hash && run.entities.id(entity) == id
        };
        self.places.find(hash, is).map(|place| self.counts[*place as usize])
    }

    /// The most that an entity from `depth` on can have, and what part of the first count that is; negative at the end of
    /// the list.
    fn at(&self, depth: usize) -> (u64, f64) {
        match (self.counts.get(depth), self.counts.first()) {
            (Some(next), Some(first)) => (*next, *next as f64 / *first as f64),
            _ => (self.rest, -1.0),
        }
    }

    /// Of one type; of all when none.
    fn of(run: &Run, type_id: Option<u32>) -> Self {
        let mut largest = Largest::of(run);
        for entity in 0..run.entities.len() {
            let mut sum = 0_u64;
            run.for_each_span(run.row_ends.range(entity), type_id, None, |span| {
                sum = sum.saturating_add(run.count_of(span));
            });
            largest.add(sum, entity);
        }
        largest.heads(run)
    }
}

/// The largest entities so far.
#[derive(Debug)]
struct Largest {
    length: usize,
    all: Vec<(u64, u32)>,
    /// The largest count that was left out.
    rest: u64,
}

impl Largest {
    fn of(run: &Run) -> Self {
        let length = (run.entities.len() / HEADS_PART).clamp(HEADS_MIN, HEADS_MAX);
        Self { length, all: Vec::new(), rest: 0 }
    }

    fn add(&mut self, count: u64, entity: usize) {
        // Where some were left out there are enough that have as many; and who has none is nowhere.
        if count <= self.rest {
            return;
        }
        // There are never more entities than rows, and 2^32 of these fit no memory.
        self.all.push((count, entity as u32));
        if self.all.len() >= 2 * self.length {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.length < self.all.len() {
            let (_, next, _) = self.all.select_nth_unstable_by(self.length, |a, b| b.0.cmp(&a.0));
            self.rest = self.rest.max(next.0);
            self.all.truncate(self.length);
        }
    }

    fn heads(self, run: &Run) -> Heads {
        let (entities, counts, rest) = self.sorted();
        let hash = |place: &u32| run.entities.hash(entities[*place as usize] as usize);
        let mut places = HashTable::with_capacity(entities.len());
        // Lists are short.
        (0..entities.len() as u32).for_each(|place| {
            places.insert_unique(hash(&place), place, hash);
        });
        Heads { entities, counts, rest, places }
    }

    fn sorted(mut self) -> (Vec<u32>, Vec<u64>, u64) {
        self.cut();
        self.all.sort_unstable_by_key(|(count, _)| Reverse(*count));
        let (counts, entities) = self.all.into_iter().unzip();
        (entities, counts, self.rest)
    }
}

/// The lists of a run, each made when it is first asked for: of all types, and of each. They take little beside the run
/// ([`HEADS_PART`]) and are no part of what it is.
#[derive(Debug, Default)]
pub(super) struct Lists {
    all: OnceLock<Heads>,
    of_types: OnceLock<Vec<OnceLock<Heads>>>,
}

impl Lists {
    fn of_types(&self, types: usize) -> &[OnceLock<Heads>] {
        self.of_types.get_or_init(|| (0..types).map(|_| OnceLock::new()).collect())
    }
}

impl Clone for Lists {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Lists {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Run {
    /// Makes what [`leaders`] begins with, which it would do itself otherwise, of a few types in one pass over all
    /// entities.
    pub fn prepare_leaders(&self) {
        let mut all = Largest::of(self);
        let mut of_types: Vec<Largest> = self.types.iter().take(TYPES_PREPARED).map(|_| Largest::of(self)).collect();
        for entity in 0..self.entities.len() {
            let mut sum = 0_u64;
            self.for_each_span(self.row_ends.range(entity), None, None, |span| {
                let (type_id, count) = (self.rows.type_ids[span.start] as usize, self.count_of(span));
                sum = sum.saturating_add(count);
                if let Some(own) = of_types.get_mut(type_id) {
                    own.add(count, entity);
                }
            });
            all.add(sum, entity);
        }
        self.lists.all.get_or_init(|| all.heads(self));
        for (list, own) in self.lists.of_types(self.types.len()).iter().zip(of_types) {
            list.get_or_init(|| own.heads(self));
        }
    }

    fn count_of(&self, rows: Range<usize>) -> u64 {
        self.rows.counts[rows].iter().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }

    fn heads(&self, type_id: Option<u32>) -> &Heads {
        let make = || Heads::of(self, type_id);
        match type_id {
            None => self.lists.all.get_or_init(make),
            Some(id) => {
                let lists = self.lists.of_types(self.types.len());
                lists[id as usize].get_or_init(make)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_listed_is_bounded_by_the_largest_that_was_left_out() {
        let heads = Heads { entities: vec![3, 1], counts: vec![5, 4], rest: 2, places: HashTable::new() };
        assert_eq!([0, 1, 2, 9].map(|depth| heads.at(depth)), [(5, 1.0), (4, 0.8), (2, -1.0), (2, -1.0)]);
    }

    proptest! {
        #[test]
        fn the_largest_are_kept_and_no_other_is_larger_than_said(
            counts in prop::collection::vec(0..40_u64, 0..200), length in 1..20_usize,
        ) {
            let mut largest = Largest { length, all: Vec::new(), rest: 0 };
            counts.iter().enumerate().for_each(|(entity, count)| largest.add(*count, entity));
            let (entities, sorted, rest) = largest.sorted();
            let mut expected: Vec<u64> = counts.iter().copied().filter(|count| *count > 0).collect();
            expected.sort_unstable_by_key(|count| Reverse(*count));
            let listed = expected.len().min(length);
            prop_assert_eq!(&sorted, &expected[..listed]);
            prop_assert_eq!(rest, expected.get(listed).copied().unwrap_or(0));
            let own = |entity: &u32| counts[*entity as usize];
            prop_assert_eq!(entities.iter().map(own).collect::<Vec<_>>(), sorted);
        }
    }
}
