//! Dresses the context of one query: the tables that it may name, and what is there beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Snapshot, Table};
use reckon_tables::provider::PinnedTable;
use reckon_tables::schema::file_schema;

use super::gone::GoneTable;
use super::parts::{Streamed, no_entity_twice};
use super::pin::Pinned;
use super::reserved::Hidden;
use super::{samples, stats, stream};
use crate::ServingError;
use crate::index::segments::Chunk;
use crate::query::Serving;
use crate::view::{BatchView, FileSet};

impl Serving {
    /// All that a query finds in its context, in one place: tables of counts and events, the table `metrics` of the
    /// process, and, where there are any, schemas beside `public`. Functions are the engine's
    /// ([`super::functions::Functions`]). `names` are the tables that the query names: what is dear to make is made only
    /// for a query that names it.
    pub(super) fn dress(
        &self,
        context: &SessionContext,
        (pinned, hidden): (&Pinned, &Hidden),
        names: &BTreeSet<String>,
        samples: Option<&dyn samples::Samples>,
    ) -> Result<(), ServingError> {
        self.register(context, pinned, hidden)?;
        let text = samples.filter(|_| names.contains(samples::METRICS)).map(|samples| samples.text());
        context.register_table(samples::METRICS, samples::table(&text.unwrap_or_default())?)?;
        Ok(())
    }

    /// Makes the tables; without the entities that are `hidden`.
    fn register(&self, context: &SessionContext, pinned: &Pinned, hidden: &Hidden) -> Result<(), ServingError> {
        let table = |table, snapshot: Option<&Arc<Snapshot>>| {
            let files = snapshot.map_or_else(Vec::new, |snapshot| snapshot.files.to_vec());
            self.pinned_table(table, files)
        };
        let register = |name: &str, provider| context.register_table(name, provider).map(|_| ());
        if pinned.as_of.is_none() {
            let events = table(Table::Events, pinned.events.as_ref())?;
            register("events", hidden.rows_of(context, &events)?.into_view())?;
            register("dead_letters", Arc::new(table(Table::DeadLetters, pinned.dead.as_ref())?))?;
            register("audit_runs", Arc::new(table(Table::AuditRuns, pinned.audit_runs.as_ref())?))?;
            register("audit_findings", Arc::new(table(Table::AuditFindings, pinned.audit_findings.as_ref())?))?;
        }
        let definition = &self.parts.definition;
        for (name, granularity, has_batch, has_stream) in [
            ("stats", Granularity::Minute, true, true),
            ("stats_hour", Granularity::Hour, true, true),
            ("stats_day", Granularity::Day, true, true),
            ("stats_batch", Granularity::Minute, true, false),
            ("stats_stream", Granularity::Minute, false, true),
        ] {
            let (mut rows, mut streamed) = (Vec::new(), Streamed::nothing(granularity));
            if has_batch {
                rows.extend(self.batch(&pinned.view, granularity)?);
                let gone = GoneTable::of(&pinned.view, (name, granularity), &self.parts.store, &pinned.gone)?;
                rows.extend(gone.map(stats::Rows::Gone));
            }
            if has_stream {
                let runs = pinned.stream.runs.clone();
                streamed = Streamed::new(runs.clone(), &pinned.stream.on_disk, granularity);
                rows.push(stats::Rows::Runs(stream::StreamTable::new(runs, definition, granularity)?));
                rows.extend(self.sealed(&pinned.stream.on_disk, granularity)?);
            }
            register(name, stats::merged(context, definition, (rows, streamed), hidden)?)?;
        }
        Ok(())
    }

    /// What batch has counted: dates that have each key once, and any others. Rows of dates that were counted with other
    /// dimensions may look the same without these.
    fn batch(&self, view: &BatchView, granularity: Granularity) -> Result<Vec<stats::Rows>, ServingError> {
        let sets = view.file_sets().filter(|set| set.granularity == granularity);
        let (apart, others): (Vec<_>, Vec<_>) = sets.partition(|set| {
            let mut versions = set.definitions.iter();
            let version = versions.next().filter(|_| versions.next().is_none());
            version.is_some_and(|version| self.keeps_all_of(*version)) && no_entity_twice(&set.files)
        });
        let rows = |sets: Vec<&Arc<FileSet>>, is_apart: bool| {
            let files = sets.into_iter().flat_map(|set| set.files.iter().cloned()).collect();
            let table = self.pinned_table(Table::BatchCounts, files)?;
            Ok::<_, ServingError>(stats::Rows::Batch { table, is_apart })
        };
        let others = (!others.is_empty()).then(|| rows(others, false));
        std::iter::once(rows(apart, true)).chain(others).collect()
    }

    /// What of the stream lies in `stream_counts`: a table for each version of it, for in another one a segment
    /// may lie in other files.
    fn sealed(&self, chunks: &[Chunk], granularity: Granularity) -> Result<Vec<stats::Rows>, ServingError> {
        let mut versions: BTreeMap<u64, Vec<&Chunk>> = BTreeMap::new();
        chunks.iter().for_each(|chunk| versions.entry(chunk.version).or_default().push(chunk));
        let table = |chunks: Vec<&Chunk>| {
            let files: BTreeMap<&str, &DataFile> =
                chunks.iter().flat_map(|chunk| &chunk.files).map(|file| (file.path.as_str(), file)).collect();
            let table = self.pinned_table(Table::StreamCounts, files.into_values().cloned().collect())?;
            Ok(stats::Rows::Sealed { table, filter: stats::within(&chunks), granularity })
        };
        versions.into_values().map(table).collect()
    }

    pub(crate) fn pinned_table(&self, table: Table, files: Vec<DataFile>) -> Result<PinnedTable, ServingError> {
        Ok(PinnedTable::new(Arc::clone(&self.parts.store), table, files, file_schema(table))?)
    }
}
