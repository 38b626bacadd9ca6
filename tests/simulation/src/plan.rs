//! What a run does, and what became of it.

use std::collections::{BTreeMap, BTreeSet};

/// What a run does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// All else follows from it.
    pub seed: u64,
    /// Steps.
    pub steps: u32,
    /// Events that are sent in each.
    pub events: usize,
    /// What does not happen.
    pub without: BTreeSet<Kind>,
    /// Whether all I/O is to be told in words.
    pub tell: bool,
}

/// Kinds of things that happen beside traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Kind {
    /// Batch runs.
    Batch,
    /// Compaction, and dropping what is covered.
    Maintain,
    /// Trimming the log.
    Trim,
    /// Processes die.
    Crash,
    /// Processes are stopped, replaced, and go on.
    Rival,
    /// Clocks are set.
    Clock,
    /// I/O fails, or takes long.
    Storm,
    /// Bits flip in data files and in the log.
    Flip,
    /// The log is another one: made anew, or restored from an older copy.
    Log,
    /// Dead letters are replayed.
    Replay,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Batch,
        Self::Maintain,
        Self::Trim,
        Self::Crash,
        Self::Rival,
        Self::Clock,
        Self::Storm,
        Self::Flip,
        Self::Log,
        Self::Replay,
    ];

    /// What happens in a step, if anything.
    pub(crate) const fn of(number: u32) -> Option<Self> {
        Some(match number {
            // Half of the time of a seed goes into these.
            0..12 => Self::Batch,
            12..16 => Self::Replay,
            18..30 => Self::Maintain,
            30..40 => Self::Trim,
            40..55 => Self::Crash,
            55..60 => Self::Rival,
            60..65 => Self::Clock,
            65..85 => Self::Storm,
            85..88 => Self::Flip,
            88..90 => Self::Log,
            _ => return None,
        })
    }
}

impl Plan {
    /// Whether something is left out for most of a seed's time. Every fourth goes without batch runs: sealed files gather,
    /// are put together, and are read for long.
    pub(crate) const fn rests(&self, kind: Kind, step: u32) -> bool {
        matches!(kind, Kind::Batch) && self.seed % 4 == 1 && step < 40
    }

    /// What a seed does unless it is told otherwise.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        Self { seed, steps: 50, events: 42, without: BTreeSet::new(), tell: false }
    }
}

/// What became of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Events that were sent, repeats among them.
    pub sent: u64,
    /// Events that were acknowledged, each once.
    pub acknowledged: u64,
    /// Answers that were complete, and what the oracle says.
    pub answers: u64,
    /// Answers that said what is missing, or why there is none.
    pub incomplete: u64,
    /// How often each kind of fault struck.
    pub struck: BTreeMap<String, u64>,
    /// I/Os, and a hash of all of them.
    pub trace: (u64, u64),
    /// All I/O, if it was to be told.
    pub told: Vec<String>,
    /// What was not as it should be; the first ends the run.
    pub violation: Option<String>,
}
