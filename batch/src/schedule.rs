//! When a job runs: a cron expression, in UTC.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use futures::FutureExt;
use reckon_data::clock::Clock;
use reckon_data::minute::{MICROS_PER_SECOND, format_time};
use tokio::sync::watch;

/// Longest sleep between two looks at the clock, which may be set forwards or back meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// Why an expression is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{expression:?} is no schedule: {reason}; \
     a schedule is five fields, minute hour day-of-month month day-of-week, in UTC: \"15 2 * * *\" is 02:15 every day"
)]
pub struct ScheduleError {
    /// What was given.
    pub expression: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A cron schedule, in UTC.
#[derive(Debug, Clone)]
pub struct Schedule(Cron);

impl Schedule {
    /// Reads five fields (minute, hour, day of month, month, day of week), or six with seconds first. An
    /// empty text is no schedule at all.
    ///
    /// # Errors
    /// What is wrong, and what a schedule looks like; also for one that never comes, such as 30 February.
    pub fn parse(expression: &str) -> Result<Option<Self>, ScheduleError> {
        if expression.trim().is_empty() {
            return Ok(None);
        }
        let refused = |reason: String| ScheduleError {
            expression: expression.to_owned(),
            reason: reason.trim_end_matches('.').to_owned(),
        };
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let schedule = Self(parser.parse(expression).map_err(|error| refused(error.to_string()))?);
        match schedule.next_after(0) {
            Some(_) => Ok(Some(schedule)),
            None => Err(refused("it never comes".to_owned())),
        }
    }

    /// The first time of the schedule after `now`, both in microseconds; none in the far future.
    #[must_use]
    pub fn next_after(&self, now: i64) -> Option<i64> {
        let now: DateTime<Utc> = DateTime::from_timestamp_micros(now)?;
        let next = self.0.find_next_occurrence(&now, false).ok()?;
        Some(next.timestamp() * MICROS_PER_SECOND)
    }
}

/// Calls `job` at each time of the schedule, one call after the other, until `stop` becomes true. Times that pass
/// while a call goes on are left out. A call that goes on when `stop` comes is waited for; one that panics is told,
/// and the next one comes all the same.
pub async fn run_on_schedule<F, Fut>(
    schedule: &Schedule,
    clock: &dyn Clock,
    mut stop: watch::Receiver<bool>,
    mut job: F,
) where
    F: FnMut() -> Fut + Send,
    Fut: Future<Output = ()> + Send,
{
    while let Some(next) = schedule.next_after(clock.now()) {
        tracing::info!(at = format_time(next), "next scheduled run");
        if !wait_until(next, clock, &mut stop).await {
            return;
        }
        call(&mut job).await;
    }
}

/// Calls `job` every `interval`, the first time after one, until `stop` becomes true. One call that panics is told,
/// and the next one comes all the same.
pub async fn run_every<F, Fut>(interval: Duration, mut stop: watch::Receiver<bool>, mut job: F)
where
    F: FnMut() -> Fut + Send,
    Fut: Future<Output = ()> + Send,
{
    while !stopped_within(interval, &mut stop).await {
        call(&mut job).await;
    }
}

async fn call<F, Fut>(job: &mut F)
where
    F: FnMut() -> Fut + Send,
    Fut: Future<Output = ()> + Send,
{
    if AssertUnwindSafe(async { job().await }).catch_unwind().await.is_err() {
        tracing::error!("a job that runs by itself has panicked; it runs again at its next time");
    }
}

/// Whether `time` came before the stop did.
async fn wait_until(time: i64, clock: &dyn Clock, stop: &mut watch::Receiver<bool>) -> bool {
    loop {
        let left = u64::try_from(time.saturating_sub(clock.now())).unwrap_or(0);
        if left == 0 {
            return !*stop.borrow();
        }
        if stopped_within(Duration::from_micros(left).min(SLEEP_MAX), stop).await {
            return false;
        }
    }
}

async fn stopped_within(time: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    // A sender that is gone is a stop too.
    tokio::time::timeout(time, stop.wait_for(|stop| *stop)).await.is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};

    use reckon_data::clock::SystemClock;

    use super::*;

    fn micros(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    #[test]
    fn the_next_time_of_a_table_of_schedules() {
        let table = [
            ("15 2 * * *", "2026-02-08T02:14:59.999999Z", "2026-02-08T02:15:00Z"),
            ("15 2 * * *", "2026-02-08T02:15:00Z", "2026-02-09T02:15:00Z"),
            ("* * * * *", "2026-12-31T23:59:30Z", "2027-01-01T00:00:00Z"),
            ("0 0 29 2 *", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("*/10 * * * * *", "2026-03-01T00:00:01Z", "2026-03-01T00:00:10Z"),
        ];
        for (expression, now, next) in table {
            let schedule = Schedule::parse(expression).unwrap().unwrap();
            assert_eq!(schedule.next_after(micros(now)), Some(micros(next)), "{expression} after {now}");
        }
    }

    #[test]
    fn nothing_is_no_schedule_and_nonsense_is_explained() {
        assert!(Schedule::parse(" ").unwrap().is_none());
        for expression in ["nightly", "61 * * * *", "* * *", "0 0 30 2 *"] {
            let error = Schedule::parse(expression).unwrap_err();
            assert!(error.to_string().contains(expression) && error.to_string().contains("15 2 * * *"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_job_that_panics_runs_again() {
        let (stop, stopped) = watch::channel(false);
        let calls = AtomicU32::new(0);
        let job = || async {
            if calls.fetch_add(1, Ordering::SeqCst) > 0 {
                stop.send_replace(true);
                return;
            }
            std::panic::resume_unwind(Box::new("the first time"));
        };
        run_every(Duration::from_millis(1), stopped, job).await;
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_job_runs_at_its_times_until_the_stop() {
        let (stop, stopped) = watch::channel(false);
        let calls = AtomicU32::new(0);
        let schedule = Schedule::parse("* * * * * *").unwrap().unwrap();
        let job = || async {
            calls.fetch_add(1, Ordering::SeqCst);
        };
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            stop.send_replace(true);
        };
        tokio::join!(run_on_schedule(&schedule, &SystemClock, stopped, job), stopping);
        let calls = calls.load(Ordering::SeqCst);
        assert!((2..=3).contains(&calls), "{calls} calls in 2.5 s");
    }
}
