//! How long after the first copy repeats arrive, and which dedup window would do.

use crate::report::model::{Horizon, HorizonBucket};

/// Bytes of the dedup set for each event of its window: a slot of 8 bytes, half of the slots free.
const BYTES_PER_EVENT: u64 = 16;
/// Delays of more than a day say nothing about a window of minutes.
const DAY_SECONDS: u32 = 86_400;

/// Makes the horizon of all delays, in seconds; `peak` is the highest number of events appended within a minute.
#[must_use]
pub fn horizon(mut delays: Vec<u32>, window_minutes: u64, peak: u64) -> Horizon {
    delays.sort_unstable();
    let within_a_day = &delays[..delays.partition_point(|delay| *delay <= DAY_SECONDS)];
    // All but one in a thousand. The window is whole minutes, of which the first may just have ended.
    let needed = at(within_a_day, 999, 1_000).map_or(1, |seconds| u64::from(seconds) / 60 + 1);
    let memory = |minutes: u64| peak.saturating_mul(minutes + 1).saturating_mul(BYTES_PER_EVENT);
    Horizon {
        repeats: delays.len() as u64,
        buckets: buckets(&delays),
        p99_seconds: at(&delays, 99, 100).unwrap_or(0).into(),
        max_seconds: delays.last().copied().unwrap_or(0).into(),
        window_minutes,
        past_window: delays.iter().filter(|delay| u64::from(**delay) / 60 > window_minutes).count() as u64,
        recommended_minutes: needed,
        recommended_memory: memory(needed),
        window_memory: memory(window_minutes),
    }
}

/// The smallest delay that `part` of `whole` of them do not exceed.
fn at(delays: &[u32], part: usize, whole: usize) -> Option<u32> {
    let rank = (delays.len() * part).div_ceil(whole);
    delays.get(rank.saturating_sub(1)).copied()
}

/// Powers of two of seconds.
fn buckets(delays: &[u32]) -> Vec<HorizonBucket> {
    let (mut buckets, mut from, mut seconds) = (Vec::new(), 0, 1_u64);
    while from < delays.len() {
        let to = delays.partition_point(|delay| u64::from(*delay) <= seconds);
        buckets.push(HorizonBucket { seconds, repeats: (to - from) as u64 });
        (from, seconds) = (to, seconds * 2);
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_repeats_the_smallest_window_is_enough() {
        let horizon = horizon(Vec::new(), 10, 600);
        assert_eq!((horizon.repeats, horizon.recommended_minutes, horizon.past_window), (0, 1, 0));
        assert_eq!(horizon.window_memory, 600 * 11 * BYTES_PER_EVENT);
    }

    #[test]
    fn the_recommended_window_holds_all_but_one_in_a_thousand_of_a_day() {
        let mut delays = vec![30; 1_998];
        delays.extend([5 * 60, 100_000]);
        let horizon = horizon(delays, 10, 60);
        assert_eq!(horizon.recommended_minutes, 1, "one of 1,999 within a day comes later");
        assert_eq!((horizon.past_window, horizon.max_seconds, horizon.p99_seconds), (1, 100_000, 30));
        let all: u64 = horizon.buckets.iter().map(|bucket| bucket.repeats).sum();
        assert_eq!(all, 2_000);
    }

    #[test]
    fn a_window_of_minutes_is_long_enough_for_the_delay() {
        assert_eq!(horizon(vec![599], 10, 1).recommended_minutes, 10);
        assert_eq!(horizon(vec![600], 10, 1).recommended_minutes, 11);
    }
}
