//! whatever happens to the archiver, every row is in the tables exactly once.

use proptest::prelude::*;

use super::*;
use crate::archive::faults::{FailingStore, FailingTables};

/// What happens to an archiver that is being written to.
#[derive(Debug, Clone)]
enum Act {
    Append { partition: u32, times: Vec<i64> },
    Bury { partition: u32 },
    Cut { partition: u32 },
    Wait { micros: u64 },
    Kill,
}

fn act() -> impl Strategy<Value = Act> {
    let time = (0..4_i64, 0..1_000_i64).prop_map(|(days, micros)| NOW - days * MICROS_PER_DAY + micros);
    prop_oneof![
        6 => (0..2_u32, proptest::collection::vec(time, 1..20)).prop_map(|(partition, times)| Act::Append { partition, times }),
        1 => (0..2_u32).prop_map(|partition| Act::Bury { partition }),
        1 => (0..2_u32).prop_map(|partition| Act::Cut { partition }),
        4 => (0..8_000_u64).prop_map(|micros| Act::Wait { micros }),
        2 => Just(Act::Kill),
    ]
}

/// What must be in the tables in the end.
#[derive(Debug, Default)]
struct Expected {
    events: BTreeMap<(i32, i64, i32), (String, String)>,
    dead: Vec<(i32, i64, i32)>,
}

/// Drops it, and waits until its task is gone: a process that was killed does nothing any more, while a task may be in
/// the middle of a commit, which would fence the next archiver.
async fn kill(archiver: Arc<Archiver>) {
    let task = archiver.task.clone();
    drop(archiver);
    while !task.is_finished() {
        tokio::time::sleep(Duration::from_micros(50)).await;
    }
}

async fn play(world: &World, acts: Vec<Act>) -> Expected {
    let mut expected = Expected::default();
    let mut archiver = world.start().await;
    for (step, act) in acts.into_iter().enumerate() {
        match act {
            Act::Append { partition, times } => {
                let tag = format!("e{step}");
                let offset = world.append(partition, events_at(&tag, &times)).await - 1;
                for (index, time) in (0..).zip(&times) {
                    let place = (partition.cast_signed(), offset.cast_signed(), index);
                    expected.events.insert(place, (format_date(date_of(*time)), format!("{tag}/{index}")));
                }
            }
            Act::Bury { partition } => {
                let offset = world.append(partition, dead(b"x")).await - 1;
                expected.dead.push((partition.cast_signed(), offset.cast_signed(), 0));
            }
            Act::Cut { partition } => {
                world.append(partition, cut()).await;
            }
            Act::Wait { micros } => tokio::time::sleep(Duration::from_micros(micros)).await,
            Act::Kill => {
                kill(archiver).await;
                archiver = world.start().await;
            }
        }
    }
    kill(archiver).await;
    expected.dead.sort_unstable();
    expected
}

async fn check(world: &World, expected: Expected) {
    world.settle().await;
    assert_eq!(world.events().await, expected.events);
    let dead = world.rows(Table::DeadLetters, "received_date").await;
    let mut dead: Vec<_> = dead.iter().flat_map(|(_, batch)| places(batch)).collect();
    dead.sort_unstable();
    assert_eq!(dead, expected.dead);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// killed at any moment, every row is there exactly once.
    #[test]
    fn nothing_is_lost_or_doubled_by_kills(acts in proptest::collection::vec(act(), 1..60)) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let world = World::new(2);
            let expected = play(&world, acts).await;
            check(&world, expected).await;
        });
    }

    /// the same while the store fails, and commits fail before or after they have happened.
    #[test]
    fn nothing_is_lost_or_doubled_by_failures(acts in proptest::collection::vec(act(), 1..40), seed: u64) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let mut world = World::new(2);
            let (tables, store) = (Arc::clone(&world.tables), Arc::clone(&world.store));
            world.tables = Arc::new(FailingTables::new(Arc::clone(&tables), seed));
            world.store = Arc::new(FailingStore::new(Arc::clone(&store), seed));
            let expected = play(&world, acts).await;
            (world.tables, world.store) = (tables, store);
            check(&world, expected).await;
        });
    }
}
