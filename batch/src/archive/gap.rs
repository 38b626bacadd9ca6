//! Going on where a log's own retention was quicker than the archiver: what is gone is written down in the very commit that
//! goes on behind it, so that no answer is silently short.

use reckon_data::paths::Transaction;
use reckon_data::table::{Commit, Snapshot, Step, Table};
use uuid::Uuid;

use super::ArchiverParts;
use super::driver::version;
use super::error::ArchiveError;
use super::open::Archived;
use crate::commit;

/// A partition whose log begins above what is archived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    pub(super) partition: u32,
    /// Up to where it is archived, as events and as dead letters; one of them below [`Gap::start`].
    pub(super) archived: Archived,
    /// The first offset that the log still has.
    pub(super) start: u64,
}

impl Gap {
    /// What is written down with `events`: how much is lost, whether as events or as dead letters, unless an archiver that
    /// ended before its second commit has done that; and that archiving goes on behind it.
    fn steps_of_events(&self, log: Uuid, events: &Snapshot) -> Result<Vec<Step>, ArchiveError> {
        let Self { partition, archived, start } = *self;
        let mut steps = Vec::new();
        let (lost, lost_to) = (Transaction::Lost(log, partition), Transaction::LostTo(log, partition));
        let known = u64::try_from(standing(events, lost_to)).unwrap_or(0);
        if known < start {
            let from = archived.both().max(known);
            let records = start - from;
            tracing::error!(
                partition,
                from,
                to = start,
                records,
                "records had gone from the log before they were archived: archiving goes on behind them"
            );
            let in_all = standing(events, lost).saturating_add(version(records)?);
            steps.extend([step(events, lost, in_all), step(events, lost_to, version(start)?)]);
        }
        if archived.events < start {
            steps.push(step(events, Transaction::Archive(log, partition), version(start)?));
        }
        Ok(steps)
    }

    fn step_of_dead(&self, log: Uuid, dead: &Snapshot) -> Result<Step, ArchiveError> {
        Ok(step(dead, Transaction::Dead(log, self.partition), version(self.start)?))
    }
}

/// Goes on behind gaps. The snapshots are those that say where the partitions are archived.
///
/// What is lost counts with the commit to `events`. That to `dead_letters` only follows it: should this process end between
/// the two, the next one finds the first done and nothing is counted twice.
pub(super) async fn go_on_behind(
    parts: &ArchiverParts,
    gaps: &[Gap],
    events: &Snapshot,
    dead: &Snapshot,
) -> Result<(), ArchiveError> {
    let log = parts.log.identity();
    let (mut of_events, mut of_dead) = (Vec::new(), Vec::new());
    for gap in gaps {
        of_events.extend(gap.steps_of_events(log, events)?);
        if gap.archived.dead < gap.start {
            of_dead.push(gap.step_of_dead(log, dead)?);
        }
    }
    for (table, steps) in [(Table::Events, of_events), (Table::DeadLetters, of_dead)] {
        if !steps.is_empty() {
            commit_steps(parts, table, steps).await?;
        }
    }
    Ok(())
}

/// A step from where the snapshot has the transaction: somebody else who goes on behind the same gap is fenced off, or we are.
fn step(snapshot: &Snapshot, transaction: Transaction, to: i64) -> Step {
    Step { from: standing(snapshot, transaction), name: transaction.to_string(), to }
}

fn standing(snapshot: &Snapshot, transaction: Transaction) -> i64 {
    snapshot.transaction(&transaction.to_string())
}

async fn commit_steps(parts: &ArchiverParts, table: Table, steps: Vec<Step>) -> Result<(), ArchiveError> {
    let commit = Commit {
        table,
        steps,
        add: Vec::new(),
        remove: Vec::new(),
        data_change: true,
        token: parts.names.fresh(),
        operation: "go on behind a gap".to_owned(),
    };
    commit::commit(&*parts.tables, &commit).await?;
    Ok(())
}
