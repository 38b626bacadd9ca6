//! A sender's mind without its hands: servers and disk are played here.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use reckon_data::clock::SeededNames;

use super::super::backlog::{Pressure, Step};
use super::super::options::{Limits, SenderOptions, SpillOptions};
use super::super::spill::file_bytes;
use super::*;

const PAUSE: Duration = Duration::from_secs(1);

struct World {
    limits: Limits,
    state: State,
    now: Instant,
    /// Begun and not done.
    steps: Vec<Step>,
    files: BTreeMap<Uuid, Sealed>,
    sent: u64,
    /// The events that a server took, in the order in which it did.
    taken: Vec<u64>,
}

impl World {
    /// Room for 400 bytes, batches of 100, two on their way, and a spill of so many bytes.
    fn new(spill: Option<u64>) -> Self {
        let spill = spill.map(|bytes_max| SpillOptions { dir: "unused".into(), bytes_max });
        let limits = Limits::of(&SenderOptions {
            batch_bytes: 100,
            linger: Duration::from_millis(50),
            in_flight: 2,
            buffer_bytes: if spill.is_some() { 533 } else { 400 },
            spill,
            ..SenderOptions::default()
        });
        let backlog = Backlog::new(limits, Arc::new(SeededNames::new(1)), BTreeMap::new());
        Self {
            limits,
            state: State::new(backlog),
            now: Instant::now(),
            steps: Vec::new(),
            files: BTreeMap::new(),
            sent: 0,
            taken: Vec::new(),
        }
    }

    fn free(&self) -> usize {
        self.limits.room - self.state.backlog.held()
    }

    /// Sends an event of so many bytes if there is room, and begins what there is to do.
    fn push(&mut self, bytes: usize) -> bool {
        let line = format!("{:>width$}", self.sent, width = bytes - 1);
        let fits = line.len() < self.free();
        if fits {
            self.state.push(line.as_bytes(), self.now).unwrap();
            self.sent += 1;
        }
        self.begin();
        fits
    }

    /// Lets time go by.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.begin();
    }

    fn begin(&mut self) {
        let pressure = Pressure { free: self.free(), waiting: 0 };
        while let Some(step) = self.state.backlog.next(self.now, pressure) {
            self.steps.push(step);
        }
        self.check();
    }

    /// Ends a step that was begun, well or not.
    fn end(&mut self, index: usize, is_well: bool) {
        let step = self.steps.remove(index);
        let outcome = |body: &[u8]| match is_well {
            true => Ok(Answer::Judged(Receipt { accepted: lines(body).len() as u64, ..Receipt::default() })),
            false => Err("no server".to_owned()),
        };
        let done = match step {
            Step::Send(id, sealed) => Done::Sent { id, outcome: outcome(&sealed.body), sealed },
            Step::SendBack(id) => {
                let sealed = self.files[&id].clone();
                Done::SentBack { id, events: sealed.events, outcome: outcome(&sealed.body), trouble: None }
            }
            Step::Spill(id, sealed) if is_well => {
                self.files.insert(id, sealed.clone());
                Done::Spilled { id, sealed, trouble: None }
            }
            Step::Spill(id, sealed) => Done::Spilled { id, sealed, trouble: Some("no disk".to_owned()) },
        };
        if is_well {
            match &done {
                Done::Sent { sealed, .. } => self.taken.extend(lines(&sealed.body)),
                Done::SentBack { id, .. } => {
                    let sealed = self.files.remove(id).unwrap();
                    self.taken.extend(lines(&sealed.body));
                }
                _ => {}
            }
        }
        self.state.finish(done, self.now, PAUSE);
        self.begin();
    }

    fn count(&self, is_one: impl Fn(&Step) -> bool) -> usize {
        self.steps.iter().filter(|step| is_one(step)).count()
    }

    /// Bounds are kept, whatever happens.
    fn check(&self) {
        let sending = self.count(|step| !matches!(step, Step::Spill(..)));
        assert!(sending <= self.limits.in_flight, "{sending} on their way");
        assert!(self.count(|step| matches!(step, Step::Spill(..))) <= 1, "two are written at once");
        assert!(self.state.backlog.held() <= self.limits.room);
        let bytes: u64 = self.files.values().map(|sealed| file_bytes(&sealed.body)).sum();
        assert!(bytes <= self.limits.spill.unwrap_or(0), "{bytes} bytes of files");
        assert!(bytes <= self.state.backlog.spill_bytes(), "a file is not counted");
    }

    /// All goes well from here on, until there is nothing more to do.
    fn recover(&mut self) {
        self.state.backlog.seal();
        self.pass(Duration::from_secs(3_600));
        while !self.steps.is_empty() {
            self.end(0, true);
        }
    }
}

fn lines(body: &[u8]) -> Vec<u64> {
    let text = std::str::from_utf8(body).unwrap();
    text.lines().map(|line| line.trim().parse().unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever servers and disk do, every event is taken once in the end, and counted once.
    #[test]
    fn nothing_is_lost(
        spill in prop_oneof![Just(None::<u64>), Just(Some(300_u64)), Just(Some(10_000_u64))],
        moves in prop::collection::vec((0_u8..4, 0_usize..300, any::<bool>()), 1..200),
    ) {
        let mut world = World::new(spill);
        for (what, number, is_well) in moves {
            match what {
                0 | 1 => drop(world.push(10 + number / 2)),
                2 => world.pass(Duration::from_millis(number as u64)),
                _ if world.steps.is_empty() => {}
                _ => world.end(number % world.steps.len(), is_well),
            }
        }
        world.recover();
        world.taken.sort_unstable();
        prop_assert_eq!(&world.taken, &(0..world.sent).collect::<Vec<_>>());
        let stats = world.state.stats();
        prop_assert_eq!((stats.sent, stats.acknowledged, stats.refused), (world.sent, world.sent, 0));
        prop_assert_eq!((stats.waiting_bytes, stats.spill_bytes), (0, 0));
        prop_assert!(world.files.is_empty());
        let mark = world.state.backlog.mark();
        prop_assert_eq!(world.state.verdict(mark), Some(Ok(())));
    }
}

#[test]
fn a_batch_is_sent_when_it_is_full_or_old() {
    let mut world = World::new(None);
    assert!(world.push(40) && world.push(40));
    assert!(world.steps.is_empty());
    assert!(world.push(40));
    assert!(matches!(&world.steps[..], [Step::Send(_, sealed)] if sealed.events == 2), "{:?}", world.steps);
    let due = world.state.backlog.wake_at(world.now).unwrap();
    assert_eq!(due - world.now, Duration::from_millis(50));
    world.pass(Duration::from_millis(50));
    assert_eq!(world.steps.len(), 2);
    assert_eq!(world.state.backlog.wake_at(world.now), None);
}

#[test]
fn a_batch_that_cannot_be_sent_grows() {
    let mut world = World::new(None);
    assert!(world.push(100) && world.push(100));
    assert_eq!(world.steps.len(), 2, "all that may be on their way");
    for _ in 0..3 {
        assert!(world.push(30));
        world.pass(Duration::from_millis(100));
    }
    world.end(0, true);
    assert!(matches!(&world.steps[1], Step::Send(_, sealed) if sealed.events == 3), "{:?}", world.steps);
}

#[test]
fn who_waits_for_room_does_not_wait_for_the_linger() {
    let mut world = World::new(None);
    assert!(world.push(30));
    assert!(world.steps.is_empty());
    let step = world.state.backlog.next(world.now, Pressure { free: 0, waiting: 1 });
    assert!(matches!(step, Some(Step::Send(..))), "{step:?}");
}

#[test]
fn when_servers_are_slow_the_newest_go_to_the_spill_and_the_oldest_are_sent() {
    let mut world = World::new(Some(10_000));
    for _ in 0..4 {
        assert!(world.push(100));
    }
    let spilled = world.count(|step| matches!(step, Step::Spill(_, sealed) if lines(&sealed.body) == [3]));
    assert_eq!((world.steps.len(), spilled), (3, 1), "{:?}", world.steps);
    world.end(2, true);
    assert!(world.push(100), "there is room again");
    world.recover();
    assert_eq!(world.taken, [0, 1, 2, 3, 4]);
}

#[test]
fn when_no_server_answers_all_goes_to_the_spill_and_one_is_tried() {
    let mut world = World::new(Some(10_000));
    assert!(world.push(100) && world.push(100));
    let mark = world.state.backlog.mark();
    world.end(0, false);
    assert!(matches!(&world.steps[..], [Step::Send(..), Step::Spill(_, sealed)] if lines(&sealed.body) == [0]));
    assert_eq!(world.state.verdict(mark), None, "neither is set down");
    world.end(0, false);
    world.end(0, true);
    assert!(matches!(&world.steps[..], [Step::Spill(_, sealed)] if lines(&sealed.body) == [1]), "{:?}", world.steps);
    world.end(0, true);
    assert_eq!(world.state.verdict(mark), Some(Ok(())), "both are set down");
    assert!(world.steps.is_empty(), "a pause");
    world.pass(PAUSE);
    assert!(matches!(&world.steps[..], [Step::SendBack(id)] if lines(&world.files[id].body) == [0]));
    world.end(0, true);
    assert!(matches!(&world.steps[..], [Step::SendBack(_)]));
    world.recover();
    assert_eq!(world.taken, [0, 1]);
    assert_eq!(world.state.stats().spilled, 2);
}

#[test]
fn without_a_spill_trouble_is_said_and_nothing_given_up() {
    let mut world = World::new(None);
    assert!(world.push(100));
    let mark = world.state.backlog.mark();
    assert_eq!(world.state.verdict(mark), None);
    world.end(0, false);
    assert_eq!(world.state.verdict(mark), Some(Err(SendError::Failing { reason: "no server".to_owned() })));
    let mark = world.state.backlog.mark();
    assert_eq!(world.state.verdict(mark), None, "it was said");
    world.recover();
    assert_eq!(world.state.verdict(mark), Some(Ok(())));
}

#[test]
fn a_full_spill_is_trouble_too() {
    let mut world = World::new(Some(150));
    assert!(world.push(100) && world.push(100));
    let mark = world.state.backlog.mark();
    world.end(0, false);
    world.end(1, true);
    world.end(0, false);
    assert!(matches!(world.state.verdict(mark), Some(Err(SendError::Failing { .. }))));
    world.recover();
    assert_eq!(world.taken, [0, 1]);
}

#[test]
fn a_disk_that_fails_rests() {
    let mut world = World::new(Some(10_000));
    assert!(world.push(100));
    world.end(0, false);
    let mark = world.state.backlog.mark();
    world.end(0, false);
    assert!(world.steps.is_empty(), "{:?}", world.steps);
    assert!(matches!(world.state.verdict(mark), Some(Err(SendError::Failing { reason })) if reason == "no disk"));
    world.recover();
    assert_eq!(world.taken, [0]);
}

/// What lies in the spill, and is on its way back.
fn sent_back(world: &mut World) -> Uuid {
    assert!(world.push(100));
    world.end(0, false);
    world.end(0, true);
    world.pass(PAUSE);
    match world.steps.remove(0) {
        Step::SendBack(id) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn while_no_server_answers_each_is_tried() {
    let mut world = World::new(None);
    assert!(world.push(100) && world.push(100));
    world.end(0, false);
    world.end(0, false);
    for number in [0, 1, 0, 1] {
        world.pass(PAUSE);
        assert!(matches!(&world.steps[..], [Step::Send(_, sealed)] if lines(&sealed.body) == [number]), "{number}");
        world.end(0, false);
    }
    let mut world = World::new(Some(10_000));
    assert!(world.push(100) && world.push(100));
    for is_well in [false, false, true, true] {
        world.end(0, is_well);
    }
    assert_eq!(world.files.len(), 2);
    for number in [0, 1, 0, 1] {
        world.pass(PAUSE);
        assert!(
            matches!(&world.steps[..], [Step::SendBack(id)] if lines(&world.files[id].body) == [number]),
            "{number}"
        );
        world.end(0, false);
    }
    world.recover();
    assert_eq!(world.taken, [0, 1]);
}

#[test]
fn a_file_that_cannot_be_removed_counts() {
    let mut world = World::new(Some(10_000));
    let id = sent_back(&mut world);
    let bytes = world.state.stats().spill_bytes;
    let outcome = Ok(Answer::Judged(Receipt { accepted: 1, ..Receipt::default() }));
    let done = Done::SentBack { id, events: 1, outcome, trouble: Some("stuck".to_owned()) };
    world.state.finish(done, world.now, PAUSE);
    world.begin();
    assert!(world.steps.is_empty(), "it is not sent again");
    let stats = world.state.stats();
    assert_eq!((stats.acknowledged, stats.spill_bytes, stats.error.as_deref()), (1, bytes, Some("stuck")));
}

#[test]
fn a_file_that_cannot_be_read_now_may_be_later() {
    let mut world = World::new(Some(10_000));
    let id = sent_back(&mut world);
    let bytes = world.state.stats().spill_bytes;
    let unread = |file| Done::Unread { id, file, reason: "no handle".to_owned() };
    world.state.finish(unread(Unread::There), world.now, PAUSE);
    world.begin();
    assert!(world.steps.is_empty(), "a pause");
    assert_eq!((world.state.stats().spill_bytes, world.state.stats().damaged), (bytes, 0));
    world.pass(PAUSE);
    assert_eq!(world.steps, [Step::SendBack(id)]);
    world.steps.clear();
    world.state.finish(unread(Unread::Missing), world.now, PAUSE);
    assert_eq!((world.state.stats().spill_bytes, world.state.stats().missing), (0, 1));
}

#[test]
fn what_is_refused_as_a_whole_is_said_once() {
    let mut world = World::new(None);
    for _ in 0..2 {
        assert!(world.push(100));
        let Step::Send(id, sealed) = world.steps.remove(0) else { panic!("not sent") };
        world.state.finish(Done::Sent { id, sealed, outcome: Ok(Answer::Refused("no".to_owned())) }, world.now, PAUSE);
    }
    let mark = world.state.backlog.mark();
    let refused = SendError::Refused { events: 2, reason: "no".to_owned() };
    assert_eq!(world.state.verdict(mark), Some(Err(refused)));
    assert_eq!(world.state.verdict(mark), Some(Ok(())));
    assert_eq!((world.state.stats().refused, world.state.stats().refusals.len()), (2, 2));
}

#[test]
fn who_is_closed_takes_nothing() {
    let mut world = World::new(None);
    assert!(world.push(100));
    let mark = world.state.backlog.mark();
    world.state.close();
    assert_eq!(world.state.push(b"1", world.now), Err(SendError::Closed));
    assert_eq!(world.state.verdict(mark), None);
    world.state.end();
    assert_eq!(world.state.verdict(mark), Some(Err(SendError::Closed)));
}
