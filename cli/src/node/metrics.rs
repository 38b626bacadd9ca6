//! What `/metrics` says of the parts of a process.

use reckon_audit::canary::{CanaryStats, DELAY_BOUNDS};
use reckon_batch::archive::ArchiveStats;
use reckon_data::invariant;
use reckon_data::log::Log;
use reckon_data::table::Table;
use reckon_serving::rest::MetricsText;
use reckon_stream::counter::{CounterStats, PartitionStats};
use reckon_stream::gateway::Gateway;
use reckon_tables::{ColdStore, DeltaTables};

use crate::telemetry::process_metrics;

/// Tells a counter from other processes.
pub const COUNTING_LAG: &str = "reckon_counting_lag_records";
/// Tells an archiver from other processes.
pub const ARCHIVER_LAG: &str = "reckon_archiver_lag_records";

/// What every process says.
pub fn common(tables: &DeltaTables, log: &dyn Log, into: &mut MetricsText) {
    for counter in log.counters() {
        into.single(counter.name, "counter", counter.help, counter.value);
    }
    of_tables(tables, into);
    of_invariants(into);
    process_metrics(into);
}

/// The gateway.
pub fn gateway(gateway: &Gateway, into: &mut MetricsText) {
    let stats = gateway.stats();
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

/// Counters; of all their partitions.
pub fn counter(stats: &CounterStats, into: &mut MetricsText) {
    let totals = stats.totals();
    into.begin("reckon_events_counted_total", "counter", "Events by what the counter made of them.");
    for (verdict, count) in [("counted", totals.counted), ("duplicate", totals.duplicate), ("dead", totals.dead)] {
        into.value("reckon_events_counted_total", &[("verdict", verdict)], count);
    }
    into.begin(COUNTING_LAG, "gauge", "Records not counted yet.");
    for partition in &stats.partitions {
        let label = partition.partition.to_string();
        into.value(COUNTING_LAG, &[("partition", &label)], partition.lag_records);
    }
    counter_stages(stats, into);
    let sum = |get: fn(&PartitionStats) -> f64| stats.partitions.iter().map(get).sum::<f64>();
    into.single("reckon_dedup_keys", "gauge", "Keys in the dedup sets.", sum(|p| p.dedup_keys as f64));
    into.single("reckon_dedup_bytes", "gauge", "Memory of the dedup sets.", sum(|p| p.dedup_bytes as f64));
    let segments = sum(|p| (p.open_bytes + p.history.sealed + p.history.unsealed) as f64);
    into.single("reckon_segment_bytes", "gauge", "Memory of the stream counts that lie in memory.", segments);
    into.single(
        "reckon_dedup_expected_collisions_total",
        "counter",
        "Events expected to have been dropped by a hash collision.",
        sum(|p| p.expected_collisions),
    );
}

/// What each stage of counting costs.
fn counter_stages(stats: &CounterStats, into: &mut MetricsText) {
    let totals = stats.totals();
    let decode: f64 = stats.partitions.iter().map(|partition| partition.decode.as_secs_f64()).sum();
    let stages = [
        ("decode", decode),
        ("dedup", totals.dedup.as_secs_f64()),
        ("group", totals.group.as_secs_f64()),
        ("seal", stats.seal.as_secs_f64()),
    ];
    stages_of("reckon_counting_stage_seconds_total", &stages, into);
}

/// Archivers.
pub fn archiver(stats: &ArchiveStats, lag_micros: i64, into: &mut MetricsText) {
    into.single("reckon_archived_events_total", "counter", "Events archived since the start.", stats.events);
    into.single(ARCHIVER_LAG, "gauge", "Records not archived yet.", stats.lag_records);
    let seconds = lag_micros as f64 / 1e6;
    into.single("reckon_archiver_lag_seconds", "gauge", "Age of the newest record archived.", seconds);
    let stages = [
        ("decode", stats.decode_seconds),
        ("encode", stats.encode_seconds),
        ("store", stats.store_seconds),
        ("commit", stats.commit_seconds),
    ];
    stages_of("reckon_archiver_stage_seconds_total", &stages, into);
}

/// The canary.
pub fn canary(stats: &CanaryStats, into: &mut MetricsText) {
    let counters = [
        ("reckon_canary_rounds_total", "Rounds of the canary that are over.", stats.rounds),
        ("reckon_canary_rounds_right_total", "Of them, those that were answered right.", stats.rounds_right),
        ("reckon_canary_events_sent_total", "Events of the canary that were acknowledged.", stats.events_sent),
        ("reckon_canary_lost_total", "Of them, those that no answer held when patience ran out.", stats.lost),
        ("reckon_canary_excess_total", "Events that answers to the canary held too many.", stats.excess),
        ("reckon_canary_requests_failed_total", "Requests of the canary that failed.", stats.requests_failed),
    ];
    for (name, help, value) in counters {
        into.single(name, "counter", help, value);
    }
    let last = stats.last_right as f64 / 1e6;
    into.single(
        "reckon_canary_last_right_timestamp_seconds",
        "gauge",
        "When a round was last right; 0 is never.",
        last,
    );
    into.single("reckon_canary_open_rounds", "gauge", "Rounds that wait for their answers.", stats.open_rounds);
    into.single("reckon_canary_findings", "gauge", "Findings of the canary since the start.", stats.findings);
    if let Some(delay) = stats.delay {
        let help = "How long the last round took that was right, from acknowledgement to answer.";
        into.single("reckon_canary_delay_seconds", "gauge", help, delay.as_secs_f64());
    }
    let name = "reckon_canary_answer_seconds";
    into.begin(name, "histogram", "How long rounds took that were right, from acknowledgement to answer.");
    let mut total = 0;
    for (bound, count) in DELAY_BOUNDS.iter().zip(stats.delays) {
        total += count;
        into.value(&format!("{name}_bucket"), &[("le", &bound.to_string())], total);
    }
    into.value(&format!("{name}_bucket"), &[("le", "+Inf")], stats.rounds_right);
    into.value(&format!("{name}_sum"), &[], stats.delay_sum);
    into.value(&format!("{name}_count"), &[], stats.rounds_right);
}

fn stages_of(name: &str, stages: &[(&str, f64)], into: &mut MetricsText) {
    into.begin(name, "counter", "Time spent in each stage.");
    for (stage, seconds) in stages {
        into.value(name, &[("stage", stage)], seconds);
    }
}

fn of_tables(tables: &DeltaTables, into: &mut MetricsText) {
    let sizes = || Table::ALL.into_iter().filter_map(|table| Some((table.name(), tables.size(table)?)));
    into.begin("reckon_table_files", "gauge", "Files that a table refers to.");
    sizes().for_each(|(table, size)| into.value("reckon_table_files", &[("table", table)], size.files));
    into.begin("reckon_table_bytes", "gauge", "Bytes of these files.");
    sizes().for_each(|(table, size)| into.value("reckon_table_bytes", &[("table", table)], size.bytes));
    // Known to the process that maintains the tables.
    let Some(sizes) = tables.storage().cold().and_then(ColdStore::sizes) else { return };
    into.begin("reckon_raw_bytes", "gauge", "Bytes of raw events in the data directory and in the colder store.");
    into.value("reckon_raw_bytes", &[("place", "hot")], sizes.hot_bytes);
    into.value("reckon_raw_bytes", &[("place", "cold")], sizes.cold_bytes);
    into.begin("reckon_raw_files", "gauge", "Files of raw events in the data directory and in the colder store.");
    into.value("reckon_raw_files", &[("place", "hot")], sizes.hot_files);
    into.value("reckon_raw_files", &[("place", "cold")], sizes.cold_files);
}

/// Which invariants were checked, and which did not hold.
fn of_invariants(into: &mut MetricsText) {
    into.begin("reckon_invariant_checks_total", "counter", "Checks of each invariant.");
    for invariant in invariant::all() {
        into.value("reckon_invariant_checks_total", &[("invariant", invariant.number)], invariant.checks());
    }
    into.begin("reckon_invariant_violations_total", "counter", "Checks that found an invariant broken.");
    for invariant in invariant::all() {
        into.value("reckon_invariant_violations_total", &[("invariant", invariant.number)], invariant.violations());
    }
}
