//! The import of one file.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use indicatif::ProgressBar;
use reckon_client::batch::Batch;
use reckon_data::dead::DeadLetter;
use reckon_data::event::{Reason, Refusal};
use reckon_data::imports::ImportEntry;
use xxhash_rust::xxh3::xxh3_128;

use super::entries::{End, Entries, Entry};
use super::fields::{self, Fields};
use super::lines::LineReader;
use super::mapping::{IdFrom, Mapping};
use super::report::Report;
use super::sink::Sink;
use super::source::Survey;
use super::stop::Stop;

/// How many bytes of events are sent at once.
const BATCH_BYTES: usize = 1024 * 1024;
/// How many letters are gathered.
const LETTERS_MAX: usize = 1_000;
/// How many blank lines may stand for lines that are no events; after more of them a body begins anew.
const PADDING_MAX: u64 = 64 * 1024;
/// How often it is remembered how far a file is.
const REMEMBER_EVERY: Duration = Duration::from_secs(2);
/// How many bad lines are shown; the rest are in the dead letters.
const SHOWN_MAX: u64 = 20;

/// The import of one file.
pub struct FileImport<'a> {
    sink: &'a dyn Sink,
    mapping: &'a Mapping,
    bar: &'a ProgressBar,
    stop: &'a Stop,
    name: String,
    survey: Survey,
    /// What is acknowledged: its hash is that of the file's first `bytes`, so that it is known again when the file
    /// has grown.
    state: ImportEntry,
    /// What of it is remembered.
    remembered: ImportEntry,
    remembered_at: Instant,
    batch: Batch,
    /// The line of each event in the batch.
    batch_lines: Vec<u64>,
    letters: Vec<DeadLetter>,
    /// Lines skipped that are not acknowledged yet.
    skipped: u64,
    /// How often each line has occurred, for `--id-from line`.
    repeats: HashMap<u128, u32>,
    shown: u64,
}

impl<'a> FileImport<'a> {
    /// Prepares the import of a file that was surveyed.
    #[must_use]
    pub fn new(
        sink: &'a dyn Sink,
        mapping: &'a Mapping,
        bar: &'a ProgressBar,
        stop: &'a Stop,
        path: &Path,
        survey: Survey,
    ) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let known = survey.known.clone().unwrap_or_default();
        let state = ImportEntry { mapping_hash: mapping.hash(), name: name.clone(), ..known };
        Self {
            sink,
            mapping,
            bar,
            stop,
            name,
            survey,
            remembered: state.clone(),
            remembered_at: Instant::now(),
            state,
            batch: Batch::new(BATCH_BYTES),
            batch_lines: Vec::new(),
            letters: Vec::new(),
            skipped: 0,
            repeats: HashMap::new(),
            shown: 0,
        }
    }

    /// Imports the file; returns how far it is now, and how many events the server took.
    ///
    /// # Errors
    /// When the file cannot be read to its end, the server takes nothing more, or the import is interrupted. What was
    /// acknowledged is remembered.
    pub async fn run(mut self, path: &Path, report: &mut Report) -> (ImportEntry, Result<u64>) {
        let before = self.state.clone();
        report.duplicate += before.accepted;
        if before.finished && before.bytes == self.survey.bytes && before.file_hash == self.survey.hash {
            report.read += before.lines;
            self.bar.inc(self.survey.bytes);
            return (before, Ok(0));
        }
        let outcome = self.read(path, report).await;
        // Whatever happened, what was acknowledged must not be forgotten.
        let outcome = match (outcome, self.remember().await) {
            (Err(error), Err(other)) => {
                Err(error.context(format!("how far it is could not be written down: {other:#}")))
            }
            (outcome, remembered) => outcome.and(remembered),
        };
        report.skipped += self.state.skipped - before.skipped;
        report.refused += self.state.refused - before.refused;
        let accepted = self.state.accepted - before.accepted;
        (self.state, outcome.map(|()| accepted))
    }

    async fn read(&mut self, path: &Path, report: &mut Report) -> Result<()> {
        let known = self.state.bytes;
        let mut reader = LineReader::new(self.mapping.format);
        // No more than was surveyed: the file may grow meanwhile.
        let mut entries = Entries::open(path, reader.spans_lines(), self.survey.bytes)?;
        let mut left = false;
        let outcome = loop {
            if self.stop.is_set() {
                bail!("it was interrupted");
            }
            let entry = match entries.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if entry.cut && self.mapping.id_from == IdFrom::Line {
                left = true;
                report.left += 1;
                break Ok(());
            }
            self.take(&mut reader, &entry, known)?;
            self.bar.inc(entry.end - entries.end_before().offset);
            report.read += 1 + entry.last_line - entry.line;
            if self.batch.is_full() || self.letters.len() >= LETTERS_MAX || self.gap(entry.last_line + 1) > PADDING_MAX
            {
                self.send(entries.end()).await?;
            }
        };
        self.send(entries.end_before()).await?;
        outcome?;
        self.state.finished = self.state.bytes == self.survey.bytes;
        if !left && (self.state.bytes, &self.state.file_hash) != (self.survey.bytes, &self.survey.hash) {
            self.state.finished = false;
            bail!("the file was changed while it was read");
        }
        Ok(())
    }

    /// Remembers what is acknowledged.
    async fn remember(&mut self) -> Result<()> {
        if self.state != self.remembered {
            self.sink.record(&self.state).await?;
            self.remembered.clone_from(&self.state);
        }
        self.remembered_at = Instant::now();
        Ok(())
    }

    /// Blank lines between the last event of the batch and a line.
    fn gap(&self, line: u64) -> u64 {
        self.batch_lines.last().map_or(0, |last| line.saturating_sub(last + 1))
    }

    /// Adds a line to what is sent next.
    fn take(&mut self, reader: &mut LineReader, entry: &Entry, known: u64) -> Result<()> {
        // A line is known with or without its line break.
        let is_known = entry.end <= known || (entry.text_end <= known && !entry.bytes.is_empty());
        let repeat = self.repeat(entry);
        if entry.line == 1 && reader.has_header() {
            reader.read_header(&entry.bytes)?;
            self.skipped += u64::from(!is_known);
            return Ok(());
        }
        if is_known {
            return Ok(());
        }
        if entry.bytes.is_empty() {
            self.skipped += 1;
            return Ok(());
        }
        match self.event(reader, entry, repeat) {
            Ok(Some(json)) => {
                // Lines of the body are numbered as those of the file.
                self.batch.pad(self.gap(entry.line));
                self.batch.push(&json);
                self.batch_lines.push(entry.line);
            }
            Ok(None) => self.skipped += 1,
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
        if entry.unclosed {
            return Err(Refusal::whole(Reason::Malformed, "a quote is opened and not closed".to_owned()));
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

    /// Sends what was gathered; everything up to `end` is acknowledged afterwards.
    async fn send(&mut self, end: End) -> Result<()> {
        let letters = std::mem::take(&mut self.letters);
        let mut refused = letters.len() as u64;
        for part in letters.chunks(16) {
            self.sink.bury(part.to_vec()).await?;
        }
        let batch_lines = std::mem::take(&mut self.batch_lines);
        if let Some(first) = batch_lines.first() {
            let key = format!("{}-{}", self.survey.hash, self.state.lines);
            let receipt = self.sink.send(self.batch.take(), &key, &self.name, *first).await?;
            for error in &receipt.errors {
                let line = usize::try_from(error.index).ok().and_then(|index| batch_lines.get(index)).copied();
                self.show(&format!("{}:{}", self.name, line.unwrap_or_default()), &error.message);
            }
            self.state.accepted += receipt.accepted;
            refused += receipt.refused;
        }
        self.state.refused += refused;
        self.state.skipped += std::mem::take(&mut self.skipped);
        // What is known already may reach further.
        if end.offset >= self.state.bytes {
            (self.state.lines, self.state.bytes, self.state.file_hash) = (end.line, end.offset, end.hash);
            self.state.finished = false;
        }
        if self.remembered_at.elapsed() >= REMEMBER_EVERY {
            self.remember().await?;
        }
        Ok(())
    }
}
