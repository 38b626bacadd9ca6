//! Keeps the newest batch view at hand and swaps it in whole.

use std::sync::Arc;

use arc_swap::ArcSwap;
use reckon_data::table::{Snapshot, Table, Tables};
use reckon_data::tail::Tails;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::BatchView;
use crate::ServingError;

/// The newest batch view. Reading it takes no lock.
#[derive(Debug)]
pub struct Current {
    tables: Arc<dyn Tables>,
    tails: Arc<dyn Tails>,
    log: Uuid,
    view: ArcSwap<BatchView>,
    /// One refresh at a time.
    turn: Semaphore,
}

impl Current {
    /// Reads the newest versions.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub async fn open(tables: Arc<dyn Tables>, tails: Arc<dyn Tails>, log: Uuid) -> Result<Self, ServingError> {
        let view = load(&*tables, log, tails.partitions()).await?;
        let current = Self { tables, tails, log, view: ArcSwap::from_pointee(view), turn: Semaphore::new(1) };
        current.tell(&current.get());
        Ok(current)
    }

    /// The view.
    #[must_use]
    pub fn get(&self) -> Arc<BatchView> {
        self.view.load_full()
    }

    /// Looks for a newer version; `prepare` is called with a new view before it is swapped in. Returns the
    /// view that holds then.
    ///
    /// # Errors
    /// When the tables cannot be read: the view stays as it is.
    pub async fn refresh<F: Future<Output = ()>>(
        &self,
        prepare: impl FnOnce(Arc<BatchView>) -> F,
    ) -> Result<Arc<BatchView>, ServingError> {
        let _turn = self.turn.acquire().await.map_err(ServingError::internal)?;
        let old = self.get();
        if self.tables.version(Table::BatchCounts).await? == old.version {
            return Ok(old);
        }
        let new = Arc::new(load(&*self.tables, self.log, self.tails.partitions()).await?);
        if new.coverage.iter().zip(&old.coverage).any(|(new, old)| new < old) {
            tracing::warn!(old = old.version, new = new.version, "coverage has gone back");
        }
        prepare(Arc::clone(&new)).await;
        self.view.store(Arc::clone(&new));
        self.tell(&new);
        tracing::debug!(version = new.version, "new batch version");
        Ok(new)
    }

    fn tell(&self, view: &BatchView) {
        for (partition, coverage) in (0_u32..).zip(&view.coverage) {
            self.tails.covered(partition, *coverage);
        }
    }
}

async fn load(tables: &dyn Tables, log: Uuid, partitions: u32) -> Result<BatchView, ServingError> {
    let batch = tables.snapshot(Table::BatchCounts).await?;
    let stream = tables.snapshot(Table::StreamCounts).await?;
    BatchView::new(&batch, Arc::new(stream), log, partitions)
}

/// The newest snapshots of the other tables, loaded again only when their version has changed.
#[derive(Debug)]
pub struct Snapshots {
    tables: Arc<dyn Tables>,
    held: parking_lot::Mutex<std::collections::HashMap<Table, Arc<Snapshot>>>,
}

impl Snapshots {
    /// Of `tables`.
    #[must_use]
    pub fn new(tables: Arc<dyn Tables>) -> Self {
        Self { tables, held: parking_lot::Mutex::default() }
    }

    /// The newest snapshot.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn newest(&self, table: Table) -> Result<Arc<Snapshot>, ServingError> {
        let version = self.tables.version(table).await?;
        if let Some(held) = self.held(table).filter(|held| held.version == version) {
            return Ok(held);
        }
        let newest = Arc::new(self.tables.snapshot(table).await?);
        self.held.lock().insert(table, Arc::clone(&newest));
        Ok(newest)
    }

    /// A snapshot that will do, the newest if the one at hand does not.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn one_that(
        &self,
        table: Table,
        will_do: impl Fn(&Snapshot) -> bool,
    ) -> Result<Arc<Snapshot>, ServingError> {
        match self.held(table).filter(|held| will_do(held)) {
            Some(held) => Ok(held),
            None => self.newest(table).await,
        }
    }

    fn held(&self, table: Table) -> Option<Arc<Snapshot>> {
        self.held.lock().get(&table).cloned()
    }
}
