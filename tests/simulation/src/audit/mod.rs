//! The ledger over what a run has left behind; and, in tests, over healthy sets that are then damaged.

#[cfg(test)]
mod damage;
#[cfg(test)]
mod look;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use object_store::{ObjectStore, ObjectStoreExt as _};
use reckon_audit::finding::{Class, Finding};
use reckon_audit::ledger::{Answer, Answers, Ledger, LedgerOptions, LedgerParts, Question};
use reckon_audit::report::model::{AuditRequest, Report};
use reckon_data::log::Log;
use reckon_data::table::{Table, Tables};
use reckon_serving::Serving;
use reckon_serving::query::CountQuery;
use reckon_tables::{CheckedStore, Storage, Sums};

use crate::faults::Faults;
use crate::io::{FaultyLog, FaultyStore, FaultyTables};
use crate::node::Durable;

/// Memory that events may take.
const MEMORY: u64 = 64 << 20;
/// Entities of which answers are asked, of each date: all there are.
const ENTITIES: usize = 64;

/// The serving layer, as the ledger asks it.
#[derive(Debug)]
pub struct Served(pub Arc<Serving>);

#[async_trait]
impl Answers for Served {
    async fn count(&self, question: &Question) -> Result<Answer, String> {
        let query = CountQuery {
            entity: question.entity_id.clone(),
            event_type: Some(question.event_type.clone()),
            from: question.from,
            to: question.to,
            filter: None,
        };
        let answer = self.0.count(&query).await.map_err(|error| error.to_string())?;
        let provenance = answer.provenance;
        Ok(Answer {
            count: answer.count,
            batch: answer.batch,
            complete: provenance.complete,
            batch_version: provenance.batch_version,
            positions: provenance.partitions.iter().map(|partition| partition.position).collect(),
        })
    }
}

/// A process that audits, and has no other faults than those that lie on disks.
#[derive(Debug)]
pub struct Auditor {
    /// The tables.
    pub tables: Arc<dyn Tables>,
    /// Their files.
    pub files: CheckedStore,
    /// The log.
    pub log: Arc<dyn Log>,
    durable: Durable,
}

impl Auditor {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(durable: &Durable) -> Self {
        // Of a world of its own: what it does is no part of the run.
        let io = Faults::new(0, false).process();
        let (store, shelf) = (Arc::clone(&durable.store), durable.shelf.clone());
        let files = CheckedStore::new(Arc::new(FaultyStore { store, shelf: shelf.clone(), io: io.clone() }));
        let tables = FaultyTables {
            tables: Arc::clone(&durable.tables),
            sums: Arc::clone(&durable.sums),
            files: files.clone(),
            shelf,
            io: io.clone(),
        };
        let log = FaultyLog {
            log: durable.log.clone(),
            history: Arc::clone(&durable.history),
            flipped: Arc::clone(&durable.flipped),
            io,
        };
        Self { tables: Arc::new(tables), files, log: Arc::new(log), durable: durable.clone() }
    }

    /// Runs the ledger, over the log or without it.
    ///
    /// # Errors
    /// When it cannot look.
    pub async fn run(&self, reads_log: bool, answers: Arc<dyn Answers>) -> Result<Report> {
        let Durable { log, clock, names, settings, .. } = &self.durable;
        let ledger = Ledger::new(LedgerParts {
            tables: Arc::clone(&self.tables),
            store: Arc::new(self.files.clone()),
            log: log.identity(),
            partitions: log.partitions(),
            reader: reads_log.then(|| Arc::clone(&self.log)),
            answers: Some(answers),
            definition: Arc::new(settings.definition()?),
            clock: Arc::clone(clock),
            options: LedgerOptions {
                window_minutes: settings.stream.dedup_minutes,
                memory: MEMORY,
                served_entities: ENTITIES,
                configuration: String::new(),
                code_version: "simulation".to_owned(),
            },
        });
        let (report, _) = Box::pin(ledger.run(&AuditRequest::default(), names.fresh(), &|_| {})).await?;
        Ok(report)
    }
}

/// The errors of a report.
#[must_use]
pub fn errors(report: &Report) -> Vec<&Finding> {
    report.findings.iter().filter(|finding| !finding.class.is_expected()).collect()
}

/// The ledger over a run, with its log and without: what it finds has to be what has really befallen files and records.
///
/// # Errors
/// What it finds that nothing explains.
pub async fn hold(durable: &Durable, serving: &Arc<Serving>) -> Result<(), String> {
    for reads_log in [true, false] {
        let answers = Arc::new(Served(Arc::clone(serving)));
        let report = Auditor::new(durable).run(reads_log, answers).await.map_err(|error| format!("{error:#}"))?;
        for finding in errors(&report) {
            if !is_explained(durable, finding).await {
                return Err(format!("the ledger, {reads_log}, finds what nobody has done: {finding:?}"));
            }
        }
    }
    Ok(())
}

/// Whether something was done on purpose that is just this.
async fn is_explained(durable: &Durable, finding: &Finding) -> bool {
    match (finding.class, finding.table.as_str()) {
        (Class::CorruptFile, "log") => {
            let place = finding.partition.zip(finding.offset_start);
            place.is_some_and(|place| durable.flipped.lock().records.contains(&place))
        }
        // Of the other tables all is made good before.
        (Class::CorruptFile, "stream_counts") => match &finding.file {
            Some(file) => is_flipped(durable, Table::StreamCounts, file).await,
            None => false,
        },
        _ => false,
    }
}

async fn is_flipped(durable: &Durable, table: Table, file: &str) -> bool {
    let path = Storage::path(table, file);
    let sums = durable.sums.lock().get(&path).cloned();
    let store: Arc<dyn ObjectStore> = Arc::clone(&durable.store) as _;
    let Ok(found) = store.get(&path).await else { return false };
    let Ok(bytes) = found.bytes().await else { return false };
    sums.is_some_and(|sums| sums != Sums::of(&bytes))
}
