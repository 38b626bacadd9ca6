//! Rounds through a front door that lies, loses, counts twice, stops, or says nothing; in virtual time.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use async_trait::async_trait;
use reckon_data::clock::{ManualClock, SeededNames};
use reckon_data::minute::MICROS_PER_MINUTE;
use reckon_data::receipt::Receipt;
use serde_json::Value;

use super::judge::{Counted, Found};
use super::plan::{Body, Counts, Key, Plan};
use super::*;
use crate::finding::{Class, EVENT_IDS_MAX, Untold};

/// 2026-11-20T12:00:30Z
const NOW: i64 = 1_795_176_030_000_000;

/// What the door does wrong.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// One event in so many is acknowledged and gone.
    drops: u64,
    /// One event in so many counts twice.
    doubles: u64,
    /// Of so many requests, all but the last fail after the events were taken.
    fails: u64,
    /// Nothing is counted any more.
    stands: bool,
    /// Answers say that they are not complete.
    is_incomplete: bool,
    /// Questions are not answered.
    is_mute: bool,
    /// Events are refused, with this status.
    shut: Option<u16>,
    /// Events are not taken for so long.
    busy: Duration,
    /// A refused event a request.
    refuses_one: bool,
    /// After so many answers to questions there are no more.
    mute_after: Option<u64>,
    /// What counts twice does so as much later as this.
    doubles_late: Duration,
    /// Events are among the raw events so much later.
    archive_lag: Duration,
    /// Events are counted so much later.
    lag: Duration,
    /// REST answers none where SQL is right.
    rest_forgets: bool,
    /// SQL answers none from the first of these answers to the second; the first there is has the number 1.
    sql_forgets: (u64, u64),
}

#[derive(Debug, Default)]
struct World {
    /// When each event was taken, and where it counts.
    taken: BTreeMap<String, (tokio::time::Instant, Key)>,
    twice: Counts,
    seen: u64,
    requests: u64,
    asked: u64,
    first_sent: Option<tokio::time::Instant>,
    last_sent: Option<tokio::time::Instant>,
}

#[derive(Debug, Default)]
struct FakeDoor {
    faults: Faults,
    world: Mutex<World>,
}

impl FakeDoor {
    /// What is counted by now of some keys.
    fn counted(&self, is_asked: impl Fn(&Key) -> bool) -> Counts {
        let (world, now, mut counts) = (self.world.lock(), tokio::time::Instant::now(), Counts::new());
        if self.faults.stands {
            return counts;
        }
        let taken = world.taken.values().filter(|(at, _)| *at + self.faults.lag <= now).map(|(_, key)| (key, 1));
        let is_late = world.last_sent.is_none_or(|at| at + self.faults.doubles_late > now);
        let twice = world.twice.iter().filter(|_| !is_late).map(|(key, count)| (key, *count));
        for (key, count) in taken.chain(twice).filter(|(key, _)| is_asked(key)) {
            *counts.entry(key.clone()).or_default() += count;
        }
        counts
    }

    fn silent() -> DoorError {
        DoorError::Silent { url: "http://fake".to_owned(), reason: "connection refused".to_owned() }
    }
}

fn one_in(n: u64, of: u64) -> bool {
    of > 0 && n % of == of / 2
}

#[async_trait]
impl Door for FakeDoor {
    async fn send(&self, body: &Body) -> Result<Receipt, DoorError> {
        let refused = |status| {
            let (url, detail) = ("http://fake".to_owned(), "the canary is not known here".to_owned());
            Err(DoorError::Refused { url, status, detail })
        };
        let (mut world, now) = (self.world.lock(), tokio::time::Instant::now());
        world.requests += 1;
        if let Some(status) = self.faults.shut {
            return refused(status);
        }
        if *world.first_sent.get_or_insert(now) + self.faults.busy > now {
            return refused(503);
        }
        world.last_sent = Some(now);
        for line in std::str::from_utf8(&body.lines).unwrap().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            let minute = event["event_time"].as_i64().unwrap() / 60_000;
            let (id, key) =
                (text("event_id"), Key { entity: text("entity_id"), event_type: text("event_type"), minute });
            if world.taken.contains_key(&id) {
                continue;
            }
            world.seen += 1;
            if one_in(world.seen, self.faults.doubles) {
                *world.twice.entry(key.clone()).or_default() += 1;
            }
            if !one_in(world.seen, self.faults.drops) {
                world.taken.insert(id, (tokio::time::Instant::now(), key));
            }
        }
        if self.faults.refuses_one {
            return Ok(Receipt { accepted: body.events - 1, refused: 1, ..Receipt::default() });
        }
        if self.faults.fails > 0 && !world.requests.is_multiple_of(self.faults.fails) {
            return Err(Self::silent());
        }
        Ok(Receipt { accepted: body.events, ..Receipt::default() })
    }

    async fn counts(&self, plan: &Plan) -> Result<Counted, DoorError> {
        let asked = {
            let mut world = self.world.lock();
            world.asked += 1;
            world.asked
        };
        if self.faults.is_mute || self.faults.mute_after.is_some_and(|answers| asked > answers) {
            return Err(Self::silent());
        }
        let own = |key: &Key| plan.entities().contains(&key.entity) && plan.minutes().contains(&key.minute);
        let (complete, missing) = (!self.faults.is_incomplete, "partition 3".to_owned());
        let (from, to) = self.faults.sql_forgets;
        let counts = if (from..=to).contains(&asked) { Counts::new() } else { self.counted(own) };
        Ok(Counted { counts, complete, missing })
    }

    async fn count(&self, entity: &str, event_type: &str, minutes: Range<i64>) -> Result<Found, DoorError> {
        let own = |key: &Key| key.entity == entity && key.event_type == event_type && minutes.contains(&key.minute);
        let count = if self.faults.rest_forgets { 0 } else { self.counted(own).values().sum() };
        Ok(Found { count, complete: !self.faults.is_incomplete, missing: String::new() })
    }

    async fn archived(&self, plan: &Plan) -> Result<BTreeSet<String>, DoorError> {
        let own = |id: &&String| id.starts_with(&plan.id_prefix());
        let (world, now) = (self.world.lock(), tokio::time::Instant::now());
        let archived = world.taken.iter().filter(|(_, (at, _))| *at + self.faults.archive_lag <= now);
        Ok(archived.map(|(id, _)| id).filter(own).cloned().collect())
    }
}

fn canary_of(door: FakeDoor, every: Duration, events: u32) -> (Canary, Arc<Record>, Arc<ManualClock>) {
    let (record, clock) = (Arc::new(Record::default()), Arc::new(ManualClock::at(NOW)));
    let parts = CanaryParts {
        door: Arc::new(door),
        settings: Settings { every, events, ..Settings::default() },
        commit_every: Duration::from_secs(20),
        partitions: 4,
        clock: Arc::clone(&clock) as _,
        names: Arc::new(SeededNames::new(7)),
        record: Arc::clone(&record),
    };
    (Canary::new(parts), record, clock)
}

async fn round(faults: Faults) -> (RoundReport, CanaryStats) {
    let (canary, record, _) = canary_of(FakeDoor { faults, ..FakeDoor::default() }, Duration::from_secs(60), 6_000);
    let report = canary.round(0).await;
    assert_eq!(record.untold().findings, report.findings);
    (report, record.stats())
}

#[tokio::test(start_paused = true)]
async fn a_round_that_is_counted_is_right_and_says_how_long_that_took() {
    let lag = Duration::from_millis(700);
    let (report, stats) = round(Faults { lag, ..Faults::default() }).await;
    let Outcome::Right { delay } = report.outcome else { panic!("{report:?}") };
    assert!(delay >= lag && delay < Duration::from_secs(3), "{delay:?}");
    assert_eq!((report.events, report.lost, report.excess), (6_000, 0, 0));
    assert_eq!((stats.rounds, stats.rounds_right, stats.open_rounds, stats.findings), (1, 1, 0, 0));
    assert_eq!((stats.events_sent, stats.requests_failed, stats.last_right), (6_600, 0, NOW));
    assert_eq!((stats.delay, stats.delays.iter().sum::<u64>()), (Some(delay), 1));
}

/// The proof: one in a thousand, acknowledged and gone, is found in less than three minutes with the defaults.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_drops_one_in_a_thousand_is_found_and_what_it_dropped_is_named() {
    let settings = Settings::default();
    assert!(settings.every + settings.patience < Duration::from_secs(180));
    assert!(0.999_f64.powi(settings.events as i32) < 0.003, "a round misses it once in 400 at the most");
    let start = tokio::time::Instant::now();
    let (report, stats) = round(Faults { drops: 1_000, ..Faults::default() }).await;
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
    assert_eq!((report.outcome, report.lost, stats.lost), (Outcome::Differs, 6, 6));
    let named: BTreeSet<&String> = report.findings.iter().flat_map(|finding| &finding.event_ids).collect();
    assert_eq!(named.len(), 6, "{:?}", report.findings);
    for finding in &report.findings {
        assert_eq!((finding.class, finding.table.as_str()), (Class::CanaryDiffers, "served"));
        assert!(finding.expected > finding.found && finding.minute.is_some(), "{finding:?}");
        assert!(finding.explanation.contains("not among the raw events"), "{finding:?}");
    }
}

/// The findings that no audit holds, and their mark.
fn untold(record: &Record) -> (Vec<crate::finding::Finding>, u64) {
    let untold = record.untold();
    (untold.findings, untold.mark)
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_noted_when_patience_ends_and_named_when_it_is_known() {
    for is_audited_meanwhile in [false, true] {
        let door = FakeDoor { faults: Faults { drops: 1_000, ..Faults::default() }, ..FakeDoor::default() };
        let (canary, record, _) = canary_of(door, Duration::from_secs(60), 6_000);
        let mut round = Box::pin(canary.round(0));
        let soon = Settings::default().patience + Duration::from_secs(1);
        assert!(tokio::time::timeout(soon, &mut round).await.is_err(), "it looks for what is missing");
        let (noted, mark) = untold(&record);
        assert_eq!((record.stats().lost, record.stats().findings), (6, noted.len() as u64));
        let is_open = |finding: &crate::finding::Finding| finding.explanation.contains("not known yet");
        assert!(!noted.is_empty() && noted.iter().all(is_open), "{noted:?}");
        if is_audited_meanwhile {
            record.told(mark);
        }
        let report = round.await;
        let due = if is_audited_meanwhile { Vec::new() } else { report.findings.clone() };
        assert_eq!(untold(&record).0, due, "each finding stands in one audit");
        assert_eq!((record.stats().lost, record.stats().findings), (6, noted.len() as u64));
        let named: BTreeSet<&String> = report.findings.iter().flat_map(|finding| &finding.event_ids).collect();
        assert_eq!(named.len(), 6, "{:?}", report.findings);
    }
}

#[tokio::test(start_paused = true)]
async fn a_counter_that_stands_is_found_and_the_events_are_safe() {
    let start = tokio::time::Instant::now();
    let (report, stats) = round(Faults { stands: true, ..Faults::default() }).await;
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
    assert_eq!((report.outcome, report.lost, stats.rounds_right), (Outcome::Differs, 6_000, 0));
    assert!(!report.findings.is_empty() && report.findings.len() <= tell::FINDINGS_MAX);
    for finding in &report.findings {
        assert_eq!(finding.found, Some(0));
        assert!(finding.explanation.contains("are among the raw events"), "{finding:?}");
        assert!((1..=EVENT_IDS_MAX).contains(&finding.event_ids.len()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_counts_twice_is_found_at_once() {
    let start = tokio::time::Instant::now();
    let (report, stats) = round(Faults { doubles: 3_000, ..Faults::default() }).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!((report.outcome, report.excess, stats.excess, stats.lost), (Outcome::Differs, 2, 2, 0));
    assert!(report.findings.iter().all(|finding| finding.found > finding.expected));
}

#[tokio::test(start_paused = true)]
async fn what_only_rest_gets_wrong_is_found_too() {
    let (report, _) = round(Faults { rest_forgets: true, ..Faults::default() }).await;
    assert_eq!(report.outcome, Outcome::Differs);
    assert!(report.lost > 0);
    assert!(report.findings.iter().all(|finding| finding.explanation.contains("REST")), "{:?}", report.findings);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_complete_is_not_right() {
    let (report, stats) = round(Faults { is_incomplete: true, ..Faults::default() }).await;
    assert_eq!((report.outcome, report.lost, report.findings.len()), (Outcome::Differs, 0, 1));
    assert_eq!((stats.rounds_right, stats.findings), (0, 1));
    let finding = &report.findings[0];
    assert!(finding.explanation.contains("not complete: partition 3"), "{finding:?}");
    assert_eq!((finding.events, finding.expected), (0, None));
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_that_is_not_complete_lacks_is_not_lost() {
    let (report, stats) = round(Faults { is_incomplete: true, drops: 1_000, ..Faults::default() }).await;
    assert_eq!((report.outcome, report.lost, stats.lost), (Outcome::Differs, 0, 0));
    assert!(
        report.findings.iter().all(|finding| finding.explanation.contains("not complete")),
        "{:?}",
        report.findings
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_before_says_nothing_when_no_other_comes() {
    let (report, stats) = round(Faults { stands: true, mute_after: Some(5), ..Faults::default() }).await;
    assert!(matches!(report.outcome, Outcome::Unanswered(_)), "{report:?}");
    assert_eq!((report.lost, stats.lost), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn patience_with_answers_begins_when_all_is_acknowledged() {
    let (busy, lag) = (Duration::from_secs(80), Duration::from_secs(60));
    let (report, stats) = round(Faults { busy, lag, ..Faults::default() }).await;
    let Outcome::Right { delay } = report.outcome else { panic!("{report:?}") };
    assert!(delay >= lag && delay < lag + Duration::from_secs(3), "{delay:?}");
    assert!(stats.requests_failed > 10, "{stats:?}");
}

/// What is refused once is refused again, and each time a dead letter.
#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_not_sent_again() {
    for (faults, failed) in [
        (Faults { shut: Some(422), ..Faults::default() }, 1..2),
        (Faults { shut: Some(403), ..Faults::default() }, 1..2),
        (Faults { refuses_one: true, ..Faults::default() }, 1..2),
        (Faults { shut: Some(429), ..Faults::default() }, 10..1_000),
        (Faults { shut: Some(408), ..Faults::default() }, 10..1_000),
        (Faults { shut: Some(503), ..Faults::default() }, 10..1_000),
    ] {
        let (report, stats) = round(faults).await;
        assert!(matches!(report.outcome, Outcome::NotSent(_)), "{report:?}");
        assert!(failed.contains(&stats.requests_failed), "{faults:?}: {stats:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_counts_twice_after_all_was_right_is_found() {
    let doubles_late = Duration::from_secs(1);
    let (report, stats) = round(Faults { doubles: 3_000, doubles_late, ..Faults::default() }).await;
    assert_eq!((report.outcome, report.excess, stats.rounds_right), (Outcome::Differs, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_counted_after_all_was_right_is_found() {
    let (report, stats) = round(Faults { sql_forgets: (2, u64::MAX), ..Faults::default() }).await;
    assert_eq!((report.outcome, report.lost, stats.lost, stats.rounds_right), (Outcome::Differs, 6_000, 6_000, 0));
    assert!(report.findings.iter().all(|finding| finding.explanation.contains("are among the raw events")));
    // A server that is a moment behind another one is none, nor a counter that catches up.
    for until in [2, 12] {
        let (report, stats) = round(Faults { sql_forgets: (2, until), ..Faults::default() }).await;
        assert!(matches!(report.outcome, Outcome::Right { .. }), "{report:?}");
        assert_eq!((stats.lost, stats.rounds_right), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_archived_late_is_not_called_gone() {
    let archive_lag = Duration::from_secs(100);
    let (report, _) = round(Faults { stands: true, archive_lag, ..Faults::default() }).await;
    assert_eq!(report.lost, 6_000);
    for finding in &report.findings {
        assert!(finding.explanation.contains("all of them are among the raw events"), "{finding:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_are_made_again_and_count_once() {
    let (report, stats) = round(Faults { fails: 3, ..Faults::default() }).await;
    assert!(matches!(report.outcome, Outcome::Right { .. }), "{report:?}");
    assert_eq!((stats.events_sent, stats.requests_failed), (6_600, 12), "six requests, each the third time");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_a_finding_and_no_loss() {
    let (report, stats) = round(Faults { is_mute: true, ..Faults::default() }).await;
    assert!(matches!(&report.outcome, Outcome::Unanswered(reason) if reason.contains("refused")), "{report:?}");
    assert_eq!((report.lost, report.findings.len()), (0, 1));
    assert!(stats.requests_failed > 10 && stats.findings == 1);
    let (report, _) = round(Faults { shut: Some(403), ..Faults::default() }).await;
    assert!(matches!(&report.outcome, Outcome::NotSent(reason) if reason.contains("not known here")), "{report:?}");
    assert_eq!((report.lost, report.findings.len()), (0, 1));
    assert!(report.findings[0].action.contains("canary.token"), "{:?}", report.findings);
}

/// Rounds that wait for their answers do not hold up others, nor do their events count for each other.
#[tokio::test(start_paused = true)]
async fn rounds_overlap_and_are_bounded() {
    let lag = Duration::from_secs(25);
    let door = FakeDoor { faults: Faults { lag, ..Faults::default() }, ..FakeDoor::default() };
    let (canary, record, clock) = canary_of(door, Duration::from_secs(5), 200);
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(canary.run(stopped));
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        clock.advance(MICROS_PER_MINUTE / 12);
        assert!(record.stats().open_rounds <= OPEN_MAX as u64);
    }
    assert!(record.stats().open_rounds > 1);
    stop.send_replace(true);
    running.await.unwrap();
    let stats = record.stats();
    assert!(stats.rounds > 40 && stats.rounds == stats.rounds_right, "{stats:?} {:?}", record.untold());
    assert_eq!(stats.open_rounds, 0);
}

#[tokio::test(start_paused = true)]
async fn a_system_that_stands_has_so_many_rounds_open_and_no_more() {
    let door = FakeDoor { faults: Faults { stands: true, ..Faults::default() }, ..FakeDoor::default() };
    let (canary, record, _) = canary_of(door, Duration::from_secs(1), 200);
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(canary.run(stopped));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(record.stats().open_rounds, OPEN_MAX as u64);
    stop.send_replace(true);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_is_off_sends_nothing() {
    let (canary, record, _) = canary_of(FakeDoor::default(), Duration::ZERO, 200);
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(canary.run(stopped));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(record.stats(), CanaryStats::default());
    stop.send_replace(true);
    running.await.unwrap();
}

#[test]
fn findings_are_kept_in_bounds() {
    let record = Record::default();
    let finding = crate::finding::Finding::new(Class::CanaryDiffers, "served", String::new());
    let report = RoundReport {
        number: 1,
        outcome: Outcome::Differs,
        events: 10,
        lost: 1,
        excess: 0,
        findings: vec![finding; 20],
    };
    (0..50).for_each(|_| record.note(&report, NOW));
    let untold = record.untold();
    assert_eq!((untold.findings.len(), record.stats().findings), (record::KEPT_MAX, 1_000));
    assert_eq!((untold.gone, untold.mark), (1_000 - record::KEPT_MAX as u64, 1_000), "the others are counted");
}

#[test]
fn a_finding_is_told_until_an_audit_that_holds_it_is_stored() {
    let record = Record::default();
    let note = |numbers: Range<u64>| {
        for number in numbers {
            let finding = crate::finding::Finding::new(Class::CanaryDiffers, "served", number.to_string());
            let findings = vec![finding];
            let report = RoundReport { number, outcome: Outcome::Differs, events: 1, lost: 1, excess: 0, findings };
            record.note(&report, NOW);
        }
    };
    let untold = || {
        let Untold { findings, gone, mark } = record.untold();
        (findings.into_iter().map(|finding| finding.explanation).collect::<Vec<_>>(), mark, gone)
    };
    note(0..2);
    let (first, mark, _) = untold();
    assert_eq!(first, ["0", "1"]);
    note(2..3);
    assert_eq!(untold().0, ["0", "1", "2"], "nothing was stored");
    record.told(mark);
    assert_eq!(untold().0, ["2"], "what came meanwhile is for the next one");
    record.told(untold().1);
    assert!(untold().0.is_empty());
    let many = record::KEPT_MAX as u64 + 10;
    note(3..3 + many);
    let (kept, mark, gone) = untold();
    assert_eq!((kept.len(), gone), (record::KEPT_MAX, 10));
    let first = |number: u64| (3_u64..).take(100).map(move |at| (at + number).to_string());
    assert!(kept.into_iter().eq(first(0).chain(first(many - 100))), "those of the beginning, and those of now");
    record.told(mark - 1);
    assert_eq!(untold(), (vec![(2 + many).to_string()], mark, 0));
}
