//! What the door counts.

use std::sync::atomic::{AtomicU64, Ordering};

use reckon_serving::rest::{Counted, MetricsText};

/// What the door counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that are open.
    pub connections: AtomicU64,
    /// Connections that were refused, for there were too many.
    pub refused: AtomicU64,
    /// Statements.
    pub queries: AtomicU64,
    /// Errors that clients were told.
    pub errors: AtomicU64,
    /// Statements that clients cancelled.
    pub cancelled: AtomicU64,
}

impl Counted for Counters {
    fn write(&self, into: &mut MetricsText) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let name = "reckon_postgres_connections";
        into.single(name, "gauge", "Open connections of PostgreSQL clients.", read(&self.connections));
        let name = "reckon_postgres_refused_total";
        into.single(name, "counter", "Connections of PostgreSQL clients that were one too many.", read(&self.refused));
        let name = "reckon_postgres_statements_total";
        into.single(name, "counter", "Statements of PostgreSQL clients.", read(&self.queries));
        let name = "reckon_postgres_errors_total";
        into.single(name, "counter", "Errors that PostgreSQL clients were told.", read(&self.errors));
        let name = "reckon_postgres_cancels_total";
        into.single(name, "counter", "Cancel requests of PostgreSQL clients.", read(&self.cancelled));
    }
}
