//! Dates that a table of counts has no rows of: those that are rolled up.
//!
//! `stats` has minutes, so a date that has hours and days alone is not in it, and a sum over it would be short. Whoever
//! asks has to be told, but only where the query could have had rows of the date. So each such date takes part in
//! the plan as a file would, with the bounds of its minutes: filters are pushed down to it and prune it, and what is left
//! when the plan is made is noted. Where nothing says which times a query is about, all of them are.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use object_store::ObjectStore;
use parking_lot::Mutex;
use reckon_data::minute::{MINUTES_PER_DAY, format_date, start_of_minute};
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Table};
use reckon_tables::provider::PinnedTable;
use reckon_tables::schema::file_schema;

use crate::ServingError;
use crate::view::batch::DateFiles;
use crate::view::{BatchView, Missing, MissingWhat, Provenance};

/// What is said of the dates that a query could have had rows of; clones note in the same place.
#[derive(Debug, Clone, Default)]
pub struct Noted(Arc<Mutex<BTreeMap<(i32, String), String>>>);

impl Noted {
    /// Adds what was noted so far. Plans note when they are made, before the first row: ask after that.
    pub fn add_to(&self, provenance: &mut Provenance) {
        let noted = self.0.lock();
        provenance.missing.extend(
            noted
                .iter()
                .map(|((date, _), reason)| Missing::date(MissingWhat::BatchCounts, format_date(*date), reason.clone())),
        );
        provenance.missing.sort();
        provenance.missing.dedup();
        provenance.complete = provenance.missing.is_empty();
    }
}

/// The dates that a table of counts has no rows of, as a table without rows.
#[derive(Debug, Clone)]
pub struct GoneTable {
    /// A file for each of them, which nobody ever reads.
    dates: PinnedTable,
    /// What is to be said of each, by its file's path.
    reasons: Arc<BTreeMap<String, (i32, String)>>,
    name: String,
    noted: Noted,
}

impl GoneTable {
    /// Those of the table `name`, which is made of rows of a granularity; none when it has every date.
    ///
    /// # Errors
    /// Never, unless the table's columns are not what they should be.
    pub fn of(
        view: &BatchView,
        (name, granularity): (&str, Granularity),
        store: &Arc<dyn ObjectStore>,
        noted: &Noted,
    ) -> std::result::Result<Option<Self>, ServingError> {
        let gone: Vec<(i32, &DateFiles)> = (view.dates.iter())
            .filter(|(_, sets)| !sets.contains_key(&granularity))
            .map(|(date, sets)| (*date, sets))
            .collect();
        if gone.is_empty() {
            return Ok(None);
        }
        let files: Vec<DataFile> = gone.iter().map(|(date, _)| stand_in(*date, granularity)).collect();
        let reasons = files.iter().zip(&gone);
        let reasons =
            reasons.map(|(file, (date, sets))| (file.path.clone(), (*date, reason(name, granularity, sets)))).collect();
        let dates = PinnedTable::new(Arc::clone(store), Table::BatchCounts, files, file_schema(Table::BatchCounts))?;
        Ok(Some(Self { dates, reasons: Arc::new(reasons), name: name.to_owned(), noted: noted.clone() }))
    }
}

/// A file with the bounds that the rows of a date would have.
fn stand_in(date: i32, granularity: Granularity) -> DataFile {
    let first = i64::from(date).saturating_mul(MINUTES_PER_DAY);
    let last = first.saturating_add(MINUTES_PER_DAY - granularity.steps());
    let bound = |minute: i64| BTreeMap::from([("minute".to_owned(), start_of_minute(minute).into())]);
    DataFile {
        path: format!("{granularity}/{}", format_date(date)),
        bytes: 1,
        rows: 1,
        partition: BTreeMap::from([
            ("granularity".to_owned(), Some(granularity.name().to_owned())),
            ("event_date".to_owned(), Some(format_date(date))),
        ]),
        min: bound(first),
        max: bound(last),
    }
}

fn reason(name: &str, granularity: Granularity, sets: &DateFiles) -> String {
    let tables = [(Granularity::Hour, "stats_hour"), (Granularity::Day, "stats_day")];
    let there: Vec<&str> = (tables.into_iter())
        .filter(|(coarser, _)| *coarser > granularity && sets.contains_key(coarser))
        .map(|(_, table)| table)
        .collect();
    let instead = match there.as_slice() {
        [] => String::new(),
        tables => format!("; {} have all of it", tables.join(" and ")),
    };
    format!("it has no counts by the {granularity} any more, which {name} is made of{instead}")
}

#[async_trait]
impl TableProvider for GoneTable {
    fn schema(&self) -> SchemaRef {
        self.dates.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut noted = self.noted.0.lock();
        for file in self.dates.may_match(state, filters)? {
            if let Some((date, reason)) = self.reasons.get(&file.path) {
                noted.insert((*date, self.name.clone()), reason.clone());
            }
        }
        let schema = match projection {
            Some(columns) => Arc::new(self.schema().project(columns)?),
            None => self.schema(),
        };
        Ok(Arc::new(EmptyExec::new(schema)))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use reckon_data::filter::Filter;
    use reckon_data::metric::Function;
    use reckon_data::minute::{MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE};
    use reckon_data::paths::Transaction;
    use reckon_data::table::Tables as _;
    use serde_json::json;

    use super::*;
    use crate::query::{CountQuery, ManyQuery, StatsQuery, Step, TopQuery, WhyQuery};
    use crate::testing::{Ev, Log, World};

    /// Events of three dates, of which batch has counted the first of each; the first date has lost its minutes.
    async fn world() -> World {
        let event = |n: i64| Ev {
            id: format!("e{n}"),
            entity: format!("v{}", n % 2),
            event_type: "view",
            minute: (n * 97) % 4_320,
            country: None,
            ip: Some("::1"),
            value: Some(n),
        };
        let world = World::new(Log(vec![(0..90).map(event).collect()]));
        world.clock.set(3 * MICROS_PER_DAY);
        world.batch(&[60]).await;
        let files = world.tables.snapshot(Table::BatchCounts).await.unwrap().files;
        let is_gone = |path: &str| path.contains("granularity=minute/event_date=1970-01-01");
        world.remove(Table::BatchCounts, files.iter().filter(|file| is_gone(&file.path)).cloned().collect()).await;
        world.mark(Table::BatchCounts, &[(Transaction::Rolled(Granularity::Minute), 1)]).await;
        world.archive(&[90]).await;
        world
    }

    fn of(world: &World, from: i64, to: i64) -> u64 {
        let within = |event: &&&Ev| (from..to).contains(&(event.minute * MICROS_PER_MINUTE));
        world.log.counted(0, 0..90).iter().filter(within).filter(|event| event.entity == "v1").count() as u64
    }

    fn count(from: i64, to: i64, filter: Option<Filter>) -> CountQuery {
        CountQuery { entity: "v1".to_owned(), event_type: None, from, to, filter }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn coarse_questions_are_answered_and_finer_ones_refused() {
        let world = world().await;
        let serving = world.serve().await;
        for (from, to) in [(0, 3), (0, 1), (2, 90), (25, 50)] {
            let (from, to) = (from * MICROS_PER_HOUR, to * MICROS_PER_HOUR);
            let answer = serving.count(&count(from, to, None)).await.unwrap();
            assert_eq!((answer.count, answer.provenance.complete), (of(&world, from, to), true), "{from}..{to}");
        }
        let too_fine = serving.count(&count(MICROS_PER_MINUTE, MICROS_PER_HOUR, None)).await;
        assert!(matches!(too_fine, Err(ServingError::RolledUp(rolled)) if rolled.field() == "from"));
        // The other dates still have their minutes.
        let fine = count(MICROS_PER_DAY + MICROS_PER_MINUTE, 2 * MICROS_PER_DAY - MICROS_PER_MINUTE, None);
        assert_eq!(serving.count(&fine).await.unwrap().count, of(&world, fine.from, fine.to));
        let stats = |step: Step| StatsQuery {
            entity: "v1".to_owned(),
            event_type: None,
            function: Function::Count,
            from: 0,
            to: MICROS_PER_DAY,
            step,
            filter: None,
        };
        assert!(serving.stats(&stats(Step::HOUR)).await.is_ok());
        let too_fine = serving.stats(&stats(Step::MINUTE)).await;
        assert!(matches!(too_fine, Err(ServingError::RolledUp(rolled)) if rolled.field() == "step"));
        let top = |to: i64| TopQuery { n: 5, event_type: None, from: 0, to, filter: None };
        let listed = serving.top(&top(2 * MICROS_PER_HOUR)).await.unwrap();
        let found = listed.entities.iter().find(|entity| entity.entity_id == "v1").map_or(0, |entity| entity.count);
        assert_eq!(found, of(&world, 0, 2 * MICROS_PER_HOUR));
        assert!(matches!(serving.top(&top(90 * MICROS_PER_MINUTE)).await, Err(ServingError::RolledUp(_))));
        let why = |minute| WhyQuery { entity: "v1".to_owned(), minute, event_type: None };
        assert!(matches!(serving.why(&why(97)).await, Err(ServingError::RolledUp(rolled)) if rolled.date == 0));
        assert!(serving.why(&why(1_500)).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn filters_that_raw_events_answer_are_as_fine_as_ever() {
        let world = world().await;
        let serving = world.serve().await;
        let filter = serving.filter("ip:::1").unwrap();
        for (from, to) in [(1, 60), (0, 1), (97, 98), (30, 5_000)] {
            let (from, to) = (from * MICROS_PER_MINUTE, to * MICROS_PER_MINUTE);
            let answer = serving.count(&count(from, to, Some(filter.clone()))).await.unwrap();
            assert_eq!((answer.count, answer.provenance.missing), (of(&world, from, to), vec![]), "{from}..{to}");
            let many = ManyQuery {
                entities: vec!["v1".to_owned()],
                event_type: None,
                functions: vec![Function::Count],
                from,
                to,
                step: None,
                filter: Some(filter.clone()),
                previous: false,
                as_of: None,
            };
            let answer = serving.many(&many).await.unwrap();
            let found = (answer.entities[0].count, answer.provenance.missing);
            assert_eq!(found, (of(&world, from, to), vec![]), "many, {from}..{to}");
        }
        // And what is gone of them is still seen, whatever the window.
        let events = world.tables.snapshot(Table::Events).await.unwrap().files;
        let gone = events.iter().filter(|file| file.path.contains("1970-01-01"));
        world.remove(Table::Events, gone.cloned().collect()).await;
        let serving = world.serve().await;
        let answer = serving.count(&count(MICROS_PER_MINUTE, 60 * MICROS_PER_MINUTE, Some(filter))).await.unwrap();
        assert!(!answer.provenance.complete);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sql_names_the_dates_that_a_query_could_have_had_rows_of() {
        let world = world().await;
        let serving = world.serve().await;
        let dates = |query: &'static str| {
            let serving = &serving;
            async move {
                let answer = serving.sql(query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
                let provenance = answer.provenance;
                assert_eq!(provenance.complete, provenance.missing.is_empty(), "{query}");
                let named = provenance.missing.iter().map(|missing| {
                    assert!(missing.reason.contains("stats_hour and stats_day"), "{}", missing.reason);
                    missing.date.clone().unwrap()
                });
                named.collect::<Vec<String>>()
            }
        };
        let all = ["1970-01-01"];
        assert_eq!(dates("SELECT sum(count) FROM stats").await, all);
        assert_eq!(dates("SELECT * FROM stats_batch WHERE entity_id = 'v1'").await, all);
        assert_eq!(dates("SELECT sum(count) FROM stats WHERE minute < '1970-01-01T00:05:00Z'").await, all);
        assert_eq!(dates("SELECT sum(count) FROM stats WHERE minute >= '1970-01-01T23:59:00Z'").await, all);
        assert_eq!(dates("SELECT sum(count) FROM stats WHERE date_part('hour', minute) = 7").await, all);
        assert_eq!(
            dates("SELECT (SELECT sum(count) FROM stats WHERE minute < '1970-01-01T05:00:00Z') AS n").await,
            all
        );
        let later = "SELECT entity_id, sum(count) FROM stats WHERE minute >= '1970-01-02T00:00:00Z' GROUP BY 1";
        assert!(dates(later).await.is_empty());
        for whole in [
            "SELECT * FROM stats WHERE minute BETWEEN '1970-01-02T00:00:00Z' AND '1970-01-02T05:00:00Z'",
            "SELECT sum(count) FROM stats_hour",
            "SELECT sum(count) FROM stats_day",
            "SELECT 1 FROM stats_stream",
        ] {
            assert!(dates(whole).await.is_empty(), "{whole}");
        }
        let total = serving.sql("SELECT sum(count) FROM stats_hour").await.unwrap();
        assert_eq!(total.json_rows().unwrap(), [[json!(90)]]);
    }
}
