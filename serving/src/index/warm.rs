//! Loading before anybody asks: a question that has to wait for a file waits for seconds.
//!
//! Most windows end now. Of such a window's dates the index needs the roll-ups by the hour, and of the minutes
//! only the hours in which the window begins and ends; with the clock those move on.

use std::collections::BTreeSet;
use std::sync::Arc;

use reckon_data::minute::{MICROS_PER_HOUR, MICROS_PER_MINUTE};
use reckon_data::run::Granularity;

use super::cache::RunKey;
use super::load::Columns;
use super::{Index, bytes_of};
use crate::ServingError;
use crate::view::{BatchView, FileSet};

/// So many of the newest dates are warmed.
const DATES: usize = 2;
/// Warming takes at most three of so many parts of all memory.
const PARTS: u64 = 4;
/// Windows that end now begin so many hours ago, or in between, where roll-ups do.
const WINDOWS: [i64; 3] = [0, 1, 24];
/// An hour is loaded so long before windows reach it.
const AHEAD: i64 = 10 * MICROS_PER_MINUTE;

/// The hour, since 1970, that windows reach next; when it changes it is time for [`Index::prefetch`].
pub const fn next_hour(now: i64) -> i64 {
    now.saturating_add(AHEAD).div_euclid(MICROS_PER_HOUR)
}

/// The hours in which windows up to `now` begin and end, soon included.
fn ends(now: i64) -> BTreeSet<i64> {
    let hours = [now.div_euclid(MICROS_PER_HOUR), next_hour(now)];
    WINDOWS.iter().flat_map(|length| hours.map(|hour| hour - length)).collect()
}

fn hours_of(set: &FileSet) -> std::ops::Range<i64> {
    let first = i64::from(set.date) * 24;
    first..first + 24
}

impl Index {
    /// Loads what will be asked of a view that is about to be swapped in, the most asked for first: of its newest
    /// dates what windows up to `now` (microseconds) are made of, and what was in use of `old` and has changed.
    pub async fn warm(&self, view: &BatchView, old: Option<&BatchView>, now: i64) {
        let before = |set: &FileSet| old.and_then(|old| old.dates.get(&set.date)?.get(&set.granularity));
        let changed = |set: &&Arc<FileSet>| before(set).is_none_or(|before| before.id != set.id);
        let newest = |granularity: Granularity| {
            let dates = view.dates.values().rev().take(DATES);
            dates.filter_map(move |sets| sets.get(&granularity)).filter(changed).cloned().collect::<Vec<_>>()
        };
        let mut room = self.cache.memory() / PARTS * 3;
        let ends: Vec<i64> = ends(now).into_iter().collect();
        for set in newest(Granularity::Hour) {
            self.warm_set(&set, Columns::Counts, &mut room).await;
        }
        for set in newest(Granularity::Minute) {
            self.warm_minutes(&set, Columns::Counts, &ends, &mut room).await;
        }
        for set in newest(Granularity::Day) {
            self.warm_set(&set, Columns::Counts, &mut room).await;
        }
        for set in view.file_sets().rev().filter(changed) {
            let Some(before) = before(set) else { continue };
            for columns in [Columns::Counts, Columns::All] {
                if self.cache.holds(RunKey::Set(before.id, columns)) {
                    self.warm_set(set, columns, &mut room).await;
                }
                let used = hours_of(set).filter(|hour| self.cache.holds(RunKey::Hour(before.id, columns, *hour)));
                self.warm_hours(set, columns, used.collect(), &mut room).await;
            }
        }
        for set in newest(Granularity::Minute).iter().filter(|set| self.is_by_hour(set, Columns::Counts)) {
            self.warm_hours(set, Columns::Counts, hours_of(set).collect(), &mut room).await;
        }
    }

    /// Loads older dates, the newest first, as far as there is room: windows begin anywhere, and a top list needs all of the hour
    /// that it begins in. Nobody waits for it.
    pub async fn warm_older(&self, view: &BatchView) {
        let room_max = self.cache.memory() / PARTS * 3;
        let older = || view.dates.values().rev().skip(DATES);
        let mut room = room_max.saturating_sub(self.cache.weight());
        for granularity in [Granularity::Day, Granularity::Hour] {
            for set in older().filter_map(|sets| sets.get(&granularity)) {
                self.warm_set(set, Columns::Counts, &mut room).await;
            }
        }
        for set in older().filter_map(|sets| sets.get(&Granularity::Minute)) {
            self.warm_minutes(set, Columns::Counts, &hours_of(set).collect::<Vec<_>>(), &mut room).await;
        }
    }

    /// Loads the hours that windows reach soon; nothing else of a view changes with the clock.
    pub async fn prefetch(&self, view: &BatchView, now: i64) {
        let ends: Vec<i64> = ends(now).into_iter().collect();
        let mut room = self.cache.memory() / PARTS;
        for set in view.dates.values().rev().take(DATES).filter_map(|sets| sets.get(&Granularity::Minute)) {
            self.warm_minutes(set, Columns::Counts, &ends, &mut room).await;
        }
    }

    async fn warm_minutes(&self, set: &Arc<FileSet>, columns: Columns, hours: &[i64], room: &mut u64) {
        if self.is_by_hour(set, columns) {
            let own = hours_of(set);
            let hours = hours.iter().copied().filter(|hour| own.contains(hour)).collect();
            self.warm_hours(set, columns, hours, room).await;
        } else {
            self.warm_set(set, columns, room).await;
        }
    }

    async fn warm_set(&self, set: &Arc<FileSet>, columns: Columns, room: &mut u64) {
        let bytes = bytes_of(set, columns);
        let held = self.cache.holds(RunKey::Set(set.id, columns));
        if held || bytes > *room || self.is_too_large(set, columns) || self.is_by_hour(set, columns) {
            return;
        }
        *room -= bytes;
        tell(self.load_set(set, columns).await);
    }

    async fn warm_hours(&self, set: &Arc<FileSet>, columns: Columns, mut hours: Vec<i64>, room: &mut u64) {
        hours.retain(|hour| !self.cache.holds(RunKey::Hour(set.id, columns, *hour)));
        let bytes = bytes_of(set, columns) / 24 * hours.len() as u64;
        let by_hour = self.is_by_hour(set, columns) && !self.is_too_large(set, columns);
        if hours.is_empty() || bytes > *room || !by_hour {
            return;
        }
        *room -= bytes;
        tell(self.load_hours(set, columns, hours).await);
    }
}

fn tell<T>(loaded: Result<T, ServingError>) {
    if let Err(error) = loaded {
        tracing::warn!(%error, "warming the index");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_ready_before_windows_reach_them() {
        let at = |hour: i64, minute: i64| hour * MICROS_PER_HOUR + minute * MICROS_PER_MINUTE;
        assert_eq!(ends(at(30, 0)), BTreeSet::from([6, 29, 30]));
        assert_eq!(ends(at(30, 50)), BTreeSet::from([6, 7, 29, 30, 31]));
        assert_eq!((next_hour(at(30, 49)), next_hour(at(30, 50))), (30, 31));
    }
}
