//! The lines of a file, each with its place; lines that quotes hold together are one.

use std::io::{BufRead, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use reckon_data::dead::BODY_BYTES_MAX;
use xxhash_rust::xxh3::Xxh3;

use super::source::{hex, open};

/// A line of a file: its bytes without the line break, where it begins and where it ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Number of its first line, from 1.
    pub line: u64,
    /// Number of its last line.
    pub last_line: u64,
    /// Offset after it, decompressed.
    pub end: u64,
    /// Offset after its text: before the line break, when it has one.
    pub text_end: u64,
    /// The bytes; of a line over the limit, its beginning.
    pub bytes: Vec<u8>,
    /// Whether it was over the limit.
    pub too_long: bool,
    /// Whether a quote is opened in it and never closed.
    pub unclosed: bool,
    /// Whether the file ends in the middle of it, as far as one can see: without a line break, or in quotes.
    pub cut: bool,
}

/// The lines of a file.
pub struct Entries {
    reader: Box<dyn BufRead + Send>,
    /// Bytes that were read and are to be read once more, before those of the reader.
    ahead: Vec<u8>,
    ahead_at: usize,
    spans_lines: bool,
    place: Place,
    /// The place before the last line that was asked for.
    before: Place,
}

/// The end of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// Its number.
    pub line: u64,
    /// The offset after it, decompressed.
    pub offset: u64,
    /// Hash of everything up to there.
    pub hash: String,
}

/// How far lines were read.
#[derive(Clone)]
struct Place {
    line: u64,
    offset: u64,
    hash: Xxh3,
}

/// Why no more was read of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    LineBreak,
    FileEnd,
    /// Lines that belong together are too long together.
    Full,
}

impl Place {
    fn end(&self) -> End {
        End { line: self.line, offset: self.offset, hash: hex(&self.hash) }
    }
}

impl Entries {
    /// The lines of the first `limit` bytes of a file: it may grow meanwhile. With `spans_lines`, a line break
    /// in quotes does not end a line.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path, spans_lines: bool, limit: u64) -> Result<Self> {
        let place = Place { line: 0, offset: 0, hash: Xxh3::new() };
        let reader = Box::new(open(path)?.take(limit));
        Ok(Self { reader, ahead: Vec::new(), ahead_at: 0, spans_lines, before: place.clone(), place })
    }

    /// The end of what was read.
    #[must_use]
    pub fn end(&self) -> End {
        self.place.end()
    }

    /// The end of what was read before the last call of [`Entries::next`].
    #[must_use]
    pub fn end_before(&self) -> End {
        self.before.end()
    }

    /// The next line.
    ///
    /// # Errors
    /// When the file cannot be read on; what a broken compressed file held up to there has been returned.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        self.before.clone_from(&self.place);
        let mut entry = Entry { line: self.place.line + 1, ..Entry::default() };
        let mut quotes = Quotes::default();
        // The end of the first line, as long as its quotes may be closed in a later one.
        let mut first: Option<(usize, Place)> = None;
        loop {
            let seen = entry.bytes.len();
            let stop = self.take_line(&mut entry, first.is_some())?;
            if entry.bytes.is_empty() && stop == Stop::FileEnd {
                return Ok(None);
            }
            if stop == Stop::LineBreak || entry.bytes.len() > seen {
                self.place.line += 1;
            }
            if self.spans_lines {
                quotes.feed(entry.bytes.get(seen..).unwrap_or_default());
            }
            let open = quotes.open();
            match &first {
                _ if stop != Stop::Full && !open && !quotes.stray => {}
                None if entry.too_long || stop == Stop::FileEnd => entry.unclosed = open,
                None => {
                    first = Some((entry.bytes.len(), self.place.clone()));
                    continue;
                }
                Some(_) if open && stop == Stop::LineBreak && !quotes.stray => continue,
                Some((length, place)) => {
                    // Whatever opened the quote, the lines after it are lines of their own.
                    self.put_back(entry.bytes.split_off(*length), place.clone());
                    entry.unclosed = true;
                }
            }
            entry.cut = stop == Stop::FileEnd && !quotes.stray;
            return Ok(Some(self.close(entry)));
        }
    }

    /// Notes where an entry ends, and takes its line break off.
    fn close(&self, mut entry: Entry) -> Entry {
        (entry.last_line, entry.end) = (self.place.line, self.place.offset);
        let mut breaks = u64::from(entry.too_long && !entry.cut);
        while !entry.too_long && entry.bytes.pop_if(|byte| matches!(byte, b'\n' | b'\r')).is_some() {
            breaks += 1;
        }
        entry.text_end = entry.end.saturating_sub(breaks);
        entry
    }

    /// Appends the next line. Of one over the limit only its beginning is kept, unless `spans`: nothing is dropped
    /// of lines that may have to be read once more.
    fn take_line(&mut self, entry: &mut Entry, spans: bool) -> Result<Stop> {
        loop {
            let chunk = match self.ahead.get(self.ahead_at..) {
                Some(ahead) if !ahead.is_empty() => ahead,
                _ => self.reader.fill_buf().context("the file cannot be read on")?,
            };
            let end = memchr::memchr(b'\n', chunk).map(|at| at + 1);
            let length = end.unwrap_or(chunk.len());
            if length == 0 {
                return Ok(Stop::FileEnd);
            }
            let room = (BODY_BYTES_MAX + 1).saturating_sub(entry.bytes.len());
            if spans && length > room {
                return Ok(Stop::Full);
            }
            entry.bytes.extend_from_slice(chunk.get(..length.min(room)).unwrap_or_default());
            entry.too_long |= length > room;
            self.place.hash.update(chunk.get(..length).unwrap_or_default());
            self.place.offset += length as u64;
            if self.ahead_at < self.ahead.len() {
                self.ahead_at += length;
            } else {
                self.reader.consume(length);
            }
            if end.is_some() {
                return Ok(Stop::LineBreak);
            }
        }
    }

    /// Goes back to an earlier place, after which `bytes` were read.
    fn put_back(&mut self, mut bytes: Vec<u8>, place: Place) {
        bytes.extend_from_slice(self.ahead.get(self.ahead_at..).unwrap_or_default());
        (self.ahead, self.ahead_at, self.place) = (bytes, 0, place);
    }
}

/// Follows the quotes of separated values: one opens only where a value begins, anywhere else it is a character.
#[derive(Debug, Default)]
struct Quotes {
    state: Quoting,
    /// Whether the value in quotes holds a line break.
    broken: bool,
    /// Whether text followed the closing quote of a value with a line break: that quote was hardly meant to close.
    stray: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Quoting {
    /// A value begins.
    #[default]
    Begin,
    /// In a value without quotes.
    Plain,
    /// In quotes.
    Quoted,
    /// After a quote in quotes: it closes them, unless another one follows.
    After,
}

impl Quotes {
    const fn open(&self) -> bool {
        matches!(self.state, Quoting::Quoted)
    }

    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.state = match (self.state, byte) {
                (Quoting::Begin, b'"') => {
                    self.broken = false;
                    Quoting::Quoted
                }
                (Quoting::Quoted, b'"') => Quoting::After,
                (Quoting::Quoted, byte) => {
                    self.broken |= *byte == b'\n';
                    Quoting::Quoted
                }
                (Quoting::After, b'"') => Quoting::Quoted,
                (Quoting::After, b'\r') => Quoting::After,
                (_, b',' | b'\n') => Quoting::Begin,
                (Quoting::After, _) => {
                    self.stray |= self.broken;
                    Quoting::Plain
                }
                _ => Quoting::Plain,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::source::survey;
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// The entries of a text, with quotes.
    fn quoted(text: &[u8]) -> Vec<Entry> {
        let mut entries = Entries::open(file(text).path(), true, u64::MAX).unwrap();
        std::iter::from_fn(|| entries.next().unwrap()).collect()
    }

    #[test]
    fn lines_and_their_places() {
        let mut entries = Entries::open(file(b"a\r\n\nbc").path(), false, u64::MAX).unwrap();
        let mut found = Vec::new();
        while let Some(entry) = entries.next().unwrap() {
            found.push((entry.line, entry.end, entry.text_end, entry.cut, entry.bytes));
        }
        let expected = [(1, 3, 1, false, b"a".to_vec()), (2, 4, 3, false, vec![]), (3, 6, 6, true, b"bc".to_vec())];
        assert_eq!(found, expected);
    }

    #[test]
    fn only_what_was_surveyed_is_read() {
        let file = file(b"a\nb\n");
        let survey = survey(file.path(), &[]).unwrap();
        file.as_file().write_all(b"c\n").unwrap();
        let mut entries = Entries::open(file.path(), false, survey.bytes).unwrap();
        assert_eq!(std::iter::from_fn(|| entries.next().unwrap()).count(), 2);
        assert_eq!(entries.end(), End { line: 2, offset: survey.bytes, hash: survey.hash });
    }

    #[test]
    fn a_quote_within_a_value_is_a_character() {
        let found: Vec<_> =
            quoted(b"u1,5\" disk\nu2,\"a\"\"b\"\r\nu3,6\" disk\n").into_iter().map(|e| e.bytes).collect();
        assert_eq!(found, [&b"u1,5\" disk"[..], b"u2,\"a\"\"b\"", b"u3,6\" disk"]);
    }

    #[test]
    fn a_quote_that_is_never_closed_costs_its_own_line_only() {
        let long = format!("u1,\"x\n{}", "u2,b,2013-02-08\n".repeat(200_000));
        for (text, lines) in
            [("u1,\"x\nu2,b\nu3,c\n", 3), ("u1,\"x\nu2,b\nu3,\"c\"\nu4,d", 4), (long.as_str(), 200_001)]
        {
            let found = quoted(text.as_bytes());
            assert_eq!(found.len(), lines);
            let unclosed: Vec<u64> = found.iter().filter(|entry| entry.unclosed).map(|entry| entry.line).collect();
            assert_eq!(unclosed, [1]);
            for (entry, (number, line)) in found.iter().zip((1..).zip(text.lines())) {
                assert_eq!((entry.line, entry.last_line, &*entry.bytes), (number, number, line.as_bytes()));
            }
            assert_eq!(found.last().unwrap().end, text.len() as u64);
        }
    }

    #[test]
    fn what_is_read_twice_is_hashed_once() {
        let text = b"u1,\"x\nu2,b\nu3,\"y\nz\"\n";
        let file = file(text);
        let mut entries = Entries::open(file.path(), true, u64::MAX).unwrap();
        while entries.next().unwrap().is_some() {}
        assert_eq!(entries.end().hash, survey(file.path(), &[]).unwrap().hash);
    }

    #[test]
    fn a_quoted_line_break_does_not_end_a_line() {
        let mut entries = Entries::open(file(b"x,\"a\nb\"\ny\n").path(), true, u64::MAX).unwrap();
        let first = entries.next().unwrap().unwrap();
        assert_eq!((first.line, first.last_line, first.bytes), (1, 2, b"x,\"a\nb\"".to_vec()));
        assert_eq!(entries.next().unwrap().unwrap().line, 3);
        assert_eq!(entries.next().unwrap(), None);
    }

    #[test]
    fn a_line_over_the_limit_is_kept_in_part() {
        let mut text = vec![b'x'; BODY_BYTES_MAX + 10];
        text.extend_from_slice(b"\nb\n");
        let mut entries = Entries::open(file(&text).path(), false, u64::MAX).unwrap();
        assert!(entries.next().unwrap().unwrap().too_long);
        assert_eq!(entries.next().unwrap().unwrap().bytes, b"b");
    }
}
