//! The merged tables: batch rows and stream rows, one row for each (entity, type, minute, dimensions).

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{max, min, sum};
use datafusion::logical_expr::{Expr, cast, ident, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use reckon_data::definition::Definition;
use reckon_data::metric::Function;
use reckon_data::run::{Granularity, LATE_COLUMN};
use reckon_tables::provider::PinnedTable;
use reckon_tables::schema::KIND_COUNT;

use super::functions::sketches::{merge_distinct, merge_users};
use super::functions::{average, step_start};
use super::gone::GoneTable;
use super::parts::{Kind, Part, Streamed, Whole};
use super::reserved::Hidden;
use super::stream::StreamTable;
use crate::index::segments::Chunk;

/// The sketches of distinct users, so that `approx_distinct(users)` says how many there are in any rows together.
const USERS: &str = "users";

/// Rows of counts; together they are a merged table.
#[derive(Debug)]
pub enum Rows {
    /// Batch counts.
    Batch {
        /// The files.
        table: PinnedTable,
        /// Whether no two of their rows have the same keys.
        is_apart: bool,
    },
    /// The dates of which there are none.
    Gone(GoneTable),
    /// What the stream layer holds in memory.
    Runs(StreamTable),
    /// What it has sealed and let go of: files of `stream_counts`, and which of their rows.
    Sealed {
        /// The files.
        table: PinnedTable,
        /// Which rows.
        filter: Expr,
        /// What minutes are rounded down to.
        granularity: Granularity,
    },
}

impl Rows {
    /// The rows but those that are `hidden`, as parts of a table.
    fn frame(
        self,
        context: &SessionContext,
        definition: &Definition,
        hidden: &Hidden,
        whole: &Arc<Whole>,
    ) -> Result<DataFrame> {
        let columns = stored(definition);
        // Null in place of 0 where it is stored.
        let late = coalesce(vec![ident(LATE_COLUMN), lit(0_i64)]).alias(LATE_COLUMN);
        let filled = |column: Expr| if column == ident(LATE_COLUMN) { late.clone() } else { column };
        let columns: Vec<Expr> = columns.into_iter().map(filled).collect();
        let part = |rows: Arc<dyn TableProvider>, kind: Kind| -> Arc<dyn TableProvider> {
            Arc::new(Part::new(Arc::clone(whole), rows, kind))
        };
        match self {
            Self::Batch { table, is_apart } => {
                let of_files = |files: PinnedTable| {
                    let kind = if is_apart { Kind::Apart(files.clone()) } else { Kind::Any };
                    part(Arc::new(files), kind)
                };
                hidden.rows_through(context, &table, of_files)?.select(columns)
            }
            Self::Gone(table) => context.read_table(part(Arc::new(table), Kind::Planned))?.select(columns),
            Self::Runs(table) => {
                let kind = if table.is_empty() { Kind::Empty } else { Kind::Any };
                hidden.leave_out(context.read_table(part(Arc::new(table), kind))?)?.select(columns)
            }
            Self::Sealed { table, filter, granularity } => {
                let of_files = |files: PinnedTable| part(Arc::new(files), Kind::Any);
                let rows = hidden.rows_through(context, &table, of_files)?.filter(filter)?.select(columns.clone())?;
                if granularity == Granularity::Minute {
                    return Ok(rows);
                }
                let rounded = |column: Expr| match column {
                    minute if minute == ident("minute") => step_start(granularity).call(vec![minute]).alias("minute"),
                    other => other,
                };
                rows.select(columns.into_iter().map(rounded).collect::<Vec<_>>())
            }
        }
    }
}

/// The rows that count what lies in `chunks`.
#[must_use]
pub fn within(chunks: &[&Chunk]) -> Expr {
    let mut segments: Vec<(u32, u64, u64)> = chunks
        .iter()
        .flat_map(|chunk| chunk.segments.iter().map(|segment| (chunk.partition, segment.start, segment.end)))
        .collect();
    segments.sort_unstable();
    // Segments that meet are one range: there are few then.
    segments.dedup_by(|next, before| {
        let meets = next.0 == before.0 && next.1 == before.2;
        if meets {
            before.2 = next.2;
        }
        meets
    });
    let offset = |offset: u64| lit(i64::try_from(offset).unwrap_or(i64::MAX));
    let ranges = segments.into_iter().map(|(partition, start, end)| {
        ident("log_partition")
            .eq(lit(i32::try_from(partition).unwrap_or(i32::MAX)))
            .and(ident("segment_start").gt_eq(offset(start)))
            .and(ident("segment_end").lt_eq(offset(end)))
    });
    ident("kind").eq(lit(KIND_COUNT)).and(ranges.reduce(Expr::or).unwrap_or_else(|| lit(false)))
}

/// A table over the rows that are not `hidden`, as a view: filters on its keys reach the files. `streamed` is what of them
/// the stream has.
///
/// # Errors
/// Never, unless the tables' columns are not what they should be.
pub fn merged(
    context: &SessionContext,
    definition: &Definition,
    (rows, streamed): (Vec<Rows>, Streamed),
    hidden: &Hidden,
) -> Result<Arc<dyn TableProvider>> {
    let whole = Arc::new(Whole { keys: key_columns(definition).map(str::to_owned).collect(), streamed });
    let frames = rows.into_iter().map(|rows| rows.frame(context, definition, hidden, &whole));
    let rows = frames.reduce(|all, more| all?.union(more?));
    let Some(rows) = rows.transpose()? else { return context.read_empty().map(DataFrame::into_view) };
    Ok(rows.aggregate(keys(definition), sums(definition))?.select(metrics(definition))?.into_view())
}

fn key_columns(definition: &Definition) -> impl Iterator<Item = &'static str> {
    let dimensions = definition.dimensions.iter().map(|dimension| dimension.column());
    ["entity_id", "event_type", "minute"].into_iter().chain(dimensions)
}

fn keys(definition: &Definition) -> Vec<Expr> {
    key_columns(definition).map(ident).collect()
}

/// The stored columns that the metrics need.
fn stored(definition: &Definition) -> Vec<Expr> {
    let mut columns = keys(definition);
    columns.extend([ident("count"), ident(LATE_COLUMN)]);
    if definition.has_values() {
        columns.extend(["value_count", "value_sum", "value_min", "value_max"].map(ident));
    }
    if definition.has_distinct() {
        columns.push(ident("distinct_users"));
    }
    columns
}

fn sums(definition: &Definition) -> Vec<Expr> {
    let mut sums = vec![sum(ident("count")).alias("count"), sum(ident(LATE_COLUMN)).alias(LATE_COLUMN)];
    if definition.has_values() {
        sums.push(sum(ident("value_count")).alias("value_count"));
        sums.push(sum(ident("value_sum")).alias("value_sum"));
        sums.push(min(ident("value_min")).alias("value_min"));
        sums.push(max(ident("value_max")).alias("value_max"));
    }
    if definition.has_distinct() {
        // Who asks for one of them does not pay for the other.
        let sketch = cast(ident("distinct_users"), DataType::Binary);
        sums.push(merge_distinct().call(vec![sketch.clone()]).alias("approx_distinct"));
        sums.push(merge_users().call(vec![sketch]).alias(USERS));
    }
    sums
}

fn metrics(definition: &Definition) -> Vec<Expr> {
    let mut columns = keys(definition);
    columns.push(ident("count"));
    for function in Function::ALL.into_iter().filter(|function| definition.metrics.contains(function)) {
        let column = match function {
            Function::Count => continue,
            Function::Sum => ident("value_sum"),
            Function::Min => ident("value_min"),
            Function::Max => ident("value_max"),
            Function::Avg => average().call(vec![ident("value_sum"), ident("value_count")]),
            Function::ApproxDistinct => ident("approx_distinct"),
        };
        columns.push(column.alias(function.name()));
    }
    if definition.has_distinct() {
        columns.push(ident(USERS));
    }
    columns.push(ident(LATE_COLUMN));
    columns
}
