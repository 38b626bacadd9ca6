//! Sums of batch that were added up before.
//!
//! What batch has counted of a question is a pure function of the question and of the files that it is added up from,
//! and files never change. So a sum is kept under those very files: a new version of batch that has other files for one of
//! the window's dates makes another key, and an older version (`as_of`) has its own. The stream's part, which a late event
//! changes for any minute, is asked for each time and never kept; and with it all that an answer says of itself. An answer
//! with a cached part is therefore as new as any other.

use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use reckon_data::metric::Distinct;
use reckon_data::minute::date_of_minute;
use reckon_data::run::{DimCondition, Selection, StepSums};
use xxhash_rust::xxh3::Xxh3;

use crate::ServingError;
use crate::index::load::Columns;
use crate::view::BatchView;

/// Sums that are expected to fit.
const ITEMS: usize = 16_384;
/// A sum of more steps than this is not kept.
const STEPS_MAX: usize = 2_048;
/// About how many bytes a key and its place take beside its texts.
const KEY_BYTES: usize = 256;
/// About how many bytes a step takes.
const STEP_BYTES: usize = 192;

/// A question, and what it is answered from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// A hash of the files of the window's dates.
    files: u128,
    entity: Box<str>,
    event_type: Option<Box<str>>,
    minutes: (i64, i64),
    step: Option<i64>,
    conditions: Box<[DimCondition]>,
    columns: Columns,
}

impl Key {
    /// None when batch has no file that it could be answered from: then there is nothing to keep.
    fn of(view: &BatchView, selection: &Selection<'_>, columns: Columns) -> Option<Self> {
        let minutes = &selection.minutes;
        if minutes.is_empty() {
            return None;
        }
        let (mut hash, mut any) = (Xxh3::new(), false);
        let dates = date_of_minute(minutes.start)..=date_of_minute(minutes.end - 1);
        for set in view.dates.range(dates).flat_map(|(_, sets)| sets.values()) {
            hash.update(&set.id.to_le_bytes());
            any = true;
        }
        any.then(|| Self {
            files: hash.digest128(),
            entity: selection.entity.into(),
            event_type: selection.event_type.map(Into::into),
            minutes: (minutes.start, minutes.end),
            step: selection.step,
            conditions: selection.conditions.to_vec().into(),
            columns,
        })
    }

    fn bytes(&self) -> usize {
        let accepted = self.conditions.iter().flat_map(|condition| &condition.accepted);
        let texts: usize = accepted.map(|text| 32 + text.as_ref().map_or(0, |text| text.len())).sum();
        KEY_BYTES + self.entity.len() + self.event_type.as_ref().map_or(0, |text| text.len()) + texts
    }
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Key, StepSums> for Bytes {
    fn weight(&self, key: &Key, sums: &StepSums) -> u64 {
        let sketches = sums.iter().filter_map(|(_, cell)| cell.distinct.as_ref());
        let (steps, sketches) = (sums.iter().count(), sketches.map(Distinct::memory_bytes).sum::<usize>());
        (key.bytes() + steps * STEP_BYTES + sketches) as u64
    }
}

/// Sums within a limit of memory.
#[derive(Debug)]
pub struct SumCache {
    /// None when nothing is to be kept.
    sums: Option<Cache<Key, StepSums, Bytes>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl SumCache {
    /// Up to `memory` bytes; nothing is kept when that is 0.
    ///
    /// # Errors
    /// Never with these options.
    pub fn new(memory: u64) -> Result<Self, ServingError> {
        let build = || -> Result<_, ServingError> {
            let options = OptionsBuilder::new()
                .estimated_items_capacity(ITEMS)
                .weight_capacity(memory)
                .build()
                .map_err(|error| ServingError::internal(format!("{error:?}")))?;
            Ok(Cache::with_options(options, Bytes, DefaultHashBuilder::default(), DefaultLifecycle::default()))
        };
        let sums = (memory > 0).then(build).transpose()?;
        Ok(Self { sums, hits: AtomicU64::new(0), misses: AtomicU64::new(0) })
    }

    /// The sums of a selection: those that are kept, or those that `add_up` makes.
    ///
    /// # Errors
    /// Those of `add_up`; nothing is kept then.
    pub async fn get_or(
        &self,
        view: &BatchView,
        selection: &Selection<'_>,
        columns: Columns,
        add_up: impl Future<Output = Result<StepSums, ServingError>>,
    ) -> Result<StepSums, ServingError> {
        let Some((cache, key)) = self.sums.as_ref().zip(Key::of(view, selection, columns)) else { return add_up.await };
        if let Some(sums) = cache.get(&key) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(sums);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let sums = add_up.await?;
        if sums.iter().count() <= STEPS_MAX {
            cache.insert(key, sums.clone());
        }
        Ok(sums)
    }

    /// Questions that found their sums, questions that did not, and bytes held.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        let bytes = self.sums.as_ref().map_or(0, Cache::weight);
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed), bytes)
    }
}
