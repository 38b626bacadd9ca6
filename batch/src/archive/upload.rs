//! A file on its way into the object store, streamed.

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use reckon_data::table::Table;
use reckon_tables::Storage;
use tokio::io::AsyncWriteExt;

use super::error::ArchiveError;

/// Bytes gathered for a part; smaller files are stored by one put. Amazon's least part is 5 MiB.
const PART_BYTES: usize = 5 << 20;
/// Parts of a file under way at once.
const PARTS_MAX: usize = 2;

/// A data file that is being stored. It is durable, and only then visible, after [`Upload::finish`].
#[derive(Debug)]
pub(crate) struct Upload {
    writer: BufWriter,
    path: String,
    bytes: u64,
}

impl Upload {
    /// A new file at `path` below the table's folder.
    pub(crate) fn new(store: &Arc<dyn ObjectStore>, table: Table, path: String) -> Self {
        let location = Storage::path(table, &path);
        let writer = BufWriter::with_capacity(Arc::clone(store), location, PART_BYTES).with_max_concurrency(PARTS_MAX);
        Self { writer, path, bytes: 0 }
    }

    /// Appends.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), ArchiveError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.bytes += bytes.len() as u64;
        let done = self.writer.put(bytes).await;
        done.map_err(|source| self.failed(source))
    }

    /// Waits until the file is durable. Returns its path below the table's folder and its size.
    pub(crate) async fn finish(mut self) -> Result<(String, u64), ArchiveError> {
        let done = self.writer.shutdown().await;
        match done {
            Ok(()) => Ok((self.path, self.bytes)),
            Err(error) => Err(self.failed(store_error(error))),
        }
    }

    /// Removes what was stored of it, as far as the store lets us; vacuum finds the rest.
    pub(crate) async fn abort(mut self) {
        if let Err(error) = self.writer.abort().await {
            tracing::debug!(path = self.path, %error, "an unfinished file was left behind");
        }
    }

    fn failed(&self, source: object_store::Error) -> ArchiveError {
        ArchiveError::Store { path: self.path.clone(), source }
    }
}

fn store_error(error: std::io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "upload", source: Box::new(error) }
}
