//! A batch run of a process of its own, over a log that others count and archive.

use std::sync::Arc;

use anyhow::Result;
use reckon_batch::lock::DirLock;
use reckon_batch::recompute::{OnProgress, RunReport};
use reckon_batch::tables::{Committed, Who};
use reckon_data::clock::{RandomNames, SystemClock};
use reckon_data::config::Settings;
use reckon_data::jobs::{Follower, RunRequest};
use reckon_data::log::Log as _;

use crate::node::{Base, local_dir};

/// Those who count and archive, wherever they are.
pub fn followers(base: &Base) -> Vec<Arc<dyn Follower>> {
    let (log, partitions) = (base.mended.identity(), base.mended.partitions());
    let committed = |who| Arc::new(Committed::new(Arc::clone(&base.tables), log, partitions, who)) as _;
    vec![committed(Who::Counters), committed(Who::Archivers)]
}

/// Runs once, to the end.
///
/// # Errors
/// When it fails; nothing of it is visible then.
pub async fn recount(settings: Settings, request: &RunRequest, progress: &OnProgress<'_>) -> Result<RunReport> {
    let dir = local_dir(&settings)?;
    let _lock = DirLock::acquire(&dir, "batch")?;
    let base = Base::open(settings, &dir, Arc::new(SystemClock), Arc::new(RandomNames)).await?;
    let runs = base.runs(followers(&base), &Arc::new(base.mender()), None)?;
    let report = runs.run_to_end(request, progress).await;
    if let Err(error) = base.mended.close().await {
        tracing::warn!(%error, "the log was not closed in order");
    }
    Ok(report??)
}
