//! Filters by their names, events by their ids, and dead letters.

use super::*;

#[tokio::test]
async fn filters_are_named_or_written_out() {
    let mut world = World::new(small());
    world.definition.filters = BTreeMap::from([("0012".to_owned(), "country = 'US'".parse().unwrap())]);
    let serving = world.serve().await;
    assert_eq!(serving.filter("0012").unwrap().to_string(), "country = 'US'");
    assert_eq!(serving.filter("ip:::1").unwrap().to_string(), "ip = '::1'");
    for text in ["0013", "", "colour:red"] {
        assert!(matches!(serving.filter(text), Err(ServingError::BadRequest { field: "filter", .. })), "{text}");
    }
}

#[tokio::test]
async fn an_event_is_found_wherever_it_lies() {
    let world = World::new(small());
    world.batch(&[2, 0]).await;
    world.archive(&[4, 0]).await;
    world.bury(&[(7, "too_long", "{\"event_id\":\"b\"}"), (8, "malformed", "{")]).await;
    let serving = world.serve().await;
    let found = serving.locate("a", None, None).await.unwrap();
    let places: Vec<(u64, Verdict, bool)> =
        found.copies.iter().map(|copy| (copy.offset, copy.verdict, copy.covered)).collect();
    assert_eq!(places, [(0, Verdict::Counted, true), (2, Verdict::Duplicate, false)]);
    assert!(!found.truncated && !found.may_be_in_log);
    let dead = serving.locate("b", Some("v1"), Some(0)).await.unwrap();
    assert_eq!((dead.copies.len(), dead.dead.len(), dead.dead[0].place.offset), (1, 1, 7));
    assert_eq!(serving.locate("a", None, Some(1)).await.unwrap().copies, []);
    assert_eq!(serving.locate("' OR 1=1 --", None, None).await.unwrap().copies, []);
    assert!(matches!(serving.locate("", None, None).await, Err(ServingError::BadRequest { field: "event_id", .. })));
}

#[tokio::test]
async fn dead_letters_are_listed_page_by_page() {
    let world = World::new(small());
    world.bury(&[(9, "empty", "c"), (7, "too_long", "a"), (8, "empty", "b")]).await;
    let serving = world.serve().await;
    let mut query = DeadLettersQuery { limit: 2, after: None, reason: None };
    let first = serving.dead_letters(&query).await.unwrap();
    assert_eq!(first.letters.iter().map(|letter| letter.place.offset).collect::<Vec<_>>(), [7, 8]);
    query.after = first.next;
    let second = serving.dead_letters(&query).await.unwrap();
    assert_eq!((second.letters[0].place.offset, second.letters.len(), second.next), (9, 1, None));
    let empty = DeadLettersQuery { reason: Some("empty".to_owned()), after: None, ..query };
    assert_eq!(serving.dead_letters(&empty).await.unwrap().letters.len(), 2);
    let none = DeadLettersQuery { limit: 0, ..DeadLettersQuery::default() };
    assert!(matches!(serving.dead_letters(&none).await, Err(ServingError::BadRequest { field: "limit", .. })));
}
