//! The partition counter against the definitions it implements, and against itself after a restart.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use reckon_data::dead::DeadLetter;
use reckon_data::event::Refusal;
use reckon_data::record::{Record, decode, encode_dead};

use super::*;
use crate::counter::testing::{Appended, Entry, Sample, log};

const WINDOW: u32 = 3;

fn rules(segment_events: u64) -> Rules {
    Rules { dedup_minutes: WINDOW, segment_events, definition: Arc::default() }
}

fn records(log: &[Appended]) -> Vec<Record> {
    log.iter().map(|appended| decode(&appended.encode()).unwrap()).collect()
}

fn run_all(counter: &mut PartitionCounter, records: &[Record]) -> Vec<FinishedSegment> {
    let start = counter.next() as usize;
    let mut finished = Vec::new();
    for (offset, record) in (0..).zip(records).skip(start) {
        finished.extend(counter.apply(offset, record).unwrap());
    }
    finished
}

/// Segment ends, and how many events are counted below each, straight from the definitions.
fn oracle(log: &[Appended], segment_events: u64) -> Vec<(u64, u64)> {
    let (mut ends, mut counted, mut events, mut start) = (Vec::new(), 0, 0, 0);
    let mut log_time = LogTime::UNSET;
    let mut last: HashMap<u64, i64> = HashMap::new();
    for (offset, appended) in (0..).zip(log) {
        let now = log_time.after(appended.time);
        if offset > start && (matches!(appended.entry, Entry::Cut) || now.minute() != log_time.minute()) {
            ends.push((offset, counted));
            (start, events) = (offset, 0);
        }
        log_time = now;
        let minute = now.minute().unwrap();
        match &appended.entry {
            Entry::Cut => {}
            Entry::Dead(number) => events += *number as u64,
            Entry::Events(samples) => {
                events += samples.len() as u64;
                for sample in samples {
                    let before = last.insert(sample.event().key().hash(), minute);
                    counted += u64::from(before.is_none_or(|before| before < minute - i64::from(WINDOW)));
                }
            }
        }
        if events >= segment_events {
            ends.push((offset + 1, counted));
            (start, events) = (offset + 1, 0);
        }
    }
    ends
}

proptest! {
    #[test]
    fn segments_end_and_count_as_defined(log in log(1..60), segment_events in prop_oneof![Just(1_000_000_u64), 5..80_u64]) {
        let mut counter = PartitionCounter::new(0, rules(segment_events));
        let finished = run_all(&mut counter, &records(&log));
        let mut counted = 0;
        let mut ends = Vec::new();
        let mut start = 0;
        for segment in &finished {
            let summary = segment.summary;
            prop_assert!(summary.is_balanced(), "R-1: {summary:?}");
            prop_assert_eq!(summary.start, start);
            prop_assert_eq!(segment.at_cut, matches!(log[start as usize].entry, Entry::Cut));
            prop_assert_eq!(segment.freeze().unwrap().total_count(), summary.counted);
            prop_assert!(summary.refill_offset <= summary.start);
            start = summary.end;
            counted += summary.counted;
            ends.push((summary.end, counted));
        }
        prop_assert_eq!(ends, oracle(&log, segment_events));
        prop_assert_eq!(counter.open_start(), start);
    }

    /// a counter that was stopped anywhere and goes on from its last sealed segment is the same counter.
    #[test]
    fn a_restart_changes_nothing(
        log in log(1..80),
        segment_events in prop_oneof![Just(1_000_000_u64), 5..80_u64],
        which in any::<prop::sample::Index>(),
    ) {
        let records = records(&log);
        let mut whole = PartitionCounter::new(0, rules(segment_events));
        let all = run_all(&mut whole, &records);
        prop_assume!(!all.is_empty());
        let at = which.index(all.len());
        let mut again = PartitionCounter::resume(rules(segment_events), &all[at].summary);
        while let Some(end) = again.refill_end() {
            prop_assert!(again.next() < end);
            again.refill(again.next(), &records[again.next() as usize]).unwrap();
        }
        prop_assert_eq!(again.next(), all[at].summary.end);
        let rest = run_all(&mut again, &records);
        prop_assert_eq!(rest.len(), all.len() - at - 1);
        for (one, other) in rest.iter().zip(&all[at + 1..]) {
            prop_assert_eq!(one.summary, other.summary);
            prop_assert_eq!(one.freeze().unwrap(), other.freeze().unwrap());
        }
        prop_assert_eq!(again.open_mut().take().len(), whole.open_mut().take().len());
    }

    /// nor does it change anything if the last summaries are gone, whatever clocks did before them.
    #[test]
    fn a_restart_from_an_older_summary_changes_nothing(
        log in log(1..80),
        segment_events in prop_oneof![Just(1_000_000_u64), 5..80_u64],
        which in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let records = records(&log);
        let all = run_all(&mut PartitionCounter::new(0, rules(segment_events)), &records);
        prop_assume!(!all.is_empty());
        let at = which.0.index(all.len());
        let (older, sealed) = (&all[which.1.index(at + 1)].summary, all[at].summary.end);
        let mut again = PartitionCounter::resume_past(rules(segment_events), older, sealed);
        while again.refill_end().is_some() {
            again.refill(again.next(), &records[again.next() as usize]).unwrap();
        }
        prop_assert_eq!(again.next(), sealed);
        let rest = run_all(&mut again, &records);
        prop_assert_eq!(rest.len(), all.len() - at - 1);
        for (one, other) in rest.iter().zip(&all[at + 1..]) {
            prop_assert_eq!(one.summary, other.summary);
            prop_assert_eq!(one.freeze().unwrap(), other.freeze().unwrap());
        }
    }
}

fn views(time: i64, ids: &[u32]) -> Appended {
    let sample =
        |id: &u32| Sample { id: id.to_string(), entity: "v".into(), event_type: "view".into(), ..Sample::default() };
    Appended { time, entry: Entry::Events(ids.iter().map(sample).collect()) }
}

#[test]
fn a_retry_after_an_idle_night_is_a_duplicate() {
    let night = 8 * reckon_data::minute::MICROS_PER_HOUR;
    let records = records(&[views(0, &[1]), views(night, &[2]), views(night + 1, &[2])]);
    let mut counter = PartitionCounter::new(0, rules(100));
    run_all(&mut counter, &records);
    assert_eq!((counter.totals().counted, counter.totals().duplicate), (2, 1));
}

#[test]
fn a_hole_is_refused() {
    let records = records(&[views(0, &[1])]);
    let mut counter = PartitionCounter::new(3, rules(100));
    assert!(matches!(counter.apply(1, &records[0]), Err(CountError::Hole { partition: 3, expected: 0, found: 1 })));
    counter.apply(0, &records[0]).unwrap();
    assert!(matches!(counter.apply(0, &records[0]), Err(CountError::Hole { expected: 1, found: 0, .. })));
}

#[test]
fn a_header_that_lies_and_a_time_out_of_range_are_refused() {
    let mut record = records(&[views(0, &[1, 2])]).remove(0);
    record.header.events = 3;
    let mut counter = PartitionCounter::new(0, rules(100));
    assert!(matches!(counter.apply(0, &record), Err(CountError::Events { header: 3, found: 2, .. })));
    let far = Sample { time: i64::MAX, ..Sample::default() };
    let record = records(&[Appended { time: 0, entry: Entry::Events(vec![far]) }]).remove(0);
    assert!(matches!(counter.apply(0, &record), Err(CountError::EventTime { .. })));
    assert_eq!(counter.next(), 0);
}

#[test]
fn another_log_is_noticed_at_the_end_of_the_refill() {
    let minute = reckon_data::minute::MICROS_PER_MINUTE;
    let all = run_all(&mut PartitionCounter::new(0, rules(100)), &records(&[views(0, &[1]), views(2 * minute, &[2])]));
    let mut again = PartitionCounter::resume(rules(100), &all[0].summary);
    let other = records(&[views(7, &[1])]);
    assert!(matches!(again.apply(0, &other[0]), Err(CountError::NotRefilled { .. })));
    assert!(matches!(again.refill(0, &other[0]), Err(CountError::OtherLog { .. })));
}

/// setting a sealed record aside must not keep the partition from going on.
#[test]
fn a_sealed_record_that_was_given_up_takes_log_time_from_what_was_sealed() {
    let minute = 60_000_000;
    // A clock that was an hour ahead, and is not any more.
    let log = [views(minute, &[1]), views(61 * minute, &[2]), views(2 * minute, &[3])];
    let finished = run_all(&mut PartitionCounter::new(0, rules(1)), &records(&log));
    let sealed = finished[1].summary;
    assert_eq!((sealed.start, sealed.end), (1, 2));
    let mut records = records(&log);
    records[1] = given_up(minute);
    let mut again = PartitionCounter::resume(rules(1), &sealed);
    while again.refill_end().is_some() {
        again.refill(again.next(), &records[again.next() as usize]).unwrap();
    }
    assert_eq!(again.reached().log_time, sealed.log_time);
    // And at the next start, with what was sealed after that.
    let next = again.apply(2, &records[2]).unwrap().remove(0).summary;
    assert_eq!((next.start, next.end, next.log_time), (2, 3, sealed.log_time));
    let mut again = PartitionCounter::resume(rules(1), &next);
    while again.refill_end().is_some() {
        again.refill(again.next(), &records[again.next() as usize]).unwrap();
    }
    assert_eq!(again.reached().log_time, next.log_time);
}

/// a record that had nothing to say of log time changes nothing of what is refilled from later on.
#[test]
fn a_record_given_up_between_its_neighbours_leaves_log_time_as_it_was() {
    let minute = 60_000_000;
    let log: Vec<_> = (1..=14_u32).map(|at| views(i64::from(at) * minute, &[at])).collect();
    let mut expected = PartitionCounter::new(0, rules(1));
    let summaries: Vec<_> = run_all(&mut expected, &records(&log)).iter().map(|segment| segment.summary).collect();
    let mut records = records(&log);
    records[1] = given_up(2 * minute);
    let mut again = PartitionCounter::resume(rules(1), &summaries[4]);
    while again.refill_end().is_some() {
        again.refill(again.next(), &records[again.next() as usize]).unwrap();
    }
    for (offset, expected) in (5..).zip(&summaries[5..]) {
        assert_eq!(again.apply(offset, &records[offset as usize]).unwrap()[0].summary, *expected, "offset {offset}");
    }
}

/// The record that takes the place of a damaged one.
fn given_up(append_time: i64) -> Record {
    let letter = DeadLetter::new(&Refusal::whole(Reason::DamagedRecord, "gone".to_owned()), None, b"");
    decode(&encode_dead(&[letter], 0, append_time).unwrap()).unwrap()
}
