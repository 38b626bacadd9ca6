//! One round: send, ask until the answers are right, and say what is wrong when patience runs out.

use std::ops::Range;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::door::Door;
use super::judge::{Judged, judge, judge_one};
use super::plan::{Body, Counts, Plan, Question};
use super::record::Record;
use super::tell::{self, Asked, FINDINGS_MAX};
use super::trace::Short;
use crate::finding::Finding;

/// The first pause between two questions, and the longest.
const PAUSES: Range<Duration> = Duration::from_millis(100)..Duration::from_secs(2);
/// How long after the patience has ended the last look may take.
const LAST_LOOK: Duration = Duration::from_secs(10);
/// So much later it is looked once more whether what was right still is.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// How a round ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every answer was right.
    Right {
        /// How long that took from the last acknowledgement.
        delay: Duration,
    },
    /// An answer held too much, or too little when patience ran out.
    Differs,
    /// The front door did not take all of its events.
    NotSent(String),
    /// Nobody answered.
    Unanswered(String),
}

/// What came of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundReport {
    /// Its number.
    pub number: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Different events of it.
    pub events: u64,
    /// Of them, those that no answer held.
    pub lost: u64,
    /// What answers held too much.
    pub excess: u64,
    /// What is wrong, the largest differences.
    pub findings: Vec<Finding>,
}

/// Does a round: has `patience` until its events are taken, and from then on until answers hold them. With it go the
/// counts that stayed too low, and of whose events it is not known yet which are gone.
pub async fn run_round(
    door: &dyn Door,
    plan: &Plan,
    patience: Duration,
    record: &Record,
) -> (RoundReport, Option<Short>) {
    let expected = plan.expected();
    let report = |outcome: Outcome, lost, excess, findings| RoundReport {
        number: plan.number(),
        outcome,
        events: expected.values().sum(),
        lost,
        excess,
        findings,
    };
    if let Err(reason) = send(door, plan, Instant::now() + patience, record).await {
        let finding = tell::silent(plan, false, &reason);
        return (report(Outcome::NotSent(reason), 0, 0, vec![finding]), None);
    }
    let sent = Instant::now();
    let mut state = Asking::new(plan, &expected);
    state.ask(door, sent + patience, record).await;
    let delay = sent.elapsed();
    if state.is_right() {
        state.look_again(door, sent + patience, record).await;
    }
    if let Some((judged, asked)) = state.too_many() {
        let findings = judged.excess.iter().take(FINDINGS_MAX).map(|of| tell::excess(plan, of, asked)).collect();
        return (report(Outcome::Differs, 0, judged.too_many(), findings), None);
    }
    if state.is_right() {
        return (report(Outcome::Right { delay }, 0, 0, Vec::new()), None);
    }
    match state.wrong() {
        None => {
            let reason = state.error.unwrap_or_else(|| "no reason is known".to_owned());
            let finding = tell::silent(plan, true, &reason);
            (report(Outcome::Unanswered(reason), 0, 0, vec![finding]), None)
        }
        Some((judged, asked)) => {
            let short = Short::of(&judged, asked);
            let incomplete = || vec![tell::incomplete(plan, asked, &judged.missing)];
            let findings = short.as_ref().map_or_else(incomplete, |short| short.untraced(plan));
            // Of an answer that is not whole nobody knows whether what it lacks is lost.
            let lost = if judged.complete { judged.short_by() } else { 0 };
            (report(Outcome::Differs, lost, 0, findings), short)
        }
    }
}

/// Why a request was not acknowledged whole.
enum Unsent {
    /// It may be the next time.
    Now(String),
    /// It never will: sent again, it would only be refused again.
    Ever(String),
}

/// Sends all of a round, each request until it is acknowledged whole.
///
/// # Errors
/// Why a request was not, when it never will be or patience ran out.
async fn send(door: &dyn Door, plan: &Plan, end: Instant, record: &Record) -> Result<(), String> {
    for body in plan.requests() {
        let mut pause = PAUSES.start;
        while let Err(unsent) = send_one(door, &body, end, record).await {
            record.failed();
            let reason = match unsent {
                Unsent::Now(reason) if Instant::now() + pause < end => reason,
                Unsent::Now(reason) | Unsent::Ever(reason) => return Err(reason),
            };
            tracing::debug!(round = plan.number(), reason, "a request of the canary is made again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.end);
        }
    }
    Ok(())
}

async fn send_one(door: &dyn Door, body: &Body, end: Instant, record: &Record) -> Result<(), Unsent> {
    let receipt = match timeout_at(end, door.send(body)).await {
        Ok(Ok(receipt)) => receipt,
        Ok(Err(error)) if error.is_final() => return Err(Unsent::Ever(error.to_string())),
        Ok(Err(error)) => return Err(Unsent::Now(error.to_string())),
        Err(_) => return Err(Unsent::Now("the front door has not answered in time".to_owned())),
    };
    if receipt.accepted == body.events && receipt.refused == 0 {
        record.sent(body.events);
        return Ok(());
    }
    let first = receipt.errors.first().map_or_else(String::new, |error| format!(": {}", error.message));
    let reason = format!(
        "the front door took {} of {} events, and refused {}{first}",
        receipt.accepted, body.events, receipt.refused
    );
    Err(if receipt.refused > 0 { Unsent::Ever(reason) } else { Unsent::Now(reason) })
}

/// What has been answered of a round so far.
struct Asking<'a> {
    plan: &'a Plan,
    expected: &'a Counts,
    /// The last answer of SQL.
    sql: Option<Judged>,
    /// What REST has not answered right.
    open: Vec<Question>,
    /// What it last answered wrong.
    rest: Option<Judged>,
    /// Why the last request failed.
    error: Option<String>,
}

impl<'a> Asking<'a> {
    fn new(plan: &'a Plan, expected: &'a Counts) -> Self {
        Self { plan, expected, sql: None, open: plan.questions(), rest: None, error: None }
    }

    fn is_right(&self) -> bool {
        self.sql.as_ref().is_some_and(Judged::is_right) && self.open.is_empty()
    }

    /// An answer that holds too much.
    fn too_many(&self) -> Option<(Judged, Asked)> {
        self.answers().find(|(judged, _)| !judged.excess.is_empty())
    }

    /// An answer that is not right; SQL's, if that is one, for it has every minute.
    fn wrong(&self) -> Option<(Judged, Asked)> {
        self.answers().find(|(judged, _)| !judged.is_right())
    }

    fn answers(&self) -> impl Iterator<Item = (Judged, Asked)> {
        let sql = self.sql.clone().map(|judged| (judged, Asked::Sql));
        let rest = self.rest.clone().map(|judged| (judged, Asked::Rest));
        sql.into_iter().chain(rest)
    }

    /// Asks until everything is right, or something can never be, or patience has run out.
    async fn ask(&mut self, door: &dyn Door, end: Instant, record: &Record) {
        let mut pause = PAUSES.start;
        loop {
            let is_last = Instant::now() >= end;
            if timeout_at(end + LAST_LOOK, self.look(door, record)).await.is_err() {
                self.rest = None;
                self.failed(record, "the server has not answered in time".to_owned());
            }
            if is_last || self.is_right() || self.too_many().is_some() {
                return;
            }
            sleep_until((Instant::now() + pause).min(end)).await;
            pause = (pause * 2).min(PAUSES.end);
        }
    }

    /// Asks for what is not right yet: SQL, which has everything, and then REST. What REST has said stands only at the
    /// end: this may be cut off.
    async fn look(&mut self, door: &dyn Door, record: &Record) {
        if !self.sql.as_ref().is_some_and(Judged::is_right) {
            match door.counts(self.plan).await {
                Ok(answer) => self.sql = Some(judge(self.expected, &answer)),
                Err(error) => return self.failed(record, error.to_string()),
            }
        }
        if !self.sql.as_ref().is_some_and(Judged::is_right) {
            return;
        }
        let (mut open, mut wrong, mut is_silent) = (Vec::new(), None, false);
        for question in self.open.clone() {
            // Who does not answer once is not asked everything else.
            if is_silent {
                open.push(question);
                continue;
            }
            match door.count(&question.entity, &question.event_type, question.minutes.clone()).await {
                Ok(found) => {
                    let judged = judge_one(&question, found);
                    if !judged.is_right() {
                        open.push(question);
                        add(&mut wrong, judged);
                    }
                }
                Err(error) => {
                    is_silent = true;
                    open.push(question);
                    self.failed(record, error.to_string());
                }
            }
        }
        (self.open, self.rest) = (open, wrong);
    }

    /// Looks whether what was right still is: a copy may be counted after its event, and what the stream has counted
    /// may get lost on its way into tables. After too little it is asked again until patience ends, for of several servers
    /// behind one address another may be behind, and a counter that has just started catches up; an answer that says that it
    /// is not complete proves nothing.
    async fn look_again(&mut self, door: &dyn Door, end: Instant, record: &Record) {
        let right = self.sql.clone();
        // Twice at least.
        let end = end.max(Instant::now() + SECOND_LOOK);
        loop {
            let is_last = Instant::now() >= end;
            tokio::time::sleep(SECOND_LOOK).await;
            let looked = timeout_at(Instant::now() + LAST_LOOK, door.counts(self.plan)).await;
            let Ok(Ok(answer)) = looked else {
                // The answer before it stands.
                record.failed();
                if is_last || self.is_right() {
                    return;
                }
                continue;
            };
            let judged = judge(self.expected, &answer);
            let (is_excess, is_short) = (!judged.excess.is_empty(), judged.complete && !judged.short.is_empty());
            self.sql = if is_excess || is_short { Some(judged) } else { right.clone() };
            if is_excess || !is_short || is_last {
                return;
            }
        }
    }

    /// Notes that there is no answer: one of before that was not right says nothing any more.
    fn failed(&mut self, record: &Record, reason: String) {
        if self.sql.as_ref().is_some_and(|judged| !judged.is_right()) {
            self.sql = None;
        }
        record.failed();
        tracing::debug!(round = self.plan.number(), reason, "the canary has no answer");
        self.error = Some(reason);
    }
}

/// Adds what one answer means to what others do.
fn add(all: &mut Option<Judged>, judged: Judged) {
    let all = all.get_or_insert_with(|| Judged { complete: true, ..Judged::default() });
    all.complete &= judged.complete;
    if all.missing.is_empty() {
        all.missing = judged.missing;
    }
    all.excess.extend(judged.excess);
    all.short.extend(judged.short);
}
