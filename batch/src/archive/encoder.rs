//! One data file in the making: batches go in, finished row groups come out as bytes.
//!
//! Everything here computes and waits for nothing; it runs off the async runtime.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use reckon_data::files::{FileEncoder, FileEnd, WriteOptions};

use super::error::ArchiveError;

/// Batches at least this long are encoded as they are, shorter ones are put together first: a call of the
/// encoder costs as much as a few hundred rows.
const DIRECT_ROWS: usize = 1_024;
/// Rows, and bytes, that wait to be put together.
const WAITING_ROWS_MAX: usize = 4_096;
const WAITING_BYTES_MAX: usize = 2 << 20;

/// Encodes one data file.
#[derive(Debug)]
pub(crate) struct Encoder {
    schema: SchemaRef,
    options: WriteOptions,
    // Made at the first need: a file of a few rows costs no more than they do until it is finished.
    encoder: Option<FileEncoder>,
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    waiting_bytes: usize,
}

impl Encoder {
    /// A file with these columns.
    pub(crate) const fn new(schema: SchemaRef, options: WriteOptions) -> Self {
        Self { schema, options, encoder: None, waiting: Vec::new(), waiting_rows: 0, waiting_bytes: 0 }
    }

    /// Takes rows that take up about `bytes` bytes in memory.
    pub(crate) fn push(&mut self, batch: RecordBatch, bytes: usize) -> Result<(), ArchiveError> {
        if self.waiting.is_empty() && batch.num_rows() >= DIRECT_ROWS {
            return self.encode(&batch);
        }
        self.waiting_rows += batch.num_rows();
        self.waiting_bytes += bytes;
        self.waiting.push(batch);
        if self.waiting_rows >= WAITING_ROWS_MAX || self.waiting_bytes >= WAITING_BYTES_MAX {
            self.encode_waiting()?;
        }
        Ok(())
    }

    /// The bytes that are finished since the last call; often none.
    pub(crate) fn take(&mut self) -> Bytes {
        self.encoder.as_mut().map_or_else(Bytes::new, FileEncoder::take_encoded)
    }

    /// Ends the file.
    pub(crate) fn finish(mut self) -> Result<FileEnd, ArchiveError> {
        self.encode_waiting()?;
        let encoder = match self.encoder {
            Some(encoder) => encoder,
            None => FileEncoder::new(&self.schema, &self.options)?,
        };
        Ok(encoder.finish()?)
    }

    /// Bytes in memory, about.
    pub(crate) fn memory(&self) -> usize {
        self.waiting_bytes + self.encoder.as_ref().map_or(0, FileEncoder::in_progress_bytes)
    }

    /// Size that the file has by now, about.
    pub(crate) fn bytes(&self) -> usize {
        self.encoder.as_ref().map_or(0, FileEncoder::file_bytes)
    }

    fn encode_waiting(&mut self) -> Result<(), ArchiveError> {
        let waiting = std::mem::take(&mut self.waiting);
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        match waiting.as_slice() {
            [] => Ok(()),
            [only] => self.encode(only),
            many => self.encode(&concat_batches(&self.schema, many)?),
        }
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<(), ArchiveError> {
        Ok(self.encoder()?.encode(batch)?)
    }

    fn encoder(&mut self) -> Result<&mut FileEncoder, ArchiveError> {
        let encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => FileEncoder::new(&self.schema, &self.options)?,
        };
        Ok(self.encoder.insert(encoder))
    }
}
