//! An audit from beginning to end: the ledger, the chain of older reports, the canary's findings, repair, and the report
//! stored.

use std::sync::Arc;

use reckon_data::clock::Names;
use uuid::Uuid;

use crate::error::AuditError;
use crate::finding::{Class, Finding, Untold};
use crate::ledger::{Ledger, OnProgress};
use crate::repair::{Plan, Repairs, repair};
use crate::report::model::{AuditRequest, FINDINGS_MAX, Report, Verdict};
use crate::store::{AuditStore, StoreError};

#[cfg(test)]
mod tests;

/// Where findings come from that are made all the time.
pub trait Findings: std::fmt::Debug + Send + Sync {
    /// Those that no stored report holds yet. Not those since some time: reports of other processes, which know nothing
    /// of these, lie in between.
    fn untold(&self) -> Untold;

    /// A stored report holds, or counts, all of them up to [`Untold::mark`].
    fn told(&self, mark: u64);
}

/// What an audit is made of.
#[derive(Debug, Clone)]
pub struct Auditor {
    /// The ledger.
    pub ledger: Ledger,
    /// Where reports are kept.
    pub store: AuditStore,
    /// The canary's findings; none: there is no canary here.
    pub canary: Option<Arc<dyn Findings>>,
    /// Who makes good; none: nobody does.
    pub repairs: Option<Arc<dyn Repairs>>,
    /// Names of runs.
    pub names: Arc<dyn Names>,
}

/// Why an audit could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditFailure {
    /// It could not look.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Its report could not be stored, or older ones not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Auditor {
    /// Audits, makes good what was asked to be made good, and stores the report. With a repair there are two: the one
    /// of before is stored as well, and the one of after is returned. What the canary has seen no repair changes: it
    /// stands in the one that is returned alone.
    ///
    /// # Errors
    /// When it could not look, or its report could not be stored. What it finds is no error.
    pub async fn run(
        &self,
        request: &AuditRequest,
        run_id: Uuid,
        progress: &OnProgress<'_>,
    ) -> Result<Report, AuditFailure> {
        let (before, plan) = self.look(request, run_id, progress).await?;
        let Some(repairs) = self.repairs.as_deref().filter(|_| request.repair && before.errors() > 0) else {
            return self.end(before).await;
        };
        // The run's own name is that of the report that it ends with.
        let before = self.store.append(Report { run_id: self.names.fresh(), ..before }).await?;
        let mut done = repair(repairs, &before, plan).await;
        match self.look(request, run_id, progress).await {
            Ok((after, _)) => {
                done.errors_after = after.errors();
                self.end(Report { repair: Some(done), ..after }).await
            }
            Err(error) => {
                // What was done stands in a report all the same: of before, for nobody knows what it is like after.
                done.errors_after = before.errors();
                done.left.push(format!("it could not be audited after that: {error}"));
                self.end(Report { run_id, repair: Some(done), ..before }).await?;
                Err(error)
            }
        }
    }

    /// Stores the report that a run ends with, and in it what the canary has seen: it stands in no other.
    async fn end(&self, mut report: Report) -> Result<Report, AuditFailure> {
        let Some(canary) = &self.canary else { return Ok(self.store.append(report).await?) };
        let untold = canary.untold();
        let mark = untold.mark;
        add_seen(&mut report, untold);
        let stored = self.store.append(report).await?;
        canary.told(mark);
        Ok(stored)
    }

    /// A report that is not stored, of the ledger and the chain of older reports, and what a repair would do.
    async fn look(
        &self,
        request: &AuditRequest,
        run_id: Uuid,
        progress: &OnProgress<'_>,
    ) -> Result<(Report, Plan), AuditFailure> {
        let (mut report, mut plan) = self.ledger.run(request, run_id, progress).await?;
        let changed = self.store.verify().await?;
        changed.iter().for_each(|finding| plan.leave(finding));
        add(&mut report, changed);
        Ok((report, plan))
    }
}

/// Adds what a canary has seen; what it has not kept is counted.
fn add_seen(report: &mut Report, seen: Untold) {
    if seen.gone > 0 {
        *report.findings_total.entry(Class::CanaryDiffers.name().to_owned()).or_default() += seen.gone;
        report.verdict = Verdict::Findings;
    }
    add(report, seen.findings);
}

/// Adds findings to a report; those that it has make room for them.
fn add(report: &mut Report, findings: Vec<Finding>) {
    for finding in &findings {
        *report.findings_total.entry(finding.class.name().to_owned()).or_default() += 1;
        if !finding.class.is_expected() {
            report.verdict = Verdict::Findings;
        }
    }
    report.findings.truncate(FINDINGS_MAX.saturating_sub(findings.len()));
    report.findings.extend(findings);
    report.findings.sort_by_key(|finding| (finding.class.is_expected(), finding.class != Class::ReportChanged));
    report.findings.truncate(FINDINGS_MAX);
}
