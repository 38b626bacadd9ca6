//! What stands with functions.

use std::collections::HashSet;
use std::ops::ControlFlow::{Break, Continue};

use datafusion::execution::SessionState;
use datafusion::logical_expr::AggregateUDF;
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Function, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident,
};

use super::{Found, short, unknown, windows};

/// Aggregates that are window functions of their own behind OVER, with less than an aggregate knows.
const OWN_WINDOWS: [&str; 3] = ["first_value", "last_value", "nth_value"];
/// Window functions that look at IGNORE NULLS.
const NULLS: [&str; 5] = ["first_value", "last_value", "nth_value", "lag", "lead"];
/// Aggregates that look at DISTINCT, and those that say the same without. Others take each value as often as it comes.
const DISTINCT: [&str; 23] = [
    "any_value",
    "approx_distinct",
    "approx_median",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "count",
    "max",
    "median",
    "merge_distinct",
    "merge_users",
    "min",
    "percentile_cont",
    "stddev",
    "stddev_pop",
    "string_agg",
    "sum",
    "var",
    "var_pop",
];

/// What a name stands for to the planner, with these arguments.
enum Kind<'a> {
    Aggregate(&'a AggregateUDF),
    /// A window function that is no aggregate.
    Window,
    /// Neither, or nothing.
    Other,
}

/// Refuses what is left out of a call.
pub fn check(state: &SessionState, function: &Function, windows: &HashSet<*const Ident>) -> Found {
    let Function { name: _, uses_odbc_syntax: _, parameters, args, filter, null_treatment, over, within_group } =
        function;
    if !matches!(parameters, FunctionArguments::None) {
        return Break(format!("write all arguments into one pair of brackets: {}", short(function)));
    }
    let list = match args {
        FunctionArguments::List(list) => Some(list),
        FunctionArguments::None | FunctionArguments::Subquery(_) => None,
    };
    let in_brackets = list.is_some_and(|list| list.duplicate_treatment.is_some() || !list.clauses.is_empty());
    let with_rows = filter.is_some() || over.is_some() || null_treatment.is_some() || !within_group.is_empty();
    if !in_brackets && !with_rows {
        return Continue(());
    }
    over.as_ref().map_or(Continue(()), |over| windows::check_over(over, windows))?;
    let name = name_of(function);
    let is_distinct = list.is_some_and(|list| list.duplicate_treatment == Some(DuplicateTreatment::Distinct));
    let has_nulls = null_treatment.is_some() || list.is_some_and(has_nulls);
    match kind(state, &name, over.is_some()) {
        Kind::Other => Break(format!(
            "{name:?} is no aggregate or window function, so FILTER, OVER, DISTINCT, ORDER BY and NULLS cannot stand with it \
             but with what is in it: {}",
            short(function)
        )),
        Kind::Window => {
            let what = format!("FILTER or DISTINCT with the window function {name:?}");
            unknown(filter.is_some() || is_distinct, &what, "write it into a query of its own")?;
            check_nulls(has_nulls && !NULLS.contains(&name.as_str()), &name)
        }
        Kind::Aggregate(aggregate) => {
            let knows = DISTINCT.contains(&aggregate.name()) || OWN_WINDOWS[..2].contains(&aggregate.name());
            let what = format!("DISTINCT with {name:?}");
            unknown(is_distinct && !knows, &what, "write SELECT DISTINCT into a query of its own")?;
            check_nulls(has_nulls && !aggregate.supports_null_handling_clause(), &name)?;
            list.map_or(Continue(()), |list| check_order(aggregate, list, &name))
        }
    }
}

/// As the planner looks for it.
fn kind<'a>(state: &'a SessionState, name: &str, is_over: bool) -> Kind<'a> {
    let is_other = state.scalar_functions().contains_key(name) || state.higher_order_functions().contains_key(name);
    if is_other {
        return Kind::Other;
    }
    match state.aggregate_functions().get(name) {
        Some(aggregate) if !is_over || !OWN_WINDOWS.contains(&aggregate.name()) => Kind::Aggregate(aggregate),
        _ if state.window_functions().contains_key(name) => Kind::Window,
        _ => Kind::Other,
    }
}

fn check_nulls(is_left_out: bool, name: &str) -> Found {
    unknown(
        is_left_out,
        &format!("IGNORE or RESPECT NULLS with {name:?}"),
        "leave it out, or write WHERE … IS NOT NULL",
    )
}

/// Of a percentile of one expression by the order of another one only the order is looked at.
fn check_order(aggregate: &AggregateUDF, list: &FunctionArgumentList, name: &str) -> Found {
    let is_ordered = list.clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_)));
    let is_of_order = aggregate.supports_within_group_clause() && list.args.len() > 1;
    unknown(is_ordered && is_of_order, &format!("ORDER BY within {name:?}"), "write WITHIN GROUP (ORDER BY …)")
}

fn has_nulls(list: &FunctionArgumentList) -> bool {
    list.clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::IgnoreOrRespectNulls(_)))
}

/// Its name as the planner looks it up.
fn name_of(function: &Function) -> String {
    match function.name.0.as_slice() {
        [part] => match part.as_ident() {
            Some(name) if name.quote_style.is_none() => name.value.to_ascii_lowercase(),
            Some(name) => name.value.clone(),
            None => part.to_string(),
        },
        _ => function.name.to_string(),
    }
}
