//! Groups of groups in one step. `stats` groups its rows by every key; `SELECT sum(count) FROM stats` would hold
//! all those groups in memory only to add them up. A sum of sums is the sum of all, so where a grouping asks for
//! nothing else, it takes the place of the one below it.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable as _, LogicalPlan, Projection};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

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
        let argument = whole(function, replace(argument, schema, &columns)?, inner)?;
        let mut function = function.clone();
        function.params.args = vec![argument];
        Some(Expr::AggregateFunction(function))
    });
    let (groups, functions) = (groups.collect::<Option<_>>()?, functions.collect::<Option<_>>()?);
    // Two names for one column below cannot be grouped by both; then all stays as it is.
    let grouping = Aggregate::try_new(Arc::clone(&inner.input), groups, functions).ok()?;
    named_as(grouping, &outer.schema)
}

/// The grouping that a plan's columns come from, and each of them in terms of that grouping's input.
fn grouping_below(plan: &LogicalPlan) -> Option<(&Aggregate, Vec<Expr>)> {
    match plan {
        LogicalPlan::Aggregate(inner) => {
            let columns: Vec<Expr> =
                inner.group_expr.iter().chain(&inner.aggr_expr).map(|column| column.clone().unalias()).collect();
            // Grouping sets have a column more than they have expressions.
            let plain = columns.len() == inner.schema.fields().len();
            (plain && !columns.iter().any(|column| matches!(column, Expr::GroupingSet(_)))).then_some((inner, columns))
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
fn replace(expr: &Expr, schema: &DFSchema, columns: &[Expr]) -> Option<Expr> {
    let replaced = expr.clone().unalias_nested().data.transform_up(|expr| match &expr {
        Expr::Column(column) => Ok(Transformed::yes(columns[schema.index_of_column(column)?].clone())),
        _ => Ok(Transformed::no(expr)),
    });
    replaced.data().ok().filter(|expr| !expr.is_volatile() && !has_plan(expr))
}

fn has_plan(expr: &Expr) -> bool {
    let plan = |expr: &Expr| {
        let outer = matches!(expr, Expr::OuterReferenceColumn(..) | Expr::GroupingSet(_));
        Ok(outer || matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_)))
    };
    expr.exists(plan).unwrap_or(true)
}

/// Whether an expression has the same value for all rows of a group below.
fn is_key(expr: &Expr) -> bool {
    !expr.exists(|expr| Ok(matches!(expr, Expr::AggregateFunction(_)))).unwrap_or(true)
}

/// What `function` is to be given of all rows, where it is given `argument` of the groups below; none when it would
/// say something else then.
fn whole(function: &AggregateFunction, argument: Expr, inner: &Aggregate) -> Option<Expr> {
    let name = function.func.name();
    if function.params.filter.is_some() || !function.params.order_by.is_empty() {
        return None;
    }
    if is_key(&argument) {
        return (function.params.distinct || OF_VALUES.contains(&name)).then_some(argument);
    }
    let Expr::AggregateFunction(part) = uncast(argument, inner) else { return None };
    let plain = !part.params.distinct && part.params.filter.is_none() && part.params.order_by.is_empty();
    let same = part.func == function.func && OF_PARTS.contains(&name) && !function.params.distinct;
    (plain && same).then_some(part.params.args).and_then(|arguments| arguments.into_iter().next())
}

/// Without casts to the type that it has.
fn uncast(expr: Expr, inner: &Aggregate) -> Expr {
    let schema = inner.input.schema();
    match expr {
        Expr::Cast(cast) if cast.expr.get_type(schema).is_ok_and(|own| own == *cast.field.data_type()) => {
            uncast(*cast.expr, inner)
        }
        expr => expr,
    }
}

/// A grouping with the names that `schema` has, if its types are the same.
fn named_as(grouping: Aggregate, schema: &DFSchema) -> Option<LogicalPlan> {
    let columns = grouping.schema.columns().into_iter().zip(grouping.schema.fields()).zip(schema.iter());
    let named = columns.map(|((column, own), (qualifier, field))| {
        let same = own.data_type() == field.data_type();
        same.then(|| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()))
    });
    let named = named.collect::<Option<_>>()?;
    Projection::try_new(named, Arc::new(LogicalPlan::Aggregate(grouping))).ok().map(LogicalPlan::Projection)
}
