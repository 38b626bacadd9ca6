//! Counts and times of questions, as Prometheus text.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::Instrument as _;

use crate::ServingError;

/// The kinds of questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// A point count.
    Count,
    /// A function step by step.
    Stats,
    /// A top list.
    Top,
    /// Where an event is.
    Locate,
    /// A list of dead letters.
    DeadLetters,
    /// SQL.
    Sql,
    /// How a count came about.
    Why,
}

impl Question {
    /// Every kind there is.
    pub const ALL: [Self; 7] =
        [Self::Count, Self::Stats, Self::Top, Self::Locate, Self::DeadLetters, Self::Sql, Self::Why];

    const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Stats => "stats",
            Self::Top => "top",
            Self::Locate => "locate",
            Self::DeadLetters => "dead_letters",
            Self::Sql => "sql",
            Self::Why => "why",
        }
    }
}

/// Upper bounds of the buckets, microseconds.
const BOUNDS: [u64; 14] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000, 60_000_000];

#[derive(Debug, Default)]
struct Times {
    /// One a bound, and one above all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
    failed: AtomicU64,
}

/// Counts and times of questions.
#[derive(Debug, Default)]
pub struct Metrics {
    times: [Times; Question::ALL.len()],
}

impl Metrics {
    /// Measures a question.
    pub async fn measure<T>(
        &self,
        question: Question,
        work: impl Future<Output = Result<T, ServingError>>,
    ) -> Result<T, ServingError> {
        let begin = Instant::now();
        let span = tracing::info_span!(target: "trace::question", "question", otel.name = question.name());
        let result = work.instrument(span).await;
        self.record(question, begin.elapsed(), result.is_err());
        result
    }

    fn record(&self, question: Question, took: Duration, failed: bool) {
        let times = &self.times[question as usize];
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        times.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        times.sum_micros.fetch_add(micros, Ordering::Relaxed);
        times.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// Appends the metrics as Prometheus text.
    pub fn write(&self, into: &mut String) {
        into.push_str("# HELP reckon_query_seconds Time that questions took.\n# TYPE reckon_query_seconds histogram\n");
        for question in Question::ALL {
            let (name, times) = (question.name(), &self.times[question as usize]);
            let mut total = 0;
            for (bucket, count) in times.buckets.iter().enumerate() {
                total += count.load(Ordering::Relaxed);
                let bound = BOUNDS.get(bucket).map_or_else(|| "+Inf".to_owned(), |bound| seconds(*bound));
                // Writing to a string cannot fail.
                let _ = writeln!(into, "reckon_query_seconds_bucket{{question=\"{name}\",le=\"{bound}\"}} {total}");
            }
            let sum = seconds(times.sum_micros.load(Ordering::Relaxed));
            let _ = writeln!(into, "reckon_query_seconds_sum{{question=\"{name}\"}} {sum}");
            let _ = writeln!(into, "reckon_query_seconds_count{{question=\"{name}\"}} {total}");
        }
        into.push_str(
            "# HELP reckon_query_failed_total Questions without an answer.\n# TYPE reckon_query_failed_total counter\n",
        );
        for question in Question::ALL {
            let failed = self.times[question as usize].failed.load(Ordering::Relaxed);
            let _ = writeln!(into, "reckon_query_failed_total{{question=\"{}\"}} {failed}", question.name());
        }
    }
}

fn seconds(micros: u64) -> String {
    format!("{}", Duration::from_micros(micros).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_buckets() {
        let metrics = Metrics::default();
        metrics.record(Question::Count, Duration::from_micros(50), false);
        metrics.record(Question::Count, Duration::from_micros(51), true);
        metrics.record(Question::Count, Duration::from_secs(3_600), false);
        let mut text = String::new();
        metrics.write(&mut text);
        for line in [
            "reckon_query_seconds_bucket{question=\"count\",le=\"0.00005\"} 1",
            "reckon_query_seconds_bucket{question=\"count\",le=\"0.0001\"} 2",
            "reckon_query_seconds_bucket{question=\"count\",le=\"60\"} 2",
            "reckon_query_seconds_bucket{question=\"count\",le=\"+Inf\"} 3",
            "reckon_query_seconds_count{question=\"count\"} 3",
            "reckon_query_seconds_sum{question=\"count\"} 3600.000101",
            "reckon_query_failed_total{question=\"count\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
