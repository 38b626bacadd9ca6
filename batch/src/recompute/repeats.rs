//! Which key hashes occur more than once in a date.
//!
//! Equal keys have equal hashes, so an event whose hash occurs once has no copy: it is counted without a look
//! at its key. Only the others are compared by the key itself. All partitions of the date are looked at
//! together, a range of the hashes at a time so that they fit into memory:
//!
//! ```text
//! key_hash ──leading bits──▶ 256 buckets ──sort──▶ neighbours that are equal
//! ```

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::execute_stream_partitioned;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use futures::future::try_join_all;

use super::engine::Engine;
use super::error::BatchError;

/// Buckets to a range of hashes: small enough to be sorted within a core's cache.
const BUCKETS: usize = 256;
/// Bits of the filter to a hash: 3% of the other hashes pass it.
const BITS_PER_HASH: usize = 32;
/// Bits of the filter at most: 256 MiB.
const BITS_MAX: usize = 1 << 31;
/// Hashes that are kept apart at most: 128 MiB. Above it the filter alone decides, and they are not kept at all.
const EXACT_MAX: usize = 16 << 20;

/// Hashes that are kept apart at most where they go with a query to other machines: 4 MiB. A plan holds them twice, and one
/// message the plans of as many tasks as a machine has threads.
const SENT_MAX: usize = 1 << 19;
/// Bits of such a filter at most: 4 MiB.
const SENT_BITS_MAX: usize = 1 << 25;

/// The hashes that occur more than once. Beyond [`EXACT_MAX`] of them it may say so of others too, which
/// costs time only.
#[derive(Debug, Default)]
pub struct Repeated {
    bits: Vec<u64>,
    /// Ascending.
    exact: Option<Vec<u64>>,
    rows: u64,
}

/// Gathers repeated hashes within bounds.
#[derive(Debug)]
struct Gathered {
    /// Kept apart as long as they are few enough.
    hashes: Vec<u64>,
    /// The filter that has taken them all when they are not; empty before.
    bits: Vec<u64>,
    rows: u64,
    exact_max: usize,
    bits_max: usize,
}

impl Gathered {
    const fn new(exact_max: usize, bits_max: usize) -> Self {
        Self { hashes: Vec::new(), bits: Vec::new(), rows: 0, exact_max, bits_max }
    }

    /// Takes `hashes`, none of them for the second time, which `rows` rows have.
    fn add(&mut self, hashes: Vec<u64>, rows: u64) {
        self.rows += rows;
        if self.bits.is_empty() && self.hashes.len() + hashes.len() <= self.exact_max {
            self.hashes.extend(hashes);
            return;
        }
        if self.bits.is_empty() {
            self.bits = vec![0; self.bits_max / 64];
            set(&mut self.bits, &std::mem::take(&mut self.hashes));
        }
        set(&mut self.bits, &hashes);
    }

    fn finish(self) -> Repeated {
        let Self { mut hashes, bits, rows, bits_max, .. } = self;
        if !bits.is_empty() {
            return Repeated { bits, exact: None, rows };
        }
        hashes.sort_unstable();
        Repeated::of(hashes, rows, bits_max)
    }
}

fn set(bits: &mut [u64], hashes: &[u64]) {
    for hash in hashes {
        let (word, bit) = place(bits.len(), *hash);
        bits[word] |= bit;
    }
}

impl Repeated {
    /// Of ascending hashes, with a filter of at most so many bits.
    fn of(hashes: Vec<u64>, rows: u64, bits_max: usize) -> Self {
        if hashes.is_empty() {
            return Self::default();
        }
        let size = hashes.len().saturating_mul(BITS_PER_HASH).next_power_of_two().clamp(64, bits_max);
        let mut bits = vec![0; size / 64];
        set(&mut bits, &hashes);
        Self { bits, exact: Some(hashes), rows }
    }

    /// Writes it for another machine: whether it is exact, its rows, and hashes or bits, little endian.
    pub fn write(&self, to: &mut Vec<u8>) {
        let words = self.exact.as_ref().unwrap_or(&self.bits);
        to.reserve(9 + words.len() * 8);
        to.push(u8::from(self.exact.is_some()));
        to.extend(self.rows.to_le_bytes());
        to.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    /// What [`Repeated::write`] has written; none of anything else.
    #[must_use]
    pub fn read(written: &[u8]) -> Option<Self> {
        let (is_exact, written) = written.split_first()?;
        let (words, []) = written.as_chunks::<8>() else { return None };
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let rows = words.next()?;
        let words: Vec<u64> = words.collect();
        match is_exact {
            1 if words.is_sorted() => Some(Self::of(words, rows, SENT_BITS_MAX)),
            0 if words.is_empty() || words.len().is_power_of_two() => Some(Self { bits: words, exact: None, rows }),
            _ => None,
        }
    }

    /// Whether no hash occurs twice.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    /// Rows whose hash occurs more than once, if [`Repeated::contains`] is exact.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        (self.is_empty() || self.exact.is_some()).then_some(self.rows)
    }

    /// Whether the hash occurs more than once, or may.
    #[must_use]
    pub fn contains(&self, hash: u64) -> bool {
        if self.bits.is_empty() {
            return false;
        }
        let (word, bit) = place(self.bits.len(), hash);
        self.bits[word] & bit != 0 && self.exact.as_ref().is_none_or(|exact| exact.binary_search(&hash).is_ok())
    }
}

/// The low bits choose: the high ones choose the bucket.
const fn place(words: usize, hash: u64) -> (usize, u64) {
    ((hash >> 6) as usize & (words - 1), 1 << (hash & 63))
}

/// What the first look at a date has found.
#[derive(Debug)]
pub struct Found {
    /// Hashes that occur more than once.
    pub repeated: Arc<Repeated>,
    /// Rows read.
    pub rows: u64,
}

/// Looks for repeated hashes in what `sql`, a query of `key_hash` alone over about `rows` rows, returns.
///
/// # Errors
/// When the query fails.
pub async fn find(engine: &Engine, session: &SessionContext, sql: &str, rows: u64) -> Result<Found, BatchError> {
    let ranges = usize::try_from(rows).unwrap_or(usize::MAX).div_ceil(engine.hashes_max).max(1);
    let (mut gathered, mut rows_read) = (Gathered::new(EXACT_MAX, BITS_MAX), 0);
    for range in 0..ranges {
        let frame = session.sql(sql).await?;
        let context = Arc::new(frame.task_ctx());
        let streams = execute_stream_partitioned(frame.create_physical_plan().await?, context)?;
        let expected = usize::try_from(rows).unwrap_or(usize::MAX) / ranges / streams.len().max(1);
        let tasks: Vec<_> = streams
            .into_iter()
            .map(|stream| engine.spawn(scatter(stream, Slots { range, ranges }, expected)))
            .collect();
        let parts = try_join_all(tasks).await?;
        rows_read = parts.iter().map(|part| part.rows_read).sum();
        for (found, rows) in neighbours(engine, parts).await? {
            gathered.add(found, rows);
        }
    }
    Ok(Found { repeated: Arc::new(gathered.finish()), rows: rows_read })
}

/// Gathers what a query has found (see [`super::scope::repeats_sql`]), small enough to be sent on.
///
/// # Errors
/// When the query fails.
pub async fn gather(mut found: SendableRecordBatchStream) -> Result<Found, BatchError> {
    let mut gathered = Gathered::new(SENT_MAX, SENT_BITS_MAX);
    let mut read = 0;
    while let Some(batch) = found.next().await {
        let batch = batch?;
        let [all, rows] = [0, 1].map(|at| {
            let numbers = batch.column(at).as_primitive::<Int64Type>().iter().flatten();
            numbers.map(i64::cast_unsigned).sum::<u64>()
        });
        read += all;
        let hashes = batch.column(2).as_list::<i32>().iter().flatten();
        let hashes = hashes.flat_map(|list| list.as_primitive::<Int64Type>().values().to_vec());
        gathered.add(hashes.map(i64::cast_unsigned).collect(), rows);
    }
    Ok(Found { repeated: Arc::new(gathered.finish()), rows: read })
}

/// One of several equal ranges of all hashes.
#[derive(Debug, Clone, Copy)]
struct Slots {
    range: usize,
    ranges: usize,
}

impl Slots {
    /// The bucket of a hash, if it lies in the range.
    fn bucket(self, hash: u64) -> Option<usize> {
        let slot = ((u128::from(hash) * (self.ranges * BUCKETS) as u128) >> 64) as usize;
        (slot / BUCKETS == self.range).then_some(slot % BUCKETS)
    }
}

struct Scattered {
    buckets: Vec<Vec<u64>>,
    rows_read: u64,
}

async fn scatter(
    mut stream: SendableRecordBatchStream,
    slots: Slots,
    expected: usize,
) -> Result<Scattered, BatchError> {
    // A little more than expected, so that hardly any bucket has to grow.
    let capacity = expected / BUCKETS + expected / BUCKETS / 16;
    let mut buckets: Vec<Vec<u64>> = (0..BUCKETS).map(|_| Vec::with_capacity(capacity)).collect();
    let mut rows_read = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        rows_read += batch.num_rows() as u64;
        for hash in batch.column(0).as_primitive::<Int64Type>().values() {
            let hash = hash.cast_unsigned();
            if let Some(bucket) = slots.bucket(hash) {
                buckets[bucket].push(hash);
            }
        }
    }
    Ok(Scattered { buckets, rows_read })
}

/// The hashes that occur more than once, and how many rows have them.
async fn neighbours(engine: &Engine, parts: Vec<Scattered>) -> Result<Vec<(Vec<u64>, u64)>, BatchError> {
    let mut shares: Vec<Vec<Vec<Vec<u64>>>> = vec![Vec::new(); engine.parallel.max(1)];
    let mut parts: Vec<_> = parts.into_iter().map(|part| part.buckets.into_iter()).collect();
    for bucket in 0..BUCKETS {
        let places = shares.len();
        shares[bucket % places].push(parts.iter_mut().filter_map(Iterator::next).collect());
    }
    try_join_all(shares.into_iter().map(|share| engine.spawn_blocking(move || Ok(repeats(share))))).await
}

fn repeats(buckets: Vec<Vec<Vec<u64>>>) -> (Vec<u64>, u64) {
    let (mut found, mut rows) = (Vec::new(), 0);
    for bucket in buckets {
        let mut bucket = bucket.concat();
        bucket.sort_unstable();
        for equal in bucket.chunk_by(|a, b| a == b).filter(|equal| equal.len() > 1) {
            found.push(equal[0]);
            rows += equal.len() as u64;
        }
    }
    (found, rows)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exactly_the_repeated_are_found(
            hashes in prop::collection::vec(prop_oneof![any::<u64>(), 0..40_u64, (0..40_u64).prop_map(|n| u64::MAX - n)], 0..300),
            ranges in 1..5_usize,
        ) {
            let mut gathered = [Gathered::new(1_000, 1 << 16), Gathered::new(3, 1 << 16)];
            for range in 0..ranges {
                let slots = Slots { range, ranges };
                let mut buckets = vec![vec![Vec::new(), Vec::new()]; BUCKETS];
                for (at, hash) in hashes.iter().enumerate() {
                    if let Some(bucket) = slots.bucket(*hash) {
                        buckets[bucket][at % 2].push(*hash);
                    }
                }
                let (found, with) = repeats(buckets);
                gathered.iter_mut().for_each(|gathered| gathered.add(found.clone(), with));
            }
            let [set, filter] = gathered.map(Gathered::finish);
            let often = |hash: u64| hashes.iter().filter(|other| **other == hash).count();
            for hash in &hashes {
                prop_assert_eq!(set.contains(*hash), often(*hash) > 1);
                // Too many to be kept apart: others may pass, and none is missed.
                prop_assert!(filter.contains(*hash) || often(*hash) == 1);
            }
            let different: std::collections::BTreeSet<u64> =
                hashes.iter().copied().filter(|hash| often(*hash) > 1).collect();
            prop_assert_eq!(filter.rows().is_some(), different.len() <= 3);
            prop_assert_eq!(set.rows(), Some(hashes.iter().filter(|hash| often(**hash) > 1).count() as u64));
            prop_assert!(!set.contains(1 << 40));
            for sent in [&set, &filter] {
                let mut written = Vec::new();
                sent.write(&mut written);
                let arrived = Repeated::read(&written).unwrap();
                prop_assert_eq!(arrived.rows(), sent.rows());
                prop_assert!(hashes.iter().all(|hash| arrived.contains(*hash) == sent.contains(*hash)));
                prop_assert!(Repeated::read(&written[1..]).is_none());
            }
        }
    }
}
