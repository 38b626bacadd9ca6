//! What is known of entities beside their counts: titles, channels, owners.
//!
//! ```text
//! PUT ─▶ keeper ─▶ journal (objects beside the tables, durable) ─▶ replica (embedded store of this machine) ─▶ views
//!                     ▲ every other process follows it                                                         REST · SQL · top lists
//! ```
//!
//! [`model`] is a record and what it may be, [`object`] the text of objects, [`journal`] how they are named and created, [`replica`]
//! the embedded store, [`view`] one moment of it, [`keeper`] the task that writes and follows
//! (docs/adr/0018-entities.md).

mod error;
mod journal;
mod keeper;
mod model;
mod object;
mod replica;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use object_store::ObjectStore;
use parking_lot::Mutex;
use reckon_data::clock::{Clock, Names};
use reckon_data::offload::offload;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use error::EntityError;
pub use model::{Change, Condition, Entity, EntityInput, Record, Rules, Version};
pub(crate) use view::next_of;
pub use view::{ListQuery, Page, View};

use journal::Journal;
use keeper::{Ask, Following, Keeper, OBJECT_CHANGES_MAX, Write, Written};
use replica::Replica;

/// Requests that may wait to be written.
const ASKS_MAX: usize = 256;
/// How long the start waits for the changes of others.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);
/// A snapshot is made after so many objects.
const SNAPSHOT_EVERY: u64 = 1_000;

/// What [`Entities`] are made of.
#[derive(Debug, Clone)]
pub struct EntitiesParts {
    /// The folder of this machine for the embedded store.
    pub dir: PathBuf,
    /// The folder `entities` of the data directory.
    pub store: Arc<dyn ObjectStore>,
    /// What is asked of records.
    pub rules: Rules,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where names come from.
    pub names: Arc<dyn Names>,
}

/// The records of entities. A change is durable, and seen by this process, when it is acknowledged; other processes see it two
/// seconds later.
#[derive(Debug)]
pub struct Entities {
    replica: Arc<Replica>,
    following: Arc<Following>,
    asks: mpsc::Sender<Ask>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    rules: Rules,
    clock: Arc<dyn Clock>,
}

impl Entities {
    /// Opens the embedded store and follows the journal. It goes on trying when the data directory cannot be reached.
    ///
    /// # Errors
    /// [`EntityError::Unavailable`] when the folder of this machine cannot be used.
    pub async fn start(parts: EntitiesParts) -> Result<Arc<Self>, EntityError> {
        Self::start_with(parts, SNAPSHOT_EVERY).await
    }

    pub(crate) async fn start_with(parts: EntitiesParts, snapshot_every: u64) -> Result<Arc<Self>, EntityError> {
        let EntitiesParts { dir, store, rules, clock, names } = parts;
        let opened = offload(move || Replica::open(&dir)).await.map_err(EntityError::unavailable)?;
        let (replica, following) = (Arc::new(opened?), Arc::new(Following::default()));
        let keeper = Keeper {
            journal: Journal::new(store),
            replica: Arc::clone(&replica),
            following: Arc::clone(&following),
            names,
            state: None,
            snapshot_every,
            snapshotting: Arc::new(AtomicBool::new(false)),
        };
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let (started, has_started) = oneshot::channel();
        let keeper = tokio::spawn(keeper.run(asked, started));
        if tokio::time::timeout(CATCH_UP_MAX, has_started).await.is_err() {
            tracing::warn!("the records of entities take long to read; they are answered when they are there");
        }
        Ok(Arc::new(Self { replica, following, asks, keeper: Mutex::new(Some(keeper)), rules, clock }))
    }

    /// Ends the following and the writing; records are still read.
    pub fn stop(&self) {
        if let Some(keeper) = self.keeper.lock().take() {
            keeper.abort();
        }
    }

    /// What stands in the way of following; none when all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<EntityError> {
        self.following.trouble.lock().clone()
    }

    /// What is asked of records.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// All records as they are now.
    ///
    /// # Errors
    /// [`EntityError::Unavailable`] while they are read from the data directory.
    pub async fn view(&self) -> Result<View, EntityError> {
        if !self.following.caught_up.load(Ordering::SeqCst) {
            let trouble =
                self.trouble().map_or_else(|| "they are still being read".to_owned(), |error| error.to_string());
            return Err(EntityError::unavailable(trouble));
        }
        let replica = Arc::clone(&self.replica);
        offload(move || replica.view()).await.map_err(EntityError::unavailable)?
    }

    /// Asks all records something, on a thread where that holds up nobody.
    ///
    /// # Errors
    /// Those of [`Entities::view`], and what `question` says.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&View) -> Result<T, EntityError> + Send + 'static,
    ) -> Result<T, EntityError> {
        let view = self.view().await?;
        offload(move || question(&view)).await.map_err(EntityError::unavailable)?
    }

    /// The record of an entity.
    ///
    /// # Errors
    /// [`EntityError::NotFound`], and [`EntityError::Unavailable`].
    pub async fn get(&self, entity_id: &str) -> Result<Record, EntityError> {
        let id = entity_id.to_owned();
        let found = self.ask(move |view| view.get(&id)).await?;
        found.ok_or_else(|| EntityError::NotFound { entity_id: entity_id.to_owned() })
    }

    /// Writes a record.
    ///
    /// # Errors
    /// [`EntityError::Invalid`], [`EntityError::Changed`] when the condition does not hold, [`EntityError::Unavailable`]: then it may
    /// have been written all the same.
    pub async fn put(
        &self,
        entity_id: String,
        input: EntityInput,
        condition: Condition,
    ) -> Result<Record, EntityError> {
        let entity = self.rules.entity(entity_id, input, self.clock.now())?;
        let change = Change::Put(Box::new(entity.clone()));
        let version = self.one(Write { change, condition }).await?;
        Ok(Record { entity, version })
    }

    /// Removes a record.
    ///
    /// # Errors
    /// [`EntityError::NotFound`], and those of [`Entities::put`].
    pub async fn delete(&self, entity_id: String, condition: Condition) -> Result<(), EntityError> {
        self.one(Write { change: Change::Delete(entity_id), condition }).await.map(|_| ())
    }

    /// Writes many records, in their order, whatever there was before. What is acknowledged is durable; when it fails, a beginning
    /// may have been written.
    ///
    /// # Errors
    /// [`EntityError::Unavailable`].
    pub async fn put_all(&self, entities: Vec<Entity>) -> Result<(), EntityError> {
        let mut entities = entities.into_iter().peekable();
        while entities.peek().is_some() {
            let some = entities.by_ref().take(OBJECT_CHANGES_MAX);
            let write = |entity| Write { change: Change::Put(Box::new(entity)), condition: Condition::Any };
            for verdict in self.write(some.map(write).collect()).await? {
                verdict?;
            }
        }
        Ok(())
    }

    /// Makes an entity's record of what a client says, without writing it.
    ///
    /// # Errors
    /// [`EntityError::Invalid`].
    pub fn entity(&self, entity_id: String, input: EntityInput) -> Result<Entity, EntityError> {
        self.rules.entity(entity_id, input, self.clock.now())
    }

    async fn one(&self, write: Write) -> Result<Version, EntityError> {
        let verdicts = self.write(vec![write]).await?;
        verdicts.into_iter().next().unwrap_or_else(|| Err(stopped()))
    }

    async fn write(&self, writes: Vec<Write>) -> Written {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask { writes, answer }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

impl Drop for Entities {
    fn drop(&mut self) {
        self.stop();
    }
}

fn stopped() -> EntityError {
    EntityError::unavailable("the process is about to end")
}
