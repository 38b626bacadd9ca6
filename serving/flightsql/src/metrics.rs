//! What is counted of Flight SQL.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use reckon_serving::rest::{Counted, MetricsText};
use tonic::Code;

/// What is counted of Flight SQL since the start.
#[derive(Debug, Default)]
pub struct FlightMetrics {
    streams: AtomicU64,
    queries: AtomicU64,
    rows: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl FlightMetrics {
    /// An answer has begun.
    pub(crate) fn begun(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.queries.fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended, one way or another.
    pub(crate) fn ended(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many rows were sent.
    pub(crate) fn sent(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// A request was refused, or an answer broke off.
    pub(crate) fn failed(&self, code: Code) {
        // gRPC has seventeen codes.
        *self.errors.lock().entry(format!("{code:?}")).or_default() += 1;
    }
}

impl Counted for FlightMetrics {
    fn write(&self, into: &mut MetricsText) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let streams = "Answers that Flight SQL is sending.";
        into.single("reckon_flight_sql_streams", "gauge", streams, read(&self.streams));
        let queries = "Queries that Flight SQL has begun to answer.";
        into.single("reckon_flight_sql_queries_total", "counter", queries, read(&self.queries));
        into.single("reckon_flight_sql_rows_total", "counter", "Rows that Flight SQL has sent.", read(&self.rows));
        let errors = "Requests of Flight SQL that ended with an error, by its gRPC code.";
        into.begin("reckon_flight_sql_errors_total", "counter", errors);
        for (code, number) in self.errors.lock().iter() {
            into.value("reckon_flight_sql_errors_total", &[("code", code)], number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_counted() {
        let metrics = FlightMetrics::default();
        metrics.begun();
        metrics.begun();
        metrics.ended();
        metrics.sent(7);
        metrics.failed(Code::InvalidArgument);
        let mut text = MetricsText::default();
        metrics.write(&mut text);
        let text = text.finish();
        for line in [
            "reckon_flight_sql_streams 1",
            "reckon_flight_sql_queries_total 2",
            "reckon_flight_sql_rows_total 7",
            "reckon_flight_sql_errors_total{code=\"InvalidArgument\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
