//! The entities with the largest counts over many runs, without adding up all of them.
//!
//! Each run knows its largest entities in order. Going down these lists, always in the one whose next count is the
//! largest, every entity that comes up is counted exactly over all runs. One that has not come up has in each run at
//! most what comes next in its list. So as soon as the sum of these is less than the n-th largest count found, nothing
//! that has not come up can be among the n.
//!
//! This is the threshold algorithm of Fagin, Lotem and Naor, "Optimal aggregation algorithms for middleware", Journal
//! of Computer and System Sciences 66 (2003). Counts of popularity fall off steeply, so it ends after a few hundred
//! entities; where they do not, [`leaders`] gives up in time and everything is added up.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::ops::Range;
use std::sync::OnceLock;

use super::{DimCondition, Overlap, Run};

/// A list has this part of a run's entities, and at least [`HEADS_MIN`], at most [`HEADS_MAX`].
const HEADS_PART: usize = 8;
const HEADS_MIN: usize = 512;
const HEADS_MAX: usize = 8_192;
/// Looking an entity up in a run costs about as much as adding so many entities of it to a table.
const LOOKUP_COST: usize = 4;
/// Up to so many entities' worth of work is always done: adding everything up is not worth thinking about then.
const WORK_MIN: usize = 1 << 18;

/// Lists of so many types are made beforehand, for each takes a pass over all entities; those of others when they are
/// asked for. How many types there are is up to clients.
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
    let views: Vec<View<'_>> = scopes.iter().filter_map(|scope| View::of(scope, &wanted)).collect();
    let entities: usize = views.iter().map(|view| view.run.entities.len()).sum();
    let mut search = Search { views: &views, wanted, found: Vec::new(), best: BinaryHeap::new(), n };
    search.run(entities.max(WORK_MIN)).then(|| search.ranked())
}

/// A scope, made ready.
struct View<'a> {
    run: &'a Run,
    heads: &'a Heads,
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
        Some(Self { run, heads: run.heads(type_id), minutes, type_id, accepted, is_batch: scope.is_batch })
    }

    fn count(&self, hash: u64, entity: &str) -> u64 {
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
    views: &'a [View<'a>],
    wanted: Wanted<'a>,
    found: Vec<(&'a str, u64, u64)>,
    /// The `n` largest counts found.
    best: BinaryHeap<Reverse<u64>>,
    n: usize,
}

impl<'a> Search<'a> {
    /// Whether the list is found; not if it takes more work than adding up so many entities.
    fn run(&mut self, work_max: usize) -> bool {
        let mut seen = HashSet::new();
        // What comes next in each list that has more, and the sum over all.
        let mut next: BinaryHeap<(u64, usize, usize)> =
            self.views.iter().enumerate().map(|(at, view)| (view.heads.bound(0), at, 0)).collect();
        let mut unseen: u128 = next.iter().map(|(bound, ..)| u128::from(*bound)).sum();
        let cost = self.views.len() * LOOKUP_COST;
        let mut work = 0;
        while !self.is_settled(unseen) {
            let Some((bound, at, depth)) = next.pop() else { return unseen == 0 };
            let view = &self.views[at];
            // A list that is at its end, though its run is not: its bound stays as it is.
            let Some((entity, _)) = view.heads.get(depth) else { continue };
            let (hash, id) = (view.run.entities.hash(entity), view.run.entities.id(entity));
            if seen.insert(id) && !self.wanted.reserved_prefixes.iter().any(|prefix| id.starts_with(prefix.as_str())) {
                work += cost;
                if work > work_max {
                    return false;
                }
                self.count(hash, id);
            }
            let below = view.heads.bound(depth + 1);
            unseen -= u128::from(bound - below);
            if below > 0 {
                next.push((below, at, depth + 1));
            }
        }
        true
    }

    /// Whether no entity that has not come up can be among the first: not even with the same count and a smaller id.
    fn is_settled(&self, unseen: u128) -> bool {
        self.n == 0
            || self.best.len() == self.n && self.best.peek().is_some_and(|Reverse(least)| u128::from(*least) > unseen)
    }

    fn count(&mut self, hash: u64, id: &'a str) {
        let (mut total, mut batch) = (0_u64, 0_u64);
        for view in self.views {
            let count = view.count(hash, id);
            total = total.saturating_add(count);
            if view.is_batch {
                batch = batch.saturating_add(count);
            }
        }
        if total == 0 {
            return;
        }
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
}

impl Heads {
    fn get(&self, depth: usize) -> Option<(usize, u64)> {
        Some((*self.entities.get(depth)? as usize, *self.counts.get(depth)?))
    }

    /// The most that an entity from `depth` on can have.
    fn bound(&self, depth: usize) -> u64 {
        self.counts.get(depth).copied().unwrap_or(self.rest)
    }

    /// Of one type; of all when none.
    fn of(run: &Run, type_id: Option<u32>) -> Self {
        let count = |entity: usize| {
            let mut sum = 0_u64;
            run.for_each_span(run.row_ends.range(entity), type_id, None, |span| {
                sum = run.rows.counts[span].iter().fold(sum, |sum, count| sum.saturating_add(*count));
            });
            sum
        };
        let entities = 0..run.entities.len();
        // There are never more entities than rows, and 2^32 of these fit no memory.
        let mut all: Vec<(u64, u32)> =
            entities.map(|entity| (count(entity), entity as u32)).filter(|(count, _)| *count > 0).collect();
        let length = (run.entities.len() / HEADS_PART).clamp(HEADS_MIN, HEADS_MAX);
        let mut rest = 0;
        if length < all.len() {
            let (_, next, _) = all.select_nth_unstable_by(length, |a, b| b.0.cmp(&a.0));
            rest = next.0;
            all.truncate(length);
        }
        all.sort_unstable_by_key(|(count, _)| Reverse(*count));
        let (counts, entities) = all.into_iter().unzip();
        Self { entities, counts, rest }
    }
}

/// The lists of a run, each made when it is first asked for: of all types, and of each. They take little beside the run
/// ([`HEADS_PART`]) and are no part of what it is.
#[derive(Debug, Default)]
pub(super) struct Lists {
    all: OnceLock<Heads>,
    of_types: OnceLock<Vec<OnceLock<Heads>>>,
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
    /// Makes what [`leaders`] begins with, which it would do itself otherwise: takes a pass over all entities for each of
    /// a few types.
    pub fn prepare_leaders(&self) {
        self.heads(None);
        (0..self.types.len().min(TYPES_PREPARED)).for_each(|id| {
            self.heads(Some(id as u32));
        });
    }

    fn heads(&self, type_id: Option<u32>) -> &Heads {
        let make = || Heads::of(self, type_id);
        match type_id {
            None => self.lists.all.get_or_init(make),
            Some(id) => {
                let lists = self.lists.of_types.get_or_init(|| self.types.iter().map(|_| OnceLock::new()).collect());
                lists[id as usize].get_or_init(make)
            }
        }
    }
}
