//! `reckon log accept`: what the log's own retention removed before it was archived is known, and answers need not name it
//! any more. It is all in the tables: no log is opened.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use reckon_data::clock::{Names as _, RandomNames, SystemClock};
use reckon_data::config::Settings;
use reckon_data::loss::Loss;
use reckon_data::paths::Transaction;
use reckon_data::table::{Commit, Snapshot, Step, Table, Tables};
use reckon_tables::{DeltaTables, Storage, is_local, local_folder};
use serde_json::json;
use uuid::Uuid;

use super::lock;
use crate::node::local_dir;

/// Accept a loss.
#[derive(Debug, Args)]
pub(super) struct Accept {
    /// Of this partition only. Without it, of all.
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,
    /// Do it. Without it, only what was lost is said.
    #[arg(long)]
    yes: bool,
    /// Machine-readable output.
    #[arg(long)]
    json: bool,
}

/// What the tables say.
#[derive(Debug)]
struct Losses {
    /// The version of `batch_counts` that says what is accepted.
    counts: Snapshot,
    lost: Vec<Lost>,
}

/// What is lost of a partition.
#[derive(Debug)]
struct Lost {
    log: Uuid,
    loss: Loss,
    accepted: bool,
}

impl Accept {
    pub(super) async fn run(self, settings: Settings) -> Result<()> {
        let dir = &settings.data_dir;
        if is_local(dir) && !local_folder(dir)?.join("tables").exists() {
            bail!("there are no tables in {dir}: --data-dir names the folder, or the bucket, of a server");
        }
        let _lock = if self.yes && is_local(dir) {
            Some(lock(
                &local_dir(&settings)?,
                "log accept",
                "a loss is accepted only while nobody works in the folder",
            )?)
        } else {
            None
        };
        let tables = DeltaTables::new(Storage::open(dir)?, Arc::new(SystemClock))?;
        let losses = Losses::read(&tables, self.partition).await?;
        if self.yes {
            losses.accept(&tables).await?;
        }
        if self.json {
            println!("{}", self.told(&losses));
        } else {
            self.tell(&settings, &losses);
        }
        Ok(())
    }

    fn told(&self, losses: &Losses) -> serde_json::Value {
        let lost = losses.lost.iter().map(|Lost { loss, accepted, .. }| {
            json!({
                "partition": loss.partition,
                "records": loss.records,
                "to": loss.to,
                "accepted": self.yes || *accepted,
            })
        });
        json!({ "lost": lost.collect::<Vec<_>>() })
    }

    fn tell(&self, settings: &Settings, losses: &Losses) {
        for Lost { loss, accepted, .. } in &losses.lost {
            let accepted = if *accepted { " (accepted)" } else { "" };
            println!("partition {}: {loss}, all below offset {}{accepted}", loss.partition, loss.to);
        }
        if losses.lost.is_empty() {
            println!(
                "nothing {}had gone from the log before it was archived",
                if self.partition.is_some() { "of it " } else { "" }
            );
        } else if losses.open().next().is_none() {
            println!("there is nothing to accept");
        } else if self.yes {
            println!("it is accepted: answers do not name it as missing any more");
        } else {
            let only = self.partition.map(|partition| format!(" --partition {partition}")).unwrap_or_default();
            println!("nothing was done. Once that is known, answers need not name it as missing:");
            println!("  reckon log accept --data-dir {}{only} --yes", settings.data_dir);
        }
    }
}

impl Losses {
    /// What is lost of one partition, or of all. `events` may know of more than `batch_counts`, until the next batch run.
    async fn read(tables: &dyn Tables, partition: Option<u32>) -> Result<Self> {
        let events = tables.snapshot(Table::Events).await?;
        let counts = tables.snapshot(Table::BatchCounts).await?;
        let mut losses = Loss::all(&counts);
        for (place, loss) in Loss::all(&events) {
            let known = losses.entry(place).or_insert(loss);
            if loss.records > known.records {
                *known = loss;
            }
        }
        let asked = losses.into_iter().filter(|((_, of), _)| partition.is_none_or(|partition| partition == *of));
        let lost = asked.map(|((log, of), loss)| Lost {
            log,
            loss,
            accepted: Loss::accepted(&counts, log, of) >= loss.records,
        });
        let lost = lost.collect();
        Ok(Self { counts, lost })
    }

    /// What nobody has accepted yet.
    fn open(&self) -> impl Iterator<Item = &Lost> {
        self.lost.iter().filter(|lost| !lost.accepted)
    }

    /// Accepts all of it, if there is anything to accept.
    async fn accept(&self, tables: &dyn Tables) -> Result<()> {
        let steps = self.open().map(|lost| self.step(lost)).collect::<Result<Vec<_>>>()?;
        if steps.is_empty() {
            return Ok(());
        }
        let commit = Commit {
            table: Table::BatchCounts,
            steps,
            add: Vec::new(),
            remove: Vec::new(),
            data_change: true,
            token: RandomNames.fresh(),
            operation: "accept what is lost".to_owned(),
        };
        tables.commit(commit).await?;
        Ok(())
    }

    fn step(&self, Lost { log, loss, .. }: &Lost) -> Result<Step> {
        let name = Transaction::Accepted(*log, loss.partition).to_string();
        let to = i64::try_from(loss.records).with_context(|| format!("no log has {} records", loss.records))?;
        Ok(Step { from: self.counts.transaction(&name), name, to })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use reckon_data::clock::ManualClock;
    use reckon_tables::MemoryTables;

    use super::*;

    const LOG: Uuid = Uuid::from_u128(7);

    async fn lose(tables: &MemoryTables, table: Table, partition: u32, records: i64, to: i64) {
        let before = tables.snapshot(table).await.unwrap();
        let step = |name: Transaction, to| {
            let name = name.to_string();
            Step { from: before.transaction(&name), name, to }
        };
        let commit = Commit {
            table,
            steps: vec![
                step(Transaction::Lost(LOG, partition), records),
                step(Transaction::LostTo(LOG, partition), to),
            ],
            add: Vec::new(),
            remove: Vec::new(),
            data_change: true,
            token: RandomNames.fresh(),
            operation: "test".to_owned(),
        };
        tables.commit(commit).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_lost_is_accepted_as_far_as_the_tables_know() {
        let tables = MemoryTables::new(Arc::new(ManualClock::at(0)));
        assert!(Losses::read(&tables, None).await.unwrap().lost.is_empty());
        lose(&tables, Table::Events, 0, 3, 9).await;
        lose(&tables, Table::BatchCounts, 1, 2, 5).await;
        // Of partition 1 batch does not know all yet.
        lose(&tables, Table::Events, 1, 4, 8).await;
        let one = Losses::read(&tables, Some(1)).await.unwrap();
        assert_eq!(one.open().map(|lost| lost.loss).collect::<Vec<_>>(), [Loss { partition: 1, records: 4, to: 8 }]);
        one.accept(&tables).await.unwrap();
        let counts = tables.snapshot(Table::BatchCounts).await.unwrap();
        assert_eq!((Loss::accepted(&counts, LOG, 0), Loss::accepted(&counts, LOG, 1)), (0, 4));

        let all = Losses::read(&tables, None).await.unwrap();
        assert_eq!((all.lost.len(), all.open().count()), (2, 1));
        all.accept(&tables).await.unwrap();
        let all = Losses::read(&tables, None).await.unwrap();
        assert_eq!((all.lost.len(), all.open().count()), (2, 0));
        all.accept(&tables).await.unwrap();
        // More is lost later.
        lose(&tables, Table::Events, 0, 5, 20).await;
        assert_eq!(Losses::read(&tables, None).await.unwrap().open().count(), 1);
        all.accept(&tables).await.unwrap();
        assert_eq!(Losses::read(&tables, None).await.unwrap().open().count(), 1, "what was not seen is not accepted");
    }

    #[test]
    fn what_is_lost_is_told() {
        let accept = Accept { partition: None, yes: false, json: true };
        let counts =
            Snapshot { table: Table::BatchCounts, version: 0, files: Arc::default(), transactions: Default::default() };
        let lost = vec![Lost { log: LOG, loss: Loss { partition: 1, records: 4, to: 8 }, accepted: false }];
        let told = accept.told(&Losses { counts, lost });
        let expected = json!({ "lost": [{ "partition": 1, "records": 4, "to": 8, "accepted": false }] });
        assert_eq!(told, expected);
    }
}
