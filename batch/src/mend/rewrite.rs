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

impl Mender {
    /// The rows of a stretch, in new files. They are durable, and not committed; what is left of them after a failure,
    /// vacuum finds.
    ///
    /// Every record of the stretch is read: a log that ends sooner, or leaves one out, would lose events for good.
    pub(super) async fn rewrite(&self, stretch: &Stretch) -> Result<Vec<DataFile>, MaintainError> {
        let (mut at, mut files, mut current) = (stretch.offsets.start, Vec::new(), None);
        while at < stretch.offsets.end {
            let records = self.parts.log.read(stretch.partition, at, READ_BYTES).await?;
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
                let Some(rows) = stretch.rows(record)? else { continue };
                let mut writer: FileWriter = match current.take() {
                    Some(writer) => writer,
                    None => self.create(stretch, record.offset)?,
                };
                writer.write(&rows).await?;
                if writer.file_bytes() as u64 >= self.parts.file_bytes {
                    files.push(writer.close().await?);
                } else {
                    current = Some(writer);
                }
            }
        }
        if let Some(writer) = current {
            files.push(writer.close().await?);
        }
        Ok(files)
    }

    fn create(&self, stretch: &Stretch, start: u64) -> Result<FileWriter, MaintainError> {
        let path = stretch.folder() + &growing_file(stretch.partition, start, self.parts.names.fresh());
        let (store, schema) = (Arc::clone(&self.parts.store), file_schema(stretch.table));
        Ok(FileWriter::create(store, stretch.table, path, &schema, &stretch.options(), stretch.values())?)
    }
}
