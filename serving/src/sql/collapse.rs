//! Groups of groups in one step. `stats` groups its rows by every key; `SELECT sum(count) FROM stats` would hold
//! all those groups in memory only to add them up. A sum of sums is the sum of all, so where a grouping asks for
//! nothing else, it takes the place of the one below it.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::functions::sketches::{APPROX_DISTINCT, MERGE_USERS};

/// Functions that, of parts, give what they give of the whole.
const OF_PARTS: [&str; 3] = ["sum", "min", "max"];
/// Functions to which it is all the same how often a value is there.
const OF_VALUES: [&str; 2] = ["min", "max"];

/// Puts a grouping in the place of the grouping below it where both give the same.
#[derive(Debug)]
pub struct CollapseGroups;

impl OptimizerRule for CollapseGroups {
    fn name(&self) -> &'static str {
        "collapse_groups"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(outer) = plan else { return Ok(Transformed::no(plan)) };
        match collapse(&outer) {
            Some(plan) => Ok(Transformed::yes(plan)),
            None => Ok(Transformed::no(LogicalPlan::Aggregate(outer))),
        }
    }
}

fn collapse(outer: &Aggregate) -> Option<LogicalPlan> {
    let (inner, columns) = grouping_below(&outer.input)?;
    let schema = outer.input.schema();
    let groups = outer.group_expr.iter().map(|key| Some(replace(key, schema, &columns)?).filter(is_key));
    let functions = outer.aggr_expr.iter().map(|function| {
        let Expr::AggregateFunction(function) = function else { return None };
        let [argument] = function.params.args.as_slice() else { return None };
        let argument = whole(function, replace(argument, schema, &columns)?)?;
        let mut function = function.clone();
        function.params.args = vec![argument];
        Some(Expr::AggregateFunction(function))
    });
    let (groups, functions) = (groups.collect::<Option<Vec<_>>>()?, functions.collect::<Option<_>>()?);
    // DataFusion knows keys by their names, and a name says nothing of casts: of two with one name it would take one
    // for superfluous.
    let names: HashSet<String> = groups.iter().map(|key| key.schema_name().to_string()).collect();
    if names.len() < groups.len() {
        return None;
    }
    let grouping = Aggregate::try_new(Arc::clone(&inner.input), groups, functions).ok()?;
    named_as(grouping, &outer.schema)
}

/// The grouping that a plan's columns come from, and each of them in terms of that grouping's input.
fn grouping_below(plan: &LogicalPlan) -> Option<(&Aggregate, Vec<Expr>)> {
    match plan {
        LogicalPlan::Aggregate(inner) => {
            // Without keys there is a row even of nothing, and a key that is computed may fail: both would go.
            let plain = inner.group_expr.iter().all(|key| matches!(key, Expr::Column(_)));
            let columns = inner.group_expr.iter().chain(&inner.aggr_expr).map(|column| column.clone().unalias());
            (plain && !inner.group_expr.is_empty()).then(|| (inner, columns.collect()))
        }
        LogicalPlan::SubqueryAlias(alias) => grouping_below(&alias.input),
        LogicalPlan::Projection(projection) => {
            let (inner, columns) = grouping_below(&projection.input)?;
            let schema = projection.input.schema();
            let columns = projection.expr.iter().map(|column| replace(column, schema, &columns));
            Some((inner, columns.collect::<Option<_>>()?))
        }
        _ => None,
    }
}

/// An expression over columns of `schema`, in terms of what those columns are made of.
pub fn replace(expr: &Expr, schema: &DFSchema, columns: &[Expr]) -> Option<Expr> {
    let replaced = expr.clone().unalias_nested().data.transform_up(|expr| match &expr {
        Expr::Column(column) => Ok(Transformed::yes(columns[schema.index_of_column(column)?].clone())),
        _ => Ok(Transformed::no(expr)),
    });
    replaced.data().ok().filter(|expr| !expr.is_volatile() && !reaches_out(expr))
}

/// Whether more than the columns at hand goes into an expression.
fn reaches_out(expr: &Expr) -> bool {
    let outer = |expr: &Expr| {
        let plan = matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_));
        let other = matches!(expr, Expr::SetComparison(_) | Expr::OuterReferenceColumn(..) | Expr::GroupingSet(_));
        Ok(plan || other)
    };
    expr.exists(outer).unwrap_or(true)
}

/// Whether an expression has the same value for all rows of a group below.
fn is_key(expr: &Expr) -> bool {
    !expr.exists(|expr| Ok(matches!(expr, Expr::AggregateFunction(_)))).unwrap_or(true)
}

/// What `function` is to be given of all rows, where it is given `argument` of the groups below; none when it would
/// say something else then.
fn whole(function: &AggregateFunction, argument: Expr) -> Option<Expr> {
    let name = function.func.name();
    if function.params.filter.is_some() || !function.params.order_by.is_empty() {
        return None;
    }
    if is_key(&argument) {
        return (function.params.distinct || OF_VALUES.contains(&name)).then_some(argument);
    }
    let Expr::AggregateFunction(part) = argument else { return None };
    let plain = !part.params.distinct && part.params.filter.is_none() && part.params.order_by.is_empty();
    let same = part.func == function.func && OF_PARTS.contains(&name);
    // Sketches of sketches are those of all users.
    let sketches = name == APPROX_DISTINCT && part.func.name() == MERGE_USERS;
    (plain && (same || sketches) && !function.params.distinct)
        .then_some(part.params.args)
        .and_then(|arguments| arguments.into_iter().next())
}

/// A grouping with the names that `schema` has, if its types are the same and no sum depends on its order.
fn named_as(grouping: Aggregate, schema: &DFSchema) -> Option<LogicalPlan> {
    let columns = grouping.schema.columns().into_iter().zip(grouping.schema.fields()).zip(schema.iter());
    let named = columns.map(|((column, own), (qualifier, field))| {
        let same = own.data_type() == field.data_type() && !own.data_type().is_floating();
        same.then(|| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()))
    });
    let named = named.collect::<Option<_>>()?;
    Projection::try_new(named, Arc::new(LogicalPlan::Aggregate(grouping))).ok().map(LogicalPlan::Projection)
}
