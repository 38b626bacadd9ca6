//! A healthy set: events through every role, with batch runs before, between and after them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use reckon_audit::ledger::Answers;
use reckon_audit::report::model::Report;
use reckon_data::clock::{Clock, Names, SeededNames};
use reckon_data::config::Settings;
use reckon_data::ingest::{Framing, Ingest as _, Submission, SubmitError};
use reckon_data::log::memory::MemoryLog;
use reckon_data::minute::{MICROS_PER_DAY, MICROS_PER_MINUTE, format_time};
use reckon_data::table::{Snapshot, Table, Tables as _};
use reckon_stream::gateway::Gateway;
use reckon_tables::MemoryTables;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

use super::look::Seen;
use super::{Auditor, Served};
use crate::clock::SimClock;
use crate::faults::Faults;
use crate::node::{Durable, Node};
use crate::shelf::Shelf;

/// An entity whose events are never sent twice.
pub(super) const ONCE: &str = "v11";
const ENTITIES: usize = 12;

/// All there is of a set.
pub(super) struct World {
    pub(super) durable: Durable,
    pub(super) node: Node,
    /// `batch_counts` after the first batch run.
    pub(super) first: Snapshot,
    /// What lies in the tables.
    pub(super) seen: Seen,
    _scratch: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        // Nothing of it goes on beside the next one.
        self.node.io.kill();
    }
}

/// Runs a test on one thread, in virtual time.
pub(super) fn in_time<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    reckon_data::files::compress_nothing();
    runtime.block_on(test)
}

impl World {
    /// A set of a seed, perhaps with maintenance.
    pub(super) async fn random(seed: u64) -> Self {
        Self::with(seed, 1 + seed % 2, seed.is_multiple_of(3)).await
    }

    /// A set with two batch runs, of which nothing was removed since.
    pub(super) async fn plain(seed: u64) -> Self {
        Self::with(seed, 2, false).await
    }

    async fn with(seed: u64, runs: u64, maintained: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let scratch = tempfile::tempdir().unwrap();
        let clock = Arc::new(SimClock::start());
        let durable = durable(settings(&mut rng), Arc::clone(&clock) as _, seed, scratch.path().to_owned());
        let node = Node::start(&durable, Faults::new(seed, false).process()).await.unwrap();
        let mut sender = Sender { rng, clock, next: 0, sent: Vec::new() };
        sender.send(&node.gateway, 16).await;
        let mut first = None;
        for _ in 0..runs {
            // Events come while it runs.
            let (ran, ()) = tokio::join!(node.batch(false), sender.send(&node.gateway, 2));
            ran.unwrap();
            if first.is_none() {
                first = Some(durable.tables.snapshot(Table::BatchCounts).await.unwrap());
            }
            sender.send(&node.gateway, 16).await;
        }
        if maintained {
            sleep(Duration::from_secs(600)).await;
            // Twice: what is covered goes when it has been for a while.
            node.maintain().await.unwrap();
            sleep(Duration::from_secs(1_200)).await;
            node.maintain().await.unwrap();
        }
        // The next minute ends every segment before it.
        sleep(Duration::from_secs(120)).await;
        sender.send(&node.gateway, 3).await;
        sleep(Duration::from_secs(300)).await;
        assert!(node.failure().is_none(), "{:?}", node.failure());
        let seen = Seen::of(&durable).await;
        Self { durable, node, first: first.unwrap(), seen, _scratch: scratch }
    }

    /// Reads the tables again.
    pub(super) async fn look(&mut self) {
        self.seen = Seen::of(&self.durable).await;
    }

    pub(super) fn auditor(&self) -> Auditor {
        Auditor::new(&self.durable)
    }

    /// The ledger's report, over answers of just now.
    pub(super) async fn audit(&self, reads_log: bool) -> Report {
        // Where it cannot be refreshed, answers say so.
        let _ = self.node.serving.refresh().await;
        self.audit_answers(reads_log, Arc::new(Served(Arc::clone(&self.node.serving)))).await
    }

    pub(super) async fn audit_answers(&self, reads_log: bool, answers: Arc<dyn Answers>) -> Report {
        self.auditor().run(reads_log, answers).await.unwrap()
    }
}

fn settings(rng: &mut StdRng) -> Settings {
    let mut settings = Settings::default();
    settings.log.partitions = 3;
    settings.gateway.workers = 2;
    settings.log.hot_entities = BTreeMap::from([("v0".to_owned(), 2)]);
    settings.stream.dedup_minutes = rng.random_range(2..=10);
    settings.stream.segment_events = rng.random_range(20..200);
    settings.stream.seal_every = Duration::from_secs(rng.random_range(5..30));
    settings.archive.commit_every = Duration::from_secs(rng.random_range(2..20));
    settings.batch.memory = ByteSize::mib(64);
    settings.retention.covered_segments = Duration::from_secs(rng.random_range(60..900));
    settings.serving.index_memory = ByteSize::mib(rng.random_range(0..16));
    settings
}

fn durable(settings: Settings, clock: Arc<dyn Clock>, seed: u64, scratch: std::path::PathBuf) -> Durable {
    let names: Arc<dyn Names> = Arc::new(SeededNames::new(seed));
    let partitions = settings.log.partitions;
    let kept = i64::try_from(settings.retention.removed_files.as_micros()).unwrap();
    Durable {
        log: MemoryLog::new(partitions, &*names),
        history: Arc::new(Mutex::new(vec![Vec::new(); partitions as usize])),
        tables: Arc::new(MemoryTables::new(Arc::clone(&clock))),
        store: Arc::new(InMemory::new()),
        sums: Arc::default(),
        shelf: Shelf::new(kept),
        flipped: Arc::default(),
        clock,
        names,
        settings,
        scratch,
    }
}

#[derive(Debug, Clone)]
struct Line {
    id: String,
    entity: String,
    event_type: &'static str,
    time: i64,
    country: Option<&'static str>,
    value: Option<String>,
}

impl Line {
    fn json(&self) -> String {
        let mut event = json!({
            "event_id": self.id,
            "event_type": self.event_type,
            "entity_id": self.entity,
            "event_time": format_time(self.time),
        });
        if let Some(country) = self.country {
            event["country"] = country.into();
        }
        if let Some(value) = &self.value {
            event["value"] = value.as_str().into();
        }
        event.to_string()
    }
}

/// Sends events: some again, some late, some that are none.
struct Sender {
    rng: StdRng,
    clock: Arc<SimClock>,
    next: u64,
    sent: Vec<Line>,
}

impl Sender {
    async fn send(&mut self, gateway: &Gateway, requests: usize) {
        for _ in 0..requests {
            let lines: Vec<String> = (0..self.rng.random_range(5..20)).map(|_| self.line()).collect();
            let body = Bytes::from(lines.join("\n"));
            let sent = gateway.submit(Submission { body, framing: Framing::Lines, ..Submission::default() }).await;
            match sent {
                Ok(_) | Err(SubmitError::Malformed { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            sleep(Duration::from_millis(self.rng.random_range(1..30_000))).await;
        }
    }

    fn line(&mut self) -> String {
        if self.rng.random_ratio(1, 40) {
            return r#"{"entity_id":7}"#.to_owned();
        }
        let again = self.rng.random_ratio(1, 9).then(|| self.again()).flatten();
        let line = again.unwrap_or_else(|| self.fresh());
        let json = line.json();
        if line.entity != ONCE {
            self.sent.push(line);
        }
        json
    }

    /// One that was sent before, lately or long ago; now and then with other contents.
    fn again(&mut self) -> Option<Line> {
        let from = if self.rng.random_ratio(2, 3) { self.sent.len().saturating_sub(40) } else { 0 };
        let mut line = self.sent[from..].choose(&mut self.rng)?.clone();
        match self.rng.random_range(0..20) {
            0 => line.country = Some("FR"),
            1 => line.value = Some("17.5".to_owned()),
            _ => {}
        }
        Some(line)
    }

    fn fresh(&mut self) -> Line {
        let rng = &mut self.rng;
        self.next += 1;
        let entity = if rng.random_ratio(1, 4) { 0 } else { rng.random_range(0..ENTITIES) };
        let late = match rng.random_range(0..100) {
            0..70 => rng.random_range(0..MICROS_PER_MINUTE),
            70..84 => rng.random_range(0..40 * MICROS_PER_MINUTE),
            84..92 => rng.random_range(0..MICROS_PER_DAY),
            92..98 => rng.random_range(0..2 * MICROS_PER_DAY),
            _ => -rng.random_range(0..2 * MICROS_PER_MINUTE),
        };
        let value = rng.random_ratio(1, 3).then(|| rng.random_range(-5_000_000..5_000_000_i64));
        Line {
            id: format!("e{}", self.next),
            entity: format!("v{entity}"),
            event_type: ["view", "view", "view", "like", "click"].choose(rng).unwrap(),
            time: self.clock.now() - late,
            country: *[Some("US"), Some("US"), Some("GB"), None].choose(rng).unwrap(),
            value: value.map(|value| format!("{}.25", value / 100)),
        }
    }
}
