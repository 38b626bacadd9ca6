//! How a node is: for `/readyz`, `/metrics` and whoever waits.

use std::sync::Arc;

use reckon_batch::archive::Archiver;
use reckon_data::damage::Damage as _;
use reckon_data::invariant;
use reckon_data::log::Log;
use reckon_data::table::Table;
use reckon_data::tail::Tails as _;
use reckon_serving::Serving;
use reckon_serving::rest::{Health, MetricsText, Readiness, Totals};
use reckon_stream::counter::Counter;
use reckon_stream::gateway::Gateway;
use reckon_tables::{DeltaTables, MendedLog, Storage};

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
        self.gateway_metrics(into);
        self.counter_metrics(into);
        let archive = self.archiver.stats();
        into.single("reckon_archived_events_total", "counter", "Events archived since the start.", archive.events);
        into.single("reckon_archiver_lag_records", "gauge", "Records not archived yet.", archive.lag_records);
        let seconds = self.archiver.lag_micros() as f64 / 1e6;
        into.single("reckon_archiver_lag_seconds", "gauge", "Age of the newest record archived.", seconds);
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
        self.table_metrics(into);
        invariant_metrics(into);
        into.single("reckon_ready", "gauge", "Whether counter and archiver go on.", u8::from(self.trouble().is_none()));
    }
}

/// Which invariants were checked, and which did not hold.
fn invariant_metrics(into: &mut MetricsText) {
    into.begin("reckon_invariant_checks_total", "counter", "Checks of each invariant.");
    for invariant in invariant::all() {
        into.value("reckon_invariant_checks_total", &[("invariant", invariant.number)], invariant.checks());
    }
    into.begin("reckon_invariant_violations_total", "counter", "Checks that found an invariant broken.");
    for invariant in invariant::all() {
        into.value("reckon_invariant_violations_total", &[("invariant", invariant.number)], invariant.violations());
    }
}

impl NodeStatus {
    fn table_metrics(&self, into: &mut MetricsText) {
        let sizes = || Table::ALL.into_iter().filter_map(|table| Some((table.name(), self.tables.size(table)?)));
        into.begin("reckon_table_files", "gauge", "Files that a table refers to.");
        sizes().for_each(|(table, size)| into.value("reckon_table_files", &[("table", table)], size.files));
        into.begin("reckon_table_bytes", "gauge", "Bytes of these files.");
        sizes().for_each(|(table, size)| into.value("reckon_table_bytes", &[("table", table)], size.bytes));
    }

    fn gateway_metrics(&self, into: &mut MetricsText) {
        let stats = self.gateway.stats();
        into.single("reckon_events_accepted_total", "counter", "Events taken.", stats.accepted);
        into.begin("reckon_events_refused_total", "counter", "Events refused, by reason.");
        for (reason, count) in &stats.refused {
            into.value("reckon_events_refused_total", &[("reason", reason)], count);
        }
        into.single("reckon_requests_busy_total", "counter", "Requests answered with 429.", stats.busy);
        into.single("reckon_gateway_queue_bytes", "gauge", "Bytes of bodies under way.", stats.queue_bytes);
        into.begin("reckon_gateway_stage_seconds_total", "counter", "Time spent in each stage.");
        let stages = [
            ("inflate", stats.inflate_nanos),
            ("judge", stats.judge_nanos),
            ("encode", stats.encode_nanos),
            ("append", stats.append_nanos),
        ];
        for (stage, nanos) in stages {
            into.value("reckon_gateway_stage_seconds_total", &[("stage", stage)], nanos as f64 / 1e9);
        }
    }

    fn counter_metrics(&self, into: &mut MetricsText) {
        let totals = self.totals();
        into.begin("reckon_events_counted_total", "counter", "Events by what the counter made of them.");
        for (verdict, count) in [("counted", totals.counted), ("duplicate", totals.duplicate), ("dead", totals.dead)] {
            into.value("reckon_events_counted_total", &[("verdict", verdict)], count);
        }
        into.begin("reckon_counter_lag_records", "gauge", "Records not counted yet.");
        for partition in 0..self.log.partitions() {
            into.value("reckon_counter_lag_records", &[("partition", &partition.to_string())], self.lag(partition));
        }
        let stats = self.counter.stats();
        self.stage_metrics(&stats, into);
        let sum =
            |get: fn(&reckon_stream::counter::PartitionStats) -> f64| stats.partitions.iter().map(get).sum::<f64>();
        into.single("reckon_dedup_keys", "gauge", "Keys in the dedup sets.", sum(|p| p.dedup_keys as f64));
        into.single("reckon_dedup_bytes", "gauge", "Memory of the dedup sets.", sum(|p| p.dedup_bytes as f64));
        let segments = sum(|p| (p.open_bytes + p.history.sealed + p.history.unsealed) as f64);
        into.single("reckon_segment_bytes", "gauge", "Memory of the stream counts that lie in memory.", segments);
        into.single(
            "reckon_dedup_expected_collisions",
            "counter",
            "Events expected to have been dropped by a hash collision.",
            sum(|p| p.expected_collisions),
        );
    }

    /// What each stage of counting and archiving costs.
    fn stage_metrics(&self, stats: &reckon_stream::counter::CounterStats, into: &mut MetricsText) {
        let totals = stats.totals();
        let decode: f64 = stats.partitions.iter().map(|partition| partition.decode.as_secs_f64()).sum();
        let counter = [
            ("decode", decode),
            ("dedup", totals.dedup.as_secs_f64()),
            ("group", totals.group.as_secs_f64()),
            ("seal", stats.seal.as_secs_f64()),
        ];
        let archive = self.archiver.stats();
        let archiver = [
            ("decode", archive.decode_seconds),
            ("encode", archive.encode_seconds),
            ("store", archive.store_seconds),
            ("commit", archive.commit_seconds),
        ];
        for (name, stages) in
            [("reckon_counter_stage_seconds_total", counter), ("reckon_archiver_stage_seconds_total", archiver)]
        {
            into.begin(name, "counter", "Time spent in each stage.");
            for (stage, seconds) in stages {
                into.value(name, &[("stage", stage)], seconds);
            }
        }
    }
}
