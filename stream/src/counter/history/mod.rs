//! The finished segments of one partition: what memory holds of them, and what it does not.
//!
//! ```text
//! coverage                                     sealed            open segment
//!    ▼                                           ▼                    ▼
//!    [ on disk      ][ folded        ][ ][ ][ ][ ][ unsealed ][ uns. ][ …
//! ```
//!
//! Pieces lie next to each other without a gap. Sealed ones are folded, four of a level into one of the next, so
//! that a query looks at few; never across a cut, so that coverage always falls between pieces. After a restart
//! nobody knows where cuts lay: from within a piece folded over one, a tail is read from disk. Under memory
//! pressure the oldest sealed ones are let go of: they can be read from `stream_counts`. Folding is planned
//! and put in place here, and done by the caller, off the lock.

mod fold;
mod piece;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use reckon_data::run::Run;
use reckon_data::segment::Summary;

pub use fold::Fold;
use piece::{Held, Piece};

use super::counts::Counts;
use super::partition::FinishedSegment;

/// A part of a tail.
#[derive(Debug, Clone)]
pub enum Part {
    /// Counts in memory.
    Memory(Counts),
    /// A range that must be read from `stream_counts`.
    Disk(Range<u64>),
}

/// Bytes that finished segments take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Of sealed ones, which may be let go of.
    pub sealed: usize,
    /// Of the others.
    pub unsealed: usize,
    /// Pieces in memory.
    pub pieces: usize,
    /// Pieces on disk only.
    pub on_disk: usize,
}

/// The finished segments of a partition.
#[derive(Debug, Default)]
pub struct History {
    pieces: VecDeque<Piece>,
    sealed: u64,
    refill: u64,
    coverage: u64,
    /// (coverage, when that was told), as long as what lies below is kept.
    told: VecDeque<(u64, i64)>,
}

impl History {
    /// The history of a partition that is sealed up to an offset, with the refill offset there, and covered by
    /// batch up to another one.
    #[must_use]
    pub fn new(sealed: u64, refill: u64, coverage: u64) -> Self {
        Self { sealed, refill, coverage, ..Self::default() }
    }

    /// Adds segments [start, end) that lie on disk, and are wanted in memory, behind all others.
    pub fn recover(&mut self, segments: &Range<u64>, log_time: i64) {
        self.pieces.push_back(Piece::on_disk(segments, log_time));
    }

    /// Adds a segment that has ended.
    pub fn push(&mut self, segment: FinishedSegment) {
        self.pieces.push_back(Piece::finished(segment));
    }

    /// The offset up to which segments are sealed.
    #[must_use]
    pub const fn sealed(&self) -> u64 {
        self.sealed
    }

    /// Where reading the log would have to begin after a restart.
    #[must_use]
    pub const fn refill_offset(&self) -> u64 {
        self.refill
    }

    /// Where the last finished segment ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.pieces.back().map_or(self.sealed, |piece| piece.end)
    }

    /// The segments that are not sealed.
    #[must_use]
    pub fn unsealed(&self) -> Vec<FinishedSegment> {
        let unsealed = self.pieces.iter().filter(|piece| piece.start >= self.sealed);
        unsealed.filter_map(Piece::segment).collect()
    }

    /// Everything up to the end of `last` is sealed.
    pub fn seal(&mut self, last: &Summary) {
        self.sealed = self.sealed.max(last.end);
        self.refill = self.refill.max(last.refill_offset);
    }

    /// The parts of [from, end); none if `from` is no boundary that can still be read from.
    #[must_use]
    pub fn tail(&self, from: u64) -> Option<Vec<Part>> {
        if from == self.end() {
            return Some(Vec::new());
        }
        let first = self.pieces.partition_point(|piece| piece.end <= from);
        let mut parts = Vec::new();
        for piece in self.pieces.iter().skip(first) {
            if piece.start >= from {
                push_parts(&mut parts, &piece.held, piece.start..piece.end);
            } else if piece.start < self.sealed && piece.inner.binary_search(&from).is_ok() {
                // Folded over in memory, but on disk the segments still lie apart.
                push_parts(&mut parts, &Held::Disk { wanted: false }, from..piece.end);
            } else {
                return None;
            }
        }
        let starts_there = self.pieces.get(first).is_some_and(|piece| piece.start <= from);
        starts_there.then_some(parts)
    }

    /// Batch has counted everything below `coverage`, it was told at `now`.
    pub fn cover(&mut self, coverage: u64, now: i64) {
        if coverage > self.coverage {
            self.coverage = coverage;
            self.told.push_back((coverage, now));
        }
    }

    /// Drops what has been covered for `keep` microseconds.
    pub fn drop_covered(&mut self, now: i64, keep: i64) {
        let mut below = None;
        while let Some((coverage, told)) = self.told.front().copied()
            && told.saturating_add(keep) <= now
        {
            below = Some(coverage);
            self.told.pop_front();
        }
        let below = below.unwrap_or(0).min(self.sealed);
        while self.pieces.front().is_some_and(|piece| piece.end <= below) {
            self.pieces.pop_front();
        }
    }

    /// What the pieces take.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for piece in &self.pieces {
            match piece.held {
                Held::Disk { .. } => memory.on_disk += 1,
                Held::Memory(_) => {
                    memory.pieces += 1;
                    let sum = if piece.end <= self.sealed { &mut memory.sealed } else { &mut memory.unsealed };
                    *sum += piece.bytes;
                }
            }
        }
        memory
    }

    /// Log time of the oldest piece that can be let go of.
    #[must_use]
    pub fn oldest(&self) -> Option<i64> {
        self.evictable().map(|at| self.pieces[at].log_time)
    }

    fn evictable(&self) -> Option<usize> {
        self.pieces.iter().position(|piece| piece.end <= self.sealed && matches!(piece.held, Held::Memory(_)))
    }

    /// Lets go of the oldest sealed piece; returns the bytes that it took.
    pub fn evict(&mut self) -> usize {
        let Some(at) = self.evictable() else { return 0 };
        let bytes = self.pieces[at].let_go();
        self.join_on_disk(at);
        bytes
    }

    /// Makes one of the pieces on disk around `at` that nobody wants in memory, but not across a cut.
    fn join_on_disk(&mut self, at: usize) {
        let joins = |one: &Piece, next: &Piece| one.is_lost() && next.is_lost() && !next.at_cut;
        if let Some(next) = self.pieces.get(at + 1)
            && joins(&self.pieces[at], next)
            && let Some(next) = self.pieces.remove(at + 1)
        {
            self.pieces[at].append(&next);
        }
        if at > 0
            && joins(&self.pieces[at - 1], &self.pieces[at])
            && let Some(piece) = self.pieces.remove(at)
        {
            self.pieces[at - 1].append(&piece);
        }
    }

    /// Segments that are not runs yet.
    #[must_use]
    pub fn unfrozen(&self) -> Vec<FinishedSegment> {
        self.pieces.iter().filter(|piece| piece.is_raw()).filter_map(Piece::segment).collect()
    }

    /// Puts the run of a segment in the place of its counts.
    pub fn freeze(&mut self, segment: &Summary, run: &Arc<Run>) {
        if let Some(piece) = self.piece_mut(segment.start, segment.end)
            && piece.is_raw()
        {
            piece.hold(Arc::clone(run));
        }
    }

    /// Takes the run of a range that was read from disk.
    pub fn load(&mut self, start: u64, end: u64, run: Arc<Run>) {
        if let Some(piece) = self.piece_mut(start, end)
            && piece.is_wanted()
        {
            piece.hold(run);
        }
    }

    /// What is still on disk stays there.
    pub fn stop_loading(&mut self) {
        for piece in &mut self.pieces {
            piece.give_up();
        }
        let mut at = 1;
        while at < self.pieces.len() {
            let before = self.pieces.len();
            self.join_on_disk(at);
            if self.pieces.len() == before {
                at += 1;
            }
        }
    }

    fn piece_mut(&mut self, start: u64, end: u64) -> Option<&mut Piece> {
        self.pieces.iter_mut().find(|piece| piece.start == start && piece.end == end)
    }
}

fn push_parts(parts: &mut Vec<Part>, held: &Held, range: Range<u64>) {
    match (held, parts.last_mut()) {
        (Held::Memory(counts), _) => parts.extend(counts.iter().cloned().map(Part::Memory)),
        (Held::Disk { .. }, Some(Part::Disk(last))) if last.end == range.start => last.end = range.end,
        (Held::Disk { .. }, _) => parts.push(Part::Disk(range)),
    }
}
