//! Reads files, sorts their rows and writes them anew, within a memory limit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::partition;
use arrow::datatypes::{Int32Type, Int64Type};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::col;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionConfig, SessionContext};
use futures::StreamExt as _;
use object_store::ObjectStore;
use object_store::path::Path;
use reckon_data::clock::Names;
use reckon_data::files::{FileWriter, WriteOptions};
use reckon_data::offload::offload_background;
use reckon_data::paths;
use reckon_data::table::{DataFile, Table};
use reckon_tables::{Storage, schema::file_schema};

use super::error::MaintainError;
use super::plan::Piece;

/// Where DataFusion finds the tables' store.
const STORE_URL: &str = "reckon://tables";
/// The least a sort can do with.
const MEMORY_MIN: usize = 64 << 20;

/// What rewriting is done with.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) names: Arc<dyn Names>,
    /// Bytes of memory for a sort.
    pub(super) memory: usize,
    /// Where a sort spills what is more; the system's folder if none.
    pub(super) spill_dir: Option<PathBuf>,
}

/// How a table's files are laid out anew.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) table: Table,
    /// Rows are sorted by these.
    pub(super) sort: &'static [&'static str],
    /// Rows of a log partition that have the same number here stay in one file. They have to be neighbours.
    pub(super) together: Option<&'static str>,
    pub(super) options: WriteOptions,
    pub(super) target_bytes: u64,
}

/// Puts the rows of a piece's files into new ones, sorted. They are durable, and not committed.
///
/// Runs on a thread of its own that gives way to all others: sorting leaves no room for anything else, and neither
/// events nor questions wait for it.
pub(super) async fn rewrite(means: &Means, layout: &Layout, piece: &Piece) -> Result<Vec<DataFile>, MaintainError> {
    let (means, layout, piece) = (means.clone(), layout.clone(), piece.clone());
    let work = async move {
        let rows = sorted(&means, &layout, &piece).await.map_err(|error| layout.query(error))?;
        Output::new(&means, &layout, &piece).take_all(rows).await
    };
    offload_background(work).await.map_err(MaintainError::Thread)?
}

impl Layout {
    fn query(&self, error: DataFusionError) -> MaintainError {
        MaintainError::Query { table: self.table.name(), source: Box::new(error) }
    }
}

async fn sorted(means: &Means, layout: &Layout, piece: &Piece) -> Result<SendableRecordBatchStream, DataFusionError> {
    let rows = rows_of(means, layout.table, &piece.files).await?;
    let order = layout.sort.iter().map(|name| col(*name).sort(true, true)).collect();
    rows.sort(order)?.execute_stream().await
}

/// The rows of files of a table, in any order; texts are no views. A column that a file lacks is null there.
pub(super) async fn rows_of(means: &Means, table: Table, files: &[DataFile]) -> Result<DataFrame, DataFusionError> {
    // The other half is for what DataFusion does not account for: decoding, merging, encoding.
    let pool = FairSpillPool::new((means.memory / 2).max(MEMORY_MIN));
    let mut env = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool));
    if let Some(dir) = &means.spill_dir {
        env = env.with_temp_file_path(dir);
    }
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().execution.parquet.schema_force_view_types = false;
    let context = SessionContext::new_with_config_rt(config, env.build_arc()?);
    let url = ObjectStoreUrl::parse(STORE_URL)?;
    context.register_object_store(url.as_ref(), Arc::clone(&means.store));
    let urls: Vec<String> =
        files.iter().map(|file| format!("{STORE_URL}/{}", Storage::path(table, &file.path))).collect();
    let schema = file_schema(table);
    context.read_parquet(urls, ParquetReadOptions::default().schema(&schema)).await
}

/// A log partition, and what has to stay together in it.
type Whole = (i32, Option<i64>);

/// Files in the making: one after the other, each of one log partition.
struct Output<'a> {
    means: &'a Means,
    layout: &'a Layout,
    piece: &'a Piece,
    current: Option<(Whole, FileWriter)>,
    done: Vec<DataFile>,
    rows: u64,
}

impl<'a> Output<'a> {
    const fn new(means: &'a Means, layout: &'a Layout, piece: &'a Piece) -> Self {
        Self { means, layout, piece, current: None, done: Vec::new(), rows: 0 }
    }

    async fn take_all(mut self, mut rows: SendableRecordBatchStream) -> Result<Vec<DataFile>, MaintainError> {
        let written = self.write_all(&mut rows).await;
        let written = match written {
            Ok(()) => self.close().await,
            failed => failed,
        };
        match written.and_then(|()| self.check()) {
            Ok(()) => Ok(self.done),
            Err(error) => {
                self.discard().await;
                Err(error)
            }
        }
    }

    async fn write_all(&mut self, rows: &mut SendableRecordBatchStream) -> Result<(), MaintainError> {
        while let Some(batch) = rows.next().await {
            self.write(&batch.map_err(|error| self.layout.query(error))?).await?;
        }
        Ok(())
    }

    async fn write(&mut self, batch: &RecordBatch) -> Result<(), MaintainError> {
        let failed = |error| self.layout.query(DataFusionError::from(error));
        // The table's own schema: a plan may have lost that columns are never null.
        let batch = RecordBatch::try_new(file_schema(self.layout.table), batch.columns().to_vec()).map_err(failed)?;
        let column = |name: &str| batch.schema_ref().index_of(name).map(|at| Arc::clone(batch.column(at)));
        let mut columns = vec![column("log_partition").map_err(failed)?];
        columns.extend(self.layout.together.map(column).transpose().map_err(failed)?);
        let whole = |row: usize| -> Whole {
            let number = columns.get(1).map(|column| column.as_primitive::<Int64Type>().value(row));
            (columns[0].as_primitive::<Int32Type>().value(row), number)
        };
        for range in partition(&columns).map_err(failed)?.ranges() {
            let part = batch.slice(range.start, range.len());
            self.write_part(whole(range.start), &part).await?;
        }
        Ok(())
    }

    async fn write_part(&mut self, whole: Whole, part: &RecordBatch) -> Result<(), MaintainError> {
        let is_full = |writer: &FileWriter| writer.file_bytes() as u64 >= self.layout.target_bytes;
        let is_done = self.current.as_ref().is_some_and(|(last, writer)| {
            // Half a segment in a file that says nothing of the other half would be half a count.
            let may_end = whole.1.is_none() || *last != whole;
            last.0 != whole.0 || (may_end && is_full(writer))
        });
        if is_done {
            self.close().await?;
        }
        let writer = match &mut self.current {
            Some((last, writer)) => {
                *last = whole;
                writer
            }
            none => {
                let file = create(self.means, self.layout, self.piece, whole.0)?;
                &mut none.insert((whole, file)).1
            }
        };
        writer.write(part).await?;
        self.rows += part.num_rows() as u64;
        Ok(())
    }

    async fn close(&mut self) -> Result<(), MaintainError> {
        if let Some((_, writer)) = self.current.take() {
            self.done.push(writer.close().await?);
        }
        Ok(())
    }

    /// A file that lost rows on the way would lose events for good.
    fn check(&self) -> Result<(), MaintainError> {
        let expected = self.piece.files.iter().map(|file| file.rows).sum();
        let found = self.done.iter().map(|file| file.rows).sum();
        if found == expected && self.rows == expected {
            return Ok(());
        }
        Err(MaintainError::Rows { table: self.layout.table.name(), found, expected })
    }

    /// Removes what was written; what cannot be removed, vacuum finds.
    async fn discard(self) {
        if let Some((_, writer)) = self.current
            && let Err(error) = writer.abort().await
        {
            tracing::debug!(%error, "an unfinished file was left behind");
        }
        remove(&self.means.store, self.layout.table, &self.done).await;
    }
}

/// Deletes files that were never committed; what cannot be deleted, vacuum finds.
async fn remove(store: &Arc<dyn ObjectStore>, table: Table, files: &[DataFile]) {
    for file in files {
        let path: Path = Storage::path(table, &file.path);
        if let Err(error) = object_store::ObjectStoreExt::delete(store, &path).await {
            tracing::debug!(%path, %error, "a file that is not needed was left behind");
        }
    }
}

fn create(means: &Means, layout: &Layout, piece: &Piece, partition: i32) -> Result<FileWriter, MaintainError> {
    let mut folder = String::new();
    for column in layout.table.partition_columns() {
        let value = piece.partition.get(*column).cloned().flatten().unwrap_or_default();
        folder += &paths::partition_folder(column, &value);
    }
    let partition = u32::try_from(partition).unwrap_or_default();
    let name = paths::segment_file(partition, piece.place.start, piece.place.end, means.names.fresh());
    let (store, schema) = (Arc::clone(&means.store), file_schema(layout.table));
    let values: BTreeMap<String, Option<String>> = piece.partition.clone();
    Ok(FileWriter::create(store, layout.table, folder + &name, &schema, &layout.options, values)?)
}
