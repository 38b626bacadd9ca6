//! Records that cannot be read: they are named, hold up their own partition alone, and are tried again.

use super::*;
use crate::scratched::Scratched;

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something that comes by itself.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect(what);
}

#[tokio::test]
async fn a_record_that_cannot_be_decoded_is_named_and_what_came_before_is_archived() {
    let world = World::new(2);
    world.append(1, events_at("a", &[NOW])).await;
    let mut broken = events_at("b", &[NOW]).to_vec();
    broken[50] ^= 1;
    world.append(1, Bytes::from(broken)).await;
    world.append(1, events_at("c", &[NOW])).await;
    let archiver = world.start().await;
    until("what came before is archived", || archiver.committed() == [0, 1] && !archiver.stuck().is_empty()).await;
    let stuck = archiver.stuck();
    assert!(matches!(*stuck[0], ArchiveError::Corrupt { partition: 1, offset: 1, .. }), "{stuck:?}");
    assert!(archiver.failure().is_none(), "the archiver itself goes on");
    assert_eq!(world.events().await.len(), 1);
    let error = tokio::time::timeout(PATIENCE, archiver.reach(&[0, 3])).await.expect("nobody hangs").unwrap_err();
    assert!(error.contains("partition 1, offset 1"), "{error}");
    archiver.stop().await.unwrap();
    assert_eq!(archiver.committed(), [0, 1], "nothing may be trimmed past it");
}

#[tokio::test]
async fn others_go_on_past_a_damaged_record_and_its_partition_does_once_it_can_be_read() {
    let world = World::new(3);
    let log = Arc::new(Scratched::new(world.log.clone()));
    log.records.lock().insert((0, 1));
    for partition in 0..3 {
        world.append(partition, events_at(&format!("a{partition}"), &[NOW])).await;
    }
    world.append(0, events_at("damaged", &[NOW])).await;
    let parts = ArchiverParts { log: Arc::clone(&log) as Arc<dyn Log>, ..world.parts() };
    let archiver = Archiver::start(parts).await.unwrap();
    // Round after round.
    for round in 2..6 {
        for partition in 1..3 {
            world.append(partition, events_at(&format!("b{partition}{round}"), &[NOW])).await;
        }
        until("others go on", || archiver.committed() == [1, round, round]).await;
    }
    until("it is named", || archiver.stuck().len() == 1).await;
    assert!(archiver.stuck()[0].to_string().contains("partition 0, offset 1"));
    // What lies before it can be waited for, and what lies behind it cannot.
    archiver.reach(&[1, 5, 5]).await.unwrap();
    let error = archiver.reach(&[2, 5, 5]).await.unwrap_err();
    assert!(error.contains("partition 0, offset 1") && error.contains("scratched"), "{error}");

    log.records.lock().clear();
    until("it is tried again", || archiver.committed() == [2, 5, 5] && archiver.stuck().is_empty()).await;
    archiver.reach(&[2, 5, 5]).await.unwrap();
    archiver.stop().await.unwrap();
    assert_eq!(world.events().await.len(), 12, "each event once");
}

#[tokio::test]
async fn a_damaged_record_does_not_end_rounds_of_others_early() {
    let world = World::new(2).patient();
    let log = Arc::new(Scratched::new(world.log.clone()));
    log.records.lock().insert((0, 0));
    world.append(0, events_at("damaged", &[NOW])).await;
    world.append(1, events_at("a", &[NOW])).await;
    let parts = ArchiverParts { log: Arc::clone(&log) as Arc<dyn Log>, ..world.parts() };
    let archiver = Archiver::start(parts).await.unwrap();
    // Tried several times, and at a bounded pace.
    until("it is tried again", || archiver.stats().retries >= 3).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(archiver.stats().retries < 6, "{}", archiver.stats().retries);
    assert_eq!((archiver.stats().commits, archiver.committed()), (0, vec![0, 0]));
    archiver.stop().await.unwrap();
    assert_eq!(archiver.committed(), [0, 1]);
}

#[tokio::test]
async fn a_fence_ends_it_whatever_is_damaged() {
    let world = World::new(2).patient();
    let log = Arc::new(Scratched::new(world.log.clone()));
    log.records.lock().insert((0, 0));
    let first = Archiver::start(ArchiverParts { log: log as Arc<dyn Log>, ..world.parts() }).await.unwrap();
    world.append(0, events_at("damaged", &[NOW])).await;
    world.append(1, events_at("a", &[NOW])).await;
    until("it is named", || first.stuck().len() == 1).await;
    world.settle().await;
    assert!(first.stop().await.is_err());
    assert!(matches!(*first.failure().unwrap(), ArchiveError::Fenced(_)));
}
