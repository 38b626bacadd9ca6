//! Queries of PostgreSQL's catalogue, in words that DataFusion knows.
//!
//! What clients ask of `pg_catalog` is rewritten by `datafusion-pg-catalog`. Its rules are made for such questions: one of
//! them, for instance, keeps a subquery to its first row. So a query that names any other table is never rewritten:
//! what is counted is asked as it was written.

use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{Statement, Visit, visit_relations};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use reckon_serving::sql::{catalogue, size};

use crate::scalar::make_plannable;

/// Longest question of the catalogue, bytes; clients' own have some thousand.
const BYTES_MAX: usize = 64 << 10;

static REWRITER: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);

/// The query as it is planned.
pub fn rewritten(query: &str) -> String {
    if query.len() > BYTES_MAX || !catalogue::is_mentioned(query) || !is_of_catalogue(query) {
        return query.to_owned();
    }
    match REWRITER.parse(query) {
        Ok(mut statements) if statements.len() == 1 => {
            make_plannable(&mut statements[0]);
            statements[0].to_string()
        }
        // Whoever plans it says what is wrong.
        _ => query.to_owned(),
    }
}

/// Whether a query names no table but those of the catalogue.
fn is_of_catalogue(query: &str) -> bool {
    // A chain of some thousand operators is a tree as deep: it is refused, where it is planned, before it is a tree.
    if size::check_text(query, &PostgreSqlDialect {}).is_err() {
        return false;
    }
    let Ok(statements) = Parser::parse_sql(&PostgreSqlDialect {}, query) else { return false };
    let [statement @ Statement::Query(query)] = statements.as_slice() else { return false };
    let mut own: Vec<String> = Vec::new();
    if let Some(with) = &query.with {
        for table in &with.cte_tables {
            // Before its definition, and in it, a name is that of a table: `WITH stats AS (SELECT … FROM stats)`.
            let name = table.alias.name.value.to_lowercase();
            own.extend(with.recursive.then(|| name.clone()));
            if !names_only(&table.query, &own) {
                return false;
            }
            own.push(name);
        }
    }
    names_only(statement, &own)
}

/// Whether a part of a query names no table but those of the catalogue and its own.
fn names_only(part: &impl Visit, own: &[String]) -> bool {
    let found = visit_relations(part, |relation| {
        let name = relation.to_string().replace('"', "").to_lowercase();
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_known = name.starts_with("pg_catalog.") || name.starts_with("information_schema.");
        let is_function = matches!(last, "generate_series" | "unnest" | "generate_subscripts" | "string_to_array");
        if is_known || is_function || last.starts_with("pg_") || own.contains(&name) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    found == ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_asked_as_it_was_written() {
        for query in [
            "select (select count from stats), 'pg_'",
            "select s.* from stats s join pg_catalog.pg_class c on c.relname = s.entity_id",
            "with a as (select count from stats) select (select * from a), version()",
            "with stats as (select count from stats) select (select * from stats), version()",
            "with a as (select * from stats), stats as (select 1) select (select count from a), version()",
            "select 1, 1",
        ] {
            assert_eq!(rewritten(query), query);
        }
    }

    #[test]
    fn a_deep_question_is_left_to_who_refuses_it() {
        let deep = format!("select version(){}", " + 1".repeat(10_000));
        assert_eq!(rewritten(&deep), deep);
    }

    #[test]
    fn questions_of_the_catalogue_are_rewritten() {
        let query = "select c.relname from pg_class c where c.relname OPERATOR(pg_catalog.~) '^(stats)$'";
        let planned = rewritten(query);
        assert!(planned.contains("pg_catalog.pg_class") && !planned.contains("OPERATOR"), "{planned}");
        let query = "with a as (select relname from pg_class), b as (select * from a) select * from b";
        assert!(rewritten(query).contains("pg_catalog.pg_class"));
    }
}
