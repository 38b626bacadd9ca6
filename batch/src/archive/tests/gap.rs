//! what a log's own retention removed before it was archived is written down, once, and archiving goes on behind it.

use reckon_data::loss::Loss;

use super::*;

/// A world whose log has its own retention: partition 0 has five records, the first of which is archived.
async fn world() -> World {
    let mut world = World::new(2);
    world.log = world.log.with_own_retention();
    world.append(0, events_at("0", &[NOW])).await;
    world.settle().await;
    for record in 1..5 {
        world.append(0, events_at(&record.to_string(), &[NOW])).await;
    }
    world
}

async fn lost(world: &World) -> Vec<Loss> {
    let events = world.tables.snapshot(Table::Events).await.unwrap();
    Loss::all(&events).into_values().collect()
}

async fn offsets(world: &World) -> Vec<i64> {
    world.events().await.into_keys().map(|(_, offset, _)| offset).collect()
}

#[tokio::test]
async fn archiving_goes_on_behind_a_gap_that_is_written_down_once() {
    let world = world().await;
    world.log.trim(0, 3).await.unwrap();
    let archiver = world.start().await;
    assert_eq!(archiver.committed(), [3, 0], "committed before anything is read");
    drop(archiver);
    let loss = Loss { partition: 0, records: 2, to: 3 };
    assert_eq!(lost(&world).await, [loss]);
    let dead = world.tables.snapshot(Table::DeadLetters).await.unwrap();
    assert_eq!(dead.transaction(&Transaction::Dead(world.log.identity(), 0).to_string()), 3);
    let version = world.tables.version(Table::Events).await.unwrap();
    drop(world.start().await);
    assert_eq!((lost(&world).await, world.tables.version(Table::Events).await.unwrap()), (vec![loss], version));

    world.settle().await;
    assert_eq!(offsets(&world).await, [0, 3, 4]);
    // Another gap, at the end of the log: together they are four.
    world.append(0, events_at("5", &[NOW])).await;
    world.append(0, events_at("6", &[NOW])).await;
    world.log.trim(0, 7).await.unwrap();
    world.settle().await;
    assert_eq!(lost(&world).await, [Loss { partition: 0, records: 4, to: 7 }]);
    assert_eq!(offsets(&world).await, [0, 3, 4]);
}

#[tokio::test]
async fn a_death_between_its_two_commits_counts_nothing_twice() {
    let world = world().await;
    world.log.trim(0, 3).await.unwrap();
    drop(world.start().await);
    // Of dead letters the commit had not come about.
    let name = Transaction::Dead(world.log.identity(), 0).to_string();
    world.tables.commit(steps(Table::DeadLetters, name.clone(), 3, 1)).await.unwrap();
    world.settle().await;
    assert_eq!(lost(&world).await, [Loss { partition: 0, records: 2, to: 3 }]);
    assert_eq!(world.tables.snapshot(Table::DeadLetters).await.unwrap().transaction(&name), 5);
}

#[tokio::test]
async fn a_gap_of_dead_letters_alone_is_a_loss_too() {
    let world = world().await;
    world.settle().await;
    // Its events are archived up to 5; an archiver has ended before it committed dead letters above 2.
    let name = Transaction::Dead(world.log.identity(), 0).to_string();
    world.tables.commit(steps(Table::DeadLetters, name.clone(), 5, 2)).await.unwrap();
    world.log.trim(0, 5).await.unwrap();
    world.settle().await;
    assert_eq!(lost(&world).await, [Loss { partition: 0, records: 3, to: 5 }]);
    assert_eq!(world.tables.snapshot(Table::DeadLetters).await.unwrap().transaction(&name), 5);
    assert_eq!(offsets(&world).await, [0, 1, 2, 3, 4], "its events are there");
    world.settle().await;
    assert_eq!(lost(&world).await, [Loss { partition: 0, records: 3, to: 5 }]);
}

#[tokio::test]
async fn a_gap_that_is_met_on_the_way_is_left_to_the_next_archiver() {
    let world = world().await.patient();
    let archiver = world.start().await;
    let ends = world.ends().await;
    archiver.reach(&ends).await.unwrap();
    assert!(!archiver.has_met_a_gap());
    // Not one await between them, and one thread: both are there when the archiver looks again.
    let appended = (0..3).map(|record| events_at(&format!("late-{record}"), &[NOW])).collect();
    world.log.append(0, appended).await.unwrap();
    world.log.trim(0, 7).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), async {
        while !archiver.has_met_a_gap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is met");
    assert!(archiver.failure().is_none() && lost(&world).await.is_empty());
    drop(archiver);
    world.settle().await;
    assert_eq!(lost(&world).await, [Loss { partition: 0, records: 2, to: 7 }]);
    assert_eq!(offsets(&world).await, [0, 1, 2, 3, 4, 7]);
}
