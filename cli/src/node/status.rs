//! How a node is: for `/readyz`, `/metrics` and whoever waits.

use std::sync::Arc;

use reckon_audit::canary::Record;
use reckon_batch::archive::Archiver;
use reckon_data::damage::Damage as _;
use reckon_data::log::Log;
use reckon_data::tail::Tails as _;
use reckon_serving::Serving;
use reckon_serving::rest::{Health, MetricsText, Readiness, Totals};
use reckon_stream::counter::Counter;
use reckon_stream::gateway::Gateway;
use reckon_tables::{DeltaTables, MendedLog, Storage};

use super::metrics;

/// How a node is.
#[derive(Debug)]
pub struct NodeStatus {
    pub log: Arc<MendedLog>,
    pub gateway: Arc<Gateway>,
    pub counter: Arc<Counter>,
    pub archiver: Arc<Archiver>,
    pub serving: Arc<Serving>,
    pub storage: Storage,
    pub tables: DeltaTables,
    /// What the canary has seen, if there is one.
    pub canary: Option<Arc<Record>>,
}

impl NodeStatus {
    /// Records in the log that are not counted yet, of one partition.
    fn lag(&self, partition: u32) -> u64 {
        let end = self.log.watch_end(partition).map_or(u64::MAX, |end| *end.borrow());
        let position = self.counter.position(partition).map_or(0, |position| position.offset);
        end.saturating_sub(position)
    }

    /// Records in the log that are not counted yet.
    #[must_use]
    pub fn lag_records(&self) -> u64 {
        (0..self.log.partitions()).map(|partition| self.lag(partition)).sum()
    }

    /// Why the counter or the archiver cannot go on, in any partition.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let counter = (0..self.log.partitions()).find_map(|partition| self.counter.position(partition).err());
        let archiver = || self.archiver.failure().map(|error| format!("the archiver has stopped: {error}"));
        let stuck = || self.archiver.stuck().first().map(|error| format!("not all is archived: {error}"));
        counter.map(|error| error.to_string()).or_else(archiver).or_else(stuck)
    }

    /// Data files and records of the log that are not what was written.
    fn damaged(&self) -> Vec<String> {
        let files = self.storage.damaged().into_iter().map(|file| file.to_string());
        files.chain(self.log.damaged().into_iter().map(|record| record.to_string())).collect()
    }

    /// Everything counted since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let totals = self.counter.stats().totals();
        let accepted = totals.counted + totals.duplicate;
        Totals { accepted, counted: totals.counted, duplicate: totals.duplicate, dead: totals.dead }
    }
}

impl Health for NodeStatus {
    fn ready(&self) -> Readiness {
        let reasons: Vec<String> = self.trouble().into_iter().collect();
        Readiness {
            ready: reasons.is_empty(),
            lag_records: self.lag_records(),
            totals: self.totals(),
            reasons,
            damaged: self.damaged(),
        }
    }

    fn metrics(&self, into: &mut MetricsText) {
        metrics::gateway(&self.gateway, into);
        metrics::counter(&self.counter.stats(), into);
        metrics::archiver(&self.archiver.stats(), self.archiver.lag_micros(), into);
        into.single(
            "reckon_index_bytes",
            "gauge",
            "Memory of the index over batch counts.",
            self.serving.index_bytes(),
        );
        let damaged = self.storage.damaged().len();
        into.single("reckon_damaged_files", "gauge", "Data files of the tables that were found damaged.", damaged);
        let damaged = self.log.damaged().len();
        into.single("reckon_damaged_records", "gauge", "Records of the log that were found damaged.", damaged);
        if let Some(canary) = &self.canary {
            metrics::canary(&canary.stats(), into);
        }
        metrics::common(&self.tables, &*self.log, into);
        into.single("reckon_ready", "gauge", "Whether counter and archiver go on.", u8::from(self.trouble().is_none()));
    }
}
