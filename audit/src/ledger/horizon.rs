//! How long after the first copy repeats arrive, and which dedup window would do.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use crate::report::model::{Horizon, HorizonBucket};

/// Bytes of the dedup set for each event of its window: a slot of 8 bytes, half of the slots free.
const BYTES_PER_EVENT: u64 = 16;
/// Delays of more than a day say nothing about a window of minutes.
const DAY_SECONDS: u32 = 86_400;

/// How many repeats came after so many seconds; after more than a day, in whole minutes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delays(BTreeMap<u32, u64>);

impl Delays {
    /// Notes one.
    pub fn add(&mut self, seconds: u32) {
        let rounded = if seconds > DAY_SECONDS { seconds / 60 * 60 } else { seconds };
        *self.0.entry(rounded).or_default() += 1;
    }

    /// Takes what another one holds.
    pub fn merge(&mut self, other: &Self) {
        for (seconds, repeats) in &other.0 {
            *self.0.entry(*seconds).or_default() += repeats;
        }
    }

    fn total(&self, range: impl RangeBounds<u32>) -> u64 {
        self.0.range(range).map(|(_, repeats)| repeats).sum()
    }

    /// The smallest delay that `part` of `whole` of those up to `most` do not exceed.
    fn at(&self, most: u32, part: u64, whole: u64) -> Option<u32> {
        let rank = (self.total(..=most) * part).div_ceil(whole);
        let mut seen = 0;
        self.0.range(..=most).find_map(|(seconds, repeats)| {
            seen += repeats;
            (seen >= rank).then_some(*seconds)
        })
    }
}

/// Makes the horizon of all delays; `peak` is the highest number of events appended within a minute.
#[must_use]
pub fn horizon(delays: &Delays, window_minutes: u64, peak: u64) -> Horizon {
    // All but one in a thousand. The window is whole minutes, of which the first may just have ended.
    let needed = delays.at(DAY_SECONDS, 999, 1_000).map_or(1, |seconds| u64::from(seconds) / 60 + 1);
    let memory = |minutes: u64| peak.saturating_mul(minutes + 1).saturating_mul(BYTES_PER_EVENT);
    let past = delays.0.iter().filter(|(seconds, _)| u64::from(**seconds) / 60 > window_minutes);
    Horizon {
        repeats: delays.total(..),
        buckets: buckets(delays),
        p99_seconds: delays.at(u32::MAX, 99, 100).unwrap_or(0).into(),
        max_seconds: delays.0.last_key_value().map_or(0, |(seconds, _)| u64::from(*seconds)),
        window_minutes,
        past_window: past.map(|(_, repeats)| repeats).sum(),
        recommended_minutes: needed,
        recommended_memory: memory(needed),
        window_memory: memory(window_minutes),
    }
}

/// Powers of two of seconds.
fn buckets(delays: &Delays) -> Vec<HorizonBucket> {
    let last = delays.0.last_key_value().map(|(seconds, _)| u64::from(*seconds));
    let (mut buckets, mut before, mut seconds) = (Vec::new(), 0, 1_u64);
    while let Some(last) = last {
        let upto = delays.total(..=u32::try_from(seconds).unwrap_or(u32::MAX));
        buckets.push(HorizonBucket { seconds, repeats: upto - before });
        if last <= seconds {
            break;
        }
        (before, seconds) = (upto, seconds * 2);
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(delays: &[(u32, u64)]) -> Delays {
        Delays(delays.iter().copied().collect())
    }

    #[test]
    fn without_repeats_the_smallest_window_is_enough() {
        let horizon = horizon(&Delays::default(), 10, 600);
        assert_eq!((horizon.repeats, horizon.recommended_minutes, horizon.past_window), (0, 1, 0));
        assert_eq!(horizon.window_memory, 600 * 11 * BYTES_PER_EVENT);
        assert_eq!(horizon.buckets, []);
    }

    #[test]
    fn the_recommended_window_holds_all_but_one_in_a_thousand_of_a_day() {
        let horizon = horizon(&of(&[(30, 1_998), (300, 1), (100_000, 1)]), 10, 60);
        assert_eq!(horizon.recommended_minutes, 1, "one of 1,999 within a day comes later");
        assert_eq!((horizon.past_window, horizon.max_seconds, horizon.p99_seconds), (1, 100_000, 30));
        let all: u64 = horizon.buckets.iter().map(|bucket| bucket.repeats).sum();
        assert_eq!(all, 2_000);
    }

    #[test]
    fn a_window_of_minutes_is_long_enough_for_the_delay() {
        assert_eq!(horizon(&of(&[(599, 1)]), 10, 1).recommended_minutes, 10);
        assert_eq!(horizon(&of(&[(600, 1)]), 10, 1).recommended_minutes, 11);
    }

    #[test]
    fn a_repeat_is_past_the_window_when_it_is_later_by_a_whole_minute() {
        assert_eq!(horizon(&of(&[(600, 1), (659, 2), (660, 4)]), 10, 1).past_window, 4);
    }

    #[test]
    fn delays_of_days_are_kept_by_the_minute() {
        let mut delays = Delays::default();
        [59, 86_400, 86_401, 86_430].into_iter().for_each(|seconds| delays.add(seconds));
        let mut twice = delays.clone();
        twice.merge(&delays);
        assert_eq!(twice, of(&[(59, 2), (86_400, 6)]));
    }
}
