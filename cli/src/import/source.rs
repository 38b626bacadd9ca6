//! Files as lines: plain, gzip and zstd; their contents' hash; the prefixes that are known already.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, Result};
use reckon_data::dead::BODY_BYTES_MAX;
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
    let mut prefixes: Vec<&ImportEntry> = entries.iter().filter(|entry| entry.finished).collect();
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
        while let Some(entry) = prefixes.next_if(|entry| entry.bytes <= bytes) {
            if entry.bytes == bytes && entry.file_hash == hex(&hash) {
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

fn hex(hash: &Xxh3) -> String {
    format!("{:032x}", hash.digest128())
}

/// A line of a file: its bytes without the line break, where it begins and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Number of its first line, from 1.
    pub line: u64,
    /// Number of its last line.
    pub last_line: u64,
    /// Offset after it, decompressed.
    pub end: u64,
    /// The bytes; of a line over the limit, its beginning.
    pub bytes: Vec<u8>,
    /// Whether it was over the limit.
    pub too_long: bool,
}

/// The lines of a file.
pub struct Entries {
    reader: Box<dyn BufRead + Send>,
    spans_lines: bool,
    line: u64,
    offset: u64,
}

impl Entries {
    /// The lines of a file; with `spans_lines`, a line break in quotes does not end one.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path, spans_lines: bool) -> Result<Self> {
        Ok(Self { reader: open(path)?, spans_lines, line: 0, offset: 0 })
    }

    /// The next line.
    ///
    /// # Errors
    /// When the file cannot be read on; what a broken compressed file held up to there has been returned.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        let mut entry = Entry { line: self.line + 1, last_line: 0, end: 0, bytes: Vec::new(), too_long: false };
        loop {
            let taken = self.take_line(&mut entry)?;
            if taken == 0 {
                return Ok((self.line >= entry.line).then_some(entry));
            }
            self.line += 1;
            self.offset += taken;
            (entry.last_line, entry.end) = (self.line, self.offset);
            let open_quote = self.spans_lines && entry.bytes.iter().filter(|&&byte| byte == b'"').count() % 2 == 1;
            if !open_quote || entry.too_long {
                while entry.bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                    entry.bytes.pop();
                }
                return Ok(Some(entry));
            }
        }
    }

    /// Appends the next line, and returns how many bytes it took; of a line over the limit only its
    /// beginning is kept.
    fn take_line(&mut self, entry: &mut Entry) -> Result<u64> {
        let mut taken = 0_u64;
        loop {
            let chunk = self.reader.fill_buf().context("the file cannot be read on")?;
            let end = memchr::memchr(b'\n', chunk).map(|at| at + 1);
            let length = end.unwrap_or(chunk.len());
            if length == 0 {
                return Ok(taken);
            }
            let room = (BODY_BYTES_MAX + 1).saturating_sub(entry.bytes.len());
            entry.bytes.extend_from_slice(chunk.get(..length.min(room)).unwrap_or_default());
            entry.too_long |= length > room;
            self.reader.consume(length);
            taken += length as u64;
            if end.is_some() {
                return Ok(taken);
            }
        }
    }
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
    fn lines_and_their_places() {
        let mut entries = Entries::open(file(b"a\r\n\nbc").path(), false).unwrap();
        let mut found = Vec::new();
        while let Some(entry) = entries.next().unwrap() {
            found.push((entry.line, entry.end, entry.bytes));
        }
        assert_eq!(found, [(1, 3, b"a".to_vec()), (2, 4, vec![]), (3, 6, b"bc".to_vec())]);
    }

    #[test]
    fn a_quoted_line_break_does_not_end_a_line() {
        let mut entries = Entries::open(file(b"x,\"a\nb\"\ny\n").path(), true).unwrap();
        let first = entries.next().unwrap().unwrap();
        assert_eq!((first.line, first.last_line, first.bytes), (1, 2, b"x,\"a\nb\"".to_vec()));
        assert_eq!(entries.next().unwrap().unwrap().line, 3);
        assert_eq!(entries.next().unwrap(), None);
    }

    #[test]
    fn a_line_over_the_limit_is_kept_in_part() {
        let mut text = vec![b'x'; BODY_BYTES_MAX + 10];
        text.extend_from_slice(b"\nb\n");
        let mut entries = Entries::open(file(&text).path(), false).unwrap();
        assert!(entries.next().unwrap().unwrap().too_long);
        assert_eq!(entries.next().unwrap().unwrap().bytes, b"b");
    }
}
