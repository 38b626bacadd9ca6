//! Lists of the store that are not what there is.

use anyhow::{Result, bail};

use super::{Simulation, act, micros};
use crate::faults::Rates;
use crate::node::Node;

/// Rounds of maintenance over lists that cannot be trusted.
const ROUNDS: i64 = 3;
/// Clocks may differ by as much, and a little more: so much older is what goes.
const SLACK: i64 = 600_000_000;

impl Simulation {
    /// Lists that lack files, or are old ones, let nothing go too soon and keep maintenance from nothing: what nobody
    /// refers to any more is gone once they can be trusted.
    pub(super) async fn sweep(&mut self, node: &Node) -> Result<()> {
        let retention = micros(self.durable.settings.retention.removed_files);
        self.faults.set(Rates { list: 700, ..Rates::NONE });
        for _ in 0..ROUNDS {
            self.durable.shelf.pass(retention / ROUNDS + SLACK);
            self.swept(node).await?;
        }
        self.faults.set(Rates::NONE);
        self.durable.shelf.pass(retention + SLACK);
        self.swept(node).await?;
        match self.durable.shelf.waste(SLACK).as_slice() {
            [] => Ok(()),
            [left, ..] => bail!("{left} is not deleted, and nothing refers to it any more"),
        }
    }

    async fn swept(&self, node: &Node) -> Result<()> {
        let report = node.maintain().await?;
        if !report.failed.is_empty() {
            bail!("maintenance fails over lists: {:?}", report.failed);
        }
        act::note(&self.faults, &report);
        match self.durable.shelf.wrong() {
            Some(wrong) => bail!("{wrong}"),
            None => Ok(()),
        }
    }
}
