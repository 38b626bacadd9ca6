//! By which definitions segments were counted that were sealed since a view was made.
//!
//! A view knows the segments of its time. Where the stream is a process of its own it may have sealed more since, by the
//! settings that it had then, and gone on by those of this process: their counts look like any others.

use reckon_data::kept::Needs;
use reckon_data::paths::Transaction;
use reckon_data::table::{Snapshot, Table};

use super::Serving;
use crate::ServingError;
use crate::view::{BatchView, Part};

impl Serving {
    /// Whether what the stream had sealed when it gave `parts` holds what a question needs; [`Serving::holds`] says so of
    /// all that the view knows of.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub(super) async fn sealed_hold(
        &self,
        view: &BatchView,
        parts: &[Part],
        needs: &Needs,
    ) -> Result<bool, ServingError> {
        if needs.is_nothing() {
            return Ok(true);
        }
        let sealed: Vec<(String, u64)> = parts
            .iter()
            .filter_map(|part| {
                let name = Transaction::Stream(self.parts.log, part.partition).to_string();
                Some((name, part.position()?.sealed))
            })
            .collect();
        let reaches = |snapshot: &Snapshot| {
            sealed.iter().all(|(name, end)| u64::try_from(snapshot.transaction(name)).is_ok_and(|at| at >= *end))
        };
        if reaches(&view.stream) {
            return Ok(true);
        }
        let newer = self.snapshots.one_that(Table::StreamCounts, reaches).await?;
        let own = self.parts.definition.version();
        let versions = view.sealed_definitions(&newer);
        Ok(versions.iter().all(|version| *version == own || self.versions.answers(*version, needs)))
    }
}
