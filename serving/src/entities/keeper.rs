//! The task that writes changes and follows those of others: one at a time, so that there is one order of them.
//!
//! ```text
//! changes ─▶ gathered ─▶ conditions judged against all records ─▶ object position + 1, created
//!                             ▲                                      │ it is there already: follow, judge anew
//!                             └──────────────────────────────────────┘
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use reckon_data::clock::Names;
use reckon_data::offload::offload;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::error::EntityError;
use super::journal::{Journal, floor};
use super::model::{Change, Condition, Version};
use super::object::{Found, Kept, Object, encode};
use super::replica::{Replica, State};
use super::view::{View, next_of};

/// How often the changes of others are looked for.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);
/// Most changes of an object; a request may add as many again.
pub(super) const OBJECT_CHANGES_MAX: usize = 10_000;
/// Nothing more is added to an object that has so many bytes; a request may add as many as it has.
const OBJECT_BYTES_MAX: usize = 4 << 20;
/// Objects that are read before it is seen whether they may be believed.
const READ_AT_ONCE: u64 = 8;
/// No more of them are read once they have so many bytes.
const READ_BYTES_MAX: usize = 16 << 20;
/// Others may be quicker so many times.
const TRIES: usize = 32;
/// Records of a part of a snapshot.
const PART_RECORDS: usize = 10_000;
/// Bytes of those records.
const PART_BYTES: usize = 8 << 20;

/// A change, and what must hold for it.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) change: Change,
    pub(super) condition: Condition,
}

/// What became of each of some changes.
pub(super) type Written = Result<Vec<Result<Version, EntityError>>, EntityError>;

/// Changes that somebody waits for.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) writes: Vec<Write>,
    pub(super) answer: oneshot::Sender<Written>,
}

impl Ask {
    fn bytes(&self) -> usize {
        self.writes.iter().map(|write| write.change.bytes()).sum()
    }
}

/// What is known of the following.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// What stands in the way of it.
    pub(super) trouble: Mutex<Option<EntityError>>,
    /// Whether it has caught up once.
    pub(super) caught_up: AtomicBool,
}

/// The task.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) journal: Journal,
    pub(super) replica: Arc<Replica>,
    pub(super) following: Arc<Following>,
    pub(super) names: Arc<dyn Names>,
    pub(super) state: Option<State>,
    /// A snapshot is made after so many changes.
    pub(super) snapshot_every: u64,
    pub(super) snapshotting: Arc<AtomicBool>,
}

impl Keeper {
    /// Works until nobody can ask any more; says `started` when it has looked once.
    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>, started: oneshot::Sender<()>) {
        self.look().await;
        // Whoever started it may have had enough of waiting.
        let _ = started.send(());
        let mut tick = interval(FOLLOW_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ask = asks.recv() => {
                    let Some(ask) = ask else { return };
                    self.write(gather(ask, &mut asks)).await;
                }
                _ = tick.tick() => self.look().await,
            }
        }
    }

    /// Follows the journal, and notes how that went.
    async fn look(&mut self) {
        let outcome = self.follow().await;
        let mut trouble = self.following.trouble.lock();
        match outcome {
            Ok(_) => {
                self.following.caught_up.store(true, Ordering::SeqCst);
                *trouble = None;
            }
            Err(error) => {
                if trouble.as_ref() != Some(&error) {
                    tracing::warn!(%error, "records of entities are as they were before");
                }
                *trouble = Some(error);
            }
        }
    }

    /// Follows the journal to its end.
    async fn follow(&mut self) -> Result<State, EntityError> {
        let mut state = self.known().await?;
        loop {
            let (found, failed) = self.ahead(state.position).await;
            let snapshots = self.journal.snapshots().await?;
            let newest = snapshots.last().copied().unwrap_or(0);
            let is_behind = floor(&snapshots) > state.position;
            // A snapshot that goes further also helps over an object that cannot be read.
            if is_behind || (found.is_empty() && newest > state.position) {
                state = self.read_snapshot(state, newest).await?;
                continue;
            }
            let is_end = found.is_empty();
            for found in found {
                let (changes, token) = match found {
                    Found::Object(Object { lines, token }) => (lines, token),
                    Found::GivenUp => (Vec::new(), Uuid::nil()),
                };
                state = State { position: state.position + 1, token, ..state };
                self.apply(state, changes).await?;
            }
            if is_end {
                failed.map_or(Ok(()), Err)?;
                // Everything that comes later is looked for once only: what is lost while it is followed is known here already.
                let is_first = !self.following.caught_up.load(Ordering::SeqCst);
                self.journal.check_end(state.position + 1, is_first).await?;
                return Ok(state);
            }
        }
    }

    /// The next objects, up to the first that is not there or cannot be read.
    async fn ahead(&self, position: u64) -> (Vec<Found<Change>>, Option<EntityError>) {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for number in position + 1..=position + READ_AT_ONCE {
            match self.journal.read(number).await {
                Ok(Some(object)) => {
                    if let Found::Object(Object { lines, .. }) = &object {
                        bytes += lines.iter().map(Change::bytes).sum::<usize>();
                    }
                    found.push(object);
                    if bytes >= READ_BYTES_MAX {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
        (found, None)
    }

    /// What the replica follows; it is made anew when that is another journal, or one that ends before it.
    async fn known(&mut self) -> Result<State, EntityError> {
        if let Some(state) = self.state {
            return Ok(state);
        }
        let identity = self.journal.identity(self.names.fresh()).await?;
        let replica = Arc::clone(&self.replica);
        let state = offload(move || replica.state()).await.map_err(EntityError::unavailable)??;
        let is_good = match state {
            Some(state) => state.identity == identity && self.holds(state).await?,
            None => false,
        };
        let state = match state {
            Some(state) if is_good => state,
            _ => self.begin(identity).await?,
        };
        self.state = Some(state);
        Ok(state)
    }

    /// Whether the journal has the object that was followed last: one that was put back from a backup may end before it, or have gone on
    /// with other changes since.
    async fn holds(&self, state: State) -> Result<bool, EntityError> {
        if state.position == 0 {
            return Ok(true);
        }
        match self.journal.read(state.position).await {
            Ok(Some(Found::Object(Object { token, .. }))) => Ok(state.token.is_nil() || state.token == token),
            // It is there; what it said is here already.
            Ok(Some(Found::GivenUp)) | Err(EntityError::Damaged { .. }) => Ok(true),
            // It has been removed since, too: then there is a snapshot to begin with.
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins with nothing, or with the newest snapshot.
    async fn begin(&mut self, identity: Uuid) -> Result<State, EntityError> {
        let state = State { identity, position: 0, token: Uuid::nil() };
        let newest = self.journal.snapshots().await?.last().copied().unwrap_or(0);
        if newest > 0 {
            return self.read_snapshot(state, newest).await;
        }
        self.blocking(|replica| replica.clear()).await?;
        self.blocking(move |replica| replica.finish(state)).await?;
        Ok(state)
    }

    /// Reads all records anew from a snapshot.
    async fn read_snapshot(&mut self, state: State, number: u64) -> Result<State, EntityError> {
        let gone = || EntityError::unavailable("a snapshot was removed while it was read; a newer one is read next");
        let parts = self.journal.parts(number).await?.ok_or_else(gone)?;
        // From here on until it is whole nothing is answered from the replica.
        self.state = None;
        self.blocking(|replica| replica.clear()).await?;
        for part in parts {
            let kept = self.journal.part(number, &part).await?.ok_or_else(gone)?;
            self.blocking(move |replica| replica.load(&kept)).await?;
        }
        // The newest snapshot's object stays until there are two newer ones.
        let state = State { position: number, token: self.journal.token(number).await?, ..state };
        self.blocking(move |replica| replica.finish(state)).await?;
        self.state = Some(state);
        Ok(state)
    }

    async fn apply(&mut self, state: State, changes: Vec<Change>) -> Result<(), EntityError> {
        let applied = self.blocking(move |replica| replica.apply(state, &changes)).await;
        // What it is at now has to be asked of it, should it have failed.
        self.state = applied.is_ok().then_some(state);
        applied
    }

    async fn blocking(
        &self,
        work: impl FnOnce(&Replica) -> Result<(), EntityError> + Send + 'static,
    ) -> Result<(), EntityError> {
        let replica = Arc::clone(&self.replica);
        offload(move || work(&replica)).await.map_err(EntityError::unavailable)?
    }

    /// Makes changes, and answers whoever waits for them.
    async fn write(&mut self, asks: Vec<Ask>) {
        let (writes, answers): (Vec<Vec<Write>>, Vec<_>) = asks.into_iter().map(|ask| (ask.writes, ask.answer)).unzip();
        let outcome = self.write_all(Arc::new(writes)).await;
        if let Err(error) = &outcome {
            tracing::warn!(%error, "records of entities were not written");
        }
        match outcome {
            // Whoever has gone does not want to know.
            Ok(written) => answers.into_iter().zip(written).for_each(|(answer, own)| drop(answer.send(Ok(own)))),
            Err(error) => answers.into_iter().for_each(|answer| drop(answer.send(Err(error.clone())))),
        }
    }

    async fn write_all(
        &mut self,
        writes: Arc<Vec<Vec<Write>>>,
    ) -> Result<Vec<Vec<Result<Version, EntityError>>>, EntityError> {
        for attempt in 0..TRIES {
            let state = match self.state {
                Some(state) if attempt == 0 && self.following.caught_up.load(Ordering::SeqCst) => state,
                _ => self.follow().await?,
            };
            let state = State { position: state.position + 1, ..state };
            let (replica, asked) = (Arc::clone(&self.replica), Arc::clone(&writes));
            let judging = move || judge(&replica.view()?, state.position, &asked);
            let Judged { changes, verdicts } = offload(judging).await.map_err(EntityError::unavailable)??;
            if changes.is_empty() {
                // A refusal must not rest on records that others have changed since.
                if attempt == 0 {
                    continue;
                }
                return Ok(verdicts);
            }
            let token = self.names.fresh();
            let state = State { token, ..state };
            let text = encode(state.position, token, &changes).map_err(EntityError::unavailable)?;
            if !self.journal.append(state.position, token, text).await? {
                continue;
            }
            if floor(&self.journal.snapshots().await?) >= state.position {
                self.state = None;
                let message = "this process had fallen behind, and nobody knows whether it was written: try again";
                return Err(EntityError::unavailable(message));
            }
            self.apply(state, changes).await?;
            self.snapshot_if_due(state);
            return Ok(verdicts);
        }
        Err(EntityError::unavailable("other processes were quicker every time: try again"))
    }

    /// Makes a snapshot beside everything else, when there have been enough changes.
    fn snapshot_if_due(&self, state: State) {
        if !state.position.is_multiple_of(self.snapshot_every) || self.snapshotting.swap(true, Ordering::SeqCst) {
            return;
        }
        let (journal, replica) = (self.journal.clone(), Arc::clone(&self.replica));
        let (token, busy) = (self.names.fresh(), Arc::clone(&self.snapshotting));
        tokio::spawn(async move {
            if let Err(error) = make_snapshot(&journal, &replica, token).await {
                tracing::warn!(%error, "a snapshot of the entities was not made; the next one is");
            }
            busy.store(false, Ordering::SeqCst);
        });
    }
}

/// Writes all records as a snapshot, and removes what it makes unneeded.
async fn make_snapshot(journal: &Journal, replica: &Arc<Replica>, token: Uuid) -> Result<(), EntityError> {
    let replica = Arc::clone(replica);
    let view = offload(move || replica.view()).await.map_err(EntityError::unavailable)??;
    let number = view.position();
    let (mut parts, mut last): (Vec<String>, Option<String>) = (Vec::new(), None);
    loop {
        let from = view.clone();
        let part = move || part_after(&from, number, token, last.as_deref());
        let part = offload(part).await.map_err(EntityError::unavailable)??;
        let Some((text, end)) = part else { break };
        let name = journal.put_part(number, token, parts.len(), text).await?;
        parts.push(name);
        last = Some(end);
    }
    journal.put_snapshot(number, token, &parts).await?;
    journal.clean().await
}

/// The text of the records after one, and the last of their ids; none when there are none.
fn part_after(
    view: &View,
    number: u64,
    token: Uuid,
    last: Option<&str>,
) -> Result<Option<(bytes::Bytes, String)>, EntityError> {
    let records = next_of(&mut view.after(last), PART_RECORDS, PART_BYTES)?;
    let kept: Vec<Kept> =
        records.into_iter().map(|record| Kept { version: record.version, entity: record.entity }).collect();
    let Some(end) = kept.last().map(|kept| kept.entity.entity_id.clone()) else { return Ok(None) };
    Ok(Some((encode(number, token, &kept).map_err(EntityError::unavailable)?, end)))
}

/// Whatever waits, up to what an object may hold.
fn gather(first: Ask, asks: &mut mpsc::Receiver<Ask>) -> Vec<Ask> {
    let (mut changes, mut bytes) = (first.writes.len(), first.bytes());
    let mut gathered = vec![first];
    while changes < OBJECT_CHANGES_MAX && bytes < OBJECT_BYTES_MAX {
        let Ok(ask) = asks.try_recv() else { break };
        changes += ask.writes.len();
        bytes += ask.bytes();
        gathered.push(ask);
    }
    gathered
}

/// Which changes are made, and what is said of each.
struct Judged {
    changes: Vec<Change>,
    verdicts: Vec<Vec<Result<Version, EntityError>>>,
}

/// Holds changes against the records that there are, and those that come before them in the same object.
fn judge(view: &View, number: u64, asked: &[Vec<Write>]) -> Result<Judged, EntityError> {
    let mut changed: HashMap<&str, Option<Version>> = HashMap::new();
    let mut judged = Judged { changes: Vec::new(), verdicts: Vec::with_capacity(asked.len()) };
    for writes in asked {
        let mut verdicts = Vec::with_capacity(writes.len());
        for Write { change, condition } in writes {
            let entity_id = change.entity_id();
            let is_delete = matches!(change, Change::Delete(_));
            let needs_version = *condition != Condition::Any || is_delete;
            let before = match changed.get(entity_id) {
                Some(version) => *version,
                None if needs_version => view.get(entity_id)?.map(|record| record.version),
                None => None,
            };
            if let Err(message) = condition.check(before) {
                verdicts.push(Err(EntityError::Changed { entity_id: entity_id.to_owned(), message }));
            } else if is_delete && before.is_none() {
                verdicts.push(Err(EntityError::NotFound { entity_id: entity_id.to_owned() }));
            } else {
                let place = u32::try_from(judged.changes.len()).map_err(EntityError::unavailable)?;
                let version = Version(number, place);
                changed.insert(entity_id, (!is_delete).then_some(version));
                judged.changes.push(change.clone());
                verdicts.push(Ok(version));
            }
        }
        judged.verdicts.push(verdicts);
    }
    Ok(judged)
}
