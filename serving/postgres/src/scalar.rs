//! Subqueries of questions of the catalogue, in words that DataFusion plans: one that stands for a value has to be an
//! aggregate where it looks at the query around it, and lists of a subquery there are none.

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArguments, GroupByExpr, Query, SelectItem, SetExpr, Statement, Value, Visit as _, Visitor,
    visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use std::ops::ControlFlow;

/// Rewrites all of them. They look a row up by its number, so the largest of their values is the only one.
pub fn make_plannable(statement: &mut Statement) {
    let _ = visit_expressions_mut(statement, |expr| {
        match expr {
            Expr::Subquery(query) => to_largest(query),
            Expr::Function(function) if is_list(&function.name.to_string(), &function.args) => {
                *expr = Expr::Value(Value::SingleQuotedString("{}".to_owned()).into());
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
}

/// `ARRAY(SELECT …)`: memberships of roles and the like, of which there are none here.
fn is_list(name: &str, arguments: &FunctionArguments) -> bool {
    name.eq_ignore_ascii_case("array") && matches!(arguments, FunctionArguments::Subquery(_))
}

fn to_largest(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let is_grouped = !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    if is_grouped || select.distinct.is_some() || select.having.is_some() {
        return;
    }
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        select.projection.as_mut_slice()
    else {
        return;
    };
    if is_aggregate(value) {
        return;
    }
    if let Some(largest) = expression(&format!("max({value})")) {
        *value = largest;
        query.limit_clause = None;
        query.order_by = None;
        query.fetch = None;
    }
}

/// An expression, of its text: in the dialect that it is planned in, for in PostgreSQL's each argument is read twice, and what
/// is within others is made first and read with each of them.
pub fn expression(text: &str) -> Option<Expr> {
    let parser = Parser::new(&GenericDialect {}).try_with_sql(text);
    parser.and_then(|mut parser| parser.parse_expr()).ok()
}

/// Whether a value has an aggregate in it, or is made of a window: the largest of such cannot be asked for.
fn is_aggregate(value: &Expr) -> bool {
    value.visit(&mut Aggregates { depth: 0 }).is_break()
}

/// Looks for aggregates, but not in queries within.
struct Aggregates {
    depth: usize,
}

impl Visitor for Aggregates {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        const NAMES: [&str; 9] =
            ["count", "max", "min", "sum", "avg", "array_agg", "string_agg", "bool_and", "bool_or"];
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let name = function.name.to_string().to_lowercase();
        let is_one = function.over.is_some() || NAMES.contains(&name.rsplit('.').next().unwrap_or_default());
        if self.depth == 0 && is_one { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;

    use super::*;

    fn plannable(query: &str) -> String {
        let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, query).unwrap();
        make_plannable(&mut statements[0]);
        statements[0].to_string()
    }

    #[test]
    fn values_are_the_largest_and_lists_are_empty() {
        for (query, expected) in [
            (
                "SELECT (SELECT c.relkind = 'c' FROM pg_class AS c WHERE c.oid = t.typrelid) FROM pg_type AS t",
                "SELECT (SELECT max(c.relkind = 'c') FROM pg_class AS c WHERE c.oid = t.typrelid) FROM pg_type AS t",
            ),
            ("SELECT (SELECT count(*) FROM pg_class)", "SELECT (SELECT count(*) FROM pg_class)"),
            (
                "SELECT (SELECT array_to_string(array_agg(relname), ',') FROM pg_class)",
                "SELECT (SELECT array_to_string(array_agg(relname), ',') FROM pg_class)",
            ),
            ("SELECT (SELECT count(*) > 0 FROM pg_class)", "SELECT (SELECT count(*) > 0 FROM pg_class)"),
            // The aggregate is that of the query within.
            (
                "SELECT (SELECT (SELECT count(*) FROM pg_type) + c.oid FROM pg_class AS c)",
                "SELECT (SELECT max((SELECT count(*) FROM pg_type) + c.oid) FROM pg_class AS c)",
            ),
            ("SELECT (SELECT oid FROM pg_class LIMIT 1)", "SELECT (SELECT max(oid) FROM pg_class)"),
            ("SELECT ARRAY(SELECT 1 FROM pg_class) AS m", "SELECT '{}' AS m"),
            ("SELECT 1 WHERE EXISTS (SELECT 1 FROM pg_class)", "SELECT 1 WHERE EXISTS (SELECT 1 FROM pg_class)"),
            ("SELECT 1 WHERE 1 IN (SELECT 1 FROM pg_class)", "SELECT 1 WHERE 1 IN (SELECT 1 FROM pg_class)"),
        ] {
            assert_eq!(plannable(query), expected);
        }
    }
}
