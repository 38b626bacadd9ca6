//! Some seeds in every test run, and that a seed replays.

use super::*;

/// So many seeds are run by every test run; `simulate` runs more.
const SEEDS: u64 = 24;

#[test]
fn seeds_run_without_a_violation() {
    let mut struck = std::collections::BTreeMap::new();
    for seed in 0..SEEDS {
        let outcome = run(&Plan::of(seed));
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert!(outcome.acknowledged > 1_000 && outcome.answers > 60, "{outcome:?}");
        for (kind, times) in outcome.struck {
            *struck.entry(kind).or_insert(0) += times;
        }
    }
    // Had nothing gone wrong, or nothing gone on, all of that would show nothing.
    for kind in [
        "crash after: log append",
        "crash before: store put",
        "crash after: table commit",
        "error: table commit",
        "unknown outcome: table commit",
        "unknown outcome: log append",
        "stall: store put",
        "stopped, replaced, and gone on",
        "clock set back",
        "done: batch",
        "done: maintenance",
        "done: compacted events",
        "done: compacted stream counts",
        "done: dropped covered segments",
        "done: rolled up old dates",
        "bit flipped: log",
        "bit flipped: events",
        "bit flipped: stream_counts",
        "bit flipped: batch_counts",
        "log made anew",
        "log restored from an older copy",
        "done: trim",
        "done: deleted what nothing refers to",
        "list: lacks files",
        "list: stale",
        "done: replay that counts",
        "replay beside another",
        "replay: the process dies",
        "replay: fails, and is tried again",
    ] {
        assert!(struck.contains_key(kind), "{kind} is not among {struck:?}");
    }
}

/// Seeds that have found a defect of the product once: docs/FAULTS.md says which.
const FOUND: [u64; 2] = [60_004, 60_006];

#[test]
fn seeds_that_found_a_defect_find_it_no_more() {
    for seed in FOUND {
        assert_eq!(run(&Plan::of(seed)).violation, None, "seed {seed}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 2, 3] {
        assert_eq!(run(&Plan::of(seed)), run(&Plan::of(seed)));
    }
}
