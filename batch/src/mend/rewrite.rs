//! From a stretch of the log to files.

use std::sync::Arc;

use reckon_data::files::FileWriter;
use reckon_data::log::LogError;
use reckon_data::paths::growing_file;
use reckon_data::table::DataFile;
use reckon_tables::schema::file_schema;

use super::Mender;
use super::stretch::Stretch;
use crate::maintain::MaintainError;

/// Bytes of log that are read at once.
const READ_BYTES: usize = 4 << 20;

/// What was made of a stretch.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// The files.
    pub(super) files: Vec<DataFile>,
    /// Offsets of records that cannot be read or were given up, where no row that goes can come from them.
    pub(super) skipped: Vec<u64>,
}

impl Mender {
    /// The rows of a stretch, in new files. They are durable, and not committed; what is left of them after a failure,
    /// vacuum finds.
    ///
    /// Every record of the stretch is read: a log that ends sooner, or leaves one out, would lose events for good. Only one
    /// that cannot be read may be left out, where nothing is removed of what it held. Files end before such a one, so
    /// that none seems to have rows of it.
    pub(super) async fn rewrite(&self, stretch: &Stretch) -> Result<Rewritten, MaintainError> {
        let (mut at, mut made, mut current) = (stretch.offsets.start, Rewritten::default(), None);
        while at < stretch.offsets.end {
            let records = match self.parts.log.read(stretch.partition, at, READ_BYTES).await {
                Err(LogError::Corrupt { offset, .. }) if offset == at && !stretch.needs(at) => {
                    made.skip(at, current.take()).await?;
                    at += 1;
                    continue;
                }
                records => records?,
            };
            if records.is_empty() {
                return Err(LogError::PastEnd { partition: stretch.partition, offset: at, end: at }.into());
            }
            for record in &records {
                if at == stretch.offsets.end {
                    break;
                }
                if record.offset != at {
                    let found = record.offset;
                    return Err(stretch.unreadable(at, format!("the log has given that at offset {found} instead")));
                }
                at += 1;
                let rows = match stretch.rows(record) {
                    Err(MaintainError::Record { .. }) if !stretch.needs(record.offset) => {
                        made.skip(record.offset, current.take()).await?;
                        continue;
                    }
                    rows => rows?,
                };
                let Some(rows) = rows else { continue };
                let mut writer: FileWriter = match current.take() {
                    Some(writer) => writer,
                    None => self.create(stretch, record.offset)?,
                };
                writer.write(&rows).await?;
                if writer.file_bytes() as u64 >= self.parts.file_bytes {
                    made.files.push(writer.close().await?);
                } else {
                    current = Some(writer);
                }
            }
        }
        if let Some(writer) = current {
            made.files.push(writer.close().await?);
        }
        Ok(made)
    }

    fn create(&self, stretch: &Stretch, start: u64) -> Result<FileWriter, MaintainError> {
        let path = stretch.folder() + &growing_file(stretch.partition, start, self.parts.names.fresh());
        let (store, schema) = (Arc::clone(&self.parts.store), file_schema(stretch.table));
        Ok(FileWriter::create(store, stretch.table, path, &schema, &stretch.options(), stretch.values())?)
    }
}

impl Rewritten {
    /// Leaves a record out, and ends the file that is being written.
    async fn skip(&mut self, offset: u64, current: Option<FileWriter>) -> Result<(), MaintainError> {
        self.skipped.push(offset);
        if let Some(writer) = current {
            self.files.push(writer.close().await?);
        }
        Ok(())
    }
}
