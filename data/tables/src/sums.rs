//! Checksums of a data file, so that a bit that has flipped in it is found by whoever reads it.
//!
//! ```text
//! file  = blocks of one size, the last one shorter; so many that there are no more than 1,024
//! block = pieces of 64 KiB, the last one shorter
//! sum of a block = the lower 32 bits of XXH3-64 of the XXH3-64 of its pieces, each in 8 bytes, little endian
//! ```
//!
//! Whoever reads a range reads the blocks that it touches, at most two more than it needs. Parquet has checksums for
//! pages of its own, but the library does not write them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes of a piece.
const PIECE: usize = 64 << 10;
/// Blocks of a file, at most.
const BLOCKS_MAX: usize = 1_024;
/// How the text of sums begins.
const SCHEME: &str = "xxh3";

/// The checksums of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    bytes: u64,
    /// Bytes of a block: a multiple of a piece.
    block: usize,
    sums: Box<[u32]>,
}

impl Sums {
    /// Those of a whole file.
    #[must_use]
    pub fn of(file: &[u8]) -> Self {
        let mut summer = Summer::new();
        summer.add(file);
        summer.finish()
    }

    /// Bytes of the file.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The range in whole blocks around a range that lies within the file.
    #[must_use]
    pub fn around(&self, range: &std::ops::Range<u64>) -> std::ops::Range<u64> {
        let block = self.block as u64;
        let end = range.end.div_ceil(block).saturating_mul(block).min(self.bytes);
        range.start / block * block..end
    }

    /// Where the first block that has changed begins, of the whole blocks `bytes` that begin at `start`.
    #[must_use]
    pub fn first_changed(&self, start: u64, bytes: &[u8]) -> Option<u64> {
        let block = self.block as u64;
        let first = usize::try_from(start / block).unwrap_or(usize::MAX);
        let changed = |(at, bytes): &(usize, &[u8])| self.sums.get(first.saturating_add(*at)) != Some(&sum_of(bytes));
        bytes.chunks(self.block).enumerate().find(changed).map(|(at, _)| start + at as u64 * block)
    }

    /// As text: the scheme, the size of a block, and the sums in base 64.
    #[must_use]
    pub fn encode(&self) -> String {
        let bytes: Vec<u8> = self.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        format!("{SCHEME}/{}/{}", self.block, BASE64.encode(bytes))
    }

    /// From text, of a file of so many bytes; none if these are no sums of such a file.
    #[must_use]
    pub fn decode(text: &str, bytes: u64) -> Option<Self> {
        let (block, sums) = text.strip_prefix(SCHEME)?.strip_prefix('/')?.split_once('/')?;
        let block: usize = block.parse().ok().filter(|block| *block > 0 && *block % PIECE == 0)?;
        let sums = BASE64.decode(sums).ok()?;
        let fits = sums.len() as u64 == bytes.div_ceil(block as u64).checked_mul(4)?;
        let sums = sums.chunks_exact(4).filter_map(|sum| Some(u32::from_le_bytes(sum.try_into().ok()?)));
        fits.then(|| Self { bytes, block, sums: sums.collect() })
    }
}

fn sum_of(block: &[u8]) -> u32 {
    let pieces: Vec<u64> = block.chunks(PIECE).map(xxh3_64).collect();
    sum_of_pieces(&pieces)
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is kept")]
fn sum_of_pieces(pieces: &[u64]) -> u32 {
    let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_le_bytes()).collect();
    xxh3_64(&bytes) as u32
}

/// Sums up a file as its bytes come.
#[derive(Default)]
pub struct Summer {
    piece: Xxh3,
    /// Bytes of it.
    filled: usize,
    pieces: Vec<u64>,
}

impl std::fmt::Debug for Summer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Summer").field("pieces", &self.pieces.len()).finish_non_exhaustive()
    }
}

impl Summer {
    /// Of a file that is empty so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The file goes on with these bytes.
    pub fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.filled));
            self.piece.update(now);
            self.filled += now.len();
            if self.filled == PIECE {
                self.end_piece();
            }
            bytes = later;
        }
    }

    fn end_piece(&mut self) {
        self.pieces.push(self.piece.digest());
        self.piece.reset();
        self.filled = 0;
    }

    /// The file is whole.
    #[must_use]
    pub fn finish(mut self) -> Sums {
        let bytes = (self.pieces.len() * PIECE + self.filled) as u64;
        if self.filled > 0 {
            self.end_piece();
        }
        let pieces = self.pieces.len().div_ceil(BLOCKS_MAX).max(1);
        let sums = self.pieces.chunks(pieces).map(sum_of_pieces).collect();
        Sums { bytes, block: pieces * PIECE, sums }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn file(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at * 31 + at / 251) as u8).collect()
    }

    #[test]
    fn sums_survive_their_text_and_nothing_else_is_taken_for_them() {
        for bytes in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE, BLOCKS_MAX * PIECE + 1] {
            let sums = Sums::of(&file(bytes));
            let text = sums.encode();
            assert!(text.len() < 6_000, "{bytes}: {} bytes of text", text.len());
            assert_eq!(Sums::decode(&text, bytes as u64), Some(sums), "{bytes}");
        }
        let text = Sums::of(&file(3 * PIECE)).encode();
        assert_eq!(Sums::decode(&text, 4 * PIECE as u64), None, "a file of another size");
        for wrong in [
            "",
            "xxh3",
            "xxh3/0/",
            "xxh3/100/AAAAAAAAAAA",
            "crc32/65536/AAAAAAAAAAA",
            "xxh3/65536/?",
            "xxh3/65536/AAAA",
        ] {
            assert_eq!(Sums::decode(wrong, 10), None, "{wrong}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Wherever a bit flips, whoever reads it finds its block; whoever reads elsewhere does not.
        #[test]
        fn a_flipped_bit_is_found(
            bytes in 1..20 * PIECE,
            at in any::<prop::sample::Index>(),
            bit in 0..8_u32,
            part in any::<prop::sample::Index>(),
            parts in prop::collection::vec(1..3 * PIECE, 0..4),
        ) {
            let mut file = file(bytes);
            let mut summer = Summer::new();
            let mut rest = file.as_slice();
            for length in parts {
                let (now, later) = rest.split_at(length.min(rest.len()));
                summer.add(now);
                rest = later;
            }
            summer.add(rest);
            let sums = summer.finish();
            prop_assert_eq!(&sums, &Sums::of(&file));
            prop_assert!(sums.sums.len() <= BLOCKS_MAX);
            prop_assert_eq!(sums.first_changed(0, &file), None);
            let at = at.index(bytes);
            file[at] ^= 1 << bit;
            let block = (at / sums.block * sums.block) as u64;
            prop_assert_eq!(sums.first_changed(0, &file), Some(block));
            let one = part.index(bytes) as u64;
            let around = sums.around(&(one..one + 1));
            let read = &file[usize::try_from(around.start).unwrap()..usize::try_from(around.end).unwrap()];
            prop_assert_eq!(sums.first_changed(around.start, read), around.contains(&(at as u64)).then_some(block));
        }
    }
}
