//! Whether the raw events of a minute are what was counted: a pure verdict on sums.

use serde::Serialize;
use utoipa::ToSchema;

/// A number of events, and the wrapping sum of their key hashes: one lost and one counted twice still show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) count: u64,
    pub(super) fingerprint: u64,
}

impl Sum {
    pub(super) const fn add(&mut self, count: u64, fingerprint: u64) {
        self.count = self.count.saturating_add(count);
        self.fingerprint = self.fingerprint.wrapping_add(fingerprint);
    }
}

/// What is known when the verdict is found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// What batch has counted.
    pub(super) batch: Sum,
    /// What the stream has counted from coverage on.
    pub(super) stream: Sum,
    /// Distinct raw events below coverage.
    pub(super) raw_covered: Sum,
    /// Distinct raw events from there to where the stream stands.
    pub(super) raw_uncovered: Sum,
    /// All of those, repeats included.
    pub(super) raw: u64,
    /// Whether the answer holds all that it should.
    pub(super) complete: bool,
    /// Whether the raw events of some partition do not reach as far as the stream.
    pub(super) behind: bool,
    /// Whether raw events of the date may be gone.
    pub(super) gone: bool,
}

/// Whether the raw events are what was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Check {
    /// The verdict.
    pub verdict: CheckVerdict,
    /// It, in a sentence.
    pub explanation: String,
    /// The count now: batch and stream.
    pub answer: u64,
    /// What of it batch has counted.
    pub batch: u64,
    /// What of it the stream has counted.
    pub stream: u64,
    /// Raw events, repeats included.
    pub raw: u64,
    /// The first of every key among them.
    pub raw_distinct: u64,
    /// Of those, the ones that batch has covered.
    pub raw_covered: u64,
    /// Of those, the others.
    pub raw_uncovered: u64,
}

/// See [`Check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckVerdict {
    /// Counts and fingerprints are the same.
    Agrees,
    /// The answer itself is not whole.
    Incomplete,
    /// Not all that the stream has counted is archived yet.
    RawBehind,
    /// Raw events of the date are no longer all kept.
    RawGone,
    /// They are not the same.
    Differs,
}

impl Known {
    pub(super) fn check(&self) -> Check {
        let verdict = self.verdict();
        Check {
            verdict,
            explanation: self.explain(verdict),
            answer: self.batch.count.saturating_add(self.stream.count),
            batch: self.batch.count,
            stream: self.stream.count,
            raw: self.raw,
            raw_distinct: self.raw_covered.count.saturating_add(self.raw_uncovered.count),
            raw_covered: self.raw_covered.count,
            raw_uncovered: self.raw_uncovered.count,
        }
    }

    fn verdict(&self) -> CheckVerdict {
        let (batch_agrees, stream_agrees) = (self.batch == self.raw_covered, self.stream == self.raw_uncovered);
        if batch_agrees && stream_agrees {
            CheckVerdict::Agrees
        } else if !self.complete {
            CheckVerdict::Incomplete
        } else if !batch_agrees && self.gone {
            CheckVerdict::RawGone
        } else if batch_agrees && self.behind && self.raw_uncovered.count < self.stream.count {
            CheckVerdict::RawBehind
        } else {
            CheckVerdict::Differs
        }
    }

    fn explain(&self, verdict: CheckVerdict) -> String {
        match verdict {
            CheckVerdict::Agrees => "the distinct raw events are what was counted, one for one".to_owned(),
            CheckVerdict::Incomplete => "the answer is not complete: provenance says what it misses".to_owned(),
            CheckVerdict::RawBehind => {
                "the stream has counted events that are not archived yet; they are within a minute".to_owned()
            }
            CheckVerdict::RawGone => "raw events of this date are no longer all kept".to_owned(),
            CheckVerdict::Differs if self.batch != self.raw_covered => {
                "batch has counted something else than the raw events that it covers: an audit says more".to_owned()
            }
            CheckVerdict::Differs if self.stream.count > self.raw_uncovered.count => {
                "the stream has counted more than there are distinct raw events: repeats that came after its window, \
                 which the next batch run corrects"
                    .to_owned()
            }
            CheckVerdict::Differs => {
                "the stream has counted something else than the raw events from coverage on: the next batch run counts \
                 them exactly"
                    .to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn sum(count: u64, fingerprint: u64) -> Sum {
        Sum { count, fingerprint }
    }

    #[test]
    fn every_difference_has_its_verdict() {
        let same = Known {
            batch: sum(2, 7),
            stream: sum(1, 5),
            raw_covered: sum(2, 7),
            raw_uncovered: sum(1, 5),
            raw: 4,
            complete: true,
            behind: false,
            gone: false,
        };
        let cases = [
            (same, CheckVerdict::Agrees),
            (Known { complete: false, gone: true, behind: true, ..same }, CheckVerdict::Agrees),
            (Known { stream: sum(0, 0), complete: false, ..same }, CheckVerdict::Incomplete),
            (Known { raw_uncovered: sum(0, 0), behind: true, ..same }, CheckVerdict::RawBehind),
            (Known { raw_uncovered: sum(0, 0), ..same }, CheckVerdict::Differs),
            (Known { raw_covered: sum(1, 3), gone: true, ..same }, CheckVerdict::RawGone),
            (Known { raw_covered: sum(1, 3), behind: true, ..same }, CheckVerdict::Differs),
            // One lost and another counted twice: the count alone would not show it.
            (Known { raw_covered: sum(2, 8), ..same }, CheckVerdict::Differs),
            (Known { raw_uncovered: sum(2, 9), behind: true, ..same }, CheckVerdict::Differs),
        ];
        for (known, verdict) in cases {
            let check = known.check();
            assert_eq!(check.verdict, verdict, "{known:?}");
            assert_eq!(check.answer, check.batch + check.stream);
            assert!(!check.explanation.is_empty());
        }
    }
}
