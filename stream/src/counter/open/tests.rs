//! The open segment against a map, and against its own run.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use reckon_data::metric::Function;
use reckon_data::run::DimCondition;

use super::*;
use crate::counter::testing::{Sample, columns_of, sample};

type Key = (String, String, i64, Option<String>);

/// Minutes below it are late.
const LATE_BEFORE: i64 = 3;

fn model<'a>(samples: impl Iterator<Item = &'a Sample>) -> BTreeMap<Key, Cell> {
    let mut cells: BTreeMap<Key, Cell> = BTreeMap::new();
    for sample in samples {
        let event = sample.event();
        let key = (sample.entity.clone(), sample.event_type.clone(), minute_of(sample.time), sample.country.clone());
        let cell = Cell::one(event.key().hash(), sample.value, sample.user.as_deref());
        let cell = if key.2 < LATE_BEFORE { cell.as_late() } else { cell };
        cells.entry(key).or_default().merge(&cell);
    }
    cells
}

fn everything() -> Definition {
    let mut definition = Definition::default();
    definition.metrics.push(Function::ApproxDistinct);
    definition
}

proptest! {
    #[test]
    fn it_counts_what_a_map_counts(
        batches in prop::collection::vec(prop::collection::vec((sample(), any::<bool>()), 0..200), 1..5),
    ) {
        let mut open = OpenSegment::new(&everything());
        for batch in &batches {
            let (samples, keep): (Vec<Sample>, Vec<bool>) = batch.iter().cloned().unzip();
            let counted = open.add(&columns_of(&samples), &keep, LATE_BEFORE).unwrap();
            prop_assert_eq!(counted, keep.iter().filter(|keep| **keep).count() as u64);
        }
        let expected = model(batches.iter().flatten().filter(|(_, keep)| *keep).map(|(sample, _)| sample));
        let run = open.freeze().unwrap();
        let mut found: BTreeMap<Key, Cell> = BTreeMap::new();
        run.for_each(i64::MIN..i64::MAX, |row| {
            let country = row.dims[0].as_deref().map(str::to_owned);
            found.insert((row.entity.to_owned(), row.event_type.to_owned(), row.minute, country), row.cell());
        });
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(open.len(), expected.len());
    }

    #[test]
    fn sums_are_those_of_its_run(
        samples in prop::collection::vec(sample(), 0..300),
        entity in 0..12_u32,
        event_type in prop::option::of(0..3_u32),
        minutes in (0..8_i64, 0..8_i64),
        step in prop::option::of(1..4_i64),
        country in prop::option::of(prop::option::of("[A-C]")),
        negated in any::<bool>(),
    ) {
        let mut open = OpenSegment::new(&everything());
        open.add(&columns_of(&samples), &vec![true; samples.len()], LATE_BEFORE).unwrap();
        let (entity, event_type) = (format!("e{entity}"), event_type.map(|n| format!("t{n}")));
        let conditions: Vec<DimCondition> = country
            .into_iter()
            .map(|country| DimCondition { index: 0, accepted: vec![country.map(Arc::from)], negated })
            .collect();
        let selection = Selection {
            event_type: event_type.as_deref(),
            minutes: minutes.0..minutes.1,
            step,
            conditions: conditions.into(),
            ..Selection::all_of(&entity)
        };
        let (mut own, mut runs) = (StepSums::new(), StepSums::new());
        open.sum(&selection, &mut own);
        open.freeze().unwrap().sum(&selection, &mut runs);
        prop_assert_eq!(own, runs);
    }
}

#[test]
fn values_and_sketches_are_kept_only_where_asked_for() {
    let samples = [Sample { value: Some(5), user: Some("u".to_owned()), ..Sample::default() }];
    let definition = Definition { metrics: vec![Function::Count], ..Definition::default() };
    let mut open = OpenSegment::new(&definition);
    open.add(&columns_of(&samples), &[true], i64::MIN).unwrap();
    let columns = open.to_columns();
    assert!(columns.values.is_none() && columns.distinct.is_empty() && columns.late.is_empty());
}
