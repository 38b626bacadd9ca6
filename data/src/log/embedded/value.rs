//! What is stored for a record: its bytes behind a checksum that also knows their place.
//!
//! ```text
//! [checksum: 8 bytes, little endian][record …]
//! checksum = XXH3-64(record) xor XXH3-64(offset; seed = partition)
//! ```
//!
//! The storage crate has checksums of its own, for its files. This one goes from the append to the
//! read, so it also finds a value that is whole and belongs elsewhere.

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::super::LogError;

/// Bytes in front of every record.
pub(super) const HEAD_BYTES: usize = 8;

/// The value for a record whose offset is not known yet; [`place`] finishes it.
pub(super) fn envelope(record: &Bytes) -> BytesMut {
    let mut value = BytesMut::with_capacity(HEAD_BYTES + record.len());
    value.put_u64_le(xxh3_64(record));
    value.put_slice(record);
    value
}

/// Finishes a value made by [`envelope`]: from now on it belongs to this place only.
pub(super) fn place(mut value: BytesMut, partition: u32, offset: u64) -> Bytes {
    let place = place_hash(partition, offset).to_le_bytes();
    value.iter_mut().zip(place).for_each(|(byte, of_place)| *byte ^= of_place);
    value.freeze()
}

/// The record in a stored value, without copying it.
pub(super) fn unwrap(value: &Bytes, partition: u32, offset: u64) -> Result<Bytes, LogError> {
    let corrupt = |reason: &str| LogError::Corrupt { partition, offset, reason: reason.to_owned() };
    let Some((head, record)) = value.split_first_chunk::<HEAD_BYTES>() else {
        return Err(corrupt("the stored value is shorter than its checksum"));
    };
    if u64::from_le_bytes(*head) != xxh3_64(record) ^ place_hash(partition, offset) {
        return Err(corrupt("the record does not match its checksum"));
    }
    Ok(value.slice(HEAD_BYTES..))
}

fn place_hash(partition: u32, offset: u64) -> u64 {
    xxh3_64_with_seed(&offset.to_le_bytes(), u64::from(partition))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_opens_at_its_place_only() {
        let record = Bytes::from_static(b"record");
        let value = place(envelope(&record), 3, 17);
        assert_eq!(unwrap(&value, 3, 17).unwrap(), record);
        assert!(unwrap(&value, 3, 18).is_err());
        assert!(unwrap(&value, 2, 17).is_err());
        assert!(unwrap(&value.slice(..7), 3, 17).is_err());
        let empty = place(envelope(&Bytes::new()), 0, 0);
        assert!(unwrap(&empty, 0, 0).unwrap().is_empty());
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let value = place(envelope(&Bytes::from_static(b"some record")), 1, 2);
        for bit in 0..value.len() * 8 {
            let mut bent = value.to_vec();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(unwrap(&Bytes::from(bent), 1, 2).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_format_is_frozen() {
        let value = place(envelope(&Bytes::from_static(b"reckon")), 1, 2);
        assert_eq!(value[HEAD_BYTES..], b"reckon"[..]);
        let head = u64::from_le_bytes(*value.first_chunk().unwrap());
        assert_eq!(head, xxh3_64(b"reckon") ^ xxh3_64_with_seed(&[2, 0, 0, 0, 0, 0, 0, 0], 1));
    }
}
