//! What always holds: a registry of the invariants, and counters of the checks that stay on in release.
//!
//! A check calls [`Invariant::holds`] and does what it must when the answer is no; `/metrics` shows how often each
//! was checked and found broken. What is costly to check is checked by tests and by the simulation, which cite the
//! same numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Something that always holds.
#[derive(Debug)]
pub struct Invariant {
    /// Its number.
    pub number: &'static str,
    /// What holds.
    pub sentence: &'static str,
    /// Where it is checked while Reckon runs, and by which tests.
    pub checked_by: &'static [&'static str],
    checks: AtomicU64,
    violations: AtomicU64,
}

impl Invariant {
    const fn new(number: &'static str, sentence: &'static str, checked_by: &'static [&'static str]) -> Self {
        Self { number, sentence, checked_by, checks: AtomicU64::new(0), violations: AtomicU64::new(0) }
    }

    /// Counts a check, and a violation if it does not hold; returns whether it does.
    #[must_use = "a violation calls for more than being counted"]
    pub fn holds(&self, holds: bool) -> bool {
        self.checks.fetch_add(1, Ordering::Relaxed);
        if !holds {
            self.violations.fetch_add(1, Ordering::Relaxed);
            tracing::error!(invariant = self.number, sentence = self.sentence, "an invariant is broken");
        }
        holds
    }

    /// How often it was checked since the process started.
    #[must_use]
    pub fn checks(&self) -> u64 {
        self.checks.load(Ordering::Relaxed)
    }

    /// How often it did not hold.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.violations.load(Ordering::Relaxed)
    }
}

/// Conservation.
pub static CONSERVATION: Invariant = Invariant::new(
    "R-1",
    "In every segment accepted = counted + duplicate, and received = accepted + dead.",
    &["stream/src/counter/partition", "simulation"],
);
/// Exact merge.
pub static EXACT_MERGE: Invariant = Invariant::new(
    "R-2",
    "An answer equals the number of distinct keys below the stream's position that match: no hole, no overlap.",
    &["batch/src/recompute/date.rs", "stream/src/counter/load.rs", "simulation", "torture"],
);
/// Durability.
pub static DURABILITY: Invariant = Invariant::new(
    "R-3",
    "Nothing acknowledged is lost, whatever crashes, whenever.",
    &["stream/src/gateway/round.rs", "stream/src/counter/recover.rs", "simulation", "torture"],
);
/// Replay.
pub static REPLAY: Invariant = Invariant::new(
    "R-4",
    "Replaying any range of the log any number of times changes nothing.",
    &["stream/src/counter/partition", "simulation", "torture"],
);
/// The same rows.
pub static SAME_ROWS: Invariant = Invariant::new(
    "R-5",
    "Recomputing the same raw segments gives the same rows, whatever the parallelism.",
    &["batch/src/recompute/date.rs", "batch/src/recompute/tests/laws.rs"],
);
/// Mergeable metrics.
pub static MERGEABLE: Invariant = Invariant::new(
    "R-6",
    "Metric merge is associative and commutative, with an identity.",
    &["batch/src/recompute/merge.rs", "data/src/metric/tests.rs"],
);
/// No silent hole.
pub static NO_SILENT_HOLE: Invariant = Invariant::new(
    "R-7",
    "An answer that may be incomplete says so and names what is missing.",
    &["serving/src/view/provenance.rs", "simulation"],
);
/// Dead letters.
pub static DEAD_LETTERS: Invariant = Invariant::new(
    "R-8",
    "Every refused event is in dead_letters with its bytes, or their hash, and its reason.",
    &["stream/src/gateway/worker.rs", "simulation"],
);
/// Provenance.
pub static PROVENANCE: Invariant = Invariant::new(
    "R-9",
    "Every answer carries its provenance.",
    &["serving/src/view/provenance.rs (tests)", "simulation"],
);

/// All of them, in order.
#[must_use]
pub fn all() -> [&'static Invariant; 9] {
    [
        &CONSERVATION,
        &EXACT_MERGE,
        &DURABILITY,
        &REPLAY,
        &SAME_ROWS,
        &MERGEABLE,
        &NO_SILENT_HOLE,
        &DEAD_LETTERS,
        &PROVENANCE,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_invariant_has_its_number_and_a_place() {
        for (at, invariant) in all().into_iter().enumerate() {
            assert_eq!(invariant.number, format!("R-{}", at + 1));
            assert!(!invariant.checked_by.is_empty());
        }
    }

    #[test]
    fn checks_and_violations_are_counted() {
        let invariant = Invariant::new("R-0", "One is one.", &["here"]);
        assert!(invariant.holds(true));
        assert!(!invariant.holds(false));
        assert_eq!((invariant.checks(), invariant.violations()), (2, 1));
    }
}
