//! `reckon stream`: counts the partitions that it has the leases of, and answers for their tails.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use clap::Args;
use reckon_data::config::Settings;
use reckon_data::lease::Member;
use reckon_data::log::Log as _;
use reckon_data::paths::Transaction;
use reckon_data::run::Selection;
use reckon_data::table::Table;
use reckon_data::tail::{Position, Tail, TailError, TailSum, Tails};
use reckon_flight::wire::Whom;
use reckon_flight::{remote, server};
use reckon_serving::rest::{Health, MetricsText, Readiness, Totals};
use reckon_stream::counter::{Counter, CounterStats};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::leased::{Work, work, work_anyway};
use super::partitions::{Partitions, keeper};
use super::process::{self, LEASES, Process};
use super::running::Running;
use crate::node::{Base, metrics};

/// How often it is looked what batch has covered: what lies below is let go of.
const COVERAGE_EVERY: Duration = Duration::from_secs(5);

/// Memory that the counts of a partition's segments have at least, bytes.
const MEMORY_MIN: u64 = 8 << 20;

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
        let process = Process::open(shared_out(settings), "stream").await?;
        let base = Arc::clone(&process.base);
        let listener = TcpListener::bind(&listen)
            .await
            .with_context(|| format!("{listen} cannot be listened on; --stream-listen ADDR:PORT takes another"))?;
        let address = advertised(listener.local_addr()?, advertise)?;
        let me = Member { id: base.names.fresh(), address };
        let whom = Whom { log: base.mended.identity(), member: me.id };
        let leases = base.storage.beside(LEASES)?;
        let counters = Arc::new(Counters { base: Arc::clone(&base), running: Running::default() });
        let stop = process.stopping();
        let working = match self.partitions {
            Some(partitions) if self.without_leases => {
                process.spawn("counting", work_anyway(partitions, Arc::clone(&counters) as _, stop.clone()))
            }
            partitions => {
                let keeper = keeper(leases, remote::ROLE, me, partitions, base.mended.partitions())?;
                process.spawn("counting", work(keeper, Arc::clone(&counters) as _, stop.clone()))
            }
        };
        process.spawn("looking for coverage", cover(Arc::clone(&counters), stop));
        let (tails, definition) = (Arc::clone(&counters) as Arc<dyn Tails>, Arc::clone(&base.definition));
        let (answered, over) = oneshot::channel::<()>();
        process.spawn("answering for tails", async move {
            // The tails are answered for until the leases are let go of.
            let ended = async move { over.await.unwrap_or_default() };
            if let Err(error) = server::serve(listener, tails, definition, whom, ended).await {
                tracing::error!(%error, "tails cannot be answered for");
            }
        });
        let parts = base.rest_parts(counters as _);
        let end = async move {
            process::end_of(working).await;
            // Nobody listens any more when it has ended by itself.
            let _ = answered.send(());
        };
        process.run("stream", parts, end).await
    }
}

/// Each partition has a counter of its own: their memory together is what the settings say.
fn shared_out(mut settings: Settings) -> Settings {
    let memory = &mut settings.stream.memory.0;
    *memory = (*memory / u64::from(settings.log.partitions.max(1))).max(MEMORY_MIN.min(*memory));
    settings
}

/// Where others reach what listens at `listen`.
fn advertised(listen: SocketAddr, advertise: String) -> Result<String> {
    if advertise.is_empty() && listen.ip().is_unspecified() {
        bail!("others cannot reach {listen}: --stream-advertise HOST:PORT says where they reach this process");
    }
    Ok(if advertise.is_empty() { listen.to_string() } else { advertise })
}

/// A counter for each partition that is this process's.
struct Counters {
    base: Arc<Base>,
    running: Running<Counter>,
}

impl Counters {
    fn of(&self, partition: u32) -> Result<Arc<Counter>, TailError> {
        let reason = || TailError::Unavailable { partition, reason: "it is not counted by this process".to_owned() };
        self.running.get(partition).ok_or_else(reason)
    }

    fn stats(&self) -> CounterStats {
        let mut all = CounterStats { partitions: Vec::new(), seals: 0, seal: Duration::ZERO, halted: None };
        for (_, counter) in self.running.all() {
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
    async fn begin(&self, partition: u32) {
        self.running.begin(partition, self.base.counter(BTreeSet::from([partition]))).await;
    }

    async fn end(&self, partition: u32) {
        if let Some(counter) = self.running.take(partition) {
            let halted = counter.stats().halted;
            counter.stop().await;
            match halted {
                Some(reason) => tracing::error!(partition, reason, "counting had stopped"),
                None => tracing::info!(partition, "counting has ended"),
            }
        }
    }

    fn ended(&self) -> BTreeSet<u32> {
        self.running.ended(|counter| {
            let stats = counter.stats();
            stats.halted.is_some() || stats.partitions.iter().any(|partition| partition.failed.is_some())
        })
    }
}

async fn cover(counters: Arc<Counters>, mut stop: watch::Receiver<bool>) {
    let base = Arc::clone(&counters.base);
    while !*stop.borrow_and_update() {
        match base.tables.snapshot(Table::BatchCounts).await {
            Ok(batch) => {
                for (partition, counter) in counters.running.all() {
                    let covered = batch.transaction(&Transaction::Batch(base.mended.identity(), partition).to_string());
                    counter.covered(partition, u64::try_from(covered).unwrap_or(0));
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
            .filter_map(|partition| Some(format!("partition {}: {}", partition.partition, partition.trouble()?)))
            .chain(stats.halted.clone())
            .chain(self.running.troubles())
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
        let held = self.running.all().len();
        into.single("reckon_partitions_held", "gauge", "Partitions that this process works on.", held);
        metrics::common(&self.base.delta, &*self.base.mended, into);
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").field("running", &self.running).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_that_nobody_can_reach_is_not_advertised() {
        let any: SocketAddr = "0.0.0.0:7701".parse().unwrap();
        assert!(advertised(any, String::new()).unwrap_err().to_string().contains("--stream-advertise"));
        assert_eq!(advertised(any, "host:7701".to_owned()).unwrap(), "host:7701");
        assert_eq!(advertised("10.0.0.1:7701".parse().unwrap(), String::new()).unwrap(), "10.0.0.1:7701");
    }
}
