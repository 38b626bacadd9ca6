//! Leases as objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use uuid::Uuid;

use super::plan::{Lease, Seen};
use super::{DEAD_AFTER, Member};

/// So long after its last sign of life nothing of a process is kept.
const FORGOTTEN_AFTER: TimeDelta = TimeDelta::days(1);
/// As many as a look has time for.
const FORGOTTEN_AT_ONCE: usize = 8;

/// Why leases cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The store failed.
    #[error("leases: {0}")]
    Store(#[from] Error),
    /// An object is not what was written there.
    #[error("leases: {path} cannot be read: {reason}")]
    Unreadable {
        /// The object.
        path: String,
        /// Why.
        reason: String,
    },
    /// The store takes longer to answer than a process may be silent.
    #[error("leases: the store takes too long")]
    Slow,
}

/// Who has a partition, as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Which process.
    pub member: Member,
    /// Since which epoch.
    pub epoch: u64,
}

/// What a lease's object holds.
#[derive(Debug, Serialize, Deserialize)]
struct Held {
    holder: Member,
}

/// The leases of a role in a store. What was read of them is remembered: they never change.
#[derive(Debug, Clone)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    role: String,
    holders: BTreeMap<(u32, u64), Member>,
}

impl Objects {
    pub fn new(store: Arc<dyn ObjectStore>, role: &str) -> Self {
        Self { store, role: role.to_owned(), holders: BTreeMap::new() }
    }

    fn members(&self) -> Path {
        Path::from_iter([self.role.as_str(), "members"])
    }

    /// Its name says all that others have to know of it, so that nobody has to read it.
    fn member(&self, id: Uuid, only: Option<&BTreeSet<u32>>) -> Path {
        let name = only.map_or_else(|| id.to_string(), |only| format!("{id}{ONLY}{}", bitmap(only)));
        self.members().join(name)
    }

    fn lease(&self, partition: u32, name: &str) -> Path {
        Path::from_iter([self.role.as_str(), &format!("{partition:05}"), name])
    }

    /// Says that a process lives.
    pub async fn live(&self, member: &Member, only: Option<&BTreeSet<u32>>) -> Result<(), LeaseError> {
        self.store.put(&self.member(member.id, only), encode(member)?.into()).await?;
        Ok(())
    }

    /// A process ends, and says so.
    pub async fn leave(&self, id: Uuid, only: Option<&BTreeSet<u32>>) -> Result<(), LeaseError> {
        match self.store.delete(&self.member(id, only)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a partition; false when another was quicker.
    pub async fn take(&self, partition: u32, epoch: u64, holder: &Member) -> Result<bool, LeaseError> {
        let path = self.lease(partition, &format!("{epoch:020}"));
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&path, encode(&Held { holder: holder.clone() })?.into(), options).await {
            Ok(_) => Ok(true),
            // It may be ours: the outcome of an earlier try is unknown.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                Ok(read::<Held>(&self.store, &path).await?.is_some_and(|held| held.holder.id == holder.id))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Lets go of a partition.
    pub async fn release(&self, partition: u32, epoch: u64) -> Result<(), LeaseError> {
        self.store.put(&self.lease(partition, &format!("{epoch:020}.released")), Bytes::new().into()).await?;
        Ok(())
    }

    /// Looks at everything. `me` has just said that it lives: the store's time of that is now.
    pub async fn see(&mut self, me: Option<Uuid>) -> Result<Seen, LeaseError> {
        let objects: Vec<ObjectMeta> = self.store.list(Some(&Path::from(self.role.as_str()))).try_collect().await?;
        let members = self.members();
        let (of_members, of_leases): (Vec<_>, Vec<_>) =
            objects.into_iter().partition(|object| object.location.prefix_matches(&members));
        let id = |object: &ObjectMeta| member_of(object.location.filename()?).map(|(id, _)| id);
        let newest = of_members.iter().map(|object| object.last_modified).max();
        let now =
            of_members.iter().find(|object| me.is_some() && id(object) == me).map(|own| own.last_modified).or(newest);
        if me.is_some() {
            self.forget_dead(&of_members, now).await;
        }
        let is_live = |object: &ObjectMeta| {
            now.is_some_and(|now| (now - object.last_modified).to_std().unwrap_or(Duration::ZERO) < DEAD_AFTER)
        };
        let live = of_members.iter().filter(|object| is_live(object));
        let live = live.filter_map(|object| member_of(object.location.filename()?)).collect();
        let (mut leases, mut unclear) = (BTreeMap::new(), BTreeSet::new());
        for (partition, (epoch, released)) in newest_epochs(&of_leases) {
            match self.holder(partition, epoch).await? {
                Some(holder) => drop(leases.insert(partition, Lease { epoch, holder: holder.id, released })),
                None => drop(unclear.insert(partition)),
            }
        }
        Ok(Seen { live, leases, dead_known: true, unclear })
    }

    /// Removes the signs of life of processes that have died long ago: nobody else does. One that only slept makes its own anew.
    async fn forget_dead(&self, members: &[ObjectMeta], now: Option<DateTime<Utc>>) {
        let is_old = |object: &&ObjectMeta| now.is_some_and(|now| now - object.last_modified > FORGOTTEN_AFTER);
        for object in members.iter().filter(is_old).take(FORGOTTEN_AT_ONCE) {
            if let Err(error) = self.store.delete(&object.location).await {
                tracing::debug!(%error, path = %object.location, "an old sign of life stays for now");
            }
        }
    }

    /// Who has a partition since an epoch; none if that is gone already.
    pub async fn holder(&mut self, partition: u32, epoch: u64) -> Result<Option<Member>, LeaseError> {
        if let Some(known) = self.holders.get(&(partition, epoch)) {
            return Ok(Some(known.clone()));
        }
        let found = read::<Held>(&self.store, &self.lease(partition, &format!("{epoch:020}"))).await?;
        let Some(Held { holder }) = found else { return Ok(None) };
        self.holders.retain(|(of, _), _| *of != partition);
        self.holders.insert((partition, epoch), holder.clone());
        Ok(Some(holder))
    }

    /// Removes what epochs before `epoch` have left behind.
    pub async fn forget(&self, partition: u32, epoch: u64) -> Result<(), LeaseError> {
        let folder = Path::from_iter([self.role.as_str(), &format!("{partition:05}")]);
        let objects: Vec<ObjectMeta> = self.store.list(Some(&folder)).try_collect().await?;
        for object in objects {
            if place(&object.location).is_some_and(|(_, of, _)| of < epoch) {
                self.store.delete(&object.location).await?;
            }
        }
        Ok(())
    }
}

/// Somebody who looks at the leases of a role and takes none.
#[derive(Debug)]
pub struct Lookout {
    objects: Objects,
    partitions: u32,
}

impl Lookout {
    /// Looks at the leases of a role in a store.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, role: &str, partitions: u32) -> Self {
        Self { objects: Objects::new(store, role), partitions }
    }

    /// Who has each partition now; none where nobody has it, or nobody who lives.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn look(&mut self) -> Result<Vec<Option<Holder>>, LeaseError> {
        let looking = async {
            let seen = self.objects.see(None).await?;
            let mut holders = Vec::with_capacity(self.partitions as usize);
            for partition in 0..self.partitions {
                let lease = seen.leases.get(&partition);
                let lease = lease.filter(|lease| !lease.released && seen.live.contains_key(&lease.holder));
                holders.push(match lease {
                    Some(lease) => {
                        let member = self.objects.holder(partition, lease.epoch).await?;
                        member.map(|member| Holder { member, epoch: lease.epoch })
                    }
                    None => None,
                });
            }
            Ok(holders)
        };
        timeout(DEAD_AFTER, looking).await.map_err(|_| LeaseError::Slow)?
    }
}

/// Stands between a member's id and the partitions that it was told to take.
const ONLY: &str = ".only-";

/// Partitions as the bits of a number, least first, four to a hexadecimal digit.
fn bitmap(partitions: &BTreeSet<u32>) -> String {
    let digits = partitions.last().map_or(0, |last| last / 4 + 1);
    let bit = |partition: u32| u32::from(partitions.contains(&partition));
    let digit = |at: u32| (0..4).map(|of| bit(at * 4 + of) << of).sum::<u32>();
    (0..digits).filter_map(|at| char::from_digit(digit(at), 16)).collect()
}

/// A member by the name of its object.
fn member_of(name: &str) -> Option<(Uuid, Option<BTreeSet<u32>>)> {
    let Some((id, bits)) = name.split_once(ONLY) else { return Some((Uuid::parse_str(name).ok()?, None)) };
    let mut only = BTreeSet::new();
    for (at, digit) in (0_u32..).zip(bits.chars()) {
        let digit = digit.to_digit(16)?;
        only.extend((0..4).filter(|of| digit >> of & 1 == 1).map(|of| at * 4 + of));
    }
    Some((Uuid::parse_str(id).ok()?, Some(only)))
}

/// The newest epoch of each partition, and whether it was released.
fn newest_epochs(objects: &[ObjectMeta]) -> BTreeMap<u32, (u64, bool)> {
    let mut newest: BTreeMap<u32, (u64, bool)> = BTreeMap::new();
    for (partition, epoch, released) in objects.iter().filter_map(|object| place(&object.location)) {
        let known = newest.entry(partition).or_insert((epoch, released));
        if epoch > known.0 {
            *known = (epoch, released);
        } else if epoch == known.0 {
            known.1 |= released;
        }
    }
    newest
}

/// Partition and epoch of a lease's object, and whether it says that the lease was released.
fn place(path: &Path) -> Option<(u32, u64, bool)> {
    let mut parts = path.parts().rev();
    let (name, folder) = (parts.next()?, parts.next()?);
    let (epoch, released) = match name.as_ref().strip_suffix(".released") {
        Some(epoch) => (epoch.to_owned(), true),
        None => (name.as_ref().to_owned(), false),
    };
    Some((folder.as_ref().parse().ok()?, epoch.parse().ok()?, released))
}

fn encode(value: &impl Serialize) -> Result<Bytes, LeaseError> {
    let unreadable =
        |error: serde_json::Error| LeaseError::Unreadable { path: "a lease".to_owned(), reason: error.to_string() };
    serde_json::to_vec(value).map(Bytes::from).map_err(unreadable)
}

async fn read<T: DeserializeOwned>(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Option<T>, LeaseError> {
    let bytes = match store.get(path).await {
        Ok(object) => object.bytes().await?,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let unreadable =
        |error: serde_json::Error| LeaseError::Unreadable { path: path.to_string(), reason: error.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn a_members_name_says_what_it_was_told_to_take() {
        let objects = Objects::new(Arc::new(InMemory::new()), "stream");
        let id = Uuid::from_u128(7);
        for only in [None, Some(BTreeSet::new()), Some(BTreeSet::from([0, 5, 255]))] {
            let path = objects.member(id, only.as_ref());
            assert_eq!(member_of(path.filename().unwrap()), Some((id, only)));
        }
        assert_eq!(member_of("nobody"), None);
    }

    #[tokio::test]
    async fn an_epoch_of_a_partition_has_one_holder() {
        let mut objects = Objects::new(Arc::new(InMemory::new()), "stream");
        let member = |number| Member { id: Uuid::from_u128(number), address: format!("host-{number}:1") };
        assert!(objects.take(3, 1, &member(1)).await.unwrap());
        assert!(!objects.take(3, 1, &member(2)).await.unwrap(), "another was quicker");
        assert!(objects.take(3, 1, &member(1)).await.unwrap(), "the outcome of the first try may be unknown");
        assert_eq!(objects.holder(3, 1).await.unwrap(), Some(member(1)));
        assert!(objects.take(3, 2, &member(2)).await.unwrap());
    }
}
