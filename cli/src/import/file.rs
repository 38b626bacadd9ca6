//! The import of one file.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::ProgressBar;
use reckon_client::batch::Batch;
use reckon_data::dead::DeadLetter;
use reckon_data::event::{Reason, Refusal};
use reckon_data::imports::ImportEntry;
use xxhash_rust::xxh3::xxh3_128;

use super::fields::{self, Fields};
use super::lines::LineReader;
use super::mapping::{IdFrom, Mapping};
use super::report::Report;
use super::sink::Sink;
use super::source::{Entries, Entry, Survey};

/// How many bytes of events are sent at once.
const BATCH_BYTES: usize = 1024 * 1024;
/// How often it is remembered how far a file is.
const REMEMBER_EVERY: Duration = Duration::from_secs(2);
/// How many bad lines are shown; the rest are in the dead letters.
const SHOWN_MAX: u64 = 20;

/// The import of one file.
pub struct FileImport<'a> {
    sink: &'a dyn Sink,
    mapping: &'a Mapping,
    bar: &'a ProgressBar,
    name: String,
    survey: Survey,
    state: ImportEntry,
    batch: Batch,
    /// The line of each event in the batch.
    batch_lines: Vec<u64>,
    letters: Vec<DeadLetter>,
    /// How often each line has occurred, for `--id-from line`.
    repeats: HashMap<u128, u32>,
    shown: u64,
    last_line: u64,
    remembered: Instant,
}

impl<'a> FileImport<'a> {
    /// Prepares the import of a file that was surveyed.
    #[must_use]
    pub fn new(sink: &'a dyn Sink, mapping: &'a Mapping, bar: &'a ProgressBar, path: &Path, survey: Survey) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let known = survey.known.clone().unwrap_or_default();
        let state = ImportEntry {
            file_hash: survey.hash.clone(),
            mapping_hash: mapping.hash(),
            name: name.clone(),
            finished: known.bytes == survey.bytes,
            ..known
        };
        Self {
            sink,
            mapping,
            bar,
            name,
            survey,
            state,
            batch: Batch::new(BATCH_BYTES),
            batch_lines: Vec::new(),
            letters: Vec::new(),
            repeats: HashMap::new(),
            shown: 0,
            last_line: 0,
            remembered: Instant::now(),
        }
    }

    /// Imports the file; returns how many events the server took now.
    ///
    /// # Errors
    /// When the file cannot be read to its end, or the server takes nothing more. What was acknowledged
    /// is remembered.
    pub async fn run(mut self, path: &Path, report: &mut Report) -> Result<u64> {
        let (before, known) = (self.state.clone(), self.state.bytes);
        report.duplicate += before.accepted;
        if self.survey.known.as_ref().is_some_and(|entry| entry.file_hash == self.survey.hash && entry.finished) {
            report.read += before.lines;
            self.bar.inc(self.survey.bytes);
            return Ok(0);
        }
        let mut reader = LineReader::new(self.mapping.format);
        let mut entries = Entries::open(path, reader.spans_lines())?;
        let mut outcome = Ok(());
        loop {
            let entry = match entries.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            };
            self.bar.inc(entry.bytes.len() as u64 + 1);
            self.take(&mut reader, &entry, known)?;
            if self.batch.is_full() || self.letters.len() >= 1_000 {
                self.send(entry.last_line, entry.end).await?;
            }
            report.read += 1 + entry.last_line - entry.line;
            self.last_line = entry.last_line;
        }
        self.finish(outcome.is_ok(), report, &before).await?;
        outcome.map(|()| self.state.accepted - before.accepted)
    }

    async fn finish(&mut self, whole: bool, report: &mut Report, before: &ImportEntry) -> Result<()> {
        let (lines, bytes) =
            if whole { (self.last_line, self.survey.bytes) } else { (self.state.lines, self.state.bytes) };
        self.state.finished = whole;
        self.send(lines, bytes).await?;
        self.sink.record(&self.state).await?;
        report.skipped += self.state.skipped - before.skipped;
        report.refused += self.state.refused - before.refused;
        Ok(())
    }

    /// Adds a line to what is sent next.
    fn take(&mut self, reader: &mut LineReader, entry: &Entry, known: u64) -> Result<()> {
        let is_known = entry.end <= known;
        let repeat = self.repeat(entry);
        if entry.line == 1 && reader.has_header() {
            reader.read_header(&entry.bytes)?;
            self.state.skipped += u64::from(!is_known);
            return Ok(());
        }
        if is_known {
            return Ok(());
        }
        if entry.bytes.is_empty() {
            self.state.skipped += 1;
            return Ok(());
        }
        match self.event(reader, entry, repeat) {
            Ok(Some(json)) => {
                self.batch.push(&json);
                self.batch_lines.push(entry.line);
            }
            Ok(None) => self.state.skipped += 1,
            Err(refusal) => self.refuse(entry, &refusal),
        }
        Ok(())
    }

    fn repeat(&mut self, entry: &Entry) -> Option<(u128, u32)> {
        (self.mapping.id.is_none() && self.mapping.id_from == IdFrom::Line).then(|| {
            let hash = xxh3_128(&entry.bytes);
            let count = self.repeats.entry(hash).or_default();
            *count += 1;
            (hash, *count)
        })
    }

    /// The JSON of a line's event; none when it is skipped.
    fn event(
        &self,
        reader: &LineReader,
        entry: &Entry,
        repeat: Option<(u128, u32)>,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        if entry.too_long {
            return Err(Refusal::whole(Reason::TooLong, "the line is longer than 1 MiB".to_owned()));
        }
        let fields = reader.read(&entry.bytes)?;
        if self.mapping.skip_if.as_ref().is_some_and(|field| fields.has(field)) {
            return Ok(None);
        }
        let id = || match repeat {
            Some((hash, count)) => format!("{hash:032x}-{count}"),
            None => format!("{}-{}", self.survey.hash, entry.line),
        };
        fields::event(&fields, self.mapping, id).map(Some)
    }

    fn refuse(&mut self, entry: &Entry, refusal: &Refusal) {
        let source = format!("{}:{}", self.name, entry.line);
        self.show(&source, &refusal.message);
        self.letters.push(DeadLetter::new(refusal, Some(&source), &entry.bytes));
        self.state.refused += 1;
    }

    fn show(&mut self, source: &str, message: &str) {
        self.shown += 1;
        match self.shown {
            n if n <= SHOWN_MAX => self.bar.suspend(|| eprintln!("{source}: {message}")),
            n if n == SHOWN_MAX + 1 => {
                self.bar.suspend(|| eprintln!("{}: more lines are refused; see `reckon dlq list`", self.name));
            }
            _ => {}
        }
    }

    /// Sends what was gathered; everything up to `lines` and `bytes` is acknowledged afterwards.
    async fn send(&mut self, lines: u64, bytes: u64) -> Result<()> {
        let letters = std::mem::take(&mut self.letters);
        for part in letters.chunks(16) {
            self.sink.bury(part.to_vec()).await?;
        }
        if !self.batch.is_empty() {
            let key = format!("{}-{}", self.survey.hash, self.state.lines);
            let receipt = self.sink.send(self.batch.take(), &key, &self.name).await?;
            let batch_lines = std::mem::take(&mut self.batch_lines);
            for error in &receipt.errors {
                let line = usize::try_from(error.index).ok().and_then(|index| batch_lines.get(index)).copied();
                self.show(&format!("{}:{}", self.name, line.unwrap_or_default()), &error.message);
            }
            self.state.accepted += receipt.accepted;
            self.state.refused += receipt.refused;
        }
        (self.state.lines, self.state.bytes) = (lines, bytes);
        if self.remembered.elapsed() >= REMEMBER_EVERY && !self.state.finished {
            self.sink.record(&self.state).await?;
            self.remembered = Instant::now();
        }
        Ok(())
    }
}
