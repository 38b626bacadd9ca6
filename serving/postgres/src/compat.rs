//! Queries of PostgreSQL's catalogue, in words that DataFusion knows.
//!
//! What clients ask of `pg_catalog` is rewritten by `datafusion-pg-catalog`. Its rules are made for such questions: one of
//! them, for instance, keeps a subquery to its first row. So a query that names any other table is never rewritten:
//! what is counted is asked as it was written. What those rules leave out is added here: before them `oids`, after them
//! `vectors` and `scalar`.

use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{Statement, Visit, visit_relations};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use reckon_serving::sql::{catalogue, size};

use crate::oids::name_as_catalogue;
use crate::scalar::make_plannable;
use crate::vectors::{make_lists, name_columns};

/// Longest question of the catalogue, bytes; clients' own have some thousand.
const BYTES_MAX: usize = 64 << 10;

static REWRITER: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);

/// The query as it is planned.
pub fn rewritten(query: &str) -> String {
    if query.len() > BYTES_MAX || !catalogue::is_mentioned(query) {
        return query.to_owned();
    }
    let Some(asked) = of_catalogue(query) else { return query.to_owned() };
    let mut named = asked.clone();
    name_as_catalogue(&mut named);
    // Some questions it knows by their very words, so they are left as they are where there is nothing to name.
    let parsed = if named == asked { REWRITER.parse(query) } else { REWRITER.parse(&named.to_string()) };
    match parsed {
        Ok(mut statements) if statements.len() == 1 => {
            let statement = &mut statements[0];
            make_lists(statement);
            name_columns(statement);
            make_plannable(statement);
            statement.to_string()
        }
        // Whoever plans it says what is wrong.
        _ => query.to_owned(),
    }
}

/// A query that names no table but those of the catalogue.
fn of_catalogue(query: &str) -> Option<Statement> {
    // A chain of some thousand operators is a tree as deep: it is refused, where it is planned, before it is a tree.
    size::check_text(query, &PostgreSqlDialect {}).ok()?;
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, query).ok()?;
    let statement = statements.pop().filter(|_| statements.is_empty())?;
    is_of_catalogue(&statement).then_some(statement)
}

fn is_of_catalogue(statement: &Statement) -> bool {
    let Statement::Query(query) = statement else { return false };
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
            "select null, null, entity_id from stats where entity_id = 'pg_class'::regclass",
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

    #[test]
    fn questions_of_jdbc_are_in_words_that_are_planned() {
        for (query, part) in [
            (
                "select typinput='pg_catalog.array_in'::regproc as is_array from pg_type",
                "typinput = 'array_in' AS is_array",
            ),
            ("select 1 from pg_depend d where d.classid = 'pg_class'::regclass::oid", "d.classid = 1259::oid"),
            ("select con.confkey[2] from pg_catalog.pg_constraint con", "array_element(CAST(string_to_array(btrim("),
            (
                "select (information_schema._pg_expandarray(i.indkey)).n from pg_index i",
                "get_field(unnest(_pg_expandarray(",
            ),
            ("select 1 from pg_index i join pg_attribute a on a.attnum = any(i.indkey)", "array_contains(CAST("),
            ("select null, null from pg_proc", "\"?column?2\""),
        ] {
            let planned = rewritten(query);
            assert!(planned.contains(part), "{planned}");
        }
    }

    #[test]
    fn questions_known_by_their_words_stay_known() {
        let query = "SELECT pubname , NULL , NULL FROM pg_catalog.pg_publication p \
                     JOIN pg_catalog.pg_publication_namespace pn ON p.oid = pn.pnpubid \
                     JOIN pg_catalog.pg_class pc ON pc.relnamespace = pn.pnnspid \
                     WHERE pc.oid = '16384' and pg_catalog.pg_relation_is_publishable('16384') \
                     UNION SELECT pubname , pg_get_expr(pr.prqual, c.oid) , (CASE WHEN pr.prattrs IS NOT NULL THEN \
                     (SELECT string_agg(attname, ', ') \
                     FROM pg_catalog.generate_series(0, pg_catalog.array_upper(pr.prattrs::pg_catalog.int2[], 1)) s, \
                     pg_catalog.pg_attribute WHERE attrelid = pr.prrelid AND attnum = prattrs[s]) ELSE NULL END) \
                     FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_rel pr ON p.oid = pr.prpubid \
                     JOIN pg_catalog.pg_class c ON c.oid = pr.prrelid WHERE pr.prrelid = '16384' \
                     UNION SELECT pubname , NULL , NULL FROM pg_catalog.pg_publication p \
                     WHERE p.puballtables AND pg_catalog.pg_relation_is_publishable('16384') ORDER BY 1;";
        assert!(rewritten(query).ends_with("WHERE false"), "{}", rewritten(query));
    }
}
