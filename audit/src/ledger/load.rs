//! Data files as Polars frames, a slice of rows at a time.

use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt as _};
use polars::io::SerReader as _;
use polars::prelude::{DataFrame, ParallelStrategy, ParquetReader};
use reckon_data::damage::Damaged;
use reckon_data::table::{DataFile, Table};
use reckon_tables::Storage;
use xxhash_rust::xxh3::xxh3_128;

use crate::error::AuditError;

/// Rows decoded at once.
const SLICE_ROWS: usize = 256 * 1024;

/// Why a file that a table refers to says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not there.
    Missing,
    /// It is not what was written.
    Corrupt(String),
}

/// A data file in memory.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The file.
    pub file: DataFile,
    /// Hash of its bytes.
    pub hash: u128,
    bytes: Bytes,
    columns: Vec<String>,
    rows: usize,
}

/// Loads a file, all columns of `wanted` that it has. What is wrong with the file is the inner error.
///
/// # Errors
/// [`AuditError::Store`] when the store fails, so that nothing is known of the file.
pub async fn load(
    store: &Arc<dyn ObjectStore>,
    table: Table,
    file: &DataFile,
    wanted: &[&str],
) -> Result<Result<Loaded, Unreadable>, AuditError> {
    let path = Storage::path(table, &file.path);
    let read = async { store.get(&path).await?.bytes().await };
    let bytes = match read.await {
        Ok(bytes) => bytes,
        Err(object_store::Error::NotFound { .. }) => return Ok(Err(Unreadable::Missing)),
        Err(error) => {
            return match Damaged::cause(&error) {
                Some(damaged) => Ok(Err(Unreadable::Corrupt(damaged.to_string()))),
                None => Err(AuditError::Store { path: path.to_string(), reason: error.to_string() }),
            };
        }
    };
    let (file, wanted) = (file.clone(), wanted.iter().map(|name| (*name).to_owned()).collect());
    Ok(Loaded::open(file, bytes, wanted).map_err(Unreadable::Corrupt))
}

impl Loaded {
    fn open(file: DataFile, bytes: Bytes, wanted: Vec<String>) -> Result<Self, String> {
        let failed = |error: polars::error::PolarsError| error.to_string();
        let mut reader = ParquetReader::new(Cursor::new(bytes.clone()));
        let schema = reader.schema().map_err(failed)?;
        let columns = wanted.into_iter().filter(|name| schema.contains(name)).collect();
        let rows = reader.num_rows().map_err(failed)?;
        if rows as u64 != file.rows {
            return Err(format!("it holds {rows} rows, not {}", file.rows));
        }
        Ok(Self { file, hash: xxh3_128(&bytes), bytes, columns, rows })
    }

    /// Its rows in slices.
    pub fn slices(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let rows = self.rows;
        (0..rows.div_ceil(SLICE_ROWS)).map(move |at| at * SLICE_ROWS..((at + 1) * SLICE_ROWS).min(rows))
    }

    /// Decodes a slice, on this thread.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn frame(&self, slice: Range<usize>) -> Result<DataFrame, Unreadable> {
        let reader = ParquetReader::new(Cursor::new(self.bytes.clone()))
            .with_columns(Some(self.columns.clone()))
            .with_slice(Some((slice.start, slice.len())))
            .read_parallel(ParallelStrategy::None)
            .set_rechunk(true);
        let frame = reader.finish().map_err(|error| Unreadable::Corrupt(error.to_string()))?;
        if frame.height() == slice.len() {
            return Ok(frame);
        }
        Err(Unreadable::Corrupt(format!("{} rows can be read of {}", frame.height(), slice.len())))
    }
}
