//! The bytes of a damaged value as they lie on the disk, past all checksums.
//!
//! The crate checks a value as it reads it, and hands out nothing of one that does not hold. So it is only asked
//! where the value lies, in the form in which its index says so:
//!
//! ```text
//! index: [offset in the file][file][bytes] …, each a number in base 128
//! blobs/FILE: … ["BLOB"][checksum 16][sequence number 8][key bytes 2][value bytes 4][bytes on disk 4][key][value] …
//! ```
//!
//! This form is no part of the crate's interface. Where it does not fit there are no bytes to be had, which is said; a
//! record is never read in this way.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use fjall::{AbstractTree as _, Keyspace, SeqNo};

use super::super::ANY_RECORD_BYTES_MAX;
use super::value;

/// How the crate marks an entry whose value lies in a blob file.
const INDIRECTION: u8 = 4;
/// Bytes of a blob before its key.
const BLOB_HEAD_BYTES: u64 = 4 + 16 + 8 + 2 + 4 + 4;

/// The value of a key, whole or not; none when not even its place can be read.
pub(super) fn value(keyspace: &Keyspace, key: &[u8]) -> Option<Vec<u8>> {
    let entry = keyspace.tree.get_internal_entry(key, SeqNo::MAX).ok()??;
    if u8::from(entry.key.value_type) != INDIRECTION {
        return Some(entry.value.to_vec());
    }
    let mut place: &[u8] = &entry.value;
    let (at, file, bytes) = (number(&mut place)?, number(&mut place)?, number(&mut place)?);
    let start = at.checked_add(BLOB_HEAD_BYTES)?.checked_add(key.len() as u64)?;
    let mut file = File::open(keyspace.path().join("blobs").join(file.to_string())).ok()?;
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut found = Vec::new();
    // The place may be damaged too: no more than any value has.
    let most = (ANY_RECORD_BYTES_MAX + value::HEAD_BYTES) as u64;
    file.take(bytes.min(most)).read_to_end(&mut found).ok()?;
    Some(found)
}

/// Takes a number in base 128, low digits first, off the front.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for digit in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(7 * digit)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_base_128_are_read_one_after_the_other() {
        let mut bytes: &[u8] = &[0x05, 0xac, 0x02, 0x80];
        assert_eq!((number(&mut bytes), number(&mut bytes), number(&mut bytes)), (Some(5), Some(300), None));
        let mut endless: &[u8] = &[0xff; 12];
        assert_eq!(number(&mut endless), None);
    }
}
