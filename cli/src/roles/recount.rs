//! A batch run of a process of its own, over a log that others count and archive.

use std::sync::Arc;

use anyhow::Result;
use reckon_audit::ledger::OnProgress as AuditProgress;
use reckon_audit::report::model::{AuditRequest, Report};
use reckon_batch::lock::DirLock;
use reckon_batch::recompute::{OnProgress, RunReport};
use reckon_batch::tables::{Committed, Who};
use reckon_data::clock::{RandomNames, SystemClock};
use reckon_data::config::Settings;
use reckon_data::jobs::{Follower, RunRequest};
use reckon_data::log::Log as _;

use crate::node::{Audited, Base, local_dir};

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

/// Audits once, to the end; the report and its page. Nobody in this process answers questions: answers are audited by a
/// serving node.
///
/// # Errors
/// When it could not be done.
pub async fn audit(
    settings: Settings,
    request: &AuditRequest,
    progress: &AuditProgress<'_>,
) -> Result<(Report, String)> {
    let dir = local_dir(&settings)?;
    let _lock = DirLock::acquire(&dir, "audit")?;
    let base = Base::open(settings, &dir, Arc::new(SystemClock), Arc::new(RandomNames)).await?;
    let mender = Arc::new(base.mender());
    let runs = base.runs(followers(&base), &mender, None)?;
    let audits = Audited { serving: None, runs, mender, canary: None }.runs(&base);
    let report = Box::pin(audits.run_to_end(request, progress)).await;
    let outcome = async {
        let report = report??;
        let page = audits.page_of(Some(report.run_id)).await.map_err(anyhow::Error::msg)?;
        Ok::<_, anyhow::Error>((report, page.unwrap_or_default()))
    };
    let outcome = outcome.await;
    if let Err(error) = base.mended.close().await {
        tracing::warn!(%error, "the log was not closed in order");
    }
    outcome
}
