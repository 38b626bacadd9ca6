//! The place of an event in the log, in 64 bits.

use crate::error::AuditError;

const INDEX_BITS: u32 = 18;
const OFFSET_BITS: u32 = 38;
const PARTITION_BITS: u32 = 8;

/// (partition, offset, index in the record); ordered as the log is within a partition, and partitions one after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(u64);

impl Place {
    /// Packs a place.
    ///
    /// # Errors
    /// [`AuditError::TooLarge`] for more than 256 partitions, 2³⁸ records of a partition, or 2¹⁸ events of a record.
    pub fn new(partition: i64, offset: i64, index: i64) -> Result<Self, AuditError> {
        let part = |number: i64, bits: u32| u64::try_from(number).ok().filter(|number| *number < 1 << bits);
        match (part(partition, PARTITION_BITS), part(offset, OFFSET_BITS), part(index, INDEX_BITS)) {
            (Some(partition), Some(offset), Some(index)) => {
                Ok(Self(partition << (OFFSET_BITS + INDEX_BITS) | offset << INDEX_BITS | index))
            }
            _ => Err(AuditError::TooLarge { partition, offset, index }),
        }
    }

    /// The log partition.
    #[must_use]
    pub const fn partition(self) -> u32 {
        (self.0 >> (OFFSET_BITS + INDEX_BITS)) as u32
    }

    /// The record's offset.
    #[must_use]
    pub const fn offset(self) -> u64 {
        (self.0 >> INDEX_BITS) & ((1 << OFFSET_BITS) - 1)
    }

    /// The event's index in the record.
    #[must_use]
    pub const fn index(self) -> u32 {
        (self.0 & ((1 << INDEX_BITS) - 1)) as u32
    }

    /// Partition and offset as one number.
    #[must_use]
    pub const fn record(self) -> u64 {
        self.0 >> INDEX_BITS
    }

    /// The place whose [`Place::bits`] those are.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As a number.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// Partition and offset of [`Place::record`].
#[must_use]
pub const fn of_record(record: u64) -> (u32, u64) {
    ((record >> OFFSET_BITS) as u32, record & ((1 << OFFSET_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_packed_and_read_back_and_refused_when_too_large() {
        let place = Place::new(255, (1 << 38) - 1, 7).unwrap();
        assert_eq!((place.partition(), place.offset(), place.index()), (255, (1 << 38) - 1, 7));
        assert_eq!(of_record(place.record()), (255, (1 << 38) - 1));
        assert!(Place::new(1, 2, 3).unwrap() < Place::new(1, 3, 0).unwrap());
        for (partition, offset, index) in [(256, 0, 0), (0, 1 << 38, 0), (0, 0, 1 << 18), (-1, 0, 0)] {
            assert!(Place::new(partition, offset, index).is_err());
        }
    }
}
