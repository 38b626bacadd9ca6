//! The parts that a merged table's rows come from, so that a plan knows of each whether its rows have to be grouped.
//!
//! Batch writes each key of a date once: its rows are what a grouping by all keys would make of them, except in minutes
//! in which the stream has rows too. [`super::split`] takes what needs no grouping out of it.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, Statistics};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use reckon_data::run::{Granularity, Run, bounded};
use reckon_data::table::DataFile;
use reckon_tables::provider::PinnedTable;

use crate::index::segments::Chunk;

/// Most ranges of minutes that the stream's are told by.
const RANGES_MAX: usize = 16;

/// What the stream layer has of a table.
#[derive(Debug)]
pub struct Streamed {
    runs: Vec<Arc<Run>>,
    /// The minutes of what it has sealed and let go of.
    sealed: Vec<Range<i64>>,
    granularity: Granularity,
    /// Found out when a plan asks for it: most do not.
    minutes: OnceLock<Vec<Range<i64>>>,
}

impl Streamed {
    /// The rows of `runs` and `chunks`, in steps of a granularity.
    #[must_use]
    pub fn new(runs: Vec<Arc<Run>>, chunks: &[Chunk], granularity: Granularity) -> Self {
        let sealed = chunks.iter().flat_map(|chunk| chunk.minutes.iter().cloned()).collect();
        Self { runs, sealed, granularity, minutes: OnceLock::new() }
    }

    /// Nothing.
    #[must_use]
    pub const fn nothing(granularity: Granularity) -> Self {
        Self { runs: Vec::new(), sealed: Vec::new(), granularity, minutes: OnceLock::new() }
    }

    /// Minutes that all of its rows lie in, whole steps, ascending and apart; a few ranges, so that one late event does not
    /// bring in all minutes since.
    fn minutes(&self) -> &[Range<i64>] {
        self.minutes.get_or_init(|| {
            let of_runs = self.runs.iter().flat_map(|run| run.spans(RANGES_MAX));
            let all = of_runs.chain(self.sealed.iter().cloned()).filter(|minutes| !minutes.is_empty());
            let whole_steps = all.map(|minutes| {
                let last = self.granularity.start_of(minutes.end - 1);
                self.granularity.start_of(minutes.start)..last.saturating_add(self.granularity.steps())
            });
            bounded(whole_steps, RANGES_MAX)
        })
    }
}

/// A merged table as a whole.
#[derive(Debug)]
pub struct Whole {
    /// The columns that tell its rows apart.
    pub keys: Vec<String>,
    /// What the stream has of it.
    pub streamed: Streamed,
}

impl Whole {
    /// See [`Streamed`].
    #[must_use]
    pub fn stream_minutes(&self) -> &[Range<i64>] {
        self.streamed.minutes()
    }
}

/// What is known of the rows of a part.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Rows of these files: in all parts of this kind no two have the same keys.
    Apart(PinnedTable),
    /// There are none, and yet the part has to be planned.
    Planned,
    /// There are none.
    Empty,
    /// Any rows.
    Any,
}

/// One of the parts of a merged table.
#[derive(Debug)]
pub struct Part {
    whole: Arc<Whole>,
    rows: Arc<dyn TableProvider>,
    kind: Kind,
}

impl Part {
    /// Rows of which something is known.
    #[must_use]
    pub const fn new(whole: Arc<Whole>, rows: Arc<dyn TableProvider>, kind: Kind) -> Self {
        Self { whole, rows, kind }
    }

    /// What it is a part of.
    #[must_use]
    pub const fn whole(&self) -> &Arc<Whole> {
        &self.whole
    }

    /// What is known of its rows.
    #[must_use]
    pub const fn kind(&self) -> &Kind {
        &self.kind
    }
}

#[async_trait]
impl TableProvider for Part {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn table_type(&self) -> TableType {
        self.rows.table_type()
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.rows.scan(state, projection, filters, limit).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.rows.supports_filters_pushdown(filters)
    }

    fn statistics(&self) -> Option<Statistics> {
        self.rows.statistics()
    }
}

/// Whether no entity lies in two of these files, by their bounds. One recount cuts a date into ranges of entities; late
/// events of a closed date whose rows could not be read come beside these, and may have the same keys.
#[must_use]
pub fn no_entity_twice(files: &[DataFile]) -> bool {
    if files.len() < 2 {
        return true;
    }
    let Some(mut bounds) = files.iter().map(entities_of).collect::<Option<Vec<_>>>() else { return false };
    bounds.sort_unstable();
    bounds.windows(2).all(|pair| pair[0].1 < pair[1].0)
}

/// The first and the last entity of a file, or what lies beyond them.
fn entities_of(file: &DataFile) -> Option<(&str, &str)> {
    let (min, max) = (file.min.get("entity_id")?, file.max.get("entity_id")?);
    min.as_str().zip(max.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use reckon_data::definition::prefix_end;
    use reckon_data::key::entity_hash;
    use reckon_data::metric::Cell;
    use reckon_data::run::RunBuilder;
    use serde_json::json;

    use super::*;

    #[test]
    fn minutes_of_the_stream_are_whole_steps() {
        let mut builder = RunBuilder::new();
        for minute in [-1, 70, 4_000] {
            builder.add(entity_hash("v"), "v", "view", minute, &[], &Cell::one(1, None, None)).unwrap();
        }
        let run = Arc::new(builder.finish().unwrap());
        let chunk = Chunk {
            partition: 0,
            segments: vec![0..5],
            files: vec![],
            minutes: vec![71..75, 10_000..10_001],
            version: 1,
        };
        let minutes = |granularity| {
            let streamed = Streamed::new(vec![Arc::clone(&run)], std::slice::from_ref(&chunk), granularity);
            streamed.minutes().to_vec()
        };
        assert_eq!(minutes(Granularity::Minute), [-1..0, 70..75, 4_000..4_001, 10_000..10_001]);
        assert_eq!(minutes(Granularity::Hour), [-60..0, 60..120, 3_960..4_020, 9_960..10_020]);
        assert_eq!(minutes(Granularity::Day), [-1_440..1_440, 2_880..4_320, 8_640..10_080]);
        assert!(Streamed::nothing(Granularity::Day).minutes().is_empty());
    }

    #[test]
    fn files_that_may_share_an_entity_are_found() {
        let file = |min: Option<&str>, max: Option<&str>| {
            let bound = |of: Option<&str>| of.map(|of| ("entity_id".to_owned(), json!(of))).into_iter().collect();
            DataFile {
                path: String::new(),
                bytes: 1,
                rows: 1,
                partition: BTreeMap::new(),
                min: bound(min),
                max: bound(max),
            }
        };
        let of = |bounds: &[(&str, &str)]| {
            let files: Vec<DataFile> = bounds.iter().map(|(min, max)| file(Some(min), Some(max))).collect();
            no_entity_twice(&files)
        };
        assert!(of(&[]) && of(&[("a", "z")]));
        assert!(of(&[("m", "z"), ("a", "l"), ("l0", "l9")]));
        assert!(!of(&[("a", "m"), ("m", "z")]));
        assert!(!of(&[("a", "z"), ("b", "c"), ("zz", "zzz")]));
        assert!(!of(&[("a", "a"), ("a", "a")]));
        assert!(no_entity_twice(&[file(None, None)]));
        assert!(!no_entity_twice(&[file(None, Some("b")), file(Some("c"), Some("d"))]));
        // Of a long id bounds hold its beginning alone: another file may go on with it.
        let long = "x".repeat(32);
        let end = prefix_end(&long).unwrap();
        assert!(!of(&[("a", end.as_str()), (long.as_str(), "z")]));
        assert!(of(&[("a", end.as_str()), ("y", "z")]));
    }
}
