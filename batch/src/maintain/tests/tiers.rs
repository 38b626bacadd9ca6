//! Old raw events in a colder store.

use reckon_tables::{CheckedStore, TieredStore};

use super::*;

/// A maintainer with a colder store, and the store that both are.
fn with_cold(world: &World, cold: &Arc<dyn ObjectStore>) -> (Maintainer, Arc<dyn ObjectStore>) {
    let tiered = TieredStore::new(Arc::clone(&world.store), Arc::clone(cold));
    let store: Arc<dyn ObjectStore> = Arc::new(CheckedStore::new(Arc::new(tiered.clone())));
    let root = || -> Arc<dyn ObjectStore> { Arc::new(InMemory::new()) };
    let mut parts = world.maintainer().parts;
    parts.cold = Some(ColdStore::new("cold", tiered, Arc::clone(&store), [root(), root()]));
    parts.store = Arc::clone(&store);
    (Maintainer::new(parts), store)
}

#[tokio::test]
async fn counted_events_of_old_dates_move_and_stay_readable_and_are_not_put_together_any_more() {
    let mut world = World::new();
    world.settings.retention.cold_days = Some(60);
    world.settings.retention.events_days = Some(90);
    let row: Row = (0, 1, 5, 0);
    for offset in 0..20 {
        world.add_events(today() - 61, 0, offset, &[row]).await;
    }
    // One that is not counted yet, and one that is not old.
    world.add_events(today() - 61, 1, 0, &[row]).await;
    world.add_events(today() - 60, 0, 20, &[row]).await;
    world.cover([21, 0]).await;
    let before = (world.rows(Table::Events).await, world.snapshot(Table::Events).await);
    let cold: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (maintainer, store) = with_cold(&world, &cold);
    let Outcome::Done(compacted) = maintainer.compact_events(None).await.unwrap() else { panic!("alone") };
    assert_eq!(compacted.commits, 0);
    let Outcome::Done(moved) = maintainer.move_to_cold().await.unwrap() else { panic!("alone") };
    assert_eq!(moved.files, 20);
    assert_eq!(maintainer.move_to_cold().await.unwrap(), Outcome::Done(Moved::default()));
    let sizes = maintainer.parts.cold.as_ref().and_then(ColdStore::sizes).unwrap();
    assert_eq!((sizes.cold_files, sizes.hot_files, sizes.cold_bytes), (20, 2, moved.bytes));
    world.store = store;
    assert_eq!((world.rows(Table::Events).await, world.snapshot(Table::Events).await), before);
    // When they are too old they go from there, too, as far as the table is concerned.
    world.clock.advance(30 * MICROS_PER_DAY);
    world.cover([21, 1]).await;
    assert_eq!(maintainer.expire_events().await.unwrap(), Outcome::Done(21));
}
