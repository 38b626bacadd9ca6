//! How the process is, second by second: rates, lag, audits, dead letters and the golden signals; the same for every view.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::super::metrics::RequestSums;
use super::super::parts::Totals;
use super::super::signals::Signals;
use super::super::state::{REQUESTS_MAX, Shared};
use super::{PATH, STREAMS_MAX};
use crate::{Serving, ServingError, query};

/// Seconds that are kept.
const HISTORY: usize = 600;
/// Seconds that the golden signals are about.
const SIGNALS: usize = 60;
/// How often dead letters are counted, while somebody looks.
const GRAVES_EVERY: Duration = Duration::from_secs(5);
/// Counting them may take one part in so many of the time.
const GRAVES_PART: u32 = 20;
/// So many of the latest audits are told.
const AUDITS: usize = 5;

/// The last minutes of the process.
#[derive(Debug, Default)]
pub struct Pulse {
    samples: Mutex<VecDeque<Sample>>,
    graves: Mutex<Graves>,
}

/// Dead letters as counted last, and the task that counts them: a live view never waits for SQL.
#[derive(Debug, Default)]
struct Graves {
    told: Value,
    /// The version of the table that it is of.
    version: Option<u64>,
    /// When they were counted last, and how long that counts.
    since: Option<Instant>,
    pause: Duration,
    task: Option<JoinHandle<()>>,
}

impl Graves {
    /// Notes what was found, and how long it took; nothing when it is still what was found before.
    fn note(&mut self, found: Result<Option<query::Graves>, ServingError>, took: Duration) {
        self.since = Some(Instant::now());
        self.pause = GRAVES_EVERY.max(took.saturating_mul(GRAVES_PART));
        match found {
            Ok(None) => {}
            Ok(Some(found)) => (self.version, self.told) = (Some(found.version), json!(found)),
            Err(error) => (self.version, self.told) = (None, json!({ "error": error.to_string() })),
        }
    }
}

/// The process at one second.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    now: i64,
    totals: Totals,
    /// Records counted, in all partitions.
    records: u64,
    requests: RequestSums,
}

/// What happened in a second, of accepted, counted, duplicate and dead events, and of counted records.
const COLUMNS: [&str; 5] = ["accepted", "counted", "duplicate", "dead", "records"];

impl Sample {
    const fn sums(&self) -> [u64; COLUMNS.len()] {
        let of = &self.totals;
        [of.accepted, of.counted, of.duplicate, of.dead, self.records]
    }

    /// Per second since `before`, to a thousandth.
    fn rates(&self, before: &Self) -> [f64; COLUMNS.len()] {
        let seconds = self.at.duration_since(before.at).as_secs_f64().max(0.001);
        let (old, mut rates) = (before.sums(), [0.0; COLUMNS.len()]);
        for ((rate, new), old) in rates.iter_mut().zip(self.sums()).zip(old) {
            *rate = (new.saturating_sub(old) as f64 / seconds * 1_000.0).round() / 1_000.0;
        }
        rates
    }
}

impl Pulse {
    /// Notes this second.
    pub fn sample(&self, shared: &Arc<Shared>) {
        let Some(serving) = &shared.parts.serving else { return };
        let sample = Sample {
            at: Instant::now(),
            now: shared.parts.clock.now(),
            totals: shared.parts.health.ready().totals,
            records: serving.behind().counted_records,
            requests: shared.requests.sums(&[PATH]),
        };
        {
            let mut samples = self.samples.lock();
            samples.push_back(sample);
            if samples.len() > HISTORY {
                samples.pop_front();
            }
        }
        if shared.live.streams() > 0 {
            self.look_at_graves(shared, serving);
        }
    }

    /// Starts counting dead letters, unless that goes on already or was done just now.
    fn look_at_graves(&self, shared: &Arc<Shared>, serving: &Arc<Serving>) {
        let mut graves = self.graves.lock();
        let goes_on = graves.task.as_ref().is_some_and(|task| !task.is_finished());
        if goes_on || graves.since.is_some_and(|since| since.elapsed() < graves.pause) {
            return;
        }
        let (shared, serving, known) = (Arc::downgrade(shared), Arc::clone(serving), graves.version);
        graves.task = Some(tokio::spawn(async move {
            let start = Instant::now();
            let found = Box::pin(serving.graves(known)).await;
            if let Some(shared) = shared.upgrade() {
                shared.live.pulse.graves.lock().note(found, start.elapsed());
            }
        }));
    }

    /// The event `history`, in JSON: per second, the last minutes.
    pub fn history(&self) -> String {
        let samples = self.samples.lock();
        let rows = samples.iter().zip(samples.iter().skip(1)).map(|(before, after)| {
            let mut row = vec![json!(after.now / 1_000)];
            row.extend(after.rates(before).iter().map(|rate| json!(rate)));
            Value::from(row)
        });
        let rows: Vec<Value> = rows.collect();
        let columns: Vec<&str> = ["time_ms"].into_iter().chain(COLUMNS).collect();
        json!({ "columns": columns, "rows": rows }).to_string()
    }

    /// How requests fared lately.
    pub fn signals(&self, shared: &Shared) -> Signals {
        let samples = self.samples.lock();
        let before = samples.get(samples.len().saturating_sub(SIGNALS));
        let between = before.zip(samples.back()).map(|(before, after)| {
            let seconds = after.at.duration_since(before.at).as_secs_f64();
            Signals::between(&before.requests, &after.requests, seconds)
        });
        Signals {
            under_way: REQUESTS_MAX.saturating_sub(shared.turns.available_permits()),
            under_way_max: REQUESTS_MAX,
            streams: shared.live.streams(),
            streams_max: STREAMS_MAX,
            ..between.unwrap_or_default()
        }
    }

    /// What every event `tick` says.
    pub fn tell(&self, shared: &Shared) -> Value {
        let Some(serving) = &shared.parts.serving else { return json!({}) };
        let (readiness, behind) = (shared.parts.health.ready(), serving.behind());
        let lag_seconds = behind.micros as f64 / 1e6;
        json!({
            "counts_here": shared.parts.ingest.is_some(),
            "ready": readiness.ready,
            "reasons": readiness.reasons,
            "damaged": readiness.damaged.len(),
            "totals": readiness.totals,
            "per_second": self.per_second(),
            "lag": {
                "records": readiness.lag_records,
                "seconds": lag_seconds,
                "silent_partitions": behind.silent,
            },
            "serving": serving.status(),
            "audit": audits(shared),
            "batch": batch(shared),
            "dead_letters": self.graves.lock().told,
            "signals": self.signals(shared),
        })
    }

    /// The rates of the newest second, with its time; null before there are two samples.
    fn per_second(&self) -> Value {
        let samples = self.samples.lock();
        let mut newest = samples.iter().rev();
        let (Some(after), Some(before)) = (newest.next(), newest.next()) else { return Value::Null };
        let time_ms = after.now / 1_000;
        let mut rates = json!({ "time_ms": time_ms });
        for (name, rate) in COLUMNS.into_iter().zip(after.rates(before)) {
            rates[name] = json!(rate);
        }
        rates
    }
}

/// The latest audits of this process.
fn audits(shared: &Shared) -> Value {
    let Some(audits) = &shared.parts.audits else { return Value::Null };
    let runs: Vec<_> = audits.list().into_iter().take(AUDITS).collect();
    json!({ "runs": runs })
}

/// The latest batch run of this process, without its report.
fn batch(shared: &Shared) -> Value {
    let newest = shared.parts.jobs.as_ref().and_then(|jobs| jobs.list().into_iter().next());
    newest.map_or(Value::Null, |run| {
        json!({
            "id": run.id,
            "state": run.state,
            "step": run.step,
            "started_at": run.started_at,
            "finished_at": run.finished_at,
            "error": run.error,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, counted: u64, records: u64) -> Sample {
        let totals = Totals { accepted: counted, counted, ..Totals::default() };
        Sample { at, now: 0, totals, records, requests: RequestSums::default() }
    }

    #[test]
    fn dead_letters_are_told_until_there_are_others() {
        let mut graves = Graves::default();
        graves.note(Ok(Some(query::Graves { version: 3, ..query::Graves::default() })), Duration::ZERO);
        graves.note(Ok(None), Duration::from_secs(1));
        assert_eq!((graves.version, &graves.told["version"]), (Some(3), &json!(3)));
        assert_eq!(graves.pause, Duration::from_secs(20), "counting takes a twentieth of the time at the most");
        graves.note(Err(ServingError::unavailable("no")), Duration::ZERO);
        assert_eq!((graves.version, graves.pause), (None, GRAVES_EVERY), "what was not found is looked for again");
        assert!(graves.told["error"].is_string());
    }

    #[test]
    fn rates_are_per_second() {
        let start = Instant::now();
        let (before, after) = (sample(start, 100, 3), sample(start + Duration::from_millis(500), 350, 4));
        assert_eq!(after.rates(&before), [500.0, 500.0, 0.0, 0.0, 2.0]);
        // A restart of what is counted is no negative rate.
        assert_eq!(before.sums().len(), COLUMNS.len());
        assert_eq!(sample(start + Duration::from_secs(1), 0, 0).rates(&before)[1], 0.0);
    }

    #[test]
    fn history_has_a_row_for_each_second() {
        let (pulse, start) = (Pulse::default(), Instant::now());
        assert_eq!(pulse.per_second(), Value::Null);
        for second in 0..3 {
            pulse.samples.lock().push_back(sample(start + Duration::from_secs(second), second * 7, 0));
        }
        let history: Value = serde_json::from_str(&pulse.history()).unwrap();
        assert_eq!(history["columns"][1], "accepted");
        assert_eq!(history["rows"].as_array().map(Vec::len), Some(2));
        assert_eq!(history["rows"][1][2], 7.0);
        assert_eq!(pulse.per_second()["counted"], 7.0);
    }
}
