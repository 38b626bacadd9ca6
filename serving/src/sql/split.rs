//! Groupings that leave out what needs none. A merged table groups its rows by all keys, because batch and stream may
//! both have rows of a minute. Batch alone has each key once: so its rows of minutes that the stream has nothing of are
//! taken as they are, and only the rest is grouped.
//!
//! ```text
//! group by keys                 union
//!   union               ──▶       batch, minutes without the stream ──each row its metrics
//!     batch                       group by keys
//!     stream                        union: batch, minutes of the stream; stream
//! ```
//!
//! It comes after [`super::collapse`], which does without such a grouping altogether. What it cannot see through, it leaves
//! as it is: then all is grouped, which is as right and slower.

use std::ops::Range;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable as _, Filter, LogicalPlan, Projection, TableScan, Union, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use reckon_data::columns::time_type;
use reckon_data::minute::{minute_of, start_of_minute};
use reckon_data::table::DataFile;
use reckon_tables::provider::PinnedTable;
use reckon_tables::stats::{max_micros, min_micros};

use super::collapse::replace;
use super::functions::sketches::{MERGE_DISTINCT, MERGE_USERS, distinct_of};
use super::parts::{Kind, Part, Whole};

/// The column that tells where the stream has rows.
const MINUTE: &str = "minute";
/// Functions that give of one value that value.
const OF_ONE: [&str; 4] = ["sum", "min", "max", MERGE_USERS];

/// Takes out of groupings what needs none.
#[derive(Debug)]
pub struct SplitGroups;

impl OptimizerRule for SplitGroups {
    fn name(&self) -> &'static str {
        "split_groups"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(grouping) = plan else { return Ok(Transformed::no(plan)) };
        match split(&grouping) {
            Some(plan) => Ok(Transformed::yes(plan)),
            None => Ok(Transformed::no(LogicalPlan::Aggregate(grouping))),
        }
    }
}

fn split(grouping: &Aggregate) -> Option<LogicalPlan> {
    let branches = branches(&grouping.input)?;
    let scans = branches.iter().map(|branch| scan_of(branch)).collect::<Option<Vec<_>>>()?;
    let providers = scans.iter().map(|scan| source_as_provider(&scan.source).ok()).collect::<Option<Vec<_>>>()?;
    let parts = providers.iter().map(|provider| provider.downcast_ref::<Part>()).collect::<Option<Vec<_>>>()?;
    let whole = of_one_table(&parts)?;
    // The keys, and what the functions give of one row.
    let alone = grouping.aggr_expr.iter().map(of_one).collect::<Option<Vec<_>>>()?;
    let alone: Vec<Expr> = grouping.group_expr.iter().cloned().chain(alone).collect();
    let (mut apart, mut together, mut found) = (Vec::new(), Vec::new(), false);
    for ((branch, scan), part) in branches.iter().zip(scans).zip(parts) {
        match part.kind() {
            Kind::Apart(files) => {
                if !has_keys(branch, grouping, whole) {
                    return None;
                }
                let halves = Halves::of(scan, files, whole.stream_minutes())?;
                found |= !halves.without.is_empty();
                for rows in &halves.without {
                    apart.push(as_alone(over(branch, rows)?, grouping, &alone)?);
                }
                for rows in &halves.with {
                    together.push(as_input(over(branch, rows)?, grouping.input.schema())?);
                }
            }
            Kind::Planned => apart.push(as_alone(branch.as_ref().clone(), grouping, &alone)?),
            Kind::Empty => {}
            Kind::Any => together.push(as_input(branch.as_ref().clone(), grouping.input.schema())?),
        }
    }
    if !found {
        return None;
    }
    if let Some(rows) = united(together)? {
        apart.push(grouped(rows, grouping)?);
    }
    named_as(united(apart)??, &grouping.schema)
}

/// The plans whose rows together are those of a plan, with its columns in their order.
fn branches(plan: &Arc<LogicalPlan>) -> Option<Vec<Arc<LogicalPlan>>> {
    match plan.as_ref() {
        LogicalPlan::Union(union) => {
            let branches = union.inputs.iter().map(branches).collect::<Option<Vec<_>>>()?;
            Some(branches.concat())
        }
        LogicalPlan::Projection(projection) => {
            let below = branches(&projection.input)?;
            if matches!(below.as_slice(), [only] if Arc::ptr_eq(only, &projection.input)) {
                return Some(vec![Arc::clone(plan)]);
            }
            let through = |branch: Arc<LogicalPlan>| {
                let (columns, schema) = (columns_of(&branch), projection.input.schema());
                let own = projection.expr.iter().zip(projection.schema.fields());
                let own = own.map(|(expr, field)| Some(replace(expr, schema, &columns)?.alias(field.name())));
                project(own.collect::<Option<_>>()?, branch).map(Arc::new)
            };
            below.into_iter().map(through).collect()
        }
        _ => Some(vec![Arc::clone(plan)]),
    }
}

/// The scan that the rows of a plan come from, each by itself.
fn scan_of(plan: &LogicalPlan) -> Option<&TableScan> {
    match plan {
        LogicalPlan::TableScan(scan) => scan.fetch.is_none().then_some(scan),
        LogicalPlan::Projection(projection) => scan_of(&projection.input),
        LogicalPlan::Filter(filter) => scan_of(&filter.input),
        _ => None,
    }
}

/// The same plan over another scan.
fn over(plan: &LogicalPlan, scan: &LogicalPlan) -> Option<LogicalPlan> {
    match plan {
        LogicalPlan::TableScan(_) => Some(scan.clone()),
        LogicalPlan::Projection(projection) => {
            let input = Arc::new(over(&projection.input, scan)?);
            let (columns, schema) = (projection.expr.clone(), Arc::clone(&projection.schema));
            Projection::try_new_with_schema(columns, input, schema).ok().map(LogicalPlan::Projection)
        }
        LogicalPlan::Filter(filter) => {
            let input = Arc::new(over(&filter.input, scan)?);
            Filter::try_new(filter.predicate.clone(), input).ok().map(LogicalPlan::Filter)
        }
        _ => None,
    }
}

/// The table that all of these are parts of, if none of them with keys of its own is there twice: a grouping over several
/// tables puts rows together that none of them has twice.
fn of_one_table<'a>(parts: &[&'a Part]) -> Option<&'a Whole> {
    let whole = parts.first()?.whole();
    let twice = |at: usize| parts[..at].iter().any(|before| std::ptr::eq(*before, parts[at]));
    let is_one = parts.iter().all(|part| Arc::ptr_eq(part.whole(), whole)) && !(0..parts.len()).any(twice);
    is_one.then(|| whole.as_ref())
}

/// Whether the keys of a grouping tell all rows of a branch apart.
fn has_keys(branch: &LogicalPlan, grouping: &Aggregate, whole: &Whole) -> bool {
    let Some(columns) = traced(branch) else { return false };
    let of_scan = |key: &Expr| {
        let Expr::Column(column) = key else { return None };
        let at = grouping.input.schema().maybe_index_of_column(column)?;
        match columns.get(at)? {
            Expr::Column(column) => Some(column.name.as_str()),
            _ => None,
        }
    };
    let keys: Vec<&str> = grouping.group_expr.iter().filter_map(of_scan).collect();
    whole.keys.iter().all(|key| keys.contains(&key.as_str()))
}

/// The columns of a plan over a scan, in terms of the scan's.
fn traced(plan: &LogicalPlan) -> Option<Vec<Expr>> {
    match plan {
        LogicalPlan::TableScan(_) => Some(columns_of(plan)),
        LogicalPlan::Filter(filter) => traced(&filter.input),
        LogicalPlan::Projection(projection) => {
            let below = traced(&projection.input)?;
            projection.expr.iter().map(|column| replace(column, projection.input.schema(), &below)).collect()
        }
        _ => None,
    }
}

/// What a function gives of one row alone; none when nobody knows.
fn of_one(function: &Expr) -> Option<Expr> {
    let Expr::AggregateFunction(function) = function.clone().unalias() else { return None };
    let params = &function.params;
    if params.distinct || params.filter.is_some() || !params.order_by.is_empty() {
        return None;
    }
    let [argument] = params.args.as_slice() else { return None };
    match function.func.name() {
        name if OF_ONE.contains(&name) => Some(argument.clone()),
        MERGE_DISTINCT => Some(distinct_of().call(vec![argument.clone()])),
        _ => None,
    }
}

/// Rows of a branch as a grouping gives them of rows that are alone.
fn as_alone(branch: LogicalPlan, grouping: &Aggregate, alone: &[Expr]) -> Option<LogicalPlan> {
    let columns = columns_of(&branch);
    let own = alone.iter().zip(grouping.schema.fields()).map(|(expr, field)| {
        let expr = replace(expr, grouping.input.schema(), &columns)?;
        let same = expr.get_type(branch.schema()).ok()? == *field.data_type();
        same.then(|| expr.alias(field.name()))
    });
    let own = own.collect::<Option<Vec<_>>>()?;
    project(own, Arc::new(branch))
}

/// Rows of a branch with the names that the grouping knows them by.
fn as_input(branch: LogicalPlan, schema: &DFSchema) -> Option<LogicalPlan> {
    let own = columns_of(&branch).into_iter().zip(schema.fields()).map(|(column, field)| column.alias(field.name()));
    project(own.collect(), Arc::new(branch))
}

/// The rest of the rows, grouped.
fn grouped(rows: LogicalPlan, grouping: &Aggregate) -> Option<LogicalPlan> {
    let schema = grouping.input.schema();
    let columns = columns_of(&rows);
    let own = |exprs: &[Expr]| exprs.iter().map(|expr| replace(expr, schema, &columns)).collect::<Option<Vec<_>>>();
    let (keys, functions) = (own(&grouping.group_expr)?, own(&grouping.aggr_expr)?);
    let rest = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(rows), keys, functions).ok()?);
    as_input(rest, &grouping.schema)
}

/// The rows of all of these plans; none of none.
fn united(mut plans: Vec<LogicalPlan>) -> Option<Option<LogicalPlan>> {
    if plans.len() < 2 {
        return Some(plans.pop());
    }
    Union::try_new(plans.into_iter().map(Arc::new).collect()).ok().map(|union| Some(LogicalPlan::Union(union)))
}

/// A plan with the names that `schema` has, if its types are the same.
fn named_as(plan: LogicalPlan, schema: &DFSchema) -> Option<LogicalPlan> {
    let own = columns_of(&plan).into_iter().zip(plan.schema().fields()).zip(schema.iter());
    let named = own.map(|((column, own), (qualifier, field))| {
        let same = own.data_type() == field.data_type();
        same.then(|| column.alias_qualified(qualifier.cloned(), field.name()))
    });
    let named = named.collect::<Option<Vec<_>>>()?;
    project(named, Arc::new(plan))
}

fn columns_of(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().columns().into_iter().map(Expr::Column).collect()
}

fn project(columns: Vec<Expr>, plan: Arc<LogicalPlan>) -> Option<LogicalPlan> {
    // A column that keeps its name needs no other.
    let plainly = |expr: Expr| match &expr {
        Expr::Alias(alias) => match alias.expr.as_ref() {
            Expr::Column(column) if column.relation == alias.relation && column.name == alias.name => {
                Expr::Column(column.clone())
            }
            _ => expr,
        },
        _ => expr,
    };
    let columns = columns.into_iter().map(plainly).collect();
    Projection::try_new(columns, plan).ok().map(LogicalPlan::Projection)
}

/// Where the rows of a file lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Without,
    With,
    Both,
}

fn place(file: &DataFile, stream: &[Range<i64>]) -> Place {
    if stream.is_empty() {
        return Place::Without;
    }
    let bounds = min_micros(file, MINUTE).zip(max_micros(file, MINUTE));
    let Some((first, last)) = bounds.map(|(first, last)| (minute_of(first), minute_of(last))) else {
        return Place::Both;
    };
    match stream.iter().find(|minutes| minutes.start <= last && first < minutes.end) {
        None => Place::Without,
        Some(minutes) if minutes.start <= first && last < minutes.end => Place::With,
        Some(_) => Place::Both,
    }
}

/// The rows of a scan, in two halves.
struct Halves {
    /// Those of minutes that the stream has nothing of.
    without: Vec<LogicalPlan>,
    /// The others.
    with: Vec<LogicalPlan>,
}

impl Halves {
    fn of(scan: &TableScan, files: &PinnedTable, stream: &[Range<i64>]) -> Option<Self> {
        let (without, others) = files.parted(|file| place(file, stream) == Place::Without);
        let (with, both) = others.parted(|file| place(file, stream) == Place::With);
        let mut halves = Self { without: scan_with(scan, without), with: scan_with(scan, with) };
        if both.pieces().next().is_none() {
            return Some(halves);
        }
        let minute = minute_of_scan(scan)?;
        let before = |minute_at: i64| minute.clone().lt(time(minute_at));
        let since = |minute_at: i64| minute.clone().gt_eq(time(minute_at));
        let within = stream.iter().map(|minutes| since(minutes.start).and(before(minutes.end))).reduce(Expr::or)?;
        let outside = stream.iter().map(|minutes| before(minutes.start).or(since(minutes.end))).reduce(Expr::and)?;
        for rows in scan_with(scan, both) {
            let rows = Arc::new(rows);
            halves.without.push(filtered(outside.clone(), Arc::clone(&rows))?);
            halves.with.push(filtered(within.clone(), rows)?);
        }
        Some(halves)
    }
}

/// The scan with other files, if there are any. They are no longer parts: nothing takes them apart again.
fn scan_with(scan: &TableScan, files: PinnedTable) -> Vec<LogicalPlan> {
    if files.pieces().next().is_none() {
        return Vec::new();
    }
    let files: Arc<dyn TableProvider> = Arc::new(files);
    let mut scan = scan.clone();
    scan.source = provider_as_source(files);
    vec![LogicalPlan::TableScan(scan)]
}

fn filtered(predicate: Expr, rows: Arc<LogicalPlan>) -> Option<LogicalPlan> {
    Filter::try_new(predicate, rows).ok().map(LogicalPlan::Filter)
}

/// The minute of a scan's rows. It must not be null, for nothing that it is compared with would be true then.
fn minute_of_scan(scan: &TableScan) -> Option<Expr> {
    let schema = &scan.projected_schema;
    let (qualifier, field) = schema.qualified_field(schema.index_of_column_by_name(None, MINUTE)?);
    let is_fit = *field.data_type() == time_type() && !field.is_nullable();
    is_fit.then(|| Expr::Column(Column::new(qualifier.cloned(), field.name())))
}

fn time(minute: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(start_of_minute(minute)), Some("UTC".into())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn files_lie_with_the_stream_without_it_or_in_both() {
        let file = |bounds: Option<(i64, i64)>| {
            let bound = |minute: i64| BTreeMap::from([(MINUTE.to_owned(), json!(start_of_minute(minute)))]);
            let (min, max) = bounds.map_or_else(Default::default, |(first, last)| (bound(first), bound(last)));
            DataFile { path: String::new(), bytes: 1, rows: 1, partition: BTreeMap::new(), min, max }
        };
        let stream = [10..20, 30..31];
        for (bounds, expected) in [
            (Some((0, 9)), Place::Without),
            (Some((20, 29)), Place::Without),
            (Some((31, 90)), Place::Without),
            (Some((10, 19)), Place::With),
            (Some((30, 30)), Place::With),
            (Some((9, 10)), Place::Both),
            (Some((19, 20)), Place::Both),
            (Some((15, 30)), Place::Both),
            (Some((0, 90)), Place::Both),
            (None, Place::Both),
        ] {
            assert_eq!(place(&file(bounds), &stream), expected, "{bounds:?}");
        }
        assert_eq!(place(&file(None), &[]), Place::Without);
    }
}
