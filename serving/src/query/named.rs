//! Filters that were added while Reckon was running.
//!
//! ```text
//! filters/00000000000000000001.json   {"filters": {"us": {"condition": "country = 'US'"}}}
//! filters/00000000000000000002.json   … and all that were added since
//! ```
//!
//! All names are in one object. A change makes a new one with the next number, which can be created only once: whoever
//! comes second reads it and tries again. So no change is lost, and nothing is ever overwritten.
//!
//! A name means the same for ever: it cannot be given another condition, not even after it was removed. So no two answers
//! under one name are about different things, and a process that has not seen the newest object yet knows too few names
//! and never a wrong one. (docs/adr/0017)

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use reckon_data::filter::Filter;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::ServingError;

/// Most names, removed ones included.
pub const FILTERS_MAX: usize = 1_000;
/// Longest id, bytes.
pub const ID_BYTES_MAX: usize = 64;
/// Longest condition, bytes.
pub const CONDITION_BYTES_MAX: usize = 4 << 10;
/// Largest object.
const OBJECT_BYTES_MAX: u64 = 16 << 20;
/// Others may be quicker so many times.
const ATTEMPTS: usize = 16;
/// So many older objects are left, for whoever looks what was changed.
const KEPT: u64 = 16;

/// A name and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFilter {
    /// Its id.
    pub id: String,
    /// What it lets through.
    pub filter: Filter,
    /// Whether it was removed: then questions cannot name it.
    pub removed: bool,
}

/// Why a name cannot be given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It means something else.
    #[error("{id} is the name of {condition:?} already, and a name means the same for ever: take another one")]
    Taken {
        /// The name.
        id: String,
        /// What it means.
        condition: String,
    },
    /// The question or the store is at fault.
    #[error(transparent)]
    Serving(#[from] ServingError),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    filters: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    condition: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
}

#[derive(Debug, Default)]
struct Held {
    number: u64,
    filters: BTreeMap<String, NamedFilter>,
}

/// The names, as this process has seen them last.
#[derive(Debug)]
pub struct NamedFilters {
    store: Arc<dyn ObjectStore>,
    held: ArcSwap<Held>,
    /// One look or change at a time.
    turn: Semaphore,
}

/// Refuses an id that could be taken for something else.
///
/// # Errors
/// [`ServingError::BadRequest`] of `filter_id`.
pub fn check_id(id: &str) -> Result<(), ServingError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_plain) {
        return Ok(());
    }
    let message = format!("an id is 1 to {ID_BYTES_MAX} letters, digits, dots, dashes and underscores");
    Err(ServingError::bad("filter_id", message))
}

/// The filter that a condition is.
///
/// # Errors
/// [`ServingError::BadRequest`] of `condition`.
pub fn parse_condition(text: &str) -> Result<Filter, ServingError> {
    if text.len() > CONDITION_BYTES_MAX {
        let message = format!("{} bytes are more than {CONDITION_BYTES_MAX}", text.len());
        return Err(ServingError::bad("condition", message));
    }
    text.parse().map_err(|error: reckon_data::filter::FilterError| ServingError::bad("condition", error.to_string()))
}

impl NamedFilters {
    /// The names in `store`, which is a folder of the data directory of their own.
    ///
    /// # Errors
    /// When it cannot be read, or an object is not what was written.
    pub async fn open(store: Arc<dyn ObjectStore>) -> Result<Self, ServingError> {
        let named = Self { store, held: ArcSwap::default(), turn: Semaphore::new(1) };
        named.refresh().await?;
        Ok(named)
    }

    /// The filter of a name that was not removed.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Filter> {
        self.held.load().filters.get(id).filter(|named| !named.removed).map(|named| named.filter.clone())
    }

    /// All names that were not removed, ascending.
    #[must_use]
    pub fn list(&self) -> Vec<NamedFilter> {
        self.held.load().filters.values().filter(|named| !named.removed).cloned().collect()
    }

    /// Looks for names that other processes have added.
    ///
    /// # Errors
    /// As [`NamedFilters::open`]; what was known stays known.
    pub async fn refresh(&self) -> Result<(), ServingError> {
        let _turn = self.turn.acquire().await.map_err(ServingError::internal)?;
        self.look().await.map(|_| ())
    }

    /// Gives a filter a name; false when it had it already.
    ///
    /// # Errors
    /// [`NameError::Taken`], [`ServingError::BadRequest`] of an id that is none or when there are too many, and when the
    /// store fails.
    pub async fn put(&self, id: &str, filter: &Filter) -> Result<bool, NameError> {
        check_id(id)?;
        self.change(|filters| {
            if let Some(named) = filters.get_mut(id) {
                if named.filter != *filter {
                    return Err(NameError::Taken { id: id.to_owned(), condition: named.filter.to_string() });
                }
                return Ok(std::mem::take(&mut named.removed));
            }
            if filters.len() >= FILTERS_MAX {
                let message = format!("there are {FILTERS_MAX} names, removed ones included, and that is the limit");
                return Err(ServingError::bad("filter_id", message).into());
            }
            let named = NamedFilter { id: id.to_owned(), filter: filter.clone(), removed: false };
            Ok(filters.insert(id.to_owned(), named).is_none())
        })
        .await
    }

    /// Takes a name away; false when there was none. It stays reserved for what it meant.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove(&self, id: &str) -> Result<bool, NameError> {
        self.change(|filters| {
            let named = filters.get_mut(id).filter(|named| !named.removed);
            Ok(named.is_some_and(|named| !std::mem::replace(&mut named.removed, true)))
        })
        .await
    }

    /// Makes a change, which says whether it is one, on top of the newest object.
    async fn change(
        &self,
        mut change: impl FnMut(&mut BTreeMap<String, NamedFilter>) -> Result<bool, NameError>,
    ) -> Result<bool, NameError> {
        let _turn = self.turn.acquire().await.map_err(ServingError::internal)?;
        for _ in 0..ATTEMPTS {
            let newest = self.look().await?;
            let mut filters = newest.filters.clone();
            if !change(&mut filters)? {
                return Ok(false);
            }
            let next = Held { number: newest.number.saturating_add(1), filters };
            if !self.create(&next).await? {
                continue;
            }
            let number = next.number;
            if self.newest().await? >= number.saturating_add(KEPT) {
                // Meanwhile so many have followed that this number may have been removed, and made a second time it is in the
                // past, where nobody reads it. If it was not, the change is found there already.
                self.forget(number.saturating_add(KEPT)).await;
                continue;
            }
            self.held.store(Arc::new(next));
            self.forget(number).await;
            return Ok(true);
        }
        Err(ServingError::unavailable("others are changing filters; try again").into())
    }

    /// Creates an object; false when another was quicker.
    async fn create(&self, held: &Held) -> Result<bool, ServingError> {
        let entry = |named: &NamedFilter| Entry { condition: named.filter.to_string(), removed: named.removed };
        let filters = held.filters.iter().map(|(id, named)| (id.clone(), entry(named))).collect();
        let body = serde_json::to_vec(&Stored { filters }).map_err(ServingError::internal)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&path(held.number), body.into(), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The number of the newest object; 0 when there is none.
    async fn newest(&self) -> Result<u64, ServingError> {
        let objects: Vec<_> = self.store.list(None).try_collect().await?;
        Ok(objects.iter().filter_map(|object| number(&object.location)).max().unwrap_or(0))
    }

    /// What the newest object says.
    async fn look(&self) -> Result<Arc<Held>, ServingError> {
        let held = self.held.load_full();
        let objects: Vec<_> = self.store.list(None).try_collect().await?;
        let numbered = objects.iter().filter_map(|object| Some((number(&object.location)?, object)));
        let Some((newest, object)) = numbered.max_by_key(|(number, _)| *number) else { return Ok(held) };
        if newest <= held.number {
            return Ok(held);
        }
        if object.size > OBJECT_BYTES_MAX {
            return Err(unreadable(&object.location, format!("it has {} bytes", object.size)));
        }
        let bytes = self.store.get(&object.location).await?.bytes().await?;
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| unreadable(&object.location, error))?;
        let mut filters = BTreeMap::new();
        for (id, Entry { condition, removed }) in stored.filters {
            let filter = condition.parse::<Filter>().map_err(|error| unreadable(&object.location, error))?;
            filters.insert(id.clone(), NamedFilter { id, filter, removed });
        }
        let held = Arc::new(Held { number: newest, filters });
        self.held.store(Arc::clone(&held));
        Ok(held)
    }

    /// Removes an object that has long been followed by others. When that fails it is only left lying there.
    async fn forget(&self, number: u64) {
        if let Some(old) = number.checked_sub(KEPT).filter(|old| *old > 0)
            && let Err(error) = self.store.delete(&path(old)).await
        {
            tracing::debug!(%error, "an old object of filters stays");
        }
    }
}

fn path(number: u64) -> Path {
    Path::from(format!("{number:020}.json"))
}

fn number(path: &Path) -> Option<u64> {
    path.filename()?.strip_suffix(".json")?.parse().ok()
}

fn unreadable(path: &Path, reason: impl std::fmt::Display) -> ServingError {
    ServingError::internal(format!("filters/{path} cannot be read: {reason}"))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use object_store::memory::InMemory;

    use super::*;

    fn filter(text: &str) -> Filter {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_name_means_the_same_for_ever() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let named = NamedFilters::open(Arc::clone(&store)).await.unwrap();
        let (us, gb) = (filter("country = 'US'"), filter("country = 'GB'"));
        assert!(named.put("us", &us).await.unwrap());
        assert!(!named.put("us", &us).await.unwrap(), "it is the same");
        assert!(matches!(named.put("us", &gb).await, Err(NameError::Taken { .. })));
        assert!(named.remove("us").await.unwrap());
        assert!(!named.remove("us").await.unwrap());
        assert_eq!((named.get("us"), named.list()), (None, Vec::new()));
        assert!(matches!(named.put("us", &gb).await, Err(NameError::Taken { .. })), "also once it was removed");
        assert!(named.put("us", &us).await.unwrap());
        assert_eq!(named.get("us"), Some(us.clone()));
        // Another process reads what was written.
        let other = NamedFilters::open(store).await.unwrap();
        assert_eq!(other.get("us"), Some(us));
        assert_eq!(other.list().len(), 1);
    }

    #[tokio::test]
    async fn two_processes_lose_no_name() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let one = NamedFilters::open(Arc::clone(&store)).await.unwrap();
        let other = NamedFilters::open(Arc::clone(&store)).await.unwrap();
        for number in 0..40 {
            let (first, second) = (format!("a{number}"), format!("b{number}"));
            let own = filter(&format!("user_id = '{number}'"));
            let (a, b) = tokio::join!(one.put(&first, &own), other.put(&second, &own));
            assert!(a.unwrap() && b.unwrap());
        }
        let third = NamedFilters::open(Arc::clone(&store)).await.unwrap();
        assert_eq!(third.list().len(), 80);
        let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert!(objects.len() as u64 <= KEPT + 1, "{} objects", objects.len());
    }

    #[tokio::test]
    async fn a_change_that_others_have_long_passed_is_made_again() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let slow = NamedFilters::open(Arc::clone(&store)).await.unwrap();
        let others = NamedFilters::open(Arc::clone(&store)).await.unwrap();
        let own = filter("ip is null");
        let mut tries = 0;
        let change = |filters: &mut BTreeMap<String, NamedFilter>| {
            tries += 1;
            if tries == 1 {
                // It has looked, and sleeps until its number is free again.
                let all = async {
                    for name in 0..=KEPT {
                        others.put(&format!("f{name}"), &own).await.unwrap();
                    }
                };
                all.now_or_never().unwrap();
            }
            let named = NamedFilter { id: "slow".to_owned(), filter: own.clone(), removed: false };
            Ok(filters.insert("slow".to_owned(), named).is_none())
        };
        assert!(slow.change(change).await.unwrap());
        assert_eq!(tries, 2);
        let known = NamedFilters::open(Arc::clone(&store)).await.unwrap();
        assert_eq!((known.list().len() as u64, known.get("slow")), (KEPT + 2, Some(own)));
        let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert!(objects.len() as u64 <= KEPT + 1, "{} objects", objects.len());
    }

    #[tokio::test]
    async fn what_is_no_name_is_refused() {
        let named = NamedFilters::open(Arc::new(InMemory::new())).await.unwrap();
        let own = filter("ip is null");
        for id in ["", "a:b", "a/b", "ü", &"x".repeat(ID_BYTES_MAX + 1)] {
            let refused = named.put(id, &own).await;
            let bad = matches!(refused, Err(NameError::Serving(ServingError::BadRequest { field: "filter_id", .. })));
            assert!(bad, "{id}");
        }
        assert!(parse_condition("colour = 'red'").is_err());
        assert!(parse_condition(&format!("ip = '{}'", "x".repeat(CONDITION_BYTES_MAX))).is_err());
    }

    #[tokio::test]
    async fn an_object_that_is_not_what_was_written_is_an_error() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        store.put(&path(3), "{\"filters\": 7}".as_bytes().to_vec().into()).await.unwrap();
        let refused = NamedFilters::open(store).await.unwrap_err().to_string();
        assert!(refused.contains("00000000000000000003.json"), "{refused}");
    }
}
