//! What the parser reads, or the planner plans, as something else than it says is refused: it would give another count without a
//! word. A condition that is not looked at counts everything.

use std::fmt::Display;
use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArguments, GroupByExpr, Query, Select, Statement, TableFactor, Visit,
    Visitor, WindowType, visit_expressions,
};

use crate::ServingError;

/// Refuses a statement that is not done as it says.
///
/// # Errors
/// [`ServingError::BadRequest`] of `query`.
pub fn check(state: &SessionState, sql: &Statement) -> Result<(), ServingError> {
    let mut looking = Looking { state, why: String::new() };
    match sql.visit(&mut looking) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(ServingError::bad("query", looking.why)),
    }
}

struct Looking<'a> {
    state: &'a SessionState,
    /// What is to be written instead, once something was found.
    why: String,
}

impl Looking<'_> {
    fn refuse(&mut self, why: impl Into<String>) -> ControlFlow<()> {
        self.why = why.into();
        ControlFlow::Break(())
    }

    /// Refuses what the planner does not look at, if it is there.
    fn unknown(&mut self, is_there: bool, what: &str, instead: &str) -> ControlFlow<()> {
        if is_there { self.refuse(format!("{what} is not known here: {instead}")) } else { ControlFlow::Continue(()) }
    }

    /// Whether a function may have FILTER, OVER, DISTINCT and the like: the planner leaves them out of others.
    fn has_clauses(&self, name: &str) -> bool {
        let state = self.state;
        let is_other = state.scalar_functions().contains_key(name) || state.higher_order_functions().contains_key(name);
        !is_other && (state.aggregate_functions().contains_key(name) || state.window_functions().contains_key(name))
    }

    fn check_function(&mut self, function: &Function) -> ControlFlow<()> {
        if !matches!(function.parameters, FunctionArguments::None) {
            return self.refuse(format!("write all arguments into one pair of brackets: {}", short(function)));
        }
        let name = name_of(function);
        if !has_clause(function) || self.has_clauses(&name) {
            return ControlFlow::Continue(());
        }
        self.refuse(format!(
            "{name:?} is no aggregate or window function, so FILTER, OVER, DISTINCT, ORDER BY and NULLS cannot stand with it \
             but with what is in it: {}",
            short(function)
        ))
    }

    /// Refuses names of windows where the planner does not look for them.
    fn check_windows(&mut self, place: &str, expressions: &impl Visit) -> ControlFlow<()> {
        let named = visit_expressions(expressions, |expression| match expression {
            Expr::Function(Function { over: Some(WindowType::NamedWindow(_)), .. }) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        self.unknown(named.is_break(), &format!("the name of a window in {place}"), "write the window out there")
    }
}

impl Visitor for Looking<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.check_windows("ORDER BY", &query.order_by)
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let (GroupByExpr::All(with) | GroupByExpr::Expressions(_, with)) = &select.group_by;
        self.unknown(select.prewhere.is_some(), "PREWHERE", "write WHERE")?;
        self.unknown(!select.connect_by.is_empty(), "CONNECT BY", "write WITH RECURSIVE")?;
        self.unknown(!with.is_empty(), "WITH or GROUPING SETS behind GROUP BY's columns", "write GROUP BY ROLLUP (…)")?;
        self.check_windows("QUALIFY", &select.qualify)
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<()> {
        let (sample, part) = match table {
            TableFactor::Table { sample, partitions, version, json_path, .. } => {
                (sample.is_some(), !partitions.is_empty() || version.is_some() || json_path.is_some())
            }
            TableFactor::Derived { sample, .. } => (sample.is_some(), false),
            _ => (false, false),
        };
        self.unknown(sample, "TABLESAMPLE", "a query counts all rows")?;
        self.unknown(part, "a partition, version or path of a table", "write WHERE, or ask with as_of")
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        match expression {
            // The parser takes all that follows for one side of the comparison.
            Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) if goes_on(right) => {
                let right = short(right);
                self.refuse(format!(
                    "put the comparison by DISTINCT FROM in brackets: it is compared to all of {right:?} else"
                ))
            }
            // It is planned as a regular expression that may match in the middle.
            Expr::SimilarTo { .. } => self.unknown(true, "SIMILAR TO", "write LIKE, or ~ with a regular expression"),
            Expr::Function(function) => self.check_function(function),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Whether it says something of a whole condition and has no brackets around it.
const fn goes_on(expression: &Expr) -> bool {
    matches!(
        expression,
        Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, .. }
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
    )
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

fn has_clause(function: &Function) -> bool {
    let in_brackets = match &function.args {
        FunctionArguments::List(list) => list.duplicate_treatment.is_some() || !list.clauses.is_empty(),
        FunctionArguments::None | FunctionArguments::Subquery(_) => false,
    };
    in_brackets
        || function.filter.is_some()
        || function.over.is_some()
        || function.null_treatment.is_some()
        || !function.within_group.is_empty()
}

fn short(what: &impl Display) -> String {
    what.to_string().chars().take(80).collect()
}
