//! What befalls what lies on disks: bits flip, and logs are exchanged for others.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use object_store::ObjectStoreExt as _;
use rand::Rng as _;
use rand::rngs::StdRng;
use reckon_data::log::Log as _;
use reckon_data::log::memory::MemoryLog;
use reckon_data::paths::Transaction;
use reckon_data::table::{DataFile, Table, Tables as _};
use reckon_tables::Storage;

use super::Simulation;
use crate::faults::Faults;
use crate::node::{Durable, Node};

/// What is said of a log that does not belong to the tables.
const REFUSALS: [&str; 4] = ["was sealed from log", "come from log", "was sealed up to", "is archived up to"];
/// Damage is looked for so often at the end: what is mended of one table can only then be mended of another.
const ROUNDS: u32 = 4;

impl Simulation {
    /// A bit flips, in something of which there is another copy: raw events in one half of the seeds and the log in the
    /// other, counts in all of them.
    pub(super) async fn flip(&mut self, mut luck: StdRng) -> Result<()> {
        match luck.random_range(0..4) {
            0 => self.flip_file(Table::StreamCounts, luck).await,
            1 => self.flip_file(Table::BatchCounts, luck).await,
            _ if self.plan.seed.is_multiple_of(2) => self.flip_record(luck).await,
            2 => self.flip_file(Table::Events, luck).await,
            _ => self.flip_file(Table::DeadLetters, luck).await,
        }
    }

    async fn flip_file(&mut self, table: Table, mut luck: StdRng) -> Result<()> {
        let snapshot = self.durable.tables.snapshot(table).await?;
        let is_raw = matches!(table, Table::Events | Table::DeadLetters);
        let mut files: Vec<&DataFile> = Vec::new();
        for file in snapshot.files.iter() {
            if !is_raw || self.log_holds(file).await? {
                files.push(file);
            }
        }
        if files.is_empty() {
            return Ok(());
        }
        let path = Storage::path(table, &files[luck.random_range(0..files.len())].path);
        let mut bytes = self.durable.store.get(&path).await?.bytes().await?.to_vec();
        let at = luck.random_range(0..bytes.len());
        bytes[at] ^= 1 << luck.random_range(0..8);
        self.durable.store.put(&path, bytes.into()).await?;
        self.faults.note(&format!("bit flipped: {}", table.name()));
        self.flipped = true;
        self.flipped_counts |= !is_raw;
        // The log is the only other copy from now on.
        self.durable.flipped.lock().keeps |= is_raw;
        Ok(())
    }

    /// Whether all that lies around a file's rows is in the log too.
    async fn log_holds(&self, file: &DataFile) -> Result<bool> {
        let partition = file.min_i64("log_partition").and_then(|partition| u32::try_from(partition).ok());
        let start = self.durable.log.extent(partition.context("a raw file without a partition")?).await?.start;
        Ok(start == 0)
    }

    async fn flip_record(&mut self, mut luck: StdRng) -> Result<()> {
        let log = &self.durable.log;
        let partition = luck.random_range(0..log.partitions());
        let start = log.extent(partition).await?.start;
        let end = self.archived(partition).await?;
        if start >= end {
            return Ok(());
        }
        let offset = luck.random_range(start..end);
        self.follow();
        // Of a cut there is no other copy.
        if !self.oracle.is_cut(partition, offset) && self.durable.flipped.lock().records.insert((partition, offset)) {
            self.faults.note("bit flipped: log");
            self.flipped = true;
        }
        Ok(())
    }

    /// Up to where both tables of raw events hold a partition.
    async fn archived(&self, partition: u32) -> Result<u64> {
        let log = self.durable.log.identity();
        let events = self.durable.tables.snapshot(Table::Events).await?;
        let dead = self.durable.tables.snapshot(Table::DeadLetters).await?;
        let events = events.transaction(&Transaction::Archive(log, partition).to_string());
        let dead = dead.transaction(&Transaction::Dead(log, partition).to_string());
        Ok(u64::try_from(events.min(dead))?)
    }

    /// The log is one that does not belong to the tables, or no longer: no process goes on with it.
    pub(super) async fn exchange(&mut self, mut luck: StdRng) -> Result<()> {
        let partition = luck.random_range(0..self.durable.log.partitions());
        let (extent, archived) = (self.durable.log.extent(partition).await?, self.archived(partition).await?);
        if archived <= extent.start {
            return Ok(());
        }
        let (what, log) = if luck.random() {
            ("log made anew", MemoryLog::new(self.durable.log.partitions(), &*self.durable.names))
        } else {
            let end = luck.random_range(extent.start..archived);
            ("log restored from an older copy", self.durable.log.restored(partition, end))
        };
        self.faults.note(what);
        for node in [self.node.take(), self.zombie.take()].into_iter().flatten() {
            node.io.kill();
        }
        // No fault but this one.
        let io = Faults::new(self.plan.seed, false).process();
        let durable = Durable { log, history: std::sync::Arc::default(), ..self.durable.clone() };
        let started = tokio::time::timeout(super::PATIENCE_TO_START, Node::start(&durable, io.clone())).await;
        io.kill();
        match started.context("a process hangs")? {
            Ok(_) => {
                bail!("R-3: a process has started with a {what}: partition {partition} is archived up to {archived}")
            }
            Err(error) => {
                let said = format!("{error:#}");
                if !REFUSALS.iter().any(|refusal| said.contains(refusal)) {
                    bail!("a {what} is refused with {said}");
                }
                Ok(())
            }
        }
    }

    /// What is damaged is made good, all of it.
    pub(super) async fn make_good(&mut self, node: &Node) -> Result<()> {
        for _ in 0..ROUNDS {
            let mut whole = true;
            for table in [Table::Events, Table::DeadLetters, Table::BatchCounts] {
                whole &= node.is_whole(table).await?;
            }
            if whole {
                return Ok(());
            }
            node.maintain().await?;
            let full = self.needs_asking(node).await?;
            node.batch(full).await.context("a batch run over what was damaged")?;
        }
        bail!("R-3: what was damaged is not made good: {:?}", node.damaged())
    }

    /// Whether somebody has to ask for the dates of all damaged files: nothing that can be read says how much was counted
    /// of them, as where days are all that is kept of a date, and then batch does not recount it by itself.
    async fn needs_asking(&self, node: &Node) -> Result<bool> {
        let damaged: BTreeSet<String> = node.damaged().into_iter().map(|damaged| damaged.path).collect();
        let mut there = false;
        for table in [Table::Events, Table::DeadLetters, Table::BatchCounts] {
            let snapshot = self.durable.tables.snapshot(table).await?;
            let is_damaged = |file: &DataFile| damaged.contains(Storage::path(table, &file.path).as_ref());
            for file in snapshot.files.iter().filter(|file| is_damaged(file)) {
                let place = |file: &DataFile, column: &str| file.partition.get(column).cloned().flatten();
                let date = place(file, "event_date");
                let mut readable: BTreeMap<Option<String>, bool> = BTreeMap::new();
                for other in snapshot.files.iter().filter(|other| place(other, "event_date") == date) {
                    *readable.entry(place(other, "granularity")).or_insert(true) &= !is_damaged(other);
                }
                if table != Table::BatchCounts || readable.values().any(|readable| *readable) {
                    return Ok(false);
                }
                there = true;
            }
        }
        Ok(there)
    }
}
