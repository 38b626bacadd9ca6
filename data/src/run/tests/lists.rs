//! Top lists from lists that do not hold all entities, held to those of all sums.

use super::*;

/// More than the shortest list holds, in half of the runs each.
const ENTITIES: u64 = 1_500;

/// Whether something is so, by chance that is the same every time.
fn by_chance(seed: u64, run: u64, number: u64) -> bool {
    entity_hash(&format!("{seed} {run} {number}")).is_multiple_of(2)
}

/// Counts fall off as popularity does, with ties, in two minutes and two countries. Some runs are those of one of two
/// partitions.
fn popular(seed: u64, run: u64) -> Run {
    let mut builder = RunBuilder::new();
    for number in 0..ENTITIES {
        let entity = format!("e{number}");
        let hash = entity_hash(&entity);
        let is_elsewhere = run.is_multiple_of(3) && hash.is_multiple_of(2);
        if is_elsewhere || !by_chance(seed, run, number) {
            continue;
        }
        let (rank, country) = ((number * 7 + seed) % ENTITIES + 1, if number.is_multiple_of(2) { "US" } else { "DE" });
        for minute in 0..2 {
            let cell = Cell::counted(50_000 / rank, number, 0);
            builder.add(hash, &entity, "view", minute, &[Some(country)], &cell).unwrap();
        }
        builder.add(hash, &entity, "like", 0, &[Some(country)], &Cell::counted(rank, number, 0)).unwrap();
    }
    builder.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn leaders_of_lists_that_are_cut_are_the_top_of_all_sums(
        seed in 0..ENTITIES, windows in prop::collection::vec((0..2_i64, 1..3_i64), 1..6), n in 0..30_usize,
        event_type in prop_oneof![Just(None), Just(Some("view")), Just(Some("like"))], us in any::<bool>(),
    ) {
        let runs: Vec<Run> = (0..).zip(&windows).map(|(at, _)| popular(seed, at)).collect();
        let scope = |(run, &(from, length))| Scope { run, minutes: from..from + length, is_batch: false };
        let scopes: Vec<Scope<'_>> = runs.iter().zip(&windows).map(scope).collect();
        let country = DimCondition { index: 0, accepted: vec![Some("US".into())], negated: false };
        let conditions: Vec<DimCondition> = us.then_some(country).into_iter().collect();
        let reserved = ["e7".to_owned()];
        let mut sums = EntitySums::new();
        for Scope { run, minutes, .. } in &scopes {
            run.top_into(minutes, event_type, &conditions, &reserved, &mut sums);
        }
        let found = leaders(&scopes, Wanted { event_type, conditions: &conditions, reserved_prefixes: &reserved }, n);
        let found = found.map(|all| all.into_iter().map(|one| (one.entity, one.count)).collect::<Vec<_>>());
        // It may give up where nothing stands out, and must not where counts fall off.
        if found.is_some() || event_type == Some("view") {
            prop_assert_eq!(found, Some(sums.top(n)));
        }
    }
}
