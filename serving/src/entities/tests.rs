//! Machines that write and follow, against a map that does the same.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use proptest::prelude::*;
use tokio::runtime::Builder;

use super::testing::{Place, input};
use super::*;

/// What is done.
#[derive(Debug, Clone)]
enum Act {
    Put(u8, Option<u8>),
    Delete(u8),
    Import(Vec<(u8, Option<u8>)>),
    Reopen,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let channel = prop::option::of(0..3_u8);
    let act = prop_oneof![
        4 => (0..6_u8, channel.clone()).prop_map(|(id, channel)| Act::Put(id, channel)),
        2 => (0..6_u8).prop_map(Act::Delete),
        1 => prop::collection::vec((0..6_u8, channel), 0..5).prop_map(Act::Import),
        1 => Just(Act::Reopen),
    ];
    prop::collection::vec(act, 1..30)
}

fn name(kind: &str, number: u8) -> String {
    format!("{kind}{number}")
}

fn input_of(channel: Option<u8>) -> EntityInput {
    input(channel.map(|number| name("channel", number)).as_deref())
}

type Model = BTreeMap<String, Option<String>>;

async fn act(entities: &Entities, model: &mut Model, act: Act) {
    match act {
        Act::Put(id, channel) => {
            entities.put(name("e", id), input_of(channel), Condition::Any).await.unwrap();
            model.insert(name("e", id), channel.map(|number| name("channel", number)));
        }
        Act::Delete(id) => {
            let known = model.remove(&name("e", id)).is_some();
            let deleted = entities.delete(name("e", id), Condition::Any).await;
            assert_eq!(deleted.is_ok(), known, "{deleted:?}");
        }
        Act::Import(rows) => {
            let made = rows.iter().map(|(id, channel)| entities.entity(name("e", *id), input_of(*channel)).unwrap());
            entities.put_all(made.collect()).await.unwrap();
            model.extend(rows.iter().map(|(id, of)| (name("e", *id), of.map(|number| name("channel", number)))));
        }
        Act::Reopen => {}
    }
}

/// Records and the index of channels say what the model says.
async fn compare(entities: &Entities, model: &Model) {
    let view = entities.view().await.unwrap();
    let records = view.after(None).map(|record| record.unwrap().entity);
    let records: Model = records.map(|entity| (entity.entity_id, entity.channel)).collect();
    assert_eq!(&records, model);
    let index: Vec<(String, String)> = view.channels_and_ids().collect::<Result<_, _>>().unwrap();
    let mut wanted: Vec<(String, String)> =
        model.iter().filter_map(|(id, channel)| Some((channel.clone()?, id.clone()))).collect();
    wanted.sort();
    assert_eq!(index, wanted);
    let mut channels: Vec<String> = wanted.into_iter().map(|(channel, _)| channel).collect();
    channels.dedup();
    assert_eq!(view.channels("", None, 100).unwrap(), channels);
}

/// Ends its task, so that the folder can be opened again.
async fn end(entities: Arc<Entities>) {
    let keeper = entities.keeper.lock().take();
    let replica = Arc::downgrade(&entities.replica);
    drop(entities);
    // It ends by itself, for nobody can ask any more.
    if let Some(keeper) = keeper {
        keeper.await.unwrap();
    }
    // A snapshot may still be being made.
    while replica.strong_count() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn play(acts: Vec<Act>, snapshot_every: u64) {
    let place = Place::new();
    let mut model = Model::new();
    let mut entities = Entities::start_with(place.parts("one"), snapshot_every).await.unwrap();
    for what in acts {
        if matches!(what, Act::Reopen) {
            end(entities).await;
            entities = Entities::start_with(place.parts("one"), snapshot_every).await.unwrap();
        }
        act(&entities, &mut model, what).await;
        compare(&entities, &model).await;
    }
    // Another machine has it all from the objects alone.
    let other = Entities::start_with(place.parts("other"), snapshot_every).await.unwrap();
    compare(&other, &model).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn records_are_what_was_written(acts in acts(), snapshot_every in prop_oneof![Just(2_u64), Just(1_000)]) {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(play(acts, snapshot_every));
    }
}

/// Waits until a machine knows something of an entity, or that there is nothing to know.
async fn wait_for(entities: &Entities, entity: &str, title: Option<&str>) {
    for _ in 0..1_000 {
        let found = entities.get(entity).await.ok().and_then(|record| record.entity.title);
        if found.as_deref() == title {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{entity} never was {title:?}");
}

fn titled(title: &str) -> EntityInput {
    EntityInput { title: Some(title.to_owned()), ..EntityInput::default() }
}

#[tokio::test]
async fn machines_follow_each_other_and_neither_overwrites_the_other() {
    let place = Place::new();
    let one = place.start().await;
    let two = Entities::start(place.parts("two")).await.unwrap();
    let first = one.put("a".to_owned(), titled("first"), Condition::Absent).await.unwrap();
    wait_for(&two, "a", Some("first")).await;
    let second = two.put("a".to_owned(), titled("second"), Condition::One(vec![first.version])).await.unwrap();
    assert!(second.version > first.version);
    // It has not heard of that yet; the number is taken, so it hears of it now.
    let lost = one.put("a".to_owned(), titled("third"), Condition::One(vec![first.version])).await.unwrap_err();
    assert!(
        matches!(&lost, EntityError::Changed { message, .. } if message.contains(&second.version.to_string())),
        "{lost}"
    );
    assert_eq!(one.get("a").await.unwrap(), second);
    let again = one.put("a".to_owned(), titled("x"), Condition::Absent).await.unwrap_err();
    assert!(matches!(again, EntityError::Changed { .. }));
    one.delete("a".to_owned(), Condition::One(vec![second.version])).await.unwrap();
    assert!(matches!(one.delete("a".to_owned(), Condition::Any).await, Err(EntityError::NotFound { .. })));
    wait_for(&two, "a", None).await;
}

#[tokio::test]
async fn many_writers_lose_nothing() {
    let place = Place::new();
    let one = place.start().await;
    let two = Entities::start(place.parts("two")).await.unwrap();
    let put = |entities: &Arc<Entities>, at: usize| {
        let entities = Arc::clone(entities);
        async move { entities.put(format!("e{at}"), titled("t"), Condition::Absent).await.map(|record| record.version) }
    };
    let all = (0..100).map(|at| put(if at % 2 == 0 { &one } else { &two }, at));
    let mut versions = futures::future::try_join_all(all).await.unwrap();
    versions.sort();
    versions.dedup();
    assert_eq!(versions.len(), 100, "each is a change of its own");
    assert!(versions.iter().any(|version| version.1 > 0), "those that wait are written together");
    wait_for(&one, "e99", Some("t")).await;
    wait_for(&one, "e98", Some("t")).await;
    let count = |view: &View| Ok(view.after(None).count());
    assert_eq!(one.ask(count).await.unwrap(), 100);
}

fn object(number: u64) -> Path {
    Path::from(format!("journal/{number:020}"))
}

/// A channel's ids are read from the prefix on, and no record of another channel or prefix is listed.
#[tokio::test]
async fn a_search_in_a_channel_begins_where_its_ids_do() {
    let place = Place::new();
    let entities = place.start().await;
    for (entity, channel) in [("a1", "x"), ("b1", "x"), ("b2", "x"), ("b3", "y"), ("c1", "x")] {
        entities.put(entity.to_owned(), input(Some(channel)), Condition::Any).await.unwrap();
    }
    let view = entities.view().await.unwrap();
    let ids = |search: &str, after: Option<String>| {
        let search = Some(search.to_owned());
        let query = ListQuery { search, channel: Some("x".to_owned()), limit: 1, after, ..ListQuery::default() };
        let page = view.list(&query).unwrap();
        let ids: Vec<String> = page.records.into_iter().map(|record| record.entity.entity_id).collect();
        (ids, page.next)
    };
    let (first, next) = ids("b", None);
    assert_eq!(first, ["b1"]);
    assert_eq!(ids("b", next).0, ["b2"]);
    assert!(ids("d", None).0.is_empty());
}

/// However long records are, what is held of them at once is bounded.
#[tokio::test]
async fn records_are_taken_by_their_bytes() {
    let place = Place::new();
    let entities = place.start().await;
    for at in 0..5 {
        entities.put(format!("e{at}"), titled(&"t".repeat(1_000)), Condition::Any).await.unwrap();
    }
    let view = entities.view().await.unwrap();
    let mut records = view.after(None);
    let mut take = |rows, bytes| next_of(&mut records, rows, bytes).unwrap().len();
    assert_eq!((take(1, 1_000_000), take(10, 1_500), take(10, 1), take(10, 1_000_000)), (1, 2, 1, 1));
    assert_eq!(take(10, 1_000_000), 0);
}

/// Snapshots are made beside everything else.
async fn wait_until_gone(place: &Place, number: u64) {
    for _ in 0..1_000 {
        if matches!(place.store.get(&object(number)).await, Err(object_store::Error::NotFound { .. })) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("object {number} stays");
}

#[tokio::test]
async fn a_damaged_object_is_named_and_can_be_given_up() {
    let place = Place::new();
    let one = place.start().await;
    for entity in ["a", "b", "c"] {
        one.put(entity.to_owned(), titled(entity), Condition::Any).await.unwrap();
    }
    let whole = place.store.get(&object(2)).await.unwrap().bytes().await.unwrap();
    place.store.put(&object(2), whole.slice(..whole.len() - 5).into()).await.unwrap();
    // Who has followed it needs it no more.
    one.put("d".to_owned(), titled("d"), Condition::Any).await.unwrap();
    let two = Entities::start(place.parts("two")).await.unwrap();
    let trouble = two.trouble().unwrap();
    assert!(matches!(&trouble, EntityError::Damaged { path, .. } if path.ends_with("2")), "{trouble}");
    assert!(trouble.to_string().contains("given up"), "{trouble}");
    let refused = two.put("e".to_owned(), titled("e"), Condition::Any).await.unwrap_err();
    assert_eq!(refused, trouble, "it must not write over what it cannot read");
    assert!(two.get("c").await.is_err(), "an answer could lack something");
    place.store.put(&object(2), "given up\n".into()).await.unwrap();
    wait_for(&two, "d", Some("d")).await;
    assert!(matches!(two.get("b").await, Err(EntityError::NotFound { .. })), "that is what was given up");
    assert_eq!(two.get("c").await.unwrap().entity.title.as_deref(), Some("c"));
    assert_eq!(two.trouble(), None);
}

#[tokio::test]
async fn a_damaged_object_at_the_start_hides_nothing() {
    let place = Place::new();
    let one = place.start().await;
    one.put("a".to_owned(), titled("a"), Condition::Any).await.unwrap();
    place.store.put(&object(1), "{}".into()).await.unwrap();
    let two = Entities::start(place.parts("two")).await.unwrap();
    assert!(two.view().await.is_err(), "nothing is not what there is");
    assert!(one.get("a").await.is_ok());
}

#[tokio::test]
async fn snapshots_stand_in_for_the_journal() {
    let place = Place::new();
    let one = Entities::start_with(place.parts("one"), 5).await.unwrap();
    for at in 0..23 {
        one.put(format!("e{at}"), titled("t"), Condition::Any).await.unwrap();
        // Each snapshot is made before the next is due.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait_until_gone(&place, 1).await;
    assert!(place.store.get(&object(20)).await.is_ok(), "the last snapshot's stay until the next");
    let two = Entities::start_with(place.parts("two"), 5).await.unwrap();
    let count = |view: &View| Ok((view.after(None).count(), view.position()));
    assert_eq!(two.ask(count).await.unwrap(), (23, 23));
}

/// What the snapshot before the last one does not hold must stay: the last one may be being read, or be damaged.
#[test]
fn the_journal_stays_from_the_last_but_one_snapshot_on() {
    for (snapshots, expected) in [(vec![], 0), (vec![5], 0), (vec![5, 10], 5), (vec![5, 10, 15], 10)] {
        assert_eq!(journal::floor(&snapshots), expected, "{snapshots:?}");
    }
}

/// A process that sleeps for long must not create a number anew that was removed, and believe that it has written something.
#[tokio::test]
async fn a_sleeper_does_not_write_into_the_past() {
    let place = Place::new();
    let sleeper = place.start().await;
    sleeper.put("a".to_owned(), titled("a"), Condition::Any).await.unwrap();
    let one = Entities::start_with(place.parts("two"), 2).await.unwrap();
    for at in 0..12 {
        one.put(format!("e{at}"), titled("t"), Condition::Any).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Its next number is 2, which is free again. If it has looked meanwhile, it knows.
    wait_until_gone(&place, 2).await;
    let written = sleeper.put("b".to_owned(), titled("b"), Condition::Any).await;
    if let Err(error) = written {
        assert!(matches!(error, EntityError::Unavailable { .. }), "{error}");
        sleeper.put("b".to_owned(), titled("b"), Condition::Any).await.unwrap();
    }
    wait_for(&one, "b", Some("b")).await;
    assert_eq!(sleeper.get("e11").await.unwrap().entity.title.as_deref(), Some("t"));
}

/// Another data directory, or an older one put back: what this machine had is not what there is.
#[tokio::test]
async fn another_journal_is_another_store() {
    let place = Place::new();
    let one = place.start().await;
    one.put("a".to_owned(), titled("a"), Condition::Any).await.unwrap();
    one.put("b".to_owned(), titled("b"), Condition::Any).await.unwrap();
    end(one).await;
    place.store.delete(&object(2)).await.unwrap();
    let older = place.start().await;
    assert!(older.get("a").await.is_ok() && older.get("b").await.is_err());
    end(older).await;
    place.store.delete(&object(1)).await.unwrap();
    place.store.delete(&Path::from("identity")).await.unwrap();
    let other = place.start().await;
    assert!(other.get("a").await.is_err());
}

/// A journal that was put back from a backup, and has gone on since, reaches as far as this machine has followed the other one.
#[tokio::test]
async fn a_journal_that_went_on_otherwise_is_another_store() {
    let place = Place::new();
    let one = place.start().await;
    for entity in ["a", "b"] {
        one.put(entity.to_owned(), titled(entity), Condition::Any).await.unwrap();
    }
    end(one).await;
    place.store.delete(&object(2)).await.unwrap();
    let two = Entities::start(place.parts("two")).await.unwrap();
    for entity in ["c", "d"] {
        two.put(entity.to_owned(), titled(entity), Condition::Any).await.unwrap();
    }
    let one = place.start().await;
    for (entity, is_there) in [("a", true), ("b", false), ("c", true), ("d", true)] {
        assert_eq!(one.get(entity).await.is_ok(), is_there, "{entity}");
    }
}

/// A machine that began with a snapshot, and has followed nothing since, knows as well which journal that was of.
#[tokio::test]
async fn a_snapshot_of_a_journal_that_went_on_otherwise_is_another_store() {
    let place = Place::new();
    let one = Entities::start_with(place.parts("one"), 2).await.unwrap();
    for entity in ["a", "b"] {
        one.put(entity.to_owned(), titled(entity), Condition::Any).await.unwrap();
    }
    end(one).await;
    let snapshot = Path::from(format!("snapshots/{:020}", 2));
    assert!(place.store.get(&snapshot).await.is_ok());
    end(Entities::start(place.parts("late")).await.unwrap()).await;
    place.store.delete(&snapshot).await.unwrap();
    place.store.delete(&object(2)).await.unwrap();
    let two = Entities::start(place.parts("two")).await.unwrap();
    for entity in ["c", "d"] {
        two.put(entity.to_owned(), titled(entity), Condition::Any).await.unwrap();
    }
    let late = Entities::start(place.parts("late")).await.unwrap();
    for (entity, is_there) in [("a", true), ("b", false), ("c", true), ("d", true)] {
        assert_eq!(late.get(entity).await.is_ok(), is_there, "{entity}");
    }
}

#[tokio::test]
async fn a_hole_in_the_journal_is_not_its_end() {
    let place = Place::new();
    let one = place.start().await;
    for entity in ["a", "b", "c", "d"] {
        one.put(entity.to_owned(), titled(entity), Condition::Any).await.unwrap();
    }
    // A wider one, of which the next number does not tell, is one as well.
    for (lost, machine) in [(2, "two"), (3, "three")] {
        place.store.delete(&object(lost)).await.unwrap();
        let other = Entities::start(place.parts(machine)).await.unwrap();
        let refused = other.put("e".to_owned(), titled("e"), Condition::Any).await.unwrap_err();
        assert!(matches!(&refused, EntityError::Damaged { reason, .. } if reason.contains("gone")), "{refused}");
        assert!(other.view().await.is_err() && place.store.get(&object(2)).await.is_err());
    }
}

/// The folder of a machine may lose anything: what it lacks must not look like what there is not.
#[tokio::test]
async fn a_damaged_folder_is_made_anew() {
    let place = Place::new();
    let one = place.start().await;
    one.put("a".to_owned(), input(Some("x")), Condition::Any).await.unwrap();
    end(one).await;
    for lost in ["version", ".jnl"] {
        let files = std::fs::read_dir(place.folder("one")).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(lost)).collect();
        assert!(!files.is_empty(), "there is no {lost}");
        files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
        let again = place.start().await;
        assert_eq!(again.get("a").await.unwrap().entity.channel.as_deref(), Some("x"), "without {lost}");
        end(again).await;
    }
}

#[tokio::test]
async fn lists_are_pages() {
    let place = Place::new();
    let entities = place.start().await;
    for (entity, title, channel) in
        [("cat-1", "One", "x"), ("cat-2", "Two cats", "y"), ("dog", "A CAT's friend", "x"), ("emu", "Bird", "x")]
    {
        let known = EntityInput { channel: Some(channel.to_owned()), owner: Some("o".to_owned()), ..titled(title) };
        entities.put(entity.to_owned(), known, Condition::Any).await.unwrap();
    }
    let view = entities.view().await.unwrap();
    let all = |query: ListQuery| {
        let (mut ids, mut query) = (Vec::new(), query);
        loop {
            let page = view.list(&query).unwrap();
            assert!(page.records.len() <= query.limit);
            ids.extend(page.records.into_iter().map(|record| record.entity.entity_id));
            query.after = page.next;
            if query.after.is_none() {
                return ids;
            }
        }
    };
    for limit in [1, 2, 3, 100] {
        let query = |search: Option<&str>, channel: Option<&str>| ListQuery {
            search: search.map(str::to_owned),
            channel: channel.map(str::to_owned),
            limit,
            ..ListQuery::default()
        };
        assert_eq!(all(query(None, None)), ["cat-1", "cat-2", "dog", "emu"]);
        assert_eq!(all(query(Some("cat"), None)), ["cat-1", "cat-2", "dog"], "ids first, and each once");
        assert_eq!(all(query(Some("cat"), Some("x"))), ["cat-1", "dog"]);
        assert_eq!(all(query(None, Some("x"))), ["cat-1", "dog", "emu"]);
        assert_eq!(all(query(Some("bird"), None)), ["emu"]);
        assert!(all(query(Some("zebra"), None)).is_empty());
        let owned = ListQuery { owner: Some("nobody".to_owned()), limit, ..ListQuery::default() };
        assert!(all(owned).is_empty());
    }
    let wrong = ListQuery { limit: 1, after: Some("x".to_owned()), ..ListQuery::default() };
    assert!(matches!(view.list(&wrong), Err(EntityError::Invalid { field, .. }) if field == "after"));
    assert_eq!(view.channels("", Some("x"), 10).unwrap(), ["y"]);
    assert_eq!(view.channels("y", None, 10).unwrap(), ["y"]);
}
