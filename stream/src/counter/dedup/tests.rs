//! The set against a map from hash to minute.

use std::collections::HashMap;

use proptest::prelude::*;
use reckon_data::minute::minute_of;

use super::*;

/// The begin of a minute of log time.
fn at(minute: i64) -> LogTime {
    LogTime::at(minute * MICROS_PER_MINUTE)
}

/// The definition, word for word.
#[derive(Debug, Default)]
struct Model {
    last: HashMap<u64, i64>,
    minute: Option<i64>,
}

impl Model {
    fn see(&mut self, minute: i64) -> i64 {
        *self.minute.insert(self.minute.map_or(minute, |now| now.max(minute)))
    }

    fn insert(&mut self, hash: u64, minute: i64, window: i64) -> bool {
        self.last.insert(hash, minute).is_some_and(|last| last >= minute - window)
    }
}

/// Few distinct hashes, some in one crowded sub-table, some of which wrap around its end.
fn hashes() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..40_u64,
        (0..400_u64).prop_map(|n| (7 << 58) | (n << 46)),
        (0..60_u64).prop_map(|n| (7 << 58) | ((1 << 58) - 1 - n)),
        (0..200_u64).prop_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    ]
}

/// Seconds of log time, and what occurs after them.
fn steps() -> impl Strategy<Value = Vec<(i64, Vec<u64>)>> {
    let minutes = prop_oneof![6 => 0..2_i64, 3 => 1..6_i64, 2 => 9..20_i64, 1 => 20..200_i64, 1 => -3..0_i64];
    let jump = (minutes, 0..60_i64).prop_map(|(minutes, seconds)| minutes * 60 + seconds);
    prop::collection::vec((jump, prop::collection::vec(hashes(), 0..150)), 1..60)
}

proptest! {
    #[test]
    fn it_is_the_last_occurrence_that_counts(start in -40..40_i64, window in 1..=WINDOW_MAX, steps in steps()) {
        let (mut set, mut model) = (DedupSet::new(window), Model::default());
        let (mut micros, mut fresh) = (start * MICROS_PER_MINUTE, Vec::new());
        for (seconds, hashes) in steps {
            micros += seconds * 1_000_000;
            let duplicates = set.insert_batch(&hashes, LogTime::at(micros), &mut fresh);
            let now = model.see(minute_of(micros));
            let expected: Vec<bool> = hashes.iter().map(|hash| !model.insert(*hash, now, window.into())).collect();
            prop_assert_eq!(&fresh, &expected);
            prop_assert_eq!(duplicates, expected.iter().filter(|fresh| !**fresh).count());
            prop_assert!(set.len() >= hashes.iter().collect::<std::collections::HashSet<_>>().len());
        }
    }

    #[test]
    fn however_it_is_cut_into_batches(hashes in prop::collection::vec(hashes(), 0..500), size in 1..100_usize) {
        let (mut whole, mut parts) = (DedupSet::new(10), DedupSet::new(10));
        let (mut expected, mut fresh) = (Vec::new(), Vec::new());
        whole.insert_batch(&hashes, at(5), &mut expected);
        let mut found = Vec::new();
        for chunk in hashes.chunks(size) {
            parts.insert_batch(chunk, at(5), &mut fresh);
            found.extend_from_slice(&fresh);
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(whole.len(), parts.len());
    }
}

/// A sequence without repeats that fills sub-tables evenly.
fn distinct(range: std::ops::Range<u64>) -> Vec<u64> {
    range.map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
}

#[test]
fn memory_grows_with_the_keys_and_goes_when_they_expire() {
    let mut set = DedupSet::new(10);
    let idle = set.memory_bytes();
    assert!(idle < 256 * 1024, "{idle}");
    let mut fresh = Vec::new();
    let keys = distinct(0..4_000_000);
    for chunk in keys.chunks(4_096) {
        assert_eq!(set.insert_batch(chunk, at(1), &mut fresh), 0);
    }
    assert_eq!(set.len(), keys.len());
    // 2.4 GB for 200 million are 12 bytes a key.
    assert!(set.memory_bytes() < idle + 12 * keys.len(), "{}", set.memory_bytes());
    assert!(set.expected_collisions() > 0.0);
    for _ in 0..2 {
        set.insert_batch(&[], at(30), &mut fresh);
    }
    assert!(set.is_empty());
    assert_eq!(set.memory_bytes(), idle);
}

/// Repeats find a table crowded and make it grow too.
#[test]
fn what_repeats_add_to_memory_goes_when_they_expire() {
    let mut set = DedupSet::new(10);
    let idle = set.memory_bytes();
    let mut fresh = Vec::new();
    for hash in distinct(0..200_000) {
        set.insert_batch(&[hash, hash], at(1), &mut fresh);
    }
    let slots: usize = set.tables.iter().map(SubTable::slots).sum();
    assert_eq!(set.memory_bytes(), idle + slots * size_of::<u64>());
    for _ in 0..2 {
        set.insert_batch(&[], at(30), &mut fresh);
    }
    assert_eq!((set.len(), set.memory_bytes()), (0, idle));
}

#[test]
fn memory_shrinks_with_the_rate() {
    let mut set = DedupSet::new(2);
    let mut fresh = Vec::new();
    set.insert_batch(&distinct(0..1_000_000), at(0), &mut fresh);
    let full = set.memory_bytes();
    for minute in 1..6 {
        set.insert_batch(&distinct(minute * 2_000_000..minute * 2_000_000 + 20_000), at(minute as i64), &mut fresh);
    }
    assert!(set.memory_bytes() * 4 < full, "{} of {full}", set.memory_bytes());
}

/// Neither right after busy minutes nor when minutes begin, and never because they are used.
#[test]
fn few_tables_are_cleaned_at_once() {
    let mut set = DedupSet::new(10);
    let (mut fresh, mut last, mut cleaned) = (Vec::new(), i64::MIN, vec![i64::MIN; TABLES]);
    // Sixteen busy minutes, and sixteen with a tenth of that.
    for batch in 0..32 * 60_u64 {
        let events = if batch < 16 * 60 { 1_000 } else { 100 };
        let keys = distinct(batch * 1_000..batch * 1_000 + events);
        set.insert_batch(&keys, LogTime::at(batch as i64 * 1_000_000 + 59_000_000), &mut fresh);
        let before = std::mem::replace(&mut cleaned, set.tables.iter().map(SubTable::cleaned).collect());
        let changed = before.iter().zip(&cleaned).filter(|(before, now)| **before > i64::MIN && before != now).count();
        assert!(changed <= TURNS_AT_ONCE, "{changed} in second {batch}");
        last = *cleaned.iter().min().unwrap();
    }
    assert!(last >= set.minute - 2, "the last one in minute {last}");
    // What has expired is gone.
    let alive = (10 + 4) * 60 * 100;
    assert!(set.len() < alive, "{}", set.len());
}

/// What a gap has made due is done in several turns.
#[test]
fn few_tables_are_cleaned_at_once_after_a_gap() {
    let mut set = DedupSet::new(10);
    let mut fresh = Vec::new();
    for second in 0..180_u64 {
        set.insert_batch(
            &distinct(second * 1_000..second * 1_000 + 1_000),
            LogTime::at(second as i64 * 1_000_000),
            &mut fresh,
        );
    }
    let mut all = Vec::new();
    for second in 240..300 {
        let before: Vec<i64> = set.tables.iter().map(SubTable::cleaned).collect();
        // Nothing comes that would have one cleaned because it is used.
        set.insert_batch(&[], LogTime::at(second * 1_000_000), &mut fresh);
        all.push(set.tables.iter().zip(before).filter(|(table, before)| table.cleaned() != *before).count());
    }
    assert_eq!(all.iter().max(), Some(&TURNS_AT_ONCE), "{all:?}");
    assert_eq!(all[..8], [TURNS_AT_ONCE; 8], "a minute's turns are due");
}

/// A record every few minutes has no time for all turns that are due, and the tables take them in order still.
#[test]
fn memory_goes_when_hardly_anything_comes_any_more() {
    let mut set = DedupSet::new(10);
    let idle = set.memory_bytes();
    let mut fresh = Vec::new();
    for second in 0..11 * 60_u64 {
        set.insert_batch(
            &distinct(second * 100..second * 100 + 100),
            LogTime::at(second as i64 * 1_000_000),
            &mut fresh,
        );
    }
    let busy = set.memory_bytes() - idle;
    for record in 0..6_u64 {
        let keys = distinct(66_000 + record * 3..66_003 + record * 3);
        set.insert_batch(&keys, at(18 + 7 * record as i64), &mut fresh);
    }
    assert!(set.memory_bytes() < idle + busy / 50, "{} of {busy}", set.memory_bytes() - idle);
}
