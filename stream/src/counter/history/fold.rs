//! Folding: which pieces are next, and putting the result in their place.

use std::sync::Arc;

use reckon_data::run::Run;

use super::History;
use super::piece::Piece;

/// So many pieces of a level become one of the next: a history of n segments has about 3 log₄ n pieces, and
/// each row is folded log₄ n times.
const FAN_IN: usize = 4;

/// Pieces to be folded.
#[derive(Debug)]
pub struct Fold {
    start: u64,
    end: u64,
    runs: Vec<Arc<Run>>,
}

impl Fold {
    /// The run that takes their place. Heavy on CPU.
    #[must_use]
    pub fn run(&self) -> Arc<Run> {
        Arc::new(Run::merge(&self.runs))
    }
}

impl History {
    /// The next pieces to be folded, the newest first, if they take at most `bytes_max`. Nothing below coverage,
    /// which no new query asks for.
    #[must_use]
    pub fn plan_fold(&self, bytes_max: usize) -> Option<Fold> {
        let last = self.pieces.len().checked_sub(FAN_IN)?;
        (0..=last).rev().find_map(|at| self.fold_at(at, bytes_max))
    }

    fn fold_at(&self, at: usize, bytes_max: usize) -> Option<Fold> {
        let pieces: Vec<&Piece> = self.pieces.range(at..at + FAN_IN).collect();
        let (first, last) = (pieces.first()?, pieces.last()?);
        let fits = first.start >= self.coverage
            && last.end <= self.sealed
            && pieces.iter().all(|piece| piece.level == first.level)
            && pieces.iter().skip(1).all(|piece| !piece.at_cut)
            && pieces.iter().map(|piece| piece.bytes).sum::<usize>() <= bytes_max;
        if !fits {
            return None;
        }
        let runs = pieces.iter().map(|piece| piece.run().cloned()).collect::<Option<Vec<_>>>()?;
        Some(Fold { start: first.start, end: last.end, runs })
    }

    /// Puts the folded run in place, unless the pieces have changed meanwhile.
    pub fn fold(&mut self, fold: &Fold, run: Arc<Run>) {
        let Some(at) = self.pieces.iter().position(|piece| piece.start == fold.start) else { return };
        if self.pieces.len() < at + FAN_IN {
            return;
        }
        let pieces: Vec<Piece> = self.pieces.range(at..at + FAN_IN).cloned().collect();
        let is_it = |(piece, run): (&Piece, &Arc<Run>)| piece.run().is_some_and(|own| Arc::ptr_eq(own, run));
        let same = pieces.iter().zip(&fold.runs).all(is_it) && pieces.last().is_some_and(|last| last.end == fold.end);
        if same && let Some(folded) = Piece::folded(&pieces, run) {
            self.pieces.drain(at..at + FAN_IN);
            self.pieces.insert(at, folded);
        }
    }
}
