//! Counts that other definitions have made, of which an answer would look whole and be too small.

use reckon_data::minute::MICROS_PER_DAY;
use reckon_data::paths::Transaction;
use reckon_data::run::Dimension;
use reckon_data::table::Table;

use super::*;
use crate::entities::Condition;
use crate::entities::testing::{Place, input};
use crate::testing::LOG;

/// Of two partitions that were sealed since the view was made one went on by its older settings: all of it has to hold
/// what is asked, and not some of it.
#[tokio::test(flavor = "multi_thread")]
async fn one_segment_that_does_not_hold_what_is_asked_is_enough() {
    let other = Ev { entity: "v2".to_owned(), ..one("c", 1) };
    let mut world = World::new(Log(vec![vec![one("a", 1), one("b", 2)], vec![other]]));
    world.archive(&[2, 1]).await;
    let serving = world.serve().await;
    world.seal(&[0, 1], 1, false).await;
    world.definition.metrics = vec![Function::Count];
    world.seal(&[2, 0], 2, false).await;
    // Each of the two has set both.
    world.mark(Table::StreamCounts, &[(Transaction::Stream(LOG, 1), 1)]).await;
    world.tails.state.lock().on_disk_below.extend([(0, 2), (1, 1)]);
    let query = |function| ManyQuery {
        entities: vec!["v1".to_owned()],
        event_type: None,
        functions: vec![function],
        from: 0,
        to: MICROS_PER_DAY,
        step: None,
        filter: None,
        previous: false,
        as_of: None,
    };
    for (function, source) in [(Function::Sum, Source::Events), (Function::Count, Source::Counts)] {
        let answer = serving.many(&query(function)).await.unwrap();
        assert_eq!((answer.entities[0].count, answer.provenance.source), (2, source), "{function}");
    }
}

/// Channels are not answered from raw events: what counts do not hold is refused, and not left out.
#[tokio::test(flavor = "multi_thread")]
async fn channels_are_not_added_up_from_counts_that_lack_the_filters_column() {
    let mut world = World::new(small());
    world.batch(&[4, 0]).await;
    world.definition = Definition { dimensions: Dimension::ALL.to_vec(), ..Definition::default() };
    let serving = world.serve().await;
    let place = Place::new();
    let entities = place.start().await;
    entities.put("v1".to_owned(), input(Some("x")), Condition::Any).await.unwrap();
    serving.know_entities(entities);
    let query = |filter| TopQuery { n: 1, event_type: None, from: 0, to: MICROS_PER_DAY, filter };
    let all = Box::pin(serving.top_channels(&query(None))).await.unwrap();
    assert_eq!((all.total, all.groups, all.channels[0].channel.as_deref()), (3, 1, Some("x")));
    let of_ip = query(Some(serving.filter("ip:10.0.0.1").unwrap()));
    let refused = Box::pin(serving.top_channels(&of_ip)).await;
    assert!(matches!(refused, Err(ServingError::BadRequest { field: "filter", .. })), "{refused:?}");
}
