//! Reckon's own entities are left out of the tables of SQL, so that nobody sums up what a canary has sent.
//!
//! The rule goes by the strings in the query and in its parameters, and by nothing else: a reserved prefix (`_reckon/`)
//! that stands anywhere in one brings its entities in, in every table of the query. So it is the same in every plan,
//! wherever filters end up, and `entity_id = '_reckon/canary/1'`, `IN ('_reckon/…')`, `LIKE '_reckon/%'` and `starts_with`
//! ask for them alike.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{Result, ScalarValue};
use datafusion::functions::string::expr_fn::starts_with;
use datafusion::logical_expr::{Expr, ident, lit, not};
use datafusion::prelude::{DataFrame, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{ValueWithSpan, Visit, Visitor};
use reckon_data::definition::Definition;
use reckon_data::table::DataFile;
use reckon_tables::provider::PinnedTable;
use serde_json::Value;

/// The prefixes of the entities that a query does not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden(Vec<String>);

impl Hidden {
    /// Those that `query` does not name, nor any of its parameters.
    #[must_use]
    pub fn from(definition: &Definition, query: &Statement, parameters: &[ScalarValue]) -> Self {
        // A text in a list is a string, too.
        let mut strings = Strings(parameters.iter().map(ToString::to_string).collect());
        strings.of(query);
        let is_named = |prefix: &&String| strings.0.iter().any(|string| string.contains(prefix.as_str()));
        Self(definition.reserved_prefixes.iter().filter(|prefix| !is_named(prefix)).cloned().collect())
    }

    /// The rows of `rows` that a query sees.
    ///
    /// # Errors
    /// When they have no entities.
    pub fn leave_out(&self, rows: DataFrame) -> Result<DataFrame> {
        let seen = self.0.iter().map(|prefix| not(starts_with(ident("entity_id"), lit(prefix.as_str()))));
        match seen.reduce(Expr::and) {
            Some(seen) => rows.filter(seen),
            None => Ok(rows),
        }
    }

    /// The rows of a table that a query sees. Texts are compared only in files that may hold one that it does not: over
    /// millions of rows that takes longer than to add them up.
    ///
    /// # Errors
    /// As [`Hidden::leave_out`].
    pub fn rows_of(&self, context: &SessionContext, table: &PinnedTable) -> Result<DataFrame> {
        self.rows_through(context, table, |files| Arc::new(files) as Arc<dyn TableProvider>)
    }

    /// The same, of files of which `provider` makes tables.
    ///
    /// # Errors
    /// As [`Hidden::leave_out`].
    pub fn rows_through(
        &self,
        context: &SessionContext,
        table: &PinnedTable,
        provider: impl Fn(PinnedTable) -> Arc<dyn TableProvider>,
    ) -> Result<DataFrame> {
        let (some, none) = table.parted(|file| self.may_lie_in(file));
        let is_any = some.pieces().next().is_some();
        let none = context.read_table(provider(none))?;
        if !is_any {
            return Ok(none);
        }
        none.union(self.leave_out(context.read_table(provider(some))?)?)
    }

    fn may_lie_in(&self, file: &DataFile) -> bool {
        let bound = |of: &BTreeMap<String, Value>| of.get("entity_id")?.as_str().map(str::to_owned);
        let (Some(low), Some(high)) = (bound(&file.min), bound(&file.max)) else { return !self.0.is_empty() };
        self.0.iter().any(|prefix| high >= *prefix && (low < *prefix || low.starts_with(prefix.as_str())))
    }
}

/// The strings of a statement.
#[derive(Debug, Default)]
struct Strings(Vec<String>);

impl Strings {
    fn of(&mut self, statement: &Statement) {
        match statement {
            Statement::Statement(sql) => {
                // It goes through all of it: nothing breaks off.
                let _ = sql.visit(self);
            }
            Statement::Explain(explain) => self.of(&explain.statement),
            // These do not read, and are refused.
            Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => {}
        }
    }
}

impl Visitor for Strings {
    type Break = ();

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<()> {
        self.0.extend(value.value.clone().into_string());
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use serde_json::json;

    use super::*;
    use crate::Serving;
    use crate::sql::guard;
    use crate::testing::{Ev, Log, World};

    const TABLES: [&str; 5] = ["stats", "stats_hour", "stats_day", "stats_batch", "stats_stream"];

    #[test]
    fn a_query_that_names_a_prefix_reads_its_entities() {
        let mut definition = Definition::default();
        let context = SessionContext::new();
        let hidden = |definition: &Definition, query: &str| {
            Hidden::from(definition, &guard::parse(&context, query).unwrap(), &[]).0
        };
        assert_eq!(hidden(&definition, "select sum(count) from stats"), ["_reckon/"]);
        assert!(hidden(&definition, "select 1 from stats where entity_id like '_reckon/%'").is_empty());
        assert!(hidden(&definition, "select 1 from stats where entity_id like '\\_reckon/%'").is_empty());
        assert!(hidden(&definition, "explain select 1 from stats where starts_with(entity_id, '_reckon/')").is_empty());
        assert_eq!(hidden(&definition, "select 1 from stats -- not of _reckon/"), ["_reckon/"]);
        assert_eq!(hidden(&definition, "select 1 as \"_reckon/\" from stats"), ["_reckon/"]);
        let deep = "select 1 from (select entity_id from stats where entity_id in ('a', '_reckon/1')) union select 2";
        assert!(hidden(&definition, deep).is_empty());
        let bound = guard::parse(&context, "select 1 from stats where entity_id = $1").unwrap();
        for (parameter, named) in [("v1", false), ("_reckon/canary/1", true)] {
            let parameters = [ScalarValue::from(1_i64), ScalarValue::from(parameter)];
            assert_eq!(Hidden::from(&definition, &bound, &parameters).0.is_empty(), named, "{parameter}");
        }
        definition.reserved_prefixes.push("_other/".to_owned());
        assert_eq!(hidden(&definition, "select 1 from stats where entity_id = '_reckon/1'"), ["_other/"]);
        definition.reserved_prefixes.clear();
        assert!(hidden(&definition, "select sum(count) from stats").is_empty());
    }

    #[test]
    fn a_file_is_looked_at_when_its_entities_may_be_hidden() {
        let hidden = Hidden(vec!["_reckon/".to_owned(), "x/".to_owned()]);
        let file = |bounds: Option<(&str, &str)>| {
            let bound = |of: &str| BTreeMap::from([("entity_id".to_owned(), json!(of))]);
            let (min, max) = bounds.map_or_else(Default::default, |(min, max)| (bound(min), bound(max)));
            DataFile { path: String::new(), bytes: 1, rows: 1, partition: BTreeMap::new(), min, max }
        };
        for (low, high, expected) in [
            ("A", "Z", false),
            ("A", "_reckon", false),
            ("A", "_reckon/", true),
            ("_reckon/1", "_reckon/2", true),
            ("_reckon/~", "a", true),
            ("_reckon0", "w", false),
            ("_reckon0", "x", false),
            ("_reckon0", "x/", true),
            ("A", "z", true),
            ("x/1", "z", true),
            ("x0", "z", false),
        ] {
            assert_eq!(hidden.may_lie_in(&file(Some((low, high)))), expected, "{low} to {high}");
        }
        assert!(hidden.may_lie_in(&file(None)));
        assert!(!Hidden(Vec::new()).may_lie_in(&file(None)));
        assert!(!Hidden(Vec::new()).may_lie_in(&file(Some(("A", "z")))));
    }

    /// Every third event is of an entity that is reserved; events of all kinds lie in both layers.
    async fn world() -> World {
        let event = |n: i64| Ev {
            id: format!("e{n}"),
            entity: if n % 3 == 0 { format!("_reckon/canary/{}", n % 2) } else { format!("v{}", n % 7) },
            event_type: if n % 5 == 0 { "like" } else { "view" },
            minute: (n * 37) % 3_000,
            country: None,
            ip: None,
            value: Some(n),
        };
        let world = World::new(Log(vec![(0..150).map(event).collect(), (150..240).map(event).collect()]));
        world.batch(&[60, 30]).await;
        world.seal(&[80, 30], 5, false).await;
        world.archive(&[150, 90]).await;
        world.tails.state.lock().on_disk_below.insert(0, 80);
        world
    }

    async fn number(serving: &Serving, query: &str) -> i64 {
        let answer = serving.sql(query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
        answer.json_rows().unwrap()[0][0].as_i64().unwrap_or_else(|| panic!("{query}"))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn totals_leave_reserved_entities_out_in_every_plan() {
        let world = world().await;
        let serving = world.serve().await;
        let of = |reserved: bool| {
            world.log.all().iter().filter(|event| event.entity.starts_with("_reckon/") == reserved).count() as i64
        };
        let (others, own) = (of(false), of(true));
        for table in ["stats", "stats_hour", "stats_day"] {
            for (query, expected) in [
                ("SELECT sum(count) FROM {}", others),
                // Not collapsed into one grouping, and with a limit that no filter passes.
                ("SELECT sum(count) FROM (SELECT * FROM {} LIMIT 1000000)", others),
                ("SELECT sum(count) FILTER (WHERE count > 0) FROM {}", others),
                ("SELECT sum(n) FROM (SELECT entity_id, sum(count) AS n FROM {} GROUP BY 1)", others),
                ("SELECT sum(a.count) FROM {} a JOIN (SELECT DISTINCT entity_id FROM {}) b USING (entity_id)", others),
                ("WITH t AS (SELECT * FROM {}) SELECT sum(count) FROM t WHERE entity_id <> 'nobody'", others),
                ("SELECT sum(count) FROM {} WHERE entity_id LIKE '_reckon/%'", own),
                ("SELECT sum(count) FROM {} WHERE starts_with(entity_id, '_reckon/')", own),
                ("SELECT sum(count) FROM (SELECT * FROM {} LIMIT 1000000) WHERE entity_id LIKE '_reckon/%'", own),
                ("SELECT sum(count) FROM {} WHERE entity_id IN ('_reckon/canary/0', '_reckon/canary/1')", own),
                ("SELECT sum(count) FROM {} WHERE entity_id NOT LIKE '_reckon/%'", others),
            ] {
                let query = query.replace("{}", table);
                assert_eq!(number(&serving, &query).await, expected, "{query}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_prefixes_a_query_brings_in_the_one_that_it_names() {
        let mut world = world().await;
        world.definition.reserved_prefixes.push("v1".to_owned());
        let serving = world.serve().await;
        // Of 240 events 80 are of `_reckon/`, 24 of `v1` and 136 of others.
        for (condition, expected) in [
            ("", 136),
            ("WHERE entity_id <> '_reckon/'", 216),
            ("WHERE entity_id <> 'v1/'", 160),
            ("WHERE entity_id NOT IN ('_reckon/', 'v1/')", 240),
        ] {
            for total in ["sum(count) FROM stats", "sum(count) FROM stats_day", "count(*) FROM events"] {
                let query = format!("SELECT {total} {condition}");
                assert_eq!(number(&serving, &query).await, expected, "{query}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn both_layers_and_raw_events_follow_the_rule() {
        let world = world().await;
        let serving = world.serve().await;
        let parts = "SELECT (SELECT coalesce(sum(count), 0) FROM stats_batch) \
                     + (SELECT coalesce(sum(count), 0) FROM stats_stream)";
        assert_eq!(number(&serving, parts).await, number(&serving, "SELECT sum(count) FROM stats").await);
        for table in TABLES {
            let listed = serving.sql(&format!("SELECT DISTINCT entity_id FROM {table}")).await.unwrap();
            let own = |row: &Vec<Value>| row[0].as_str().is_some_and(|entity| entity.starts_with("_reckon/"));
            assert!(!listed.json_rows().unwrap().iter().any(own), "{table}");
            let asked = format!("SELECT DISTINCT entity_id FROM {table} WHERE entity_id = '_reckon/canary/1'");
            assert_eq!(
                serving.sql(&asked).await.unwrap().json_rows().unwrap(),
                [[json!("_reckon/canary/1")]],
                "{table}"
            );
        }
        let own = number(&serving, "SELECT count(*) FROM events WHERE starts_with(entity_id, '_reckon/')").await;
        let others = number(&serving, "SELECT count(*) FROM events").await;
        assert!(own > 0);
        assert_eq!(own + others, world.log.all().len() as i64);
        assert_eq!(number(&serving, "SELECT count(*) FROM events WHERE event_id = 'e3'").await, 0);
    }
}
