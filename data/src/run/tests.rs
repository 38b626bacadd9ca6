//! Runs against a map that does the same slowly.

use std::borrow::Cow;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::key::entity_hash;
use crate::metric::Cell;

mod lists;

type Key = (String, String, i64, Vec<Option<String>>);
type Oracle = BTreeMap<Key, Cell>;

fn row() -> impl Strategy<Value = (Key, Cell)> {
    let entity = prop_oneof![Just("hot".to_owned()), "[a-c]{0,2}", "ent-[0-9]{1,3}"];
    let key = (entity, "view|like|click", -200..200_i64, dims());
    let value = prop::option::weighted(0.3, -9_000_000..9_000_000_i64);
    let user = prop::option::weighted(0.1, "[a-z]");
    (key, any::<u64>(), value, user, prop::bool::weighted(0.1)).prop_map(|(key, hash, value, user, late)| {
        let cell = Cell::one(hash, value, user.as_deref());
        (key, if late { cell.as_late() } else { cell })
    })
}

fn dims() -> impl Strategy<Value = Vec<Option<String>>> {
    (prop::option::of("US|DE|FR"), prop::option::of("[ab]")).prop_map(|(country, ip)| vec![country, ip])
}

fn rows() -> impl Strategy<Value = Vec<(Key, Cell)>> {
    prop::collection::vec(row(), 0..250)
}

fn oracle(rows: &[(Key, Cell)]) -> Oracle {
    let mut oracle = Oracle::new();
    rows.iter().for_each(|(key, cell)| oracle.entry(key.clone()).or_default().merge(cell));
    oracle
}

/// A third of the entities collide, so that ties by id are tested too.
fn hash_of(entity: &str) -> u64 {
    if entity.len().is_multiple_of(3) { 7 } else { entity_hash(entity) }
}

fn build(rows: &[(Key, Cell)], hash: fn(&str) -> u64) -> Run {
    build_folding(rows, hash, usize::MAX)
}

fn build_folding(rows: &[(Key, Cell)], hash: fn(&str) -> u64, every: usize) -> Run {
    let mut builder = RunBuilder::new();
    for (at, ((entity, event_type, minute, dims), cell)) in rows.iter().enumerate() {
        let dims: Vec<Option<&str>> = dims.iter().map(Option::as_deref).collect();
        builder.add(hash(entity), entity, event_type, *minute, &dims, cell).unwrap();
        if at % every == every - 1 {
            builder.fold().unwrap();
        }
    }
    builder.finish().unwrap()
}

fn read(run: &Run, minutes: Range<i64>) -> Oracle {
    let mut oracle = Oracle::new();
    run.for_each(minutes, |row| {
        let dims = row.dims.iter().map(|value| value.as_deref().map(str::to_owned)).collect();
        let before = oracle.insert((row.entity.to_owned(), row.event_type.to_owned(), row.minute, dims), row.cell());
        assert!(before.is_none(), "two rows of one key");
    });
    oracle
}

fn conditions() -> impl Strategy<Value = Vec<DimCondition>> {
    let accepted = prop::collection::vec(prop::option::of("US|DE|a|b").prop_map(|v| v.map(Arc::from)), 0..3);
    let condition = (0..3_usize, accepted, any::<bool>()).prop_map(|(index, accepted, negated)| DimCondition {
        index,
        accepted,
        negated,
    });
    prop::collection::vec(condition, 0..3)
}

fn meets(conditions: &[DimCondition], dims: &[Option<String>]) -> bool {
    conditions.iter().all(|condition| {
        let value = dims.get(condition.index).cloned().flatten();
        let listed = condition.accepted.iter().any(|accepted| accepted.as_deref() == value.as_deref());
        listed != condition.negated
    })
}

fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![-250..250_i64, Just(i64::MIN), Just(i64::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_run_holds_what_was_added(rows in rows(), from in bound(), to in bound(), every in 1..100_usize) {
        let (run, expected) = (build(&rows, hash_of), oracle(&rows));
        prop_assert_eq!(read(&run, i64::MIN..i64::MAX), expected.clone());
        let within: Oracle = expected.into_iter().filter(|(key, _)| from <= key.2 && key.2 < to).collect();
        prop_assert_eq!(read(&run, from..to), within);
        prop_assert_eq!(run.total_count(), rows.len() as u64);
        prop_assert_eq!(run.fingerprint(), rows.iter().fold(0_u64, |sum, (_, cell)| sum.wrapping_add(cell.fingerprint)));
        let (first, last) = (rows.iter().map(|r| r.0.2).min(), rows.iter().map(|r| r.0.2).max());
        prop_assert_eq!(run.minute_range(), first.zip(last).map(|(first, last)| first..last + 1));
        prop_assert_eq!(build_folding(&rows, hash_of, every), run);
    }

    #[test]
    fn the_order_of_rows_changes_nothing(rows in rows(), seed in any::<u64>()) {
        let mut shuffled = rows.clone();
        shuffled.sort_by_key(|(_, cell)| cell.fingerprint.wrapping_mul(seed | 1));
        prop_assert_eq!(build(&shuffled, hash_of), build(&rows, hash_of));
    }

    #[test]
    fn merging_is_building_from_all(rows in rows(), cuts in prop::collection::vec(0..250_usize, 0..6)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(rows.len())).chain([0, rows.len()]).collect();
        cuts.sort_unstable();
        let parts: Vec<Arc<Run>> = cuts.windows(2).map(|w| Arc::new(build(&rows[w[0]..w[1]], hash_of))).collect();
        let whole = build(&rows, hash_of);
        prop_assert_eq!(&Run::merge(&parts), &whole);
        let (left, right) = parts.split_at(parts.len() / 2);
        let nested = [Arc::new(Run::merge(right)), Arc::new(Run::default()), Arc::new(Run::merge(left))];
        prop_assert_eq!(&Run::merge(&nested), &whole);
    }

    #[test]
    fn a_sum_is_that_of_the_rows_and_of_any_split(
        rows in rows(),
        entity in prop_oneof![3 => Just("hot"), 1 => Just("a"), 1 => Just("nobody")],
        event_type in prop::option::of(prop_oneof![Just("view"), Just("share")]),
        (from, to) in (bound(), bound()),
        step in prop::option::of(prop_oneof![Just(1_i64), Just(60), Just(7)]),
        conditions in conditions(),
        cut in 0..250_usize,
    ) {
        let selection = Selection {
            entity, entity_hash: hash_of(entity), event_type, minutes: from..to, step, conditions: Cow::Borrowed(&conditions),
        };
        let mut expected = StepSums::new();
        for ((id, kind, minute, dims), cell) in &rows {
            let wanted = id == entity && event_type.is_none_or(|wanted| wanted == kind) && from <= *minute && *minute < to;
            if wanted && meets(&conditions, dims) {
                expected.add(step.map_or(0, |step| minute.div_euclid(step) * step), cell);
            }
        }
        let mut sums = StepSums::new();
        build(&rows, hash_of).sum(&selection, &mut sums);
        prop_assert_eq!(&sums, &expected);
        let (left, right) = rows.split_at(cut.min(rows.len()));
        let mut split = StepSums::new();
        build(right, hash_of).sum(&selection, &mut split);
        build(left, hash_of).sum(&selection, &mut split);
        prop_assert_eq!(&split, &expected);
    }

    #[test]
    fn top_lists_are_those_of_the_rows(
        rows in rows(), from in bound(), to in bound(), event_type in prop::option::of(Just("view")),
        conditions in conditions(), n in 0..8_usize, cut in 0..250_usize,
    ) {
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for ((id, kind, minute, dims), _) in &rows {
            let wanted = event_type.is_none_or(|wanted| wanted == kind) && from <= *minute && *minute < to;
            if wanted && meets(&conditions, dims) && !id.starts_with("ent-1") {
                *expected.entry(id).or_default() += 1;
            }
        }
        let mut expected: Vec<(String, u64)> = expected.into_iter().map(|(id, count)| (id.to_owned(), count)).collect();
        expected.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let mut sums = EntitySums::new();
        let (left, right) = rows.split_at(cut.min(rows.len()));
        for run in [build(left, hash_of), build(right, hash_of)] {
            run.top_into(&(from..to), event_type, &conditions, &["ent-1".to_owned()], &mut sums);
        }
        prop_assert_eq!(sums.len(), expected.len());
        expected.truncate(n);
        prop_assert_eq!(sums.top(n), expected);
    }

    #[test]
    fn leaders_are_the_top_of_all_sums(
        rows in rows(), from in bound(), to in bound(), event_type in prop::option::of(Just("view")),
        conditions in conditions(), n in 0..8_usize, cuts in prop::collection::vec(0..250_usize, 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(rows.len())).chain([0, rows.len()]).collect();
        cuts.sort_unstable();
        let runs: Vec<Run> = cuts.windows(2).map(|ends| build(&rows[ends[0]..ends[1]], hash_of)).collect();
        let scopes: Vec<Scope<'_>> = (0..).zip(&runs)
            // Not every run counts the same minutes: a whole day beside a few minutes of the next.
            .map(|(at, run)| Scope { run, minutes: if at % 3 == 2 { -50..50 } else { from..to }, is_batch: at % 2 == 0 })
            .collect();
        let reserved = ["ent-1".to_owned()];
        let (mut sums, mut batch) = (EntitySums::new(), EntitySums::new());
        for scope in &scopes {
            scope.run.top_into(&scope.minutes, event_type, &conditions, &reserved, &mut sums);
            if scope.is_batch {
                scope.run.top_into(&scope.minutes, event_type, &conditions, &reserved, &mut batch);
            }
        }
        let batch: BTreeMap<String, u64> = batch.top(usize::MAX).into_iter().collect();
        let expected: Vec<Leader> = sums.top(n).into_iter()
            .map(|(entity, count)| Leader { batch: batch.get(&entity).copied().unwrap_or(0), entity, count })
            .collect();
        let wanted = Wanted { event_type, conditions: &conditions, reserved_prefixes: &reserved };
        prop_assert_eq!(leaders(&scopes, wanted, n), Some(expected));
    }

    #[test]
    fn batches_are_sorted_and_read_back(rows in rows(), batch_rows in 1..100_usize) {
        // Tables know nothing of made-up collisions, so hashes are real here.
        let run = build(&rows, entity_hash);
        let dimensions = [Dimension::Country, Dimension::Ip];
        let batches = run.to_batches(&dimensions, u64::MAX - 5, batch_rows).unwrap();
        let mut builder = RunBuilder::new();
        for batch in &batches {
            prop_assert!(batch.num_rows() <= batch_rows && batch.num_rows() > 0);
            builder.add_batch(batch, &dimensions).unwrap();
        }
        prop_assert_eq!(builder.finish().unwrap(), run.clone());
        let sorted: Vec<Key> = oracle(&rows).into_keys().collect();
        let written: Vec<(String, i64)> = batches.iter().flat_map(keys_of).collect();
        prop_assert_eq!(written, sorted.into_iter().map(|key| (key.0, key.2)).collect::<Vec<_>>());
    }

    #[test]
    fn columns_in_any_order_make_the_same_run(rows in rows(), spare in any::<bool>()) {
        let mut columns = RunColumns { types: vec!["unused".into()], ..RunColumns::default() };
        columns.entity_offsets.push(0);
        if spare {
            // An entity that has no rows.
            add_entity(&mut columns, "spare");
        }
        for ((entity, event_type, minute, dims), cell) in &rows {
            // Every row brings its own entity, type and dimensions, though they are the same.
            let number = add_entity(&mut columns, entity);
            columns.entity_ids.push(number);
            columns.type_ids.push(columns.types.len() as u32);
            columns.types.push(event_type.as_str().into());
            columns.dim_ids.push(columns.dims.len() as u32);
            columns.dims.push(dims.iter().map(|value| value.as_deref().map(Arc::from)).collect());
            columns.minutes.push(*minute as i32);
            columns.counts.push(cell.count);
            columns.fingerprints.push(cell.fingerprint);
            columns.late.push(cell.late);
            columns.values.get_or_insert_default().push(cell.value);
            columns.distinct.push(cell.distinct.clone().map(Box::new));
        }
        prop_assert_eq!(Run::from_columns(columns).unwrap(), build(&rows, hash_of));
    }
}

fn add_entity(columns: &mut RunColumns, entity: &str) -> u32 {
    columns.entity_hashes.push(hash_of(entity));
    columns.entity_bytes.extend_from_slice(entity.as_bytes());
    columns.entity_offsets.push(columns.entity_bytes.len() as u32);
    (columns.entity_hashes.len() - 1) as u32
}

fn keys_of(batch: &arrow::array::RecordBatch) -> Vec<(String, i64)> {
    use arrow::array::AsArray;
    let ids = batch.column_by_name("entity_id").unwrap().as_string::<i32>();
    let minutes = batch.column_by_name("minute").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    (0..batch.num_rows()).map(|row| (ids.value(row).to_owned(), minutes.value(row) / 60_000_000)).collect()
}

fn plain(entity: &str, minute: i64, count: u64) -> Run {
    let mut builder = RunBuilder::new();
    builder.add(entity_hash(entity), entity, "view", minute, &[], &Cell::counted(count, 1, 0)).unwrap();
    builder.finish().unwrap()
}

#[test]
fn a_plain_row_takes_24_bytes() {
    let mut builder = RunBuilder::new();
    for minute in 0..10_000 {
        builder.add(1, "entity", "view", minute, &[], &Cell::counted(1, 1, 0)).unwrap();
    }
    let run = builder.finish().unwrap();
    assert!((240_000..242_000).contains(&run.memory_bytes()), "{}", run.memory_bytes());
    assert_eq!(run.to_batches(&[], 1, 1_000).unwrap().len(), 10);
}

#[test]
fn columns_that_do_not_fit_are_refused() {
    let good = || RunColumns {
        entity_offsets: vec![0, 1],
        entity_bytes: b"a".to_vec(),
        entity_hashes: vec![1],
        types: vec!["view".into()],
        entity_ids: vec![0],
        type_ids: vec![0],
        minutes: vec![5],
        counts: vec![1],
        fingerprints: vec![1],
        ..RunColumns::default()
    };
    assert_eq!(Run::from_columns(good()).unwrap().rows(), 1);
    let spoil: [fn(&mut RunColumns); 10] = [
        |c| c.entity_ids[0] = 1,
        |c| c.type_ids[0] = 1,
        |c| c.minutes.clear(),
        |c| c.counts.push(1),
        |c| c.entity_offsets = vec![0, 2],
        |c| c.entity_bytes = vec![0xff],
        |c| c.dims = vec![[None].into(), [Some("x".into())].into()],
        |c| c.values = Some(ValueColumns::none(2)),
        |c| c.distinct = vec![None, None],
        |c| c.late = vec![1, 1],
    ];
    for spoil in spoil {
        let mut columns = good();
        spoil(&mut columns);
        assert!(matches!(Run::from_columns(columns), Err(RunError::Columns { .. })));
    }
}

#[test]
fn an_overflow_is_never_written() {
    let run = Run::merge(&[Arc::new(plain("a", 1, u64::MAX)), Arc::new(plain("a", 1, 5))]);
    assert_eq!(run.total_count(), u64::MAX);
    assert!(matches!(run.to_batches(&[], 1, 10), Err(RunError::Overflow { column: "count" })));
}

#[test]
fn a_minute_out_of_range_and_a_dimension_too_many_are_refused() {
    let mut builder = RunBuilder::new();
    assert!(matches!(builder.add(1, "a", "view", 1 << 40, &[], &Cell::default()), Err(RunError::Minute { .. })));
    builder.add(1, "a", "view", 1, &[Some("US")], &Cell::counted(1, 1, 0)).unwrap();
    let run = builder.finish().unwrap();
    assert!(matches!(run.to_batches(&[], 1, 10), Err(RunError::Columns { .. })));
}

#[test]
fn rows_that_were_never_written_are_refused() {
    use arrow::array::{ArrayRef, Int64Array, StringViewArray, TimestampMicrosecondArray};
    let good = plain("a", 1, 2).to_batches(&[], 1, 10).unwrap().remove(0);
    let with = |name: &str, column: ArrayRef| {
        let schema = good.schema();
        let columns = schema.fields().iter().zip(good.columns()).map(|(field, own)| {
            (field.name().clone(), if field.name() == name { column.clone() } else { own.clone() })
        });
        let batch = arrow::array::RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap();
        let mut builder = RunBuilder::new();
        builder.add_batch(&batch, &[]).and_then(|()| builder.finish())
    };
    assert_eq!(with("entity_id", Arc::new(StringViewArray::from(vec!["a"]))).unwrap(), plain("a", 1, 2));
    assert!(with("count", Arc::new(Int64Array::from(vec![-1]))).is_err());
    assert!(with("count", Arc::new(Int64Array::from(vec![None]))).is_err());
    assert!(with("minute", Arc::new(TimestampMicrosecondArray::from(vec![61_000_000]))).is_err());
    assert!(with("value_count", Arc::new(Int64Array::from(vec![1]))).is_err());
    assert!(with("late", Arc::new(Int64Array::from(vec![3]))).is_err());
    assert!(with("late", Arc::new(Int64Array::from(vec![-1]))).is_err());
    let mut builder = RunBuilder::new();
    assert!(matches!(
        builder.add_batch(&good.project(&[0, 1]).unwrap(), &[]),
        Err(RunError::Batch { column: "minute", .. })
    ));
}

#[test]
fn names_are_read_back() {
    for dimension in Dimension::ALL {
        assert_eq!(dimension.to_string().parse(), Ok(dimension));
        assert_eq!(serde_json::to_value(dimension).unwrap(), dimension.column());
    }
    for granularity in Granularity::ALL {
        assert_eq!(granularity.to_string().parse(), Ok(granularity));
    }
    assert_eq!(Granularity::Hour.start_of(-1), -60);
    assert!("city".parse::<Dimension>().is_err() && "week".parse::<Granularity>().is_err());
}

proptest! {
    /// The rows of an entity are those of all that are of it.
    #[test]
    fn rows_of_an_entity_are_found((rows, from, length) in (rows(), -210..200_i64, 0..50_i64)) {
        let (run, minutes) = (build(&rows, entity_hash), from..from + length);
        for entity in ["hot", "a", "", "nobody"] {
            let mut found = Oracle::new();
            run.for_each_of(entity, &minutes, |row| {
                let dims = row.dims.iter().map(|value| value.as_deref().map(str::to_owned)).collect();
                found.insert((row.entity.to_owned(), row.event_type.to_owned(), row.minute, dims), row.cell());
            });
            let mut expected = read(&run, minutes.clone());
            expected.retain(|key, _| key.0 == entity);
            prop_assert_eq!(found, expected);
        }
    }
}

/// Many entities whose counts fall off as popularity does, in runs of different sizes.
#[test]
fn leaders_of_large_runs_are_found_or_given_up() {
    let run = |shift: u64, minute: i64| {
        let mut builder = RunBuilder::new();
        for rank in 1..=40_000_u64 {
            let entity = format!("e{}", (rank + shift) % 40_000);
            let hash = entity_hash(&entity);
            builder.add(hash, &entity, "view", minute, &[], &Cell::counted(1_000_000 / rank, rank, 0)).unwrap();
            // Alike for all: nothing stands out.
            builder.add(hash, &entity, "like", minute, &[], &Cell::counted(1, rank, 0)).unwrap();
        }
        builder.finish().unwrap()
    };
    let runs: Vec<Run> = (0..12).map(|at| run(at % 3, at as i64)).collect();
    let scopes: Vec<Scope<'_>> = runs.iter().map(|run| Scope { run, minutes: 2..11, is_batch: false }).collect();
    let of = |event_type: &'static str, n: usize| {
        let wanted = Wanted { event_type: Some(event_type), conditions: &[], reserved_prefixes: &[] };
        let mut sums = EntitySums::new();
        scopes.iter().for_each(|scope| scope.run.top_into(&scope.minutes, Some(event_type), &[], &[], &mut sums));
        let all = sums.top(n);
        let found = leaders(&scopes, wanted, n);
        (found.map(|found| found.into_iter().map(|leader| (leader.entity, leader.count)).collect::<Vec<_>>()), all)
    };
    let (found, all) = of("view", 100);
    assert_eq!(found, Some(all));
    // Who is first among equals is known only when all have been seen.
    assert_eq!(of("like", 100).0, None);
}
