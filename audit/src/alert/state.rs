//! What is told of a rule, and when: a pure function of what was seen so far.
//!
//! ```text
//!            rows                 rows for as long as `for`
//! inactive ───────▶ pending(since) ─────────────────────────▶ firing ──┐ every `repeat`: told again
//!     ▲  ▲             │ no rows: nothing is told               │   ◀──┘
//!     │  └─────────────┘                                        │ no rows: told, resolved
//!     └─────────────────────────────────────────────────────────┘
//! ```
//!
//! Beside it a rule whose query fails: that is told once, after [`FAILURES_TOLD`] in a row, and once more when it is
//! answered again. What cannot be asked changes nothing of whether the alert fires: nobody knows.

use reckon_data::clock::Names;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// So many failures in a row are told: partitions that change hands, or a busy moment, make one.
pub const FAILURES_TOLD: u32 = 2;

/// What was seen when the rule's query was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It returned rows.
    Rows,
    /// It returned none.
    Nothing,
    /// It was not answered.
    Failed,
}

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The query returns rows.
    Firing,
    /// What was told under this id is over.
    Resolved,
    /// The query is not answered: whether the alert should fire nobody knows.
    Failing,
}

impl State {
    /// Its name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Failing => "failing",
        }
    }
}

/// Something to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tell {
    /// What.
    pub state: State,
    /// The same from the first message to the one that it is over.
    pub id: Uuid,
    /// Since when, microseconds.
    pub since: i64,
    /// 0, or the how many-th reminder it is.
    pub reminder: u32,
    /// Whether it is about a query that is not answered.
    pub of_failure: bool,
}

/// How a rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Inactive,
    Pending { since: i64 },
    Firing { id: Uuid, since: i64, told_at: i64, reminders: u32 },
}

/// Failures in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failures {
    times: u32,
    since: i64,
    /// Once it is told.
    id: Option<Uuid>,
}

/// One rule's machine. All times are microseconds; the clock may step back.
#[derive(Debug, Clone)]
pub struct Machine {
    hold: i64,
    repeat: i64,
    phase: Phase,
    failures: Option<Failures>,
}

impl Machine {
    /// A rule that nothing was seen of; it must return rows for `hold`, and is told again after every `repeat`.
    #[must_use]
    pub const fn new(hold: i64, repeat: i64) -> Self {
        Self { hold, repeat, phase: Phase::Inactive, failures: None }
    }

    /// Whether the alert fires.
    #[must_use]
    pub const fn is_firing(&self) -> bool {
        matches!(self.phase, Phase::Firing { .. })
    }

    /// Takes what was seen, and says what is to be told, in this order.
    pub fn step(&mut self, now: i64, seen: Seen, names: &dyn Names) -> Vec<Tell> {
        let (works, told) = match seen {
            Seen::Failed => (None, self.failed(now, names)),
            Seen::Rows => (self.answered(), self.rows(now, names)),
            Seen::Nothing => (self.answered(), self.nothing()),
        };
        works.into_iter().chain(told).collect()
    }

    fn rows(&mut self, now: i64, names: &dyn Names) -> Option<Tell> {
        let since = match self.phase {
            Phase::Firing { id, since, told_at, reminders } => return self.remind(now, id, since, told_at, reminders),
            // The clock was set back: it starts anew, or it might fire too late.
            Phase::Pending { since } => since.min(now),
            Phase::Inactive => now,
        };
        if now.saturating_sub(since) < self.hold {
            self.phase = Phase::Pending { since };
            return None;
        }
        let id = names.fresh();
        self.phase = Phase::Firing { id, since, told_at: now, reminders: 0 };
        Some(Tell { state: State::Firing, id, since, reminder: 0, of_failure: false })
    }

    fn remind(&mut self, now: i64, id: Uuid, since: i64, told_at: i64, reminders: u32) -> Option<Tell> {
        let told_at = told_at.min(now);
        if now.saturating_sub(told_at) < self.repeat {
            self.phase = Phase::Firing { id, since, told_at, reminders };
            return None;
        }
        let reminder = reminders.saturating_add(1);
        self.phase = Phase::Firing { id, since, told_at: now, reminders: reminder };
        Some(Tell { state: State::Firing, id, since, reminder, of_failure: false })
    }

    fn nothing(&mut self) -> Option<Tell> {
        let Phase::Firing { id, since, .. } = std::mem::replace(&mut self.phase, Phase::Inactive) else { return None };
        Some(Tell { state: State::Resolved, id, since, reminder: 0, of_failure: false })
    }

    fn failed(&mut self, now: i64, names: &dyn Names) -> Option<Tell> {
        let failures = self.failures.get_or_insert(Failures { times: 0, since: now, id: None });
        failures.times = failures.times.saturating_add(1);
        if failures.times < FAILURES_TOLD || failures.id.is_some() {
            return None;
        }
        let id = names.fresh();
        failures.id = Some(id);
        Some(Tell { state: State::Failing, id, since: failures.since, reminder: 0, of_failure: true })
    }

    fn answered(&mut self) -> Option<Tell> {
        let Failures { since, id, .. } = self.failures.take()?;
        Some(Tell { state: State::Resolved, id: id?, since, reminder: 0, of_failure: true })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use reckon_data::clock::SeededNames;

    use super::*;

    fn states(told: &[Tell]) -> Vec<State> {
        told.iter().map(|tell| tell.state).collect()
    }

    #[test]
    fn it_is_told_once_again_after_a_while_and_when_it_is_over() {
        let (mut machine, names) = (Machine::new(0, 100), SeededNames::new(1));
        let first = machine.step(0, Seen::Rows, &names);
        assert_eq!(states(&first), [State::Firing]);
        assert!(machine.is_firing());
        assert!(machine.step(99, Seen::Rows, &names).is_empty());
        let again = machine.step(100, Seen::Rows, &names);
        assert_eq!((states(&again), again[0].reminder, again[0].id), (vec![State::Firing], 1, first[0].id));
        assert!(machine.step(199, Seen::Rows, &names).is_empty());
        let over = machine.step(200, Seen::Nothing, &names);
        assert_eq!((states(&over), over[0].id, over[0].since), (vec![State::Resolved], first[0].id, 0));
        assert!(machine.step(201, Seen::Nothing, &names).is_empty());
    }

    #[test]
    fn what_passes_before_its_time_is_not_told() {
        let (mut machine, names) = (Machine::new(50, 100), SeededNames::new(1));
        assert!(machine.step(0, Seen::Rows, &names).is_empty());
        assert!(machine.step(49, Seen::Rows, &names).is_empty());
        assert!(machine.step(50, Seen::Nothing, &names).is_empty());
        assert!(machine.step(60, Seen::Rows, &names).is_empty());
        assert_eq!(states(&machine.step(110, Seen::Rows, &names)), [State::Firing]);
    }

    #[test]
    fn a_query_that_fails_is_told_once_and_when_it_is_answered_again() {
        let (mut machine, names) = (Machine::new(0, 100), SeededNames::new(1));
        assert!(machine.step(0, Seen::Failed, &names).is_empty(), "once may happen");
        assert!(machine.step(1, Seen::Nothing, &names).is_empty());
        assert!(machine.step(2, Seen::Failed, &names).is_empty());
        let failing = machine.step(3, Seen::Failed, &names);
        assert_eq!((states(&failing), failing[0].since), (vec![State::Failing], 2));
        assert!(machine.step(400, Seen::Failed, &names).is_empty());
        let both = machine.step(500, Seen::Rows, &names);
        assert_eq!(states(&both), [State::Resolved, State::Firing]);
        assert_eq!((both[0].id, both[0].of_failure, both[1].of_failure), (failing[0].id, true, false));
    }

    #[test]
    fn a_failure_neither_resolves_nor_repeats_what_fires() {
        let (mut machine, names) = (Machine::new(0, 100), SeededNames::new(1));
        machine.step(0, Seen::Rows, &names);
        for now in 1..500 {
            let told = machine.step(now, Seen::Failed, &names);
            assert!(told.iter().all(|tell| tell.of_failure), "{told:?}");
        }
        assert!(machine.is_firing());
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nobody() {
        let (mut machine, names) = (Machine::new(10, 100), SeededNames::new(1));
        machine.step(1_000_000, Seen::Rows, &names);
        assert!(machine.step(0, Seen::Rows, &names).is_empty());
        assert_eq!(states(&machine.step(10, Seen::Rows, &names)), [State::Firing]);
        machine.step(1_000_000, Seen::Rows, &names);
        assert!(machine.step(20, Seen::Rows, &names).is_empty());
        assert_eq!(states(&machine.step(120, Seen::Rows, &names)), [State::Firing], "a reminder");
    }

    /// What a run of the machine must have told, found in another way than the machine finds it.
    struct Judge {
        hold: i64,
        repeat: i64,
        /// When rows were seen first, with nothing but rows or failures since.
        rows_since: Option<i64>,
        open: Option<(Uuid, i64, u32)>,
        failing: Option<Uuid>,
        failures: u32,
        ids: BTreeSet<Uuid>,
    }

    impl Judge {
        fn see(&mut self, now: i64, seen: Seen) {
            match seen {
                Seen::Rows => self.rows_since = self.rows_since.or(Some(now)),
                Seen::Nothing => self.rows_since = None,
                Seen::Failed => {}
            }
            self.failures = if seen == Seen::Failed { self.failures + 1 } else { 0 };
        }

        fn hear(&mut self, now: i64, seen: Seen, tell: &Tell) {
            match (tell.of_failure, tell.state, tell.reminder) {
                (false, State::Firing, 0) => {
                    assert!(self.open.is_none(), "it fires already");
                    assert_eq!((seen, Some(tell.since)), (Seen::Rows, self.rows_since));
                    assert!(now - tell.since >= self.hold, "too early");
                    assert!(self.ids.insert(tell.id), "an id that was used before");
                    self.open = Some((tell.id, now, 0));
                }
                (false, State::Firing, reminder) => {
                    let (id, told_at, before) = self.open.expect("a reminder of nothing");
                    assert_eq!((seen, tell.id, reminder), (Seen::Rows, id, before + 1));
                    assert!(now - told_at >= self.repeat, "too often");
                    self.open = Some((id, now, reminder));
                }
                (false, State::Resolved, 0) => {
                    let (id, ..) = self.open.take().expect("nothing fired");
                    assert_eq!((seen, tell.id), (Seen::Nothing, id));
                }
                (true, State::Failing, 0) => {
                    assert!(self.failing.is_none(), "told before");
                    assert_eq!((seen, self.failures), (Seen::Failed, FAILURES_TOLD));
                    assert!(self.ids.insert(tell.id), "an id that was used before");
                    self.failing = Some(tell.id);
                }
                (true, State::Resolved, 0) => {
                    assert_ne!(seen, Seen::Failed);
                    assert_eq!(self.failing.take(), Some(tell.id));
                }
                _ => panic!("{tell:?}"),
            }
        }

        /// Nothing that is due is left untold.
        fn is_content(&self, now: i64, seen: Seen) {
            let is_due = seen == Seen::Rows && self.rows_since.is_some_and(|since| now - since >= self.hold);
            assert!(!is_due || self.open.is_some(), "it should fire");
            assert!(self.open.is_none_or(|(_, told_at, _)| seen != Seen::Rows || now - told_at < self.repeat));
            assert!(seen != Seen::Nothing || self.open.is_none(), "it should be over");
            assert_eq!(self.failing.is_some(), self.failures >= FAILURES_TOLD);
        }
    }

    fn seen() -> impl Strategy<Value = Seen> {
        prop_oneof![4 => Just(Seen::Rows), 2 => Just(Seen::Nothing), 1 => Just(Seen::Failed)]
    }

    proptest! {
        #[test]
        fn whatever_is_seen_is_told_exactly_once(
            hold in 0_i64..40,
            repeat in 1_i64..60,
            looks in prop::collection::vec((0_i64..30, seen()), 0..200),
        ) {
            let (mut machine, names) = (Machine::new(hold, repeat), SeededNames::new(7));
            let mut judge = Judge {
                hold, repeat, rows_since: None, open: None, failing: None, failures: 0, ids: BTreeSet::new(),
            };
            let mut now = 0;
            for (after, seen) in looks {
                now += after;
                let told = machine.step(now, seen, &names);
                judge.see(now, seen);
                told.iter().for_each(|tell| judge.hear(now, seen, tell));
                judge.is_content(now, seen);
                prop_assert_eq!(machine.is_firing(), judge.open.is_some());
            }
        }
    }
}
