//! Audits of a process: what the ledger asks, and who makes good, as this process has them.

use std::sync::Arc;

use async_trait::async_trait;
use reckon_audit::auditor::{Auditor, Findings};
use reckon_audit::canary::Record;
use reckon_audit::finding::Untold;
use reckon_audit::ledger::{Answer, Answers, Ledger, LedgerOptions, LedgerParts, Question};
use reckon_audit::repair::{KeptRaw, RebuiltRaw, Repairs};
use reckon_audit::report::model::AuditRequest;
use reckon_audit::runs::AuditRuns;
use reckon_audit::store::AuditStore;
use reckon_batch::mend::Mender;
use reckon_batch::runs::BatchRuns;
use reckon_data::config::Settings;
use reckon_data::jobs::{JobError, RunRequest};
use reckon_data::log::Log as _;
use reckon_serving::Serving;
use reckon_serving::query::CountQuery;
use xxhash_rust::xxh3::xxh3_128;

use super::base::Base;
use super::repairs;

/// What of a process takes part in its audits.
pub struct Audited {
    /// Who answers; none: answers are not audited.
    pub serving: Option<Arc<Serving>>,
    /// Who recounts.
    pub runs: Arc<BatchRuns>,
    /// Who makes raw events anew.
    pub mender: Arc<Mender>,
    /// What the canary sees.
    pub canary: Option<Arc<Record>>,
}

impl Audited {
    /// The audits of a process.
    #[must_use]
    pub fn runs(self, base: &Base) -> Arc<AuditRuns> {
        let settings = &base.settings;
        let options = LedgerOptions {
            window_minutes: settings.stream.dedup_minutes,
            memory: settings.audit.memory.as_u64(),
            served_entities: settings.audit.served_entities,
            configuration: configuration(settings),
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let ledger = Ledger::new(LedgerParts {
            tables: Arc::clone(&base.tables),
            store: base.storage.store(),
            log: base.mended.identity(),
            partitions: base.mended.partitions(),
            // As it is: what was made anew from the raw events proves nothing of them.
            reader: settings.audit.read_log.then(|| Arc::clone(base.mended.inner())),
            answers: self.serving.map(|serving| Arc::new(Asked(serving)) as _),
            definition: Arc::clone(&base.definition),
            clock: Arc::clone(&base.clock),
            options,
        });
        let store = AuditStore {
            tables: Arc::clone(&base.tables),
            store: base.storage.store(),
            names: Arc::clone(&base.names),
        };
        let auditor = Auditor {
            ledger,
            store,
            canary: self.canary.map(|record| Arc::new(Seen(record)) as _),
            repairs: Some(Arc::new(Mending { runs: self.runs, mender: self.mender })),
            names: Arc::clone(&base.names),
        };
        Arc::new(AuditRuns::new(auditor, Arc::clone(&base.clock), Arc::clone(&base.names)))
    }
}

/// A hash of the settings, without what is secret.
fn configuration(settings: &Settings) -> String {
    let mut open = settings.clone();
    open.canary.token.clear();
    let text = serde_json::to_string(&open).unwrap_or_default();
    format!("{:032x}", xxh3_128(text.as_bytes()))
}

/// Audits, and says so in the log.
pub async fn start_audit(audits: Arc<AuditRuns>) {
    match Box::pin(audits.run_to_end(&AuditRequest::default(), &|_| {})).await {
        // How it ended is logged by itself.
        Ok(_) => {}
        Err(JobError::AlreadyRunning(run)) => tracing::warn!(%run, "the audit before is still going on"),
        Err(error) => tracing::error!(%error, "audit"),
    }
}

/// A scheduled batch run, and then an audit if the settings ask for it.
pub async fn batch_then_audit(runs: Arc<BatchRuns>, audits: Option<Arc<AuditRuns>>) {
    match Box::pin(runs.run_to_end(&RunRequest::default(), &|_| {})).await {
        Ok(Ok(_)) => {}
        // It is logged by itself; what is counted so far is audited all the same.
        Ok(Err(_)) => {}
        Err(JobError::AlreadyRunning(run)) => tracing::warn!(%run, "the batch run before is still going on"),
        Err(error) => tracing::error!(%error, "batch run"),
    }
    if let Some(audits) = audits {
        start_audit(audits).await;
    }
}

#[derive(Debug)]
struct Asked(Arc<Serving>);

#[async_trait]
impl Answers for Asked {
    async fn count(&self, question: &Question) -> Result<Answer, String> {
        let query = CountQuery {
            entity: question.entity_id.clone(),
            event_type: Some(question.event_type.clone()),
            from: question.from,
            to: question.to,
            filter: None,
        };
        let answer = self.0.count(&query).await.map_err(|error| error.to_string())?;
        let positions = answer.provenance.partitions.iter().map(|partition| partition.position).collect();
        Ok(Answer {
            count: answer.count,
            batch: answer.batch,
            complete: answer.provenance.complete,
            batch_version: answer.provenance.batch_version,
            positions,
        })
    }
}

#[derive(Debug)]
struct Seen(Arc<Record>);

impl Findings for Seen {
    fn untold(&self) -> Untold {
        self.0.untold()
    }

    fn told(&self, mark: u64) {
        self.0.told(mark);
    }
}

#[derive(Debug)]
struct Mending {
    runs: Arc<BatchRuns>,
    mender: Arc<Mender>,
}

#[async_trait]
impl Repairs for Mending {
    async fn rebuild(&self, date: &str, partition: u32) -> Result<RebuiltRaw, String> {
        let rebuilt = repairs::rebuild(&self.mender, date, partition).await?;
        Ok(RebuiltRaw {
            removed: rebuilt.removed,
            added: rebuilt.added,
            rows_before: rebuilt.rows_before,
            rows_after: rebuilt.rows_after,
            from: rebuilt.from,
            kept: rebuilt.kept.into_iter().map(|kept| KeptRaw { why: kept.why.to_string(), file: kept.file }).collect(),
            skipped: rebuilt.skipped,
        })
    }

    async fn recount(&self, dates: &[String]) -> Result<(), String> {
        repairs::recount(&self.runs, dates).await
    }
}
