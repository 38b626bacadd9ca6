//! Files imported: what an importer has to remember so that a file counts once, whenever.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far a file was imported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportEntry {
    /// XXH3-128 of the file's contents, decompressed, as hexadecimal.
    pub file_hash: String,
    /// Hash of how its lines become events; another mapping is another import.
    pub mapping_hash: String,
    /// Its name, for people.
    pub name: String,
    /// Bytes, decompressed, whose lines are acknowledged.
    pub bytes: u64,
    /// Lines acknowledged.
    pub lines: u64,
    /// Events the server took.
    pub accepted: u64,
    /// Lines skipped.
    pub skipped: u64,
    /// Lines refused.
    pub refused: u64,
    /// Whether that was the whole file.
    pub finished: bool,
}

/// Where importers remember.
#[async_trait]
pub trait Imports: std::fmt::Debug + Send + Sync {
    /// The newest entry of every file that was imported with a mapping.
    ///
    /// # Errors
    /// A sentence, when the table cannot be read.
    async fn find(&self, mapping_hash: &str) -> Result<Vec<ImportEntry>, String>;

    /// Remembers how far a file is; durable when it returns.
    ///
    /// # Errors
    /// A sentence, when it could not be written.
    async fn record(&self, entry: ImportEntry) -> Result<(), String> {
        self.record_all(vec![entry]).await
    }

    /// Remembers several at once: all of them or none, and durable when it returns.
    ///
    /// # Errors
    /// A sentence, when it could not be written; whether it was may be unknown.
    async fn record_all(&self, entries: Vec<ImportEntry>) -> Result<(), String>;
}
