//! Questions that are finer than what is still counted of a date.
//!
//! Where minutes of a date have been dropped its hours and days hold the same events, and whatever whole hours answer is
//! answered exactly. Anything finer would be a short answer, or a guess: it is refused, with what to ask instead.

use std::fmt;
use std::ops::Range;

use reckon_data::minute::{format_date, format_time, start_of_minute};
use reckon_data::run::Granularity;

/// Part of a question that no row of its date is fine enough for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledUp {
    /// UTC date, days since 1970.
    pub date: i32,
    /// The finest counts that the date has.
    pub kept: Granularity,
    /// The minutes of it, since 1970, that only finer rows could answer.
    pub minutes: Range<i64>,
    /// The step of the answer, minutes, where it has steps.
    pub step: Option<i64>,
}

impl RolledUp {
    /// The part of the question that is too fine.
    #[must_use]
    pub fn field(&self) -> &'static str {
        if self.is_step() {
            "step"
        } else if self.kept.start_of(self.minutes.start) == self.minutes.start {
            "to"
        } else {
            "from"
        }
    }

    fn is_step(&self) -> bool {
        self.step.is_some_and(|step| step > 0 && step % self.kept.steps() != 0)
    }
}

impl fmt::Display for RolledUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, kept) = (format_date(self.date), self.kept);
        write!(f, "{date} is rolled up: its finest counts are by the {kept}, and what they answer is exact; ")?;
        if self.is_step() {
            write!(f, "ask for a step of whole {kept}s")?;
        } else {
            let start = self.kept.start_of(self.minutes.start);
            let end = self.kept.start_of(self.minutes.end.saturating_add(self.kept.steps() - 1));
            let [start, end] = [start, end].map(|minute| format_time(start_of_minute(minute)));
            write!(f, "let from and to lie where {kept}s begin: here {start} and {end}")?;
        }
        write!(f, ". As long as raw events of the date are kept, SQL counts them in table events, however finely")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_fine_is_named_with_what_to_ask_instead() {
        let rolled = |minutes: Range<i64>, step| RolledUp { date: 1, kept: Granularity::Hour, minutes, step };
        let to = rolled(1_500..1_510, None);
        assert_eq!(to.field(), "to");
        assert!(to.to_string().starts_with("1970-01-02 is rolled up: its finest counts are by the hour"), "{to}");
        assert!(to.to_string().contains("1970-01-02T01:00:00Z and 1970-01-02T02:00:00Z"), "{to}");
        assert_eq!(rolled(1_510..1_560, Some(120)).field(), "from");
        let step = rolled(1_440..2_880, Some(15));
        assert_eq!(step.field(), "step");
        assert!(step.to_string().contains("a step of whole hours"), "{step}");
    }
}
