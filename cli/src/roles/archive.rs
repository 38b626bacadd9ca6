//! `reckon archive`: archives the partitions that it has the leases of; one such process maintains the tables.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use async_trait::async_trait;
use clap::Args;
use reckon_batch::archive::{ArchiveStats, Archiver};
use reckon_batch::maintain::Maintainer;
use reckon_batch::schedule::run_every;
use reckon_data::config::Settings;
use reckon_data::lease::{Keeper, Member};
use reckon_data::log::Log as _;
use reckon_serving::rest::{Health, MetricsText, PartReadiness, Readiness};
use tokio::time::timeout;

use super::leased::{Work, work};
use super::partitions::{Partitions, keeper};
use super::process::{LEASES, Process, end_of};
use super::running::Running;
use crate::node::{Base, MAINTAIN_EVERY, STOP_ARCHIVER_MAX, maintain, metrics};

/// The roles, in the leases.
const ROLE: &str = "archive";
const MAINTAIN: &str = "maintain";

/// Archive.
#[derive(Debug, Args)]
pub struct Archive {
    /// Archive these partitions and no others, 0-3,7. Without it: the share of all that falls to this process.
    #[arg(long, value_name = "NUMBERS")]
    partitions: Option<Partitions>,
}

impl Archive {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When it cannot start.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let process = Process::open(settings, ROLE).await?;
        let base = Arc::clone(&process.base);
        let me = Member { id: base.names.fresh(), address: String::new() };
        let leases = base.storage.beside(LEASES)?;
        let own = keeper(Arc::clone(&leases), ROLE, me.clone(), self.partitions, base.mended.partitions())?;
        let archivers = Arc::new(Archivers { base: Arc::clone(&base), running: Running::default() });
        let stop = process.stopping();
        let working = process.spawn("archiving", work(own, Arc::clone(&archivers) as _, stop.clone()));
        let turn = Arc::new(Turn::default());
        let turns = work(Keeper::shared(leases, MAINTAIN, me, 1), Arc::clone(&turn) as _, stop.clone());
        let turns = process.spawn("taking turns", turns);
        let (maintainer, mender) = (Maintainer::new(base.maintainer_parts()), base.mender());
        let maintaining = tokio::spawn(async move {
            run_every(MAINTAIN_EVERY, stop, || async {
                if turn.is_mine() {
                    maintain(&maintainer, &mender).await;
                }
            })
            .await;
        });
        let parts = base.rest_parts(archivers as _);
        let end = async move {
            maintaining.abort();
            for task in [working, turns] {
                end_of(task).await;
            }
        };
        process.run(ROLE, parts, end).await
    }
}

/// Whether it is this process's turn to do what only one should do.
#[derive(Debug, Default)]
pub struct Turn(AtomicBool);

impl Turn {
    /// Whether it is.
    pub fn is_mine(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Work for Turn {
    async fn begin(&self, _: u32) {
        self.0.store(true, Ordering::Relaxed);
    }

    async fn end(&self, _: u32) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn ended(&self) -> BTreeSet<u32> {
        BTreeSet::new()
    }
}

/// An archiver for each partition that is this process's.
struct Archivers {
    base: Arc<Base>,
    running: Running<Archiver>,
}

#[async_trait]
impl Work for Archivers {
    async fn begin(&self, partition: u32) {
        self.running.begin(partition, self.base.archiver(BTreeSet::from([partition]))).await;
    }

    async fn end(&self, partition: u32) {
        if let Some(archiver) = self.running.take(partition) {
            match timeout(STOP_ARCHIVER_MAX, archiver.stop()).await {
                Ok(Ok(())) => tracing::info!(partition, "archiving has ended"),
                Ok(Err(error)) => tracing::warn!(partition, %error, "archiving has ended"),
                Err(_) => tracing::info!(partition, "archiving goes on elsewhere from the last commit"),
            }
        }
    }

    fn ended(&self) -> BTreeSet<u32> {
        // The next archiver of the partition goes on behind a gap.
        self.running.ended(|archiver| archiver.failure().is_some() || archiver.has_met_a_gap())
    }
}

impl Health for Archivers {
    fn ready(&self) -> Readiness {
        let running = self.running.all();
        let mut reasons = self.running.troubles();
        for (partition, archiver) in &running {
            let troubles = archiver.failure().into_iter().chain(archiver.stuck());
            reasons.extend(troubles.map(|error| format!("partition {partition}: {error}")));
        }
        Readiness {
            ready: reasons.is_empty(),
            lag_records: running.iter().map(|(_, archiver)| archiver.stats().lag_records).sum(),
            parts: vec![PartReadiness::with_all("archiver", &reasons)],
            reasons,
            ..Readiness::default()
        }
    }

    fn metrics(&self, into: &mut MetricsText) {
        let running = self.running.all();
        let stats = running.iter().map(|(_, archiver)| archiver.stats()).reduce(ArchiveStats::plus).unwrap_or_default();
        let lag = running.iter().map(|(_, archiver)| archiver.lag_micros()).max().unwrap_or(0);
        metrics::archiver(&stats, lag, into);
        into.single("reckon_partitions_held", "gauge", "Partitions that this process works on.", running.len());
        metrics::common(&self.base.delta, &*self.base.mended, into);
    }
}

impl std::fmt::Debug for Archivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archivers").field("running", &self.running).finish_non_exhaustive()
    }
}
