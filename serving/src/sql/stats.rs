//! The merged tables: batch rows and stream rows, one row for each (entity, type, minute, dimensions).

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::functions_aggregate::expr_fn::{max, min, sum};
use datafusion::logical_expr::{Expr, cast, ident};
use datafusion::prelude::{DataFrame, SessionContext};
use reckon_data::columns::SUM_TYPE;
use reckon_data::definition::Definition;
use reckon_data::metric::Function;
use reckon_tables::provider::PinnedTable;

use super::functions::{average, distinct};
use super::stream::StreamTable;

/// A table over batch rows, stream rows, or both, as a view: filters on its keys reach the files.
///
/// # Errors
/// Never, unless the tables' columns are not what they should be.
pub fn merged(
    context: &SessionContext,
    definition: &Definition,
    batch: Option<PinnedTable>,
    stream: Option<StreamTable>,
) -> Result<Arc<dyn TableProvider>> {
    let columns = stored(definition);
    let select = |provider: Arc<dyn TableProvider>| context.read_table(provider)?.select(columns.clone());
    let batch = batch.map(|batch| select(Arc::new(batch))).transpose()?;
    let stream = stream.map(|stream| select(Arc::new(stream))).transpose()?;
    let rows: DataFrame = match (batch, stream) {
        (Some(batch), Some(stream)) => batch.union(stream)?,
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return context.read_empty().map(DataFrame::into_view),
    };
    Ok(rows.aggregate(keys(definition), sums(definition))?.select(metrics(definition))?.into_view())
}

fn keys(definition: &Definition) -> Vec<Expr> {
    let dimensions = definition.dimensions.iter().map(|dimension| ident(dimension.column()));
    ["entity_id", "event_type", "minute"].into_iter().map(ident).chain(dimensions).collect()
}

/// The stored columns that the metrics need.
fn stored(definition: &Definition) -> Vec<Expr> {
    let mut columns = keys(definition);
    columns.push(ident("count"));
    if definition.has_values() {
        columns.extend(["value_count", "value_sum", "value_min", "value_max"].map(ident));
    }
    if definition.has_distinct() {
        columns.push(ident("distinct_users"));
    }
    columns
}

fn sums(definition: &Definition) -> Vec<Expr> {
    let mut sums = vec![sum(ident("count")).alias("count")];
    if definition.has_values() {
        sums.push(sum(ident("value_count")).alias("value_count"));
        sums.push(sum(ident("value_sum")).alias("value_sum"));
        sums.push(min(ident("value_min")).alias("value_min"));
        sums.push(max(ident("value_max")).alias("value_max"));
    }
    if definition.has_distinct() {
        let sketch = cast(ident("distinct_users"), DataType::Binary);
        sums.push(distinct().call(vec![sketch]).alias("approx_distinct"));
    }
    sums
}

fn metrics(definition: &Definition) -> Vec<Expr> {
    let mut columns = keys(definition);
    columns.push(ident("count"));
    for function in Function::ALL.into_iter().filter(|function| definition.metrics.contains(function)) {
        let column = match function {
            Function::Count => continue,
            Function::Sum => cast(ident("value_sum"), SUM_TYPE),
            Function::Min => ident("value_min"),
            Function::Max => ident("value_max"),
            Function::Avg => average().call(vec![cast(ident("value_sum"), SUM_TYPE), ident("value_count")]),
            Function::ApproxDistinct => ident("approx_distinct"),
        };
        columns.push(column.alias(function.name()));
    }
    columns
}
