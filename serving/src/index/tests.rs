//! What of an entity is read from files.
#![allow(clippy::unwrap_used)]

use bytesize::ByteSize;
use reckon_data::minute::start_of_minute;

use super::*;
use crate::query::CountQuery;
use crate::testing::{Ev, Log, World};

fn event(number: i64) -> Ev {
    Ev {
        id: format!("e{number}"),
        entity: format!("v{}", number % 2),
        event_type: "view",
        minute: number * 3 % 1_440,
        country: None,
        ip: None,
        value: None,
    }
}

/// An entity may have a good part of a date's rows, and many are read at once: none holds more than it is asked for.
#[tokio::test]
async fn of_an_entity_only_the_minutes_of_a_window_are_read() {
    let events: Vec<Ev> = (0..480).map(event).collect();
    let mut world = World::new(Log(vec![events.clone()]));
    // A date's minutes are held by the hour.
    world.settings.index_memory = ByteSize::b(24_000);
    world.batch(&[480]).await;
    let serving = world.serve().await;
    serving.stop();
    let view = serving.current.get();
    let window = 610..700;
    let of = |minutes: &Range<i64>| {
        let own = events.iter().filter(|event| event.entity == "v1" && minutes.contains(&event.minute));
        own.count()
    };
    for span in spans(&view, &window, Some(1)).unwrap() {
        let run = serving.index.read_entity(&span, "v1", Columns::Counts).await.unwrap();
        assert_eq!((run.rows(), span.minutes.clone()), (of(&window), window.clone()));
    }
    let held = serving.index_bytes();
    let (from, to) = (start_of_minute(window.start), start_of_minute(window.end));
    let query = CountQuery { entity: "v1".to_owned(), event_type: None, from, to, filter: None };
    assert_eq!(serving.count(&query).await.unwrap().count, of(&window) as u64);
    assert_eq!(serving.index_bytes(), held, "nothing is loaded for one entity");
}
