//! How far the log may be trimmed.

use std::time::Duration;

use reckon_data::clock::Clock;
use reckon_data::log::{Log, LogError};
use reckon_data::record::decode_header;

use super::error::MaintainError;

/// What of a partition is safe in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Safe {
    /// From where the dedup set is refilled after a restart: of the newest *sealed* segment's summary. A partition
    /// that has sealed nothing is at 0.
    pub refill_offset: u64,
    /// Up to where both tables are archived.
    pub archived: u64,
}

/// The offset below which nobody needs a partition's records, within what the log has.
#[must_use]
pub const fn trim_point(safe: Safe, start: u64, end: u64) -> u64 {
    let needed = if safe.refill_offset < safe.archived { safe.refill_offset } else { safe.archived };
    let point = if needed < end { needed } else { end };
    if point > start { point } else { start }
}

/// Trims every partition as far as it is safe and older than `keep`. Returns where each begins now.
///
/// # Errors
/// What the log says. Partitions before the one that failed are trimmed.
pub async fn trim_log(
    log: &dyn Log,
    safe: &[Safe],
    keep: Duration,
    clock: &dyn Clock,
) -> Result<Vec<u64>, MaintainError> {
    let mut starts = Vec::new();
    for (partition, safe) in (0..log.partitions()).zip(safe) {
        let extent = log.extent(partition).await?;
        let mut point = trim_point(*safe, extent.start, extent.end);
        if !keep.is_zero() {
            let oldest = clock.now().saturating_sub(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX));
            point = first_kept(log, partition, extent.start, point, oldest).await?;
        }
        if point > extent.start {
            log.trim(partition, point).await?;
        }
        starts.push(point);
    }
    Ok(starts)
}

/// The first offset in [start, end) whose record was appended at `oldest` or later; `end` if there is none.
///
/// By halving: append times rise along a partition, but for the difference of the gateways' clocks.
async fn first_kept(log: &dyn Log, partition: u32, start: u64, end: u64, oldest: i64) -> Result<u64, MaintainError> {
    let (mut low, mut high) = (start, end);
    while low < high {
        let middle = low + (high - low) / 2;
        let records = match log.read(partition, middle, 1).await {
            // How old it is, nobody knows: it and what follows stay.
            Err(LogError::Corrupt { .. }) => {
                high = middle;
                continue;
            }
            records => records?,
        };
        let record = |reason: String| MaintainError::Record { partition, offset: middle, reason };
        let first = records.first().ok_or_else(|| record("it is missing".to_owned()))?;
        let header = decode_header(&first.bytes).map_err(|error| record(error.to_string()))?;
        if header.append_time < oldest { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}
