//! Moving old raw events to a colder store. How a file moves, [`reckon_tables::cold`] knows; the table does not change.

use reckon_data::damage::Damaged;
use reckon_data::table::Table;
use reckon_tables::{ColdError, ColdStore, Storage};

use super::error::MaintainError;
use super::jobs::ROUND_BYTES_MAX;
use super::plan::cold_files;
use super::report::Moved;
use super::{Maintainer, Outcome};

impl Maintainer {
    /// Moves raw events that are older than they are kept at hand, and notes how much lies where.
    ///
    /// # Errors
    /// See [`MaintainError`]; files moved before have moved. What is damaged stays where it is.
    pub async fn move_to_cold(&self) -> Result<Outcome<Moved>, MaintainError> {
        let Some(cold) = &self.parts.cold else { return Ok(Outcome::Done(Moved::default())) };
        let snapshot = self.parts.tables.snapshot(Table::Events).await?;
        let mut hot = cold.hot_files().await?;
        let (mut moved, mut left) = (Moved::default(), Vec::new());
        if let Some(cutoff) = self.cold_cutoff() {
            let mut due = cold_files(&snapshot.files, cutoff, &self.coverage().await?);
            due.retain(|file| hot.contains_key(&Storage::path(Table::Events, &file.path)));
            if !due.is_empty() {
                cold.claim(self.parts.names.fresh()).await?;
            }
            for file in due {
                if moved.bytes >= ROUND_BYTES_MAX {
                    break;
                }
                match cold.move_file(&file).await {
                    Ok(_) => {
                        hot.remove(&Storage::path(Table::Events, &file.path));
                        moved.files += 1;
                        moved.bytes += file.bytes;
                    }
                    // It may be mended meanwhile, and does not keep others from moving.
                    Err(error) if is_of_one_file(&error) => left.push(error.to_string()),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        cold.note_sizes(&snapshot.files, &hot);
        Ok(if left.is_empty() { Outcome::Done(moved) } else { Outcome::Skipped(moved, left.join("; ")) })
    }

    /// Raw events of dates before this one move, or have moved; none where nothing does.
    pub(super) fn cold_cutoff(&self) -> Option<i32> {
        self.parts.cold.as_ref().and_then(|_: &ColdStore| self.cutoff(self.parts.retention.cold_days))
    }
}

/// Whether something is wrong with the file, and not with a store.
fn is_of_one_file(error: &ColdError) -> bool {
    matches!(error, ColdError::Changed { .. }) || Damaged::cause(error).is_some()
}
