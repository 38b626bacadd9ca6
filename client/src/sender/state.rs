//! Everything a sender knows, and what the outcome of a step changes in it: no I/O here.

use std::time::Duration;

use reckon_data::receipt::Receipt;
use tokio::time::Instant;
use uuid::Uuid;

use super::backlog::{Backlog, Mark, Sealed};
use super::error::SendError;
use super::stats::Stats;

/// For so long nothing is written to a spill that could not be written to.
const SPILL_REST: Duration = Duration::from_secs(1);

/// Everything a sender knows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) backlog: Backlog,
    stats: Stats,
    is_closed: bool,
    has_ended: bool,
}

/// What a server said of a batch.
#[derive(Debug)]
pub(super) enum Answer {
    /// Verdicts on its events.
    Judged(Receipt),
    /// It is refused as a whole, for good.
    Refused(String),
}

/// The outcome of sending: an answer, or why no server gives one for now.
pub(super) type Outcome = Result<Answer, String>;

/// What became of a file that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It was not what was written, and is set aside.
    Aside,
    /// Somebody took it away.
    Missing,
    /// It is there, and may be read later.
    There,
}

/// What came of a step.
#[derive(Debug)]
pub(super) enum Done {
    /// A batch was sent.
    Sent { id: Uuid, sealed: Sealed, outcome: Outcome },
    /// A batch of so many events was read back from the spill and sent; the trouble is that its file still has its name
    /// although it was answered.
    SentBack { id: Uuid, events: u64, outcome: Outcome, trouble: Option<String> },
    /// A file of the spill cannot be read.
    Unread { id: Uuid, file: Unread, reason: String },
    /// A batch was written to the spill, unless there was trouble.
    Spilled { id: Uuid, sealed: Sealed, trouble: Option<String> },
    /// The sender ended first.
    GivenUp,
}

impl State {
    pub(super) fn new(backlog: Backlog) -> Self {
        Self { backlog, stats: Stats::default(), is_closed: false, has_ended: false }
    }

    /// Takes an event, a line without its line break; returns whether there may be something new to do.
    ///
    /// # Errors
    /// [`SendError::Closed`].
    pub(super) fn push(&mut self, line: &[u8], now: Instant) -> Result<bool, SendError> {
        if self.is_closed || self.has_ended {
            return Err(SendError::Closed);
        }
        self.stats.sent += 1;
        Ok(self.backlog.push(line, now))
    }

    /// Takes no more events.
    pub(super) const fn close(&mut self) {
        self.is_closed = true;
    }

    /// Does no more steps.
    pub(super) const fn end(&mut self) {
        self.has_ended = true;
    }

    /// What became of all that was there at `mark`; none when that is not known yet.
    pub(super) fn verdict(&mut self, mark: Mark) -> Option<Result<(), SendError>> {
        let verdict = self.backlog.verdict(mark);
        if verdict.is_none() && self.has_ended { Some(Err(SendError::Closed)) } else { verdict }
    }

    pub(super) fn stats(&self) -> Stats {
        let waiting_bytes = self.backlog.held() as u64;
        Stats { waiting_bytes, spill_bytes: self.backlog.spill_bytes(), ..self.stats.clone() }
    }

    /// Notes what came of a step; returns the bytes of memory that are free now. When no server took a batch, none is
    /// asked for a time of `pause`.
    pub(super) fn finish(&mut self, done: Done, now: Instant, pause: Duration) -> usize {
        let later = |pause: Duration| now.checked_add(pause).unwrap_or(now);
        let until = later(pause);
        match done {
            Done::Sent { id, sealed, outcome: Ok(answer) } => {
                self.note_answer(id, sealed.events, answer);
                return self.backlog.answered(id, &sealed);
            }
            Done::Sent { id, sealed, outcome: Err(reason) } => {
                self.backlog.not_taken(id, sealed, now, until, &reason);
                self.stats.retried += 1;
                self.stats.error = Some(reason);
            }
            Done::SentBack { id, events, outcome: Ok(answer), trouble } => {
                let is_kept = matches!(answer, Answer::Refused(_)) && trouble.is_none();
                self.stats.refused_files += u64::from(is_kept);
                self.note_answer(id, events, answer);
                self.backlog.answered_back(id, trouble.is_none());
                self.note_trouble(trouble);
            }
            Done::SentBack { id, outcome: Err(reason), .. } => {
                self.backlog.not_taken_back(id, now, until, &reason);
                self.stats.retried += 1;
                self.stats.error = Some(reason);
            }
            Done::Unread { id, file, reason } => {
                match file {
                    Unread::There => self.backlog.not_taken_back(id, now, until, &reason),
                    Unread::Aside | Unread::Missing => self.backlog.gone(id),
                }
                self.stats.damaged += u64::from(file == Unread::Aside);
                self.stats.missing += u64::from(file == Unread::Missing);
                self.stats.error = Some(reason);
            }
            Done::Spilled { sealed, trouble: None, .. } => {
                self.stats.spilled += sealed.events;
                return self.backlog.spilled(&sealed);
            }
            Done::Spilled { id, sealed, trouble: Some(reason) } => {
                self.backlog.not_spilled(id, sealed, later(SPILL_REST), &reason);
                self.stats.error = Some(reason);
            }
            Done::GivenUp => {}
        }
        0
    }

    fn note_answer(&mut self, id: Uuid, events: u64, answer: Answer) {
        match answer {
            Answer::Judged(receipt) => self.stats.judged(id, events, receipt),
            Answer::Refused(reason) => {
                self.stats.refused_whole(id, events, &reason);
                self.backlog.lost(events, &reason);
                self.stats.error = Some(reason);
            }
        }
    }

    fn note_trouble(&mut self, trouble: Option<String>) {
        if trouble.is_some() {
            self.stats.error = trouble;
        }
    }
}

#[cfg(test)]
mod tests;
