//! Histories under folding, eviction, coverage and loading: a tail is whole, or it is gone.

use proptest::prelude::*;
use reckon_data::logtime::LogTime;
use reckon_data::metric::Cell;
use reckon_data::run::RunBuilder;

use super::*;

fn run_of(count: u64) -> Arc<Run> {
    let mut builder = RunBuilder::new();
    let entity = "v";
    let cell = Cell::counted(count, count, 0);
    builder.add(reckon_data::key::entity_hash(entity), entity, "view", 0, &[None], &cell).unwrap();
    Arc::new(builder.finish().unwrap())
}

/// A segment [n, n + 1) with 2^n events.
fn segment(n: u64, at_cut: bool) -> FinishedSegment {
    let summary = Summary {
        partition: 0,
        start: n,
        end: n + 1,
        accepted: 1 << n,
        counted: 1 << n,
        duplicate: 0,
        dead: 0,
        fingerprint: 1 << n,
        log_time: LogTime::at(n as i64),
        event_time_max: 0,
        refill_offset: n,
        refill_log_time: LogTime::UNSET,
        definition: 0,
    };
    FinishedSegment { summary, at_cut, counts: vec![Counts::Run(run_of(1 << n))] }
}

/// The segments of a tail, as a sum of powers of two.
fn segments_of(parts: &[Part]) -> u64 {
    parts
        .iter()
        .map(|part| match part {
            Part::Memory(counts) => counts.freeze().unwrap().total_count(),
            Part::Disk(range) => range.clone().map(|n| 1 << n).sum(),
        })
        .fold(0, |sum, part| {
            assert_eq!(sum & part, 0, "overlap");
            sum | part
        })
}

#[derive(Debug, Clone)]
enum Step {
    Push { cut: bool },
    Seal,
    Fold,
    Evict,
    Cover,
    Drop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<prop::sample::Index>().prop_map(|n| Step::Push { cut: n.index(8) == 0 }),
        4 => Just(Step::Seal),
        4 => Just(Step::Fold),
        1 => Just(Step::Evict),
        1 => Just(Step::Cover),
        1 => Just(Step::Drop),
    ]
}

proptest! {
    #[test]
    fn a_tail_is_whole_whatever_happens(steps in prop::collection::vec(step(), 1..150)) {
        let mut history = History::default();
        let (mut pushed, mut cuts, mut coverage, mut dropped) = (0_u64, vec![0], 0, 0);
        for step in steps {
            match step {
                Step::Push { cut } if pushed < 60 => {
                    history.push(segment(pushed, cut));
                    if cut { cuts.push(pushed) }
                    pushed += 1;
                }
                Step::Push { .. } => {}
                Step::Seal => {
                    if let Some(last) = history.unsealed().last() { history.seal(&last.summary) }
                }
                Step::Fold => {
                    if let Some(fold) = history.plan_fold(usize::MAX) {
                        let run = fold.run();
                        history.fold(&fold, run);
                    }
                }
                Step::Evict => { history.evict(); }
                Step::Cover => {
                    coverage = *cuts.iter().rfind(|cut| **cut <= history.sealed()).unwrap();
                    history.cover(coverage, 0);
                }
                Step::Drop => { history.drop_covered(10, 10); dropped = coverage; }
            }
            prop_assert_eq!(history.end(), pushed);
            for from in cuts.iter().copied().filter(|cut| *cut >= dropped) {
                let tail = history.tail(from).unwrap();
                prop_assert_eq!(segments_of(&tail), (1 << pushed) - (1 << from));
            }
            // Other boundaries may be gone, but are never answered in part.
            for from in 0..=pushed {
                if let Some(tail) = history.tail(from) {
                    prop_assert_eq!(segments_of(&tail), (1 << pushed) - (1 << from));
                }
            }
        }
    }
}

#[test]
fn folding_leaves_few_pieces() {
    let mut history = History::default();
    for n in 0..60 {
        history.push(segment(n, false));
        history.seal(&segment(n, false).summary);
        while let Some(fold) = history.plan_fold(usize::MAX) {
            let run = fold.run();
            history.fold(&fold, run);
        }
    }
    assert!(history.memory().pieces <= 9, "{:?}", history.memory());
    assert_eq!(segments_of(&history.tail(0).unwrap()), (1 << 60) - 1);
}

#[test]
fn what_was_covered_is_kept_for_a_while() {
    let mut history = History::default();
    for n in 0..4 {
        history.push(segment(n, n == 2));
    }
    history.seal(&segment(3, false).summary);
    history.cover(2, 100);
    history.cover(2, 190);
    history.drop_covered(199, 100);
    assert!(history.tail(0).is_some());
    history.drop_covered(200, 100);
    assert!(history.tail(0).is_none());
    assert_eq!(segments_of(&history.tail(2).unwrap()), 0b1100);
}

#[test]
fn what_is_on_disk_can_be_loaded_or_given_up() {
    let mut history = History::new(3, 0, 0);
    for n in 0..3 {
        history.recover(&(n..n + 1), n as i64);
    }
    assert!(matches!(history.tail(0).unwrap().as_slice(), [Part::Disk(range)] if *range == (0..3)));
    history.load(2, 3, run_of(1 << 2));
    history.stop_loading();
    history.load(1, 2, run_of(1 << 1));
    let tail = history.tail(0).unwrap();
    assert!(matches!(&tail[..], [Part::Disk(range), Part::Memory(_)] if *range == (0..2)));
    assert!(history.tail(1).is_some(), "segments on disk lie apart");
    assert_eq!(segments_of(&tail), 0b111);
}
