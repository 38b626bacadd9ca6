//! Top lists from the largest entities of each run ([`reckon_data::run::leaders`]), where all runs are at hand.

use std::ops::Range;
use std::sync::Arc;

use reckon_data::offload::offload;
use reckon_data::run::{Leader, Run, Scope, Wanted, leaders};

use crate::ServingError;
use crate::index::TopSelection;

/// So many sealed segments are read from disk for a list at most: they are in memory all at once.
pub(super) const SEGMENTS_MAX: usize = 64;

/// A run, and which of its minutes count.
pub(super) struct Part {
    pub run: Arc<Run>,
    pub minutes: Range<i64>,
    pub is_batch: bool,
}

impl Part {
    /// What the stream has of a list.
    pub fn of_stream(run: &Arc<Run>, top: &TopSelection) -> Self {
        Self { run: Arc::clone(run), minutes: top.minutes.clone(), is_batch: false }
    }

    /// What batch has of it, whose runs are of days, hours and minutes.
    pub fn of_batch((run, minutes): (Arc<Run>, Range<i64>)) -> Self {
        Self { run, minutes, is_batch: true }
    }
}

/// The first `n`; none when adding up everything is less work.
pub(super) async fn list(
    parts: Vec<Part>,
    top: &Arc<TopSelection>,
    n: usize,
) -> Result<Option<Vec<Leader>>, ServingError> {
    let top = Arc::clone(top);
    let find = move || {
        let scopes: Vec<Scope<'_>> = parts
            .iter()
            .map(|part| Scope { run: &part.run, minutes: part.minutes.clone(), is_batch: part.is_batch })
            .collect();
        let wanted = Wanted {
            event_type: top.event_type.as_deref(),
            conditions: &top.conditions,
            reserved_prefixes: &top.reserved_prefixes,
        };
        leaders(&scopes, wanted, n)
    };
    offload(find).await.map_err(ServingError::internal)
}
