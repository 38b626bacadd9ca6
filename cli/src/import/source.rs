//! Files as lines: plain, gzip and zstd; their contents' hash; the parts that are known already.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, Result};
use reckon_data::imports::ImportEntry;
use xxhash_rust::xxh3::Xxh3;

/// How much is read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Opens a file, decompressed; which compression it has is told by its first bytes.
///
/// # Errors
/// When it cannot be opened.
pub fn open(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, file);
    let magic = reader.fill_buf().with_context(|| format!("{} cannot be read", path.display()))?;
    let inner: Box<dyn Read + Send> = if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(reader))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::Decoder::with_buffer(reader)?)
    } else {
        return Ok(Box::new(reader));
    };
    Ok(Box::new(BufReader::with_capacity(CHUNK_BYTES, inner)))
}

/// What a first pass over a file finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Hash of its contents, decompressed.
    pub hash: String,
    /// Its size, decompressed.
    pub bytes: u64,
    /// The import of its longest part, from its beginning, that is known.
    pub known: Option<ImportEntry>,
}

/// Reads a file once for its hash, and for what of it is among `entries`.
///
/// # Errors
/// When it cannot be read to its end.
pub fn survey(path: &Path, entries: &[ImportEntry]) -> Result<Survey> {
    let mut reader = open(path)?;
    let mut prefixes: Vec<&ImportEntry> = entries.iter().collect();
    prefixes.sort_by_key(|entry| entry.bytes);
    let mut prefixes = prefixes.into_iter().peekable();
    let (mut hash, mut bytes, mut known) = (Xxh3::new(), 0_u64, None);
    loop {
        let chunk = reader.fill_buf().with_context(|| format!("{} cannot be read", path.display()))?;
        if chunk.is_empty() {
            break;
        }
        // A chunk ends at the latest where a known prefix may end.
        let limit = prefixes.peek().map_or(u64::MAX, |entry| entry.bytes.saturating_sub(bytes));
        let length = chunk.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
        hash.update(chunk.get(..length).unwrap_or_default());
        reader.consume(length);
        bytes += length as u64;
        let mut here = None;
        while let Some(entry) = prefixes.next_if(|entry| entry.bytes <= bytes) {
            if entry.bytes == bytes && entry.file_hash == *here.get_or_insert_with(|| hex(&hash)) {
                known = Some(entry.clone());
            }
        }
    }
    let hash = hex(&hash);
    // The file itself, imported up to somewhere.
    let itself = entries.iter().find(|entry| entry.file_hash == hash);
    known = itself.cloned().into_iter().chain(known).max_by_key(|entry| entry.bytes);
    Ok(Survey { hash, bytes, known })
}

/// A hash as it is written.
pub(super) fn hex(hash: &Xxh3) -> String {
    format!("{:032x}", hash.digest128())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn entry_of(survey: &Survey, lines: u64) -> ImportEntry {
        ImportEntry {
            file_hash: survey.hash.clone(),
            bytes: survey.bytes,
            lines,
            finished: true,
            ..ImportEntry::default()
        }
    }

    #[test]
    fn the_hash_is_that_of_the_contents() {
        let text = b"a\nb\n".repeat(1_000);
        let plain = survey(file(&text).path(), &[]).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        assert_eq!(survey(file(&gzip.finish().unwrap()).path(), &[]).unwrap(), plain);
        let zstd = zstd::encode_all(text.as_slice(), 1).unwrap();
        assert_eq!(survey(file(&zstd).path(), &[]).unwrap(), plain);
    }

    #[test]
    fn a_known_beginning_is_found() {
        let short = survey(file(b"a\nb\n").path(), &[]).unwrap();
        let entries = [entry_of(&short, 2)];
        let known = |text: &[u8]| survey(file(text).path(), &entries).unwrap().known.map(|e| (e.bytes, e.lines));
        assert_eq!(known(b"a\nb\nc\n"), Some((4, 2)));
        assert_eq!(known(b"a\nb\n"), Some((4, 2)));
        assert_eq!(known(b"a\nx\nc\n"), None);
    }

    #[test]
    fn a_part_imported_before_it_was_interrupted_is_found() {
        let short = survey(file(b"a\nb\n").path(), &[]).unwrap();
        let entries = [ImportEntry { finished: false, ..entry_of(&short, 2) }];
        assert_eq!(survey(file(b"a\nb\nc\n").path(), &entries).unwrap().known.map(|e| e.bytes), Some(4));
    }
}
