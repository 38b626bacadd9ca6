//! The counter of one partition: a pure state machine over the records of its log.
//!
//! ```text
//! record ─▶ log time ─▶ does a segment end before it? ─▶ duplicates out ─▶ counts ─▶ or after it?
//! ```
//!
//! A segment ends before a record that moves log time into a new minute, before a cut, and after the record
//! with which its events reach the limit: a function of the log alone. All records of a segment so have
//! one minute of log time, which is what refilling goes by:
//!
//! ```text
//! minute      1    1    2    2    3    5    6
//! segments  [    |    |    |    |    |    |    )end       window 3: minutes 3 to 6 matter at `end`
//!                               ▲ refill offset
//! ```

mod error;
mod kinds;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Instant;

use reckon_data::columns::EventColumns;
use reckon_data::event::Reason;
use reckon_data::invariant;
use reckon_data::logtime::LogTime;
use reckon_data::minute::minute_of;
use reckon_data::record::{Body, Record};
use reckon_data::run::{Selection, StepSums};
use reckon_data::segment::Summary;

pub use error::CountError;
pub use kinds::{FinishedSegment, Reached, Rules, Totals};

use super::counts::{Counts, OpenCounts};
use super::dedup::DedupSet;

/// Where a segment begins, kept as long as its events can still make others duplicates.
#[derive(Debug, Clone, Copy)]
struct Begun {
    start: u64,
    log_time_before: LogTime,
    minute: i64,
}

/// The segment that is being counted.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    start: u64,
    log_time_before: LogTime,
    at_cut: bool,
    accepted: u64,
    counted: u64,
    duplicate: u64,
    dead: u64,
    fingerprint: u64,
}

/// Where refilling ends.
#[derive(Debug, Clone, Copy)]
struct Target {
    end: u64,
    /// As sealed; none when nobody knows.
    log_time: Option<LogTime>,
    event_time_max: i64,
}

/// Counts one partition.
#[derive(Debug)]
pub struct PartitionCounter {
    partition: u32,
    rules: Rules,
    version: u64,
    next: u64,
    log_time: LogTime,
    event_time_max: i64,
    dedup: DedupSet,
    recent: VecDeque<Begun>,
    tally: Tally,
    open: OpenCounts,
    refill: Option<Target>,
    /// The first record of the refill that was damaged and given up, or the last that is gone before it: what it had to say of
    /// log time is gone.
    given_up: Option<u64>,
    fresh: Vec<bool>,
    totals: Totals,
}

impl PartitionCounter {
    /// A counter that begins with the log.
    #[must_use]
    pub fn new(partition: u32, rules: Rules) -> Self {
        Self {
            partition,
            version: rules.definition.version(),
            next: 0,
            log_time: LogTime::UNSET,
            event_time_max: i64::MIN,
            dedup: DedupSet::new(rules.dedup_minutes),
            recent: VecDeque::new(),
            tally: Tally::default(),
            open: OpenCounts::new(&rules.definition),
            refill: None,
            given_up: None,
            fresh: Vec::new(),
            totals: Totals::default(),
            rules,
        }
    }

    /// A counter that goes on behind a sealed segment. It is first to be refilled with the records from the
    /// segment's refill offset to its end.
    #[must_use]
    pub fn resume(rules: Rules, sealed: &Summary) -> Self {
        let mut counter = Self::new(sealed.partition, rules);
        counter.next = sealed.refill_offset;
        counter.log_time = sealed.refill_log_time;
        counter.event_time_max = sealed.event_time_max;
        counter.begin_segment();
        if sealed.refill_offset < sealed.end {
            let Summary { end, log_time, event_time_max, .. } = *sealed;
            counter.refill = Some(Target { end, log_time: Some(log_time), event_time_max });
        }
        counter
    }

    /// A counter that goes on at `sealed`, where the summary is gone and `older` is the last one left. It is first to be
    /// refilled from where that one says: before the window of every later segment, and with log time as it was.
    #[must_use]
    pub fn resume_past(rules: Rules, older: &Summary, sealed: u64) -> Self {
        let mut counter = Self::resume(rules, older);
        counter.refill = Some(Target { end: sealed, log_time: None, event_time_max: older.event_time_max });
        counter
    }

    /// A counter that goes on behind a sealed segment, of whose refill the log has only what begins at `start`: repeats of
    /// what is gone will not be found.
    #[must_use]
    pub fn resume_late(rules: Rules, sealed: &Summary, start: u64) -> Self {
        let refills = start < sealed.end;
        let refill_log_time = if refills { LogTime::UNSET } else { sealed.log_time };
        let mut counter = Self::resume(rules, &Summary { refill_offset: start, refill_log_time, ..*sealed });
        // What is gone had something to say of log time, too, just as a record that was given up had.
        counter.given_up = start.checked_sub(1).filter(|_| refills);
        counter
    }

    /// A counter that goes on at `sealed`, of which no summary is left, and is first to be refilled from `start`,
    /// where the log begins now: more than a window before, unless `sealed` is less than that old.
    #[must_use]
    pub fn resume_without_summary(partition: u32, rules: Rules, start: u64, sealed: u64) -> Self {
        let mut counter = Self::new(partition, rules);
        counter.next = start;
        counter.begin_segment();
        if start < sealed {
            counter.refill = Some(Target { end: sealed, log_time: None, event_time_max: i64::MIN });
        }
        counter
    }

    /// Where refilling ends, as long as it has not.
    #[must_use]
    pub fn refill_end(&self) -> Option<u64> {
        self.refill.map(|target| target.end)
    }

    /// Takes a record for its keys only, because what it holds is counted already (R-4).
    ///
    /// # Errors
    /// [`CountError::Hole`]; [`CountError::Events`]; [`CountError::Refilled`] when refilling is over;
    /// [`CountError::OtherLog`] when it ends with another log time than the sealed segment did.
    pub fn refill(&mut self, offset: u64, record: &Record) -> Result<(), CountError> {
        let Some(target) = self.refill else {
            return Err(CountError::Refilled { partition: self.partition, offset });
        };
        if is_given_up(record) {
            self.given_up.get_or_insert(offset);
        }
        self.check(offset, record)?;
        let log_time = self.log_time.after(record.header.append_time);
        if self.ends_before(record, log_time) {
            self.end_segment();
        }
        self.log_time = log_time;
        if let Body::Events(events) = &record.body {
            self.dedup.insert_batch(events.key_hash.values(), log_time, &mut self.fresh);
            self.see_times(events);
        }
        let events = u64::from(record.header.events);
        if matches!(record.body, Body::Dead(_)) {
            self.tally.dead += events
        } else {
            self.tally.accepted += events
        }
        self.next += 1;
        if self.is_full() || self.next == target.end {
            self.end_segment();
        }
        if self.next < target.end {
            return Ok(());
        }
        self.refill = None;
        self.event_time_max = self.event_time_max.max(target.event_time_max);
        let sealed = target.log_time.unwrap_or(self.log_time);
        // Where a record was given up, log time cannot be held to what was sealed: it is set to it.
        if let Some(given_up) = self.given_up.take()
            && sealed != self.log_time
        {
            self.log_time_again(given_up, sealed);
        }
        if invariant::REPLAY.holds(sealed == self.log_time) {
            Ok(())
        } else {
            Err(CountError::OtherLog { partition: self.partition, offset: target.end })
        }
    }

    /// Log time is `log_time` again, as it was sealed, though the record at `given_up` does not say so any more. What began
    /// after that record is taken to have begun then: a refill that begins there has to end with that log time, too.
    fn log_time_again(&mut self, given_up: u64, log_time: LogTime) {
        self.log_time = log_time;
        self.tally.log_time_before = log_time;
        for begun in self.recent.iter_mut().filter(|begun| begun.start > given_up) {
            (begun.log_time_before, begun.minute) = (log_time, minute_of_log(log_time));
        }
    }

    /// Counts a record and returns the segments that end with it, before it or after it.
    ///
    /// # Errors
    /// See [`CountError`]: the record was not counted, or not as it should have been. The counter is of no
    /// use afterwards.
    pub fn apply(&mut self, offset: u64, record: &Record) -> Result<Vec<FinishedSegment>, CountError> {
        if self.refill.is_some() {
            return Err(CountError::NotRefilled { partition: self.partition, offset });
        }
        self.check(offset, record)?;
        let mut finished = Vec::new();
        let log_time = self.log_time.after(record.header.append_time);
        if self.ends_before(record, log_time) {
            finished.push(self.finish());
        }
        self.log_time = log_time;
        match &record.body {
            Body::Events(events) => self.count(offset, record.header.append_time, events)?,
            Body::Dead(letters) => self.tally.dead += letters.len() as u64,
            Body::Cut(_) => self.tally.at_cut |= self.is_at_start(),
        }
        self.next += 1;
        self.totals.records += 1;
        if self.is_full() {
            finished.push(self.finish());
        }
        Ok(finished)
    }

    /// What must hold of a record before anything of it is counted.
    fn check(&self, offset: u64, record: &Record) -> Result<(), CountError> {
        let partition = self.partition;
        if offset != self.next {
            return Err(CountError::Hole { partition, expected: self.next, found: offset });
        }
        let found = match &record.body {
            Body::Events(events) => events.len(),
            Body::Dead(letters) => letters.len(),
            Body::Cut(_) => 0,
        };
        let header = record.header.events;
        if found != header as usize {
            return Err(CountError::Events { partition, offset, header, found });
        }
        if let Body::Events(events) = &record.body {
            let times = events.event_time.values();
            let is_far = |time: &&i64| i32::try_from(minute_of(**time)).is_err();
            if let Some(time) = times.iter().find(is_far) {
                return Err(CountError::EventTime { partition, offset, time: *time });
            }
        }
        Ok(())
    }

    const fn is_at_start(&self) -> bool {
        self.next == self.tally.start
    }

    fn ends_before(&self, record: &Record, log_time: LogTime) -> bool {
        !self.is_at_start() && (matches!(record.body, Body::Cut(_)) || log_time.minute() != self.log_time.minute())
    }

    const fn is_full(&self) -> bool {
        self.tally.accepted + self.tally.dead >= self.rules.segment_events
    }

    fn count(&mut self, offset: u64, append_time: i64, events: &EventColumns) -> Result<(), CountError> {
        let hashes = events.key_hash.values();
        let begun = Instant::now();
        let duplicate = self.dedup.insert_batch(hashes, self.log_time, &mut self.fresh) as u64;
        let found = Instant::now();
        let late_before = self.rules.definition.late_before(append_time);
        let counted = self.open.add(events, &self.fresh, late_before)?;
        self.totals.dedup += found - begun;
        self.totals.group += found.elapsed();

        let accepted = events.len() as u64;
        if !invariant::CONSERVATION.holds(accepted == counted + duplicate) {
            return Err(CountError::Unbalanced { partition: self.partition, offset, accepted, counted, duplicate });
        }
        self.tally.accepted += accepted;
        self.tally.counted += counted;
        self.tally.duplicate += duplicate;
        self.totals.counted += counted;
        self.totals.duplicate += duplicate;
        for (hash, fresh) in hashes.iter().zip(&self.fresh) {
            self.tally.fingerprint = self.tally.fingerprint.wrapping_add(if *fresh { *hash } else { 0 });
        }
        self.see_times(events);
        Ok(())
    }

    fn see_times(&mut self, events: &EventColumns) {
        let latest = events.event_time.values().iter().copied().max();
        self.event_time_max = self.event_time_max.max(latest.unwrap_or(i64::MIN));
    }

    fn finish(&mut self) -> FinishedSegment {
        let Tally { start, at_cut, accepted, counted, duplicate, dead, fingerprint, .. } = self.tally;
        self.totals.dead += dead;
        let refill = self.end_segment();
        let summary = Summary {
            partition: self.partition,
            start,
            end: self.next,
            accepted,
            counted,
            duplicate,
            dead,
            fingerprint,
            log_time: self.log_time,
            event_time_max: self.event_time_max,
            refill_offset: refill.start,
            refill_log_time: refill.log_time_before,
            definition: self.version,
        };
        FinishedSegment { summary, at_cut, counts: self.open.take() }
    }

    /// Ends the segment at the next offset. Returns where refilling would have to begin.
    fn end_segment(&mut self) -> Begun {
        let minute = minute_of_log(self.log_time);
        let ended = Begun { start: self.tally.start, log_time_before: self.tally.log_time_before, minute };
        self.recent.push_back(ended);
        let oldest = minute - i64::from(self.rules.dedup_minutes);
        while self.recent.front().is_some_and(|begun| begun.minute < oldest) {
            self.recent.pop_front();
        }
        self.begin_segment();
        self.recent.front().copied().unwrap_or(ended)
    }

    fn begin_segment(&mut self) {
        self.tally = Tally { start: self.next, log_time_before: self.log_time, ..Tally::default() };
    }

    /// The next offset to be counted.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Where the open segment starts.
    #[must_use]
    pub const fn open_start(&self) -> u64 {
        self.tally.start
    }

    /// What is counted so far: during a refill, what had been sealed.
    #[must_use]
    pub fn reached(&self) -> Reached {
        let Target { end, log_time, event_time_max } = self.refill.unwrap_or(Target {
            end: self.next,
            log_time: Some(self.log_time),
            event_time_max: self.event_time_max,
        });
        Reached { offset: end, log_time: log_time.unwrap_or(self.log_time), event_time_max }
    }

    /// What was counted since the counter was made, finished segments only as far as dead letters go.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// The keys of the dedup window.
    #[must_use]
    pub const fn dedup(&self) -> &DedupSet {
        &self.dedup
    }

    /// The counts of the open segment.
    pub const fn open_mut(&mut self) -> &mut OpenCounts {
        &mut self.open
    }

    /// Adds what `selection` finds in the open segment to `into`, all but detached parts, which are returned.
    pub fn sum_open(&self, selection: &Selection<'_>, into: &mut StepSums) -> Vec<Counts> {
        self.open.sum(selection, into)
    }
}

/// Whether a record stands in the place of one that was damaged and set aside.
fn is_given_up(record: &Record) -> bool {
    let Body::Dead(letters) = &record.body else { return false };
    letters.iter().any(|letter| letter.reason == Reason::DamagedRecord.code())
}

/// The minute of log time; there is one as soon as a record was taken.
fn minute_of_log(log_time: LogTime) -> i64 {
    log_time.minute().unwrap_or(0)
}
