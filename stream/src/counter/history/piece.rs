//! A piece of a history: one or more segments, next to each other.

use std::ops::Range;
use std::sync::Arc;

use reckon_data::run::Run;
use reckon_data::segment::Summary;

use super::super::counts::Counts;
use super::super::partition::FinishedSegment;

#[derive(Debug, Clone)]
pub(super) enum Held {
    Memory(Vec<Counts>),
    /// In `stream_counts` only; `wanted` as long as it is to be loaded.
    Disk {
        wanted: bool,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where segments start within, the first one left out; ascending.
    pub(super) inner: Vec<u64>,
    /// Whether a cut lies at the start.
    pub(super) at_cut: bool,
    /// How often it was folded.
    pub(super) level: u8,
    pub(super) held: Held,
    /// What it takes in memory; asking each time would cost.
    pub(super) bytes: usize,
    /// Log time at the end, microseconds.
    pub(super) log_time: i64,
    /// Of a single segment of this counter's.
    summary: Option<Summary>,
}

impl Piece {
    pub(super) fn finished(segment: FinishedSegment) -> Self {
        let FinishedSegment { summary, at_cut, counts } = segment;
        Self {
            start: summary.start,
            end: summary.end,
            inner: Vec::new(),
            at_cut,
            level: 0,
            bytes: counts.iter().map(Counts::memory_bytes).sum(),
            held: Held::Memory(counts),
            log_time: summary.log_time.micros().unwrap_or(i64::MIN),
            summary: Some(summary),
        }
    }

    pub(super) const fn on_disk(segments: &Range<u64>, log_time: i64) -> Self {
        Self {
            start: segments.start,
            end: segments.end,
            inner: Vec::new(),
            at_cut: false,
            level: 0,
            held: Held::Disk { wanted: true },
            bytes: 0,
            log_time,
            summary: None,
        }
    }

    /// Pieces next to each other, folded.
    pub(super) fn folded(pieces: &[Self], run: Arc<Run>) -> Option<Self> {
        let (first, last) = (pieces.first()?, pieces.last()?);
        let mut folded = Self { summary: None, level: first.level.saturating_add(1), ..first.clone() };
        for piece in pieces.get(1..)? {
            folded.append(piece);
        }
        folded.log_time = last.log_time;
        folded.hold(run);
        Some(folded)
    }

    /// Takes the range of the piece that follows.
    pub(super) fn append(&mut self, next: &Self) {
        self.inner.push(next.start);
        self.inner.extend_from_slice(&next.inner);
        self.end = next.end;
        self.log_time = self.log_time.max(next.log_time);
        self.summary = None;
    }

    pub(super) fn segment(&self) -> Option<FinishedSegment> {
        match (&self.held, self.summary) {
            (Held::Memory(counts), Some(summary)) => {
                Some(FinishedSegment { summary, at_cut: self.at_cut, counts: counts.clone() })
            }
            _ => None,
        }
    }

    /// Whether its counts are still to be made one run.
    pub(super) fn is_raw(&self) -> bool {
        matches!(&self.held, Held::Memory(counts) if counts.len() != 1 || !counts[0].is_run())
    }

    /// The one run it is, if it is.
    pub(super) fn run(&self) -> Option<&Arc<Run>> {
        match &self.held {
            Held::Memory(counts) => match counts.as_slice() {
                [Counts::Run(run)] => Some(run),
                _ => None,
            },
            Held::Disk { .. } => None,
        }
    }

    pub(super) fn hold(&mut self, run: Arc<Run>) {
        self.bytes = run.memory_bytes();
        self.held = Held::Memory(vec![Counts::Run(run)]);
    }

    pub(super) fn let_go(&mut self) -> usize {
        self.held = Held::Disk { wanted: false };
        std::mem::take(&mut self.bytes)
    }

    pub(super) const fn is_wanted(&self) -> bool {
        matches!(self.held, Held::Disk { wanted: true })
    }

    pub(super) const fn is_lost(&self) -> bool {
        matches!(self.held, Held::Disk { wanted: false })
    }

    pub(super) fn give_up(&mut self) {
        if self.is_wanted() {
            self.held = Held::Disk { wanted: false };
        }
    }
}
