//! The high-water mark: a small file that says which ends were durable once.
//!
//! When a journal is damaged, the storage crate keeps what lies before the damage and goes on, as after a
//! crash in mid-write. For a log that is a silent loss: acknowledged records would be missing and their
//! offsets given again. So after every commit the ends are also written here, and at opening the log must
//! reach at least as far.
//!
//! ```text
//! slot 0 at 0, slot 1 at 4096, written in turn:
//! ["RKEM"][version u32][identity 16][generation u64][partitions u32][end u64]…[XXH3-64 of all before]
//! ```
//!
//! The file is not synced at every commit: it is written after the commit, so it can only lag behind
//! the log, never be ahead of it. A killed process loses nothing of it; a power cut at most its last seconds.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use bytes::{Buf, BufMut};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 4] = b"RKEM";
const VERSION: u32 = 1;
const SLOT_BYTES: u64 = 4096;
const HEAD_BYTES: usize = 4 + 4 + 16 + 8 + 4;
const CHECKSUM_BYTES: usize = 8;

/// The open mark file of one log.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    identity: Uuid,
    generation: u64,
}

impl Mark {
    /// Opens or makes the file; returns the ends it vouches for, if it has any of this log.
    pub(super) fn open(path: &Path, identity: Uuid) -> io::Result<(Self, Option<Vec<u64>>)> {
        let mut file = File::options().create(true).read(true).write(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(2 * SLOT_BYTES).read_to_end(&mut bytes)?;
        let newest = bytes
            .chunks(SLOT_BYTES as usize)
            .filter_map(decode)
            .filter(|slot| slot.identity == identity)
            .max_by_key(|slot| slot.generation);
        let generation = newest.as_ref().map_or(0, |slot| slot.generation);
        Ok((Self { file, identity, generation }, newest.map(|slot| slot.ends)))
    }

    /// Writes the ends over the older slot.
    pub(super) fn write(&mut self, ends: &[u64]) -> io::Result<()> {
        self.generation += 1;
        let slot = encode(self.identity, self.generation, ends);
        self.file.seek(SeekFrom::Start((self.generation % 2) * SLOT_BYTES))?;
        self.file.write_all(&slot)
    }

    /// Forces the file to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

struct Slot {
    identity: Uuid,
    generation: u64,
    ends: Vec<u64>,
}

fn encode(identity: Uuid, generation: u64, ends: &[u64]) -> Vec<u8> {
    let mut slot = Vec::with_capacity(HEAD_BYTES + 8 * ends.len() + CHECKSUM_BYTES);
    slot.put_slice(MAGIC);
    slot.put_u32_le(VERSION);
    slot.put_slice(identity.as_bytes());
    slot.put_u64_le(generation);
    slot.put_u32_le(u32::try_from(ends.len()).unwrap_or(u32::MAX));
    ends.iter().for_each(|end| slot.put_u64_le(*end));
    let checksum = xxh3_64(&slot);
    slot.put_u64_le(checksum);
    slot
}

/// A slot that is whole; a torn or foreign one counts for nothing.
fn decode(slot: &[u8]) -> Option<Slot> {
    let mut head = slot.get(..HEAD_BYTES)?.strip_prefix(MAGIC)?;
    if head.get_u32_le() != VERSION {
        return None;
    }
    let (identity, mut head) = head.split_first_chunk::<16>()?;
    let generation = head.get_u64_le();
    let body_end = HEAD_BYTES + 8 * usize::try_from(head.get_u32_le()).ok()?;
    let (body, mut checksum) = slot.get(..body_end + CHECKSUM_BYTES)?.split_at(body_end);
    if checksum.get_u64_le() != xxh3_64(body) {
        return None;
    }
    let ends = body[HEAD_BYTES..].chunks_exact(8).map(|mut end| end.get_u64_le()).collect();
    Some(Slot { identity: Uuid::from_bytes(*identity), generation, ends })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_newest_whole_slot_of_this_log_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ends");
        let identity = Uuid::from_u128(7);
        let (mut mark, found) = Mark::open(&path, identity).unwrap();
        assert_eq!(found, None);
        mark.write(&[1, 0]).unwrap();
        mark.write(&[2, 5]).unwrap();
        drop(mark);
        assert_eq!(Mark::open(&path, identity).unwrap().1, Some(vec![2, 5]));
        assert_eq!(Mark::open(&path, Uuid::from_u128(8)).unwrap().1, None);

        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40] ^= 1; // the newest slot, generation 2, lies first
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Mark::open(&path, identity).unwrap().1, Some(vec![1, 0]));
    }

    #[test]
    fn the_largest_log_fits_into_a_slot() {
        let ends = vec![u64::MAX; crate::log::PARTITIONS_MAX as usize];
        let slot = encode(Uuid::nil(), u64::MAX, &ends);
        assert!(slot.len() as u64 <= SLOT_BYTES);
        assert_eq!(decode(&slot).unwrap().ends, ends);
    }
}
