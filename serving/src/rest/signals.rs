//! The golden signals of the REST interface: latency, traffic, errors, saturation; over the last minute.

use serde::Serialize;

use super::metrics::RequestSums;

/// How requests fared lately. Requests of live streams are left out: they last as long as somebody looks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Signals {
    /// What it is about, seconds; 0 right after the start.
    pub window_seconds: f64,
    /// Traffic.
    pub requests_per_second: f64,
    /// Answers that are the server's fault (5xx).
    pub errors_per_second: f64,
    /// Half of the requests took no longer, milliseconds; none without requests.
    pub latency_p50_ms: Option<f64>,
    /// Of a hundred requests 99 took no longer, milliseconds; none without requests.
    pub latency_p99_ms: Option<f64>,
    /// Requests under way.
    pub under_way: usize,
    /// Most requests under way at once.
    pub under_way_max: usize,
    /// Live streams that somebody follows.
    pub streams: usize,
    /// Most of them.
    pub streams_max: usize,
}

impl Signals {
    /// What happened between two sums, `seconds` apart.
    #[must_use]
    pub fn between(before: &RequestSums, after: &RequestSums, seconds: f64) -> Self {
        let per_second = |before: u64, after: u64| {
            if seconds > 0.0 { after.saturating_sub(before) as f64 / seconds } else { 0.0 }
        };
        let buckets: Vec<(f64, u64)> = (after.buckets.iter())
            .zip(&before.buckets)
            .map(|((bound, after), (_, before))| (*bound, after.saturating_sub(*before)))
            .collect();
        let count = after.count.saturating_sub(before.count);
        Self {
            window_seconds: seconds,
            requests_per_second: per_second(before.count, after.count),
            errors_per_second: per_second(before.errors, after.errors),
            latency_p50_ms: quantile(&buckets, count, 0.5).map(|seconds| seconds * 1_000.0),
            latency_p99_ms: quantile(&buckets, count, 0.99).map(|seconds| seconds * 1_000.0),
            ..Self::default()
        }
    }
}

/// A quantile from cumulative buckets (upper bound, how many lie below), evenly spread within each, as Prometheus has it:
/// what lies above the last bound is said to lie at it.
fn quantile(buckets: &[(f64, u64)], count: u64, quantile: f64) -> Option<f64> {
    if count == 0 {
        return None;
    }
    let rank = quantile * count as f64;
    let (mut low, mut below) = (0.0, 0_u64);
    for &(bound, within) in buckets {
        if within as f64 >= rank {
            let share = if within > below { (rank - below as f64) / (within - below) as f64 } else { 1.0 };
            return Some(low + (bound - low) * share);
        }
        (low, below) = (bound, within);
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(count: u64, errors: u64, buckets: &[(f64, u64)]) -> RequestSums {
        RequestSums { count, errors, buckets: buckets.to_vec() }
    }

    #[test]
    fn signals_are_what_happened_in_between() {
        let before = sums(100, 1, &[(0.1, 100), (1.0, 100)]);
        let after = sums(300, 11, &[(0.1, 200), (1.0, 300)]);
        let signals = Signals::between(&before, &after, 20.0);
        assert_eq!((signals.requests_per_second, signals.errors_per_second), (10.0, 0.5));
        // Half of the 200 lie below 0.1 s, and 98 of the 100 others below 98 hundredths of the next bucket.
        assert_eq!(signals.latency_p50_ms, Some(100.0));
        let p99 = signals.latency_p99_ms.unwrap();
        assert!((p99 - (100.0 + 900.0 * 0.98)).abs() < 1e-6, "{p99}");
    }

    #[test]
    fn without_requests_there_is_no_latency() {
        let same = sums(5, 0, &[(0.1, 5)]);
        let signals = Signals::between(&same, &same, 0.0);
        assert_eq!((signals.latency_p50_ms, signals.requests_per_second), (None, 0.0));
        assert_eq!(quantile(&[(0.1, 0), (1.0, 0)], 7, 0.5), Some(1.0), "above the last bound");
    }
}
