//! Many entities, many functions and the period before, held to the same naive count.

use reckon_data::minute::MICROS_PER_DAY;
use reckon_data::paths::Transaction;
use reckon_data::run::Dimension;
use reckon_data::table::Table;

use super::*;

const FUNCTIONS: [Function; 5] = [Function::Count, Function::Sum, Function::Min, Function::Max, Function::Avg];
const ENTITIES: [&str; 6] = ["v0", "v1", "v2", "v3", "v4", "nobody"];

/// The naive sum of events.
fn sum<'a>(events: impl IntoIterator<Item = &'a Ev>) -> Cell {
    events.into_iter().fold(Cell::default(), |mut sum, event| {
        let cell = Cell::one(0, event.value, None);
        sum.merge(&if event.is_late() { cell.as_late() } else { cell });
        sum
    })
}

fn many(entities: &[&str], from: i64, to: i64) -> ManyQuery {
    ManyQuery {
        entities: entities.iter().map(|entity| (*entity).to_owned()).collect(),
        event_type: None,
        functions: FUNCTIONS.to_vec(),
        from,
        to,
        step: None,
        filter: None,
        previous: true,
        as_of: None,
    }
}

fn ranked(function: Function, from: i64, to: i64, filter: Option<Filter>) -> RankedQuery {
    let top = TopQuery { event_type: Some("view".to_owned()), n: 3, from, to, filter };
    RankedQuery { top, function, previous: true, as_of: None }
}

/// Of entities the one with the larger value comes first, whatever the function.
fn expected_list(log: &Log, function: Function, window: &Window, keep: impl Fn(&Ev) -> bool) -> Vec<(String, Answer)> {
    let cell = |entity: &str, window: &Window| {
        sum(matching(log, entity, Some("view"), window, None).into_iter().filter(|event| keep(event)))
    };
    // As fractions: a sum of at most some hundred values, over how many they are.
    let fraction = |cell: &Cell| match cell.evaluate(function) {
        Answer::Count(count) => Some((i128::from(count), 1)),
        Answer::Decimal(_) if function == Function::Avg => cell.value.map(|value| (value.sum, i128::from(value.count))),
        Answer::Decimal(micros) => Some((micros, 1)),
        _ => None,
    };
    let mut list: Vec<((i128, i128), String, Answer)> = ENTITIES
        .iter()
        .filter_map(|entity| {
            let own = cell(entity, window);
            (own.count > 0).then_some(())?;
            Some((fraction(&own)?, (*entity).to_owned(), own.evaluate(function)))
        })
        .collect();
    list.sort_by(|(a, left, _), (b, right, _)| (b.0 * a.1).cmp(&(a.0 * b.1)).then_with(|| left.cmp(right)));
    list.into_iter().take(3).map(|(_, entity, value)| (entity, value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// many entities and several functions are what each would be by itself, wherever the log is cut; so is the period
    /// before; and hours and days are the sums of their minutes.
    #[test]
    fn many_are_as_each_by_itself(
        (log, batch, disk) in world(),
        from in 0..4_500_i64,
        length in 0..3_000_i64,
        only_one in any::<bool>(),
        us in any::<bool>(),
        torn in any::<bool>(),
        small in any::<bool>(),
    ) {
        run(async {
            let mut world = cut(&log, &batch, &disk, torn).await;
            if small {
                world.settings.index_memory = ByteSize::b(1);
                world.settings.cache_memory = ByteSize::b(0);
            }
            let serving = world.serve().await;
            let (from, to) = (start_of_minute(from), start_of_minute(from + length));
            let (window, country) = (Window::around(from, to).unwrap(), us.then_some("US"));
            let before = window.before().unwrap();
            let entities = if only_one { &ENTITIES[1..2] } else { &ENTITIES[..] };
            let filter = us.then(|| serving.filter("country:US").unwrap());
            let mut by_step = Vec::new();
            // Twice: the second time from the sums that were kept.
            for step in [None, Some(Step::DAY), Some(Step::HOUR), Some(Step::MINUTE), Some(Step::MINUTE)] {
                let query = ManyQuery { filter: filter.clone(), step, ..many(entities, from, to) };
                let answer = serving.many(&query).await.unwrap();
                assert!(answer.provenance.complete, "{:?}", answer.provenance);
                assert_eq!(answer.previous_window, Some(before));
                assert_eq!(answer.provenance.late, Some(answer.entities.iter().map(|own| own.late).sum()));
                for (entity, own) in entities.iter().zip(&answer.entities) {
                    let now = sum(matching(&log, entity, None, &window, country));
                    let then = sum(matching(&log, entity, None, &before, country));
                    assert_eq!((own.entity_id.as_str(), own.count, own.late), (*entity, now.count, now.late));
                    for function in FUNCTIONS {
                        let (now, then) = (now.evaluate(function), then.evaluate(function));
                        assert_eq!((own.total[&function], own.previous.as_ref().unwrap()[&function]), (now, then));
                        assert_eq!(own.change.as_ref().unwrap()[&function], Change::between(then, now));
                    }
                }
                by_step.push((step, answer));
            }
            let minutes = by_step.pop().unwrap().1;
            for (step, answer) in by_step.iter().filter_map(|(step, answer)| Some((step.as_ref()?, answer))) {
                for (own, fine) in answer.entities.iter().zip(&minutes.entities) {
                    let mut sums: BTreeMap<i64, (u64, i128)> = BTreeMap::new();
                    for point in fine.points.as_ref().unwrap() {
                        let minute = reckon_data::minute::minute_of(point.start);
                        let start = start_of_minute(minute.div_euclid(step.minutes()) * step.minutes());
                        let (count, value) = sums.entry(start).or_default();
                        let Answer::Count(more) = point.values[&Function::Count] else { panic!("no count") };
                        *count += more;
                        if let Answer::Decimal(more) = point.values[&Function::Sum] {
                            *value += more;
                        }
                    }
                    let coarse = own.points.as_ref().unwrap().iter().map(|point| {
                        let Answer::Count(count) = point.values[&Function::Count] else { panic!("no count") };
                        let value = match point.values[&Function::Sum] {
                            Answer::Decimal(value) => value,
                            _ => 0,
                        };
                        (point.start, (count, value))
                    });
                    assert_eq!(coarse.collect::<BTreeMap<_, _>>(), sums);
                }
            }
            let (hits, misses, _) = serving.cache_counts();
            assert!(if small { hits == 0 && misses == 0 } else { misses == 0 || hits > 0 }, "{hits} of {misses}");
        });
    }

    /// lists by any function are those of a sort, from counts and from raw events.
    #[test]
    fn lists_by_any_function_are_exact(
        (log, batch, disk) in world(), from in 0..1_500_i64, length in 0..3_000_i64, torn in any::<bool>(),
    ) {
        run(async {
            let world = cut(&log, &batch, &disk, torn).await;
            let all: Vec<u64> = log.0.iter().map(|events| events.len() as u64).collect();
            world.archive(&all).await;
            let serving = world.serve().await;
            let (from, to) = (start_of_minute(from), start_of_minute(from + length));
            let window = Window::around(from, to).unwrap();
            let before = window.before().unwrap();
            for (text, column) in [("country:US", "country"), ("ip:10.0.0.1", "ip")] {
                let keep = |event: &Ev| match column {
                    "country" => event.country == Some("US"),
                    _ => event.ip == Some("10.0.0.1"),
                };
                for function in FUNCTIONS {
                    let filter = serving.filter(text).unwrap();
                    let answer = serving.ranked(&ranked(function, from, to, Some(filter))).await.unwrap();
                    let found: Vec<(String, Answer)> =
                        answer.entities.iter().map(|one| (one.entity_id.clone(), one.value)).collect();
                    assert_eq!(found, expected_list(&log, function, &window, keep), "{function} {text}");
                    for one in &answer.entities {
                        let own = matching(&log, &one.entity_id, Some("view"), &before, None);
                        let then = sum(own.into_iter().filter(|event| keep(event))).evaluate(function);
                        assert_eq!((one.previous, one.change), (Some(then), Some(Change::between(then, one.value))));
                    }
                    let is_raw = column == "ip";
                    assert_eq!(answer.provenance.source == Source::Events, is_raw, "{text}");
                }
            }
        });
    }

    /// Filters on columns that are no dimension, of many entities at once.
    #[test]
    fn many_are_found_in_the_raw_events((log, batch, _) in world(), from in 0..1_500_i64, length in 0..3_000_i64) {
        run(async {
            let world = cut(&log, &batch, &batch, false).await;
            let all: Vec<u64> = log.0.iter().map(|events| events.len() as u64).collect();
            world.archive(&all).await;
            let serving = world.serve().await;
            let (from, to) = (start_of_minute(from), start_of_minute(from + length));
            let window = Window::around(from, to).unwrap();
            let filter = Some(serving.filter("ip:10.0.0.1").unwrap());
            let answer = serving.many(&ManyQuery { filter, ..many(&ENTITIES, from, to) }).await.unwrap();
            assert!(answer.provenance.complete, "{:?}", answer.provenance);
            assert_eq!(answer.provenance.source, Source::Events);
            for (entity, own) in ENTITIES.iter().zip(&answer.entities) {
                let of = |window: &Window| {
                    let events = matching(&log, entity, None, window, None).into_iter();
                    sum(events.filter(|event| event.ip == Some("10.0.0.1")))
                };
                let (now, then) = (of(&window), of(&window.before().unwrap()));
                assert_eq!((own.count, own.late), (now.count, now.late));
                for function in FUNCTIONS {
                    assert_eq!(own.total[&function], now.evaluate(function));
                    assert_eq!(own.previous.as_ref().unwrap()[&function], then.evaluate(function));
                }
            }
        });
    }
}

/// The period before is made of what lies on disk as well, also of segments without a minute of the window.
#[tokio::test(flavor = "multi_thread")]
async fn the_period_before_may_lie_on_disk_alone() {
    let world = World::new(Log(vec![vec![one("a", 1), one("b", 1), one("c", 2)]]));
    world.seal(&[3], 1, true).await;
    world.tails.state.lock().on_disk_below.insert(0, 3);
    let serving = world.serve().await;
    let query = ranked(Function::Count, start_of_minute(2), start_of_minute(3), None);
    let answer = Box::pin(serving.ranked(&query)).await.unwrap();
    let told: Vec<_> = answer.entities.iter().map(|own| (&*own.entity_id, own.value, own.previous)).collect();
    assert_eq!(told, [("v1", Answer::Count(1), Some(Answer::Count(2)))]);
}

#[tokio::test]
async fn questions_about_many_that_cannot_be_asked_are_refused() {
    let serving = World::new(small()).serve().await;
    let good = many(&["v1"], 0, MICROS_PER_DAY);
    for (query, field) in [
        (many(&[], 0, 1), "entities"),
        (many(&[""], 0, 1), "entities"),
        (many(&["a", "a"], 0, 1), "entities"),
        (
            ManyQuery { entities: (0..=ManyQuery::ENTITIES_MAX).map(|n| n.to_string()).collect(), ..good.clone() },
            "entities",
        ),
        (ManyQuery { functions: vec![], ..good.clone() }, "functions"),
        (ManyQuery { functions: vec![Function::ApproxDistinct], ..good.clone() }, "function"),
        (many(&["v1"], i64::MIN, 0), "compare"),
        (many(&["v1"], 0, i64::MAX), "compare"),
    ] {
        match serving.many(&query).await {
            Err(ServingError::BadRequest { field: found, .. }) => assert_eq!(found, field, "{query:?}"),
            other => panic!("{query:?}: {other:?}"),
        }
    }
    let open = ManyQuery { previous: false, ..many(&["v1"], i64::MIN, i64::MAX) };
    assert_eq!(serving.many(&open).await.unwrap().entities[0].count, 3);
}

/// A filter on a dimension that was added later, and a sum that was not kept before: counts of then would be too small.
#[tokio::test(flavor = "multi_thread")]
async fn what_counts_do_not_hold_comes_from_the_raw_events() {
    let (mut with_value, other) = (one("a", 1), one("b", 2));
    with_value.value = Some(2_500_000);
    let other = Ev { ip: Some("10.0.0.2"), country: Some("US"), ..other };
    let mut world = World::new(Log(vec![vec![with_value, other], vec![]]));
    world.definition.metrics = vec![Function::Count];
    world.batch(&[2, 0]).await;
    world.archive(&[2, 0]).await;
    world.definition = Definition { dimensions: Dimension::ALL.to_vec(), ..Definition::default() };
    let serving = world.serve().await;
    let count = |text: &str| CountQuery {
        filter: Some(serving.filter(text).unwrap()),
        ..question("v1", None, 0, MICROS_PER_DAY)
    };
    let by_ip = serving.count(&count("ip:10.0.0.1")).await.unwrap();
    assert_eq!((by_ip.count, by_ip.provenance.source), (1, Source::Events));
    assert!(by_ip.provenance.complete && !by_ip.provenance.definitions_mixed, "{:?}", by_ip.provenance);
    // That dimension was kept.
    let by_country = serving.count(&count("country:US")).await.unwrap();
    assert_eq!((by_country.count, by_country.provenance.source), (1, Source::Counts));
    assert!(by_country.provenance.definitions_mixed);
    let query = many(&["v1"], 0, MICROS_PER_DAY);
    let sums = serving.many(&query).await.unwrap();
    assert_eq!(sums.entities[0].total[&Function::Sum], Answer::Decimal(2_500_000));
    assert_eq!(sums.provenance.source, Source::Events);
    let plain = ManyQuery { functions: vec![Function::Count], ..query.clone() };
    assert_eq!(serving.many(&plain).await.unwrap().provenance.source, Source::Counts);
    let list = serving.ranked(&ranked(Function::Max, 0, MICROS_PER_DAY, None)).await.unwrap();
    assert_eq!((list.entities[0].value, list.provenance.source), (Answer::Decimal(2_500_000), Source::Events));
    let listed = TopQuery { event_type: None, n: 3, from: 0, to: MICROS_PER_DAY, filter: count("ip:10.0.0.2").filter };
    let listed = serving.top(&listed).await.unwrap();
    assert_eq!((listed.entities[0].count, listed.provenance.source), (1, Source::Events));
    let live = PartsQuery {
        entity: "v1".to_owned(),
        event_type: None,
        from: 0,
        to: MICROS_PER_DAY,
        step: Step::HOUR,
        filter: count("ip:10.0.0.1").filter,
    };
    let live = serving.parts_by_step(&live).await;
    assert!(matches!(live, Err(ServingError::BadRequest { field: "filter", .. })), "{live:?}");
    let listed = TopQuery { event_type: None, n: 3, from: 0, to: MICROS_PER_DAY, filter: count("ip:10.0.0.2").filter };
    let live = serving.top_live(&listed).await;
    assert!(matches!(live, Err(ServingError::BadRequest { field: "filter", .. })), "{live:?}");
    assert_eq!(serving.top_live(&TopQuery { filter: None, ..listed }).await.unwrap().entities[0].count, 2);
    let version = by_ip.provenance.batch_version;
    let past = serving.count_as_of(&count("ip:10.0.0.1"), AsOf::Version(version)).await;
    assert!(matches!(past, Err(ServingError::BadRequest { field: "as_of", .. })), "{past:?}");
    let past = ManyQuery { as_of: Some(AsOf::Version(version)), ..plain };
    assert_eq!(serving.many(&past).await.unwrap().entities[0].count, 2);
}

/// The stream may have gone on sealing by its older settings after the view was made.
#[tokio::test(flavor = "multi_thread")]
async fn what_segments_do_not_hold_that_were_sealed_since_comes_from_the_raw_events() {
    let mut world = World::new(small());
    let old = std::mem::replace(
        &mut world.definition,
        Definition { dimensions: Dimension::ALL.to_vec(), ..Definition::default() },
    );
    world.archive(&[4, 0]).await;
    let serving = world.serve().await;
    world.definition = old;
    world.seal(&[4, 0], 4, false).await;
    world.tails.state.lock().on_disk_below.insert(0, 4);
    let filter = Some(serving.filter("ip:10.0.0.1").unwrap());
    let query = CountQuery { filter: filter.clone(), ..question("v1", None, 0, MICROS_PER_DAY) };
    let count = serving.count(&query).await.unwrap();
    assert_eq!((count.count, count.provenance.source), (3, Source::Events));
    let answer = serving.many(&ManyQuery { filter: filter.clone(), ..many(&["v1", "v2"], 0, MICROS_PER_DAY) }).await;
    let answer = answer.unwrap();
    assert_eq!((answer.entities[0].count, answer.provenance.source), (3, Source::Events));
    let listed = serving.ranked(&ranked(Function::Count, 0, MICROS_PER_DAY, filter)).await.unwrap();
    assert_eq!((listed.entities[0].count, listed.provenance.source), (3, Source::Events));
    let all = serving.count(&question("v1", None, 0, MICROS_PER_DAY)).await.unwrap();
    assert_eq!((all.count, all.provenance.source), (3, Source::Counts));
}

/// Raw events are as fine as ever, though the counts that they are held against are not.
#[tokio::test(flavor = "multi_thread")]
async fn many_are_found_in_the_raw_events_of_dates_that_are_rolled_up() {
    let world = World::new(small());
    world.batch(&[4, 0]).await;
    world.archive(&[4, 0]).await;
    let files = world.tables.snapshot(Table::BatchCounts).await.unwrap().files;
    let minutes = files.iter().filter(|file| file.path.contains("granularity=minute")).cloned().collect();
    world.remove(Table::BatchCounts, minutes).await;
    let serving = world.serve().await;
    let filter = Some(serving.filter("ip:10.0.0.1").unwrap());
    let query = ManyQuery { filter, ..many(&["v1", "nobody"], 0, 3 * MICROS_PER_MINUTE) };
    let answer = serving.many(&query).await.unwrap();
    let counts: Vec<u64> = answer.entities.iter().map(|own| own.count).collect();
    assert_eq!((counts, answer.provenance.complete), (vec![2, 0], true), "{:?}", answer.provenance);
    let plain = serving.many(&ManyQuery { filter: None, ..query }).await;
    assert!(matches!(plain, Err(ServingError::RolledUp(_))), "{plain:?}");
}

/// of a date that retention has closed some raw events may be left, or come late; a list of them looks whole.
#[tokio::test(flavor = "multi_thread")]
async fn lists_from_raw_events_of_a_closed_date_say_that_they_may_be_short() {
    let world = World::new(small());
    world.batch(&[4, 0]).await;
    world.archive(&[4, 0]).await;
    let serving = world.serve().await;
    let query = ranked(Function::Count, 0, MICROS_PER_DAY, Some(serving.filter("ip:10.0.0.1").unwrap()));
    let told = || async {
        let ranked = serving.ranked(&query).await.unwrap().provenance;
        let top = serving.top(&query.top).await.unwrap().provenance;
        [ranked, top].map(|provenance| {
            assert_eq!((provenance.source, provenance.complete), (Source::Events, provenance.missing.is_empty()));
            provenance.missing.first().and_then(|missing| missing.date.clone())
        })
    };
    assert_eq!(told().await, [None, None]);
    world.mark(Table::Events, &[(Transaction::Closed, 1)]).await;
    assert_eq!(told().await, [Some("1970-01-01".to_owned()), Some("1970-01-01".to_owned())]);
}

/// A new version of batch that has other files for a date has sums of its own; a version that was asked for before has kept
/// its own.
#[tokio::test]
async fn sums_are_kept_as_long_as_their_files_are() {
    let world = World::new(small());
    world.batch(&[1, 0]).await;
    let serving = world.serve().await;
    let query = question("v1", None, 0, MICROS_PER_DAY);
    let first = serving.count(&query).await.unwrap();
    assert_eq!(serving.count(&query).await.unwrap(), first);
    let (hits, misses, bytes) = serving.cache_counts();
    assert_eq!((hits, misses), (1, 1));
    assert!(bytes > 0);
    world.batch(&[3, 0]).await;
    serving.refresh().await.unwrap();
    let second = serving.count(&query).await.unwrap();
    assert_eq!((first.batch, second.batch, second.count), (1, 2, 3));
    assert_eq!(serving.cache_counts().1, 2, "other files, another sum");
    // Another window, type, step or filter is another question.
    let other = serving.count(&CountQuery { event_type: Some("like".to_owned()), ..query.clone() }).await.unwrap();
    assert_eq!(other.count, 0);
    let us = Some(serving.filter("country:US").unwrap());
    assert_eq!(serving.count(&CountQuery { filter: us, ..query.clone() }).await.unwrap().count, 0);
    assert_eq!(serving.count(&CountQuery { from: 2 * MICROS_PER_MINUTE, ..query.clone() }).await.unwrap().count, 2);
    assert_eq!(serving.count(&CountQuery { to: 2 * MICROS_PER_MINUTE, ..query.clone() }).await.unwrap().count, 1);
    let as_of = serving.count_as_of(&query, AsOf::Version(first.provenance.batch_version)).await.unwrap();
    assert_eq!((as_of.count, as_of.stream), (1, 0));
}
