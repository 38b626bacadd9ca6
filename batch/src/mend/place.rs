//! Where the rows of a file come from.

use std::ops::RangeInclusive;

use reckon_data::table::DataFile;

/// The partitions and offsets of a file's rows, as its statistics have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partitions: RangeInclusive<u32>,
    pub(super) offsets: RangeInclusive<u64>,
}

impl Place {
    /// Nothing when the statistics do not say so.
    pub(super) fn of(file: &DataFile) -> Option<Self> {
        let range = |column| Some((file.min_i64(column)?, file.max_i64(column)?));
        let ((first, last), (low, high)) = (range("log_partition")?, range("log_offset")?);
        let partitions = u32::try_from(first).ok()?..=u32::try_from(last).ok()?;
        let offsets = u64::try_from(low).ok()?..=u64::try_from(high).ok()?;
        Some(Self { partitions, offsets })
    }

    /// The one partition that all rows are of.
    pub(super) fn partition(&self) -> Option<u32> {
        (self.partitions.start() == self.partitions.end()).then_some(*self.partitions.start())
    }
}
