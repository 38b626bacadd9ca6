//! Nothing is found of what is healthy, and one thing of whatever was done to it.

mod batch;
mod broken;
mod raw;
mod rest;
mod stream;

use reckon_audit::finding::{Class, Finding};
use reckon_audit::report::model::{Report, Verdict};
use reckon_data::minute::{format_time, start_of_minute};

use super::errors;
use super::look::{Group, Raw, Seen};
use super::world::{World, in_time};

/// Sets that are looked through for one that has what is to be damaged.
const TRIED: u64 = 40;

/// What is to be found.
#[derive(Debug, Clone)]
struct Expected {
    class: Class,
    table: &'static str,
    ids: Vec<String>,
    entity: Option<String>,
    minute: Option<String>,
    numbers: Option<(i64, i64)>,
    file: Option<String>,
    segment: Option<(u32, u64, u64)>,
}

impl Expected {
    const fn new(class: Class, table: &'static str) -> Self {
        Self { class, table, ids: Vec::new(), entity: None, minute: None, numbers: None, file: None, segment: None }
    }

    /// About a row, and these of its events.
    fn of(class: Class, table: &'static str, group: &Group, events: &[Raw]) -> Self {
        let mut ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
        ids.sort_unstable();
        Self {
            ids,
            entity: Some(group.row.key.0.clone()),
            minute: Some(format_time(start_of_minute(group.row.key.3))),
            segment: group.row.segment,
            ..Self::new(class, table)
        }
    }

    fn numbers(mut self, expected: i64, found: i64) -> Self {
        self.numbers = Some((expected, found));
        self
    }

    fn is(&self, found: &Finding) -> bool {
        let mut ids = found.event_ids.clone();
        ids.sort_unstable();
        let segment = |(partition, start, end)| {
            (found.partition, found.offset_start, found.offset_end) == (Some(partition), Some(start), Some(end))
        };
        self.class == found.class
            && self.table == found.table
            && (self.ids.is_empty() || self.ids == ids)
            && (self.entity.is_none() || self.entity == found.entity_id)
            && (self.minute.is_none() || self.minute == found.minute)
            && self.numbers.is_none_or(|(expected, is)| (found.expected, found.found) == (Some(expected), Some(is)))
            && (self.file.is_none() || self.file == found.file)
            && self.segment.is_none_or(segment)
    }
}

/// Each of those is found, and nothing else.
fn hold(report: &Report, expected: &[Expected]) {
    let mut found = errors(report);
    for one in expected {
        let at = found.iter().position(|finding| one.is(finding));
        let Some(at) = at else { panic!("{one:?} is not among {found:#?}") };
        found.remove(at);
    }
    assert!(found.is_empty(), "found besides: {found:#?}");
    assert_eq!(report.verdict, if expected.is_empty() { Verdict::Balanced } else { Verdict::Findings });
}

/// Something of this class is found, and nothing of any other.
fn hold_all(report: &Report, class: Class, table: &str) {
    let found = errors(report);
    assert!(!found.is_empty(), "nothing is found");
    let other: Vec<&&Finding> =
        found.iter().filter(|finding| (finding.class, finding.table.as_str()) != (class, table)).collect();
    assert!(other.is_empty(), "found besides: {other:#?}");
}

/// A healthy set that has something.
async fn pick<T>(has: impl Fn(&Seen) -> Option<T>) -> (World, T) {
    for seed in 1..=TRIED {
        let world = World::plain(seed).await;
        if let Some(found) = has(&world.seen) {
            return (world, found);
        }
    }
    panic!("none of {TRIED} sets has it")
}

/// A healthy set and a row per minute of batch that is so.
async fn minute(is: impl Fn(&Group) -> bool) -> (World, Group) {
    pick(|seen| seen.minutes().into_iter().find(|group| is(group))).await
}

/// A healthy set and a row of a segment that batch has not passed.
async fn streamed(is: impl Fn(&Group) -> bool) -> (World, Group) {
    pick(|seen| seen.streamed().into_iter().find(|group| is(group))).await
}

fn has_values(group: &Group) -> bool {
    group.events.iter().any(|event| event.value.is_some())
}

#[test]
fn no_finding_on_a_hundred_healthy_sets() {
    let (mut segments, mut uncovered, mut asked, mut repeats) = (0, 0, 0, 0);
    for seed in 0..100 {
        in_time(async {
            let world = World::random(seed).await;
            for reads_log in [true, false] {
                let report = world.audit(reads_log).await;
                assert!(errors(&report).is_empty(), "seed {seed}, {reads_log}: {:#?}", errors(&report));
                assert_eq!(report.verdict, Verdict::Balanced, "seed {seed}");
                segments += report.segments.checked;
                asked += report.served.equal;
                uncovered += report.dates.iter().map(|date| date.uncovered).sum::<u64>();
                repeats += report.dates.iter().map(|date| date.repeats).sum::<u64>();
            }
        });
    }
    // Had there been nothing to look at, that would show nothing.
    assert!(segments > 1_000 && uncovered > 1_000 && asked > 1_000 && repeats > 1_000);
}
