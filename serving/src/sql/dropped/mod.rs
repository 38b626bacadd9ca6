//! What the parser reads, or the planner plans, as something else than it says is refused: it would give another count
//! without a word. A condition that is not looked at counts everything. The parser's nodes are taken apart with all
//! their parts, so that one that comes with another version is decided on.

mod functions;
mod tables;
mod text;
mod windows;

use std::collections::HashSet;
use std::fmt::Display;
use std::ops::ControlFlow::{self, Break, Continue};

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Cte, Expr, GroupByExpr, Ident, Query, Select, SelectFlavor, SelectItem, SetExpr, SetOperator,
    SetQuantifier, Statement, TableFactor, Visit as _, Visitor, WildcardAdditionalOptions, With,
};

pub use self::text::check_text;
use crate::ServingError;

/// Nothing, or why it is refused and what is to be written instead.
type Found = ControlFlow<String>;

/// Refuses a statement that is not done as it says.
///
/// # Errors
/// [`ServingError::BadRequest`] of `query`.
pub fn check(state: &SessionState, sql: &Statement) -> Result<(), ServingError> {
    match sql.visit(&mut Looking { state, windows: HashSet::new() }) {
        Continue(()) => Ok(()),
        Break(why) => Err(ServingError::bad("query", why)),
    }
}

struct Looking<'a> {
    state: &'a SessionState,
    /// Names of windows that the planner looks up, by where they stand.
    windows: HashSet<*const Ident>,
}

impl Visitor for Looking<'_> {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> Found {
        // Locks lock nothing and change no row; what is planned is not looked at.
        let Query {
            with,
            body,
            order_by: _,
            limit_clause: _,
            fetch: _,
            locks: _,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        let of_answer = for_clause.is_some() || settings.is_some() || format_clause.is_some();
        unknown(of_answer, "FOR XML, FOR JSON, SETTINGS and FORMAT", "ask for a form of the answer with the request")?;
        unknown(!pipe_operators.is_empty(), "|>", "write SELECT … FROM (SELECT …)")?;
        check_set(body)?;
        with.as_ref().map_or(Continue(()), check_with)
    }

    fn pre_visit_select(&mut self, select: &Select) -> Found {
        // Of what is not looked at, hints are no part of a question, the parser does not read the modifiers, EXCLUDE and
        // AS VALUE for us, and the planner plans all else or says that it does not.
        let Select {
            select_token: _,
            optimizer_hints: _,
            distinct: _,
            select_modifiers: _,
            top: _,
            top_before_distinct: _,
            projection,
            exclude: _,
            into,
            from,
            lateral_views: _,
            prewhere,
            selection: _,
            connect_by,
            group_by,
            cluster_by: _,
            distribute_by: _,
            sort_by: _,
            having: _,
            named_window,
            qualify: _,
            window_before_qualify: _,
            value_table_mode: _,
            flavor,
        } = select;
        let (GroupByExpr::All(with) | GroupByExpr::Expressions(_, with)) = group_by;
        unknown(into.is_some(), "INTO", "only reading is allowed")?;
        unknown(prewhere.is_some(), "PREWHERE", "write WHERE")?;
        unknown(!connect_by.is_empty(), "CONNECT BY", "write WITH RECURSIVE")?;
        unknown(*flavor == SelectFlavor::FromFirstNoSelect, "FROM without SELECT", "write SELECT * FROM …")?;
        unknown(!with.is_empty(), "WITH or GROUPING SETS behind GROUP BY's columns", "write GROUP BY ROLLUP (…)")?;
        projection.iter().try_for_each(check_columns)?;
        from.iter().try_for_each(|from| tables::check_joins(&from.joins))?;
        tables::check_all_columns(projection, from)?;
        windows::check(named_window, projection, &mut self.windows)
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> Found {
        tables::check(table)
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> Found {
        match expression {
            // The parser takes all that follows for one side of the comparison.
            Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) if goes_on(right) => Break(format!(
                "put the comparison by DISTINCT FROM in brackets: it is compared to all of {:?} else",
                short(right)
            )),
            // It is planned as a regular expression that may match in the middle.
            Expr::SimilarTo { .. } => unknown(true, "SIMILAR TO", "write LIKE, or ~ with a regular expression"),
            // PostgreSQL raises to a power where DataFusion compares bits.
            Expr::BinaryOp { op: BinaryOperator::BitwiseXor | BinaryOperator::Xor, .. } => {
                unknown(true, "^ or XOR", "write power(a, b), or (a | b) - (a & b) for the bits of one of both")
            }
            Expr::BinaryOp { left, op, right } if is_read_otherwise(left, op, right) => Break(format!(
                "put brackets around what is to be done first: {:?}, operators are read in another order here than elsewhere",
                short(expression)
            )),
            Expr::Trim { trim_characters: Some(characters), .. } => {
                unknown(characters.len() > 1, "more than one text of characters in TRIM", "write btrim(a, 'xy')")
            }
            Expr::Function(function) => functions::check(self.state, function, &self.windows),
            _ => Continue(()),
        }
    }
}

/// The planner asks whether a row is there, and not how often. Queries in brackets are visited by themselves.
fn check_set(body: &SetExpr) -> Found {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { return Continue(()) };
    let is_once = matches!(set_quantifier, SetQuantifier::None | SetQuantifier::Distinct);
    unknown(*op != SetOperator::Union && !is_once, "INTERSECT ALL or EXCEPT ALL", "number the rows with row_number()")?;
    check_set(left)?;
    check_set(right)
}

/// Of the members of WITH RECURSIVE whose query is a UNION the planner looks at its two sides only.
fn check_with(with: &With) -> Found {
    let With { with_token: _, recursive, cte_tables } = with;
    cte_tables.iter().try_for_each(|member| {
        let Cte { alias, query, from, materialized: _, closing_paren_token: _ } = member;
        unknown(from.is_some(), "FROM behind the query of WITH", "write it into the query")?;
        tables::check_alias(Some(alias))?;
        let SetExpr::SetOperation { op: SetOperator::Union, set_quantifier, .. } = &*query.body else {
            return Continue(());
        };
        let (by_name, around) = match set_quantifier {
            SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None => (false, is_more_than_body(query)),
            SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName => (true, true),
        };
        unknown(*recursive && by_name, "UNION BY NAME in WITH RECURSIVE", "write the columns in one order")?;
        unknown(
            *recursive && around,
            "WITH, ORDER BY or LIMIT of a UNION in WITH RECURSIVE",
            "write it in the query that reads it, or leave RECURSIVE out",
        )
    })
}

const fn is_more_than_body(query: &Query) -> bool {
    query.with.is_some() || query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some()
}

fn check_columns(item: &SelectItem) -> Found {
    let options = match item {
        SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => options,
        SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. } | SelectItem::ExprWithAliases { .. } => {
            return Continue(());
        }
    };
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude: _,
        opt_except: _,
        opt_replace: _,
        opt_rename: _,
        opt_alias: _,
    } = options;
    unknown(opt_ilike.is_some(), "ILIKE behind *", "name the columns")
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

/// Whether PostgreSQL would do something else first, where there are no brackets: it does operators on bits and `||` in a
/// row, after arithmetic. The parser has an order of the former (`a | b & c`), and does the latter before a sum.
fn is_read_otherwise(left: &Expr, op: &BinaryOperator, right: &Expr) -> bool {
    let is = |operand: &Expr, kind: fn(&BinaryOperator) -> bool| match operand {
        Expr::BinaryOp { op, .. } => kind(op),
        _ => false,
    };
    (is_in_row(op) && is(right, is_in_row)) || (is_arithmetic(op) && (is(left, is_concat) || is(right, is_concat)))
}

fn is_concat(op: &BinaryOperator) -> bool {
    *op == BinaryOperator::StringConcat
}

fn is_in_row(op: &BinaryOperator) -> bool {
    is_concat(op)
        || matches!(
            op,
            BinaryOperator::BitwiseAnd
                | BinaryOperator::BitwiseOr
                | BinaryOperator::PGBitwiseShiftLeft
                | BinaryOperator::PGBitwiseShiftRight
        )
}

const fn is_arithmetic(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
    )
}

/// Refuses what the planner does not look at, if it is there.
fn unknown(is_there: bool, what: &str, instead: &str) -> Found {
    if is_there { Break(format!("{what} is not known here: {instead}")) } else { Continue(()) }
}

fn short(what: &impl Display) -> String {
    what.to_string().chars().take(80).collect()
}
