//! `reckon stream`: counts the partitions that it has the leases of, and answers for their tails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use clap::Args;
use parking_lot::RwLock;
use reckon_data::config::Settings;
use reckon_data::lease::Member;
use reckon_data::log::Log as _;
use reckon_data::paths::Transaction;
use reckon_data::run::Selection;
use reckon_data::table::Table;
use reckon_data::tail::{Position, Tail, TailError, TailSum, Tails};
use reckon_flight::{remote, server};
use reckon_serving::rest::{Health, MetricsText, Readiness, Totals};
use reckon_stream::counter::{Counter, CounterStats};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::leased::{Work, work, work_anyway};
use super::partitions::{Partitions, keeper};
use super::process::{LEASES, Process};
use crate::node::{Base, metrics};

/// How often it is looked what batch has covered: what lies below is let go of.
const COVERAGE_EVERY: Duration = Duration::from_secs(5);

/// Count.
#[derive(Debug, Args)]
pub struct Stream {
    /// Count these partitions and no others, 0-3,7. Without it: the share of all that falls to this process.
    #[arg(long, value_name = "NUMBERS")]
    partitions: Option<Partitions>,
    /// Counts them whoever has their leases: to rehearse that two own a partition.
    #[arg(long, hide = true, requires = "partitions")]
    without_leases: bool,
}

impl Stream {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When it cannot start.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let (listen, advertise) = (settings.stream.listen.clone(), settings.stream.advertise.clone());
        let process = Process::open(settings, "stream").await?;
        let base = Arc::clone(&process.base);
        let listener = TcpListener::bind(&listen)
            .await
            .with_context(|| format!("{listen} cannot be listened on; --stream-listen ADDR:PORT takes another"))?;
        let address = if advertise.is_empty() { listener.local_addr()?.to_string() } else { advertise };
        let me = Member { id: base.names.fresh(), address };
        let leases = base.storage.beside(LEASES)?;
        let counters = Arc::new(Counters { base: Arc::clone(&base), running: RwLock::default() });
        let stop = process.stopping();
        let working = match self.partitions {
            Some(partitions) if self.without_leases => {
                tokio::spawn(work_anyway(partitions, Arc::clone(&counters) as _, stop.clone()))
            }
            partitions => {
                let keeper = keeper(leases, remote::ROLE, me, partitions, base.mended.partitions())?;
                tokio::spawn(work(keeper, Arc::clone(&counters) as _, stop.clone()))
            }
        };
        tokio::spawn(cover(Arc::clone(&counters), stop.clone()));
        let (tails, definition) = (Arc::clone(&counters) as Arc<dyn Tails>, Arc::clone(&base.definition));
        let answering = tokio::spawn(server::serve(listener, tails, definition, ended(stop)));
        let parts = base.rest_parts(counters as _);
        let end = async move {
            // The tails are answered for until the leases are let go of.
            if let Err(error) = working.await {
                tracing::error!(%error, "the work has panicked");
            }
            answering.abort();
        };
        process.run("stream", parts, end).await
    }
}

async fn ended(mut stop: watch::Receiver<bool>) {
    // The sender lives as long as the process.
    stop.wait_for(|stop| *stop).await.ok();
}

/// A counter for each partition that is this process's.
struct Counters {
    base: Arc<Base>,
    running: RwLock<BTreeMap<u32, Arc<Counter>>>,
}

impl Counters {
    fn of(&self, partition: u32) -> Result<Arc<Counter>, TailError> {
        let reason = || TailError::Unavailable { partition, reason: "it is not counted by this process".to_owned() };
        self.running.read().get(&partition).cloned().ok_or_else(reason)
    }

    fn stats(&self) -> CounterStats {
        let mut all = CounterStats { partitions: Vec::new(), seals: 0, seal: Duration::ZERO, halted: None };
        for counter in self.running.read().values() {
            let stats = counter.stats();
            all.partitions.extend(stats.partitions);
            all.seals += stats.seals;
            all.seal += stats.seal;
            all.halted = all.halted.or(stats.halted);
        }
        all
    }
}

#[async_trait]
impl Work for Counters {
    async fn begin(&self, partition: u32) -> Result<()> {
        if self.running.read().contains_key(&partition) {
            return Ok(());
        }
        let counter = self.base.counter(BTreeSet::from([partition])).await?;
        tracing::info!(partition, "counting");
        self.running.write().insert(partition, counter);
        Ok(())
    }

    async fn end(&self, partition: u32) {
        let counter = self.running.write().remove(&partition);
        if let Some(counter) = counter {
            let halted = counter.stats().halted;
            counter.stop().await;
            match halted {
                Some(reason) => tracing::error!(partition, reason, "counting had stopped"),
                None => tracing::info!(partition, "counting has ended"),
            }
        }
    }

    fn ended(&self) -> BTreeSet<u32> {
        let halted = |counter: &Arc<Counter>| counter.stats().halted.is_some();
        self.running.read().iter().filter(|(_, counter)| halted(counter)).map(|(partition, _)| *partition).collect()
    }
}

async fn cover(counters: Arc<Counters>, mut stop: watch::Receiver<bool>) {
    let base = Arc::clone(&counters.base);
    while !*stop.borrow_and_update() {
        match base.tables.snapshot(Table::BatchCounts).await {
            Ok(batch) => {
                for (partition, counter) in counters.running.read().iter() {
                    let covered =
                        batch.transaction(&Transaction::Batch(base.mended.identity(), *partition).to_string());
                    counter.covered(*partition, u64::try_from(covered).unwrap_or(0));
                }
            }
            Err(error) => tracing::warn!(%error, "what batch has covered is looked for again"),
        }
        tokio::select! {
            _ = stop.changed() => {}
            () = tokio::time::sleep(COVERAGE_EVERY) => {}
        }
    }
}

#[async_trait]
impl Tails for Counters {
    fn partitions(&self) -> u32 {
        self.base.mended.partitions()
    }

    async fn tail(&self, partition: u32, from: u64) -> Result<Tail, TailError> {
        self.of(partition)?.tail(partition, from).await
    }

    async fn sum(&self, partition: u32, from: u64, selection: &Selection<'_>) -> Result<TailSum, TailError> {
        self.of(partition)?.sum(partition, from, selection).await
    }

    fn position(&self, partition: u32) -> Result<Position, TailError> {
        self.of(partition)?.position(partition)
    }

    fn covered(&self, partition: u32, coverage: u64) {
        if let Ok(counter) = self.of(partition) {
            counter.covered(partition, coverage);
        }
    }
}

impl Health for Counters {
    fn ready(&self) -> Readiness {
        let stats = self.stats();
        let reasons: Vec<String> = stats
            .partitions
            .iter()
            .filter_map(|partition| Some(format!("partition {}: {}", partition.partition, partition.failed.as_ref()?)))
            .chain(stats.halted.clone())
            .collect();
        let totals = stats.totals();
        Readiness {
            ready: reasons.is_empty(),
            lag_records: stats.partitions.iter().map(|partition| partition.lag_records).sum(),
            totals: Totals {
                accepted: totals.counted + totals.duplicate,
                counted: totals.counted,
                duplicate: totals.duplicate,
                dead: totals.dead,
            },
            reasons,
            damaged: Vec::new(),
        }
    }

    fn metrics(&self, into: &mut MetricsText) {
        metrics::counter(&self.stats(), into);
        let held = self.running.read().len();
        into.single("reckon_partitions_held", "gauge", "Partitions that this process works on.", held);
        metrics::common(&self.base.delta, &*self.base.mended, into);
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").field("running", &self.running.read().keys()).finish_non_exhaustive()
    }
}
