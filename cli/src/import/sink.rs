//! Where an import goes: a running server, or a node of this process.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use async_trait::async_trait;
use bytes::Bytes;
use reckon_client::{Client, ClientError};
use reckon_data::dead::DeadLetter;
use reckon_data::imports::{ImportEntry, Imports};
use reckon_data::ingest::{Framing, Ingest, Submission, SubmitError};
use reckon_data::receipt::Receipt;
use serde::Deserialize;

/// Everything counted so far, of all senders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Totals {
    /// Valid events.
    pub accepted: u64,
    /// Of them, dropped as duplicates by the stream.
    pub duplicate: u64,
}

/// Where an import goes.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Sends events, a line each; the verdicts, also when all were refused.
    async fn send(&self, body: Bytes, key: &str, source: &str) -> Result<Receipt>;
    /// Sends lines that are no events.
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<()>;
    /// What was imported with a mapping.
    async fn find(&self, mapping_hash: &str) -> Result<Vec<ImportEntry>>;
    /// Remembers how far a file is.
    async fn record(&self, entry: &ImportEntry) -> Result<()>;
    /// Totals once everything acknowledged is counted.
    async fn totals(&self) -> Result<Totals>;
}

/// A running server.
pub struct Remote(pub Client);

#[derive(Deserialize)]
struct Found {
    imports: Vec<ImportEntry>,
}

#[derive(Deserialize)]
struct Ready {
    lag_records: u64,
    totals: Totals,
}

#[async_trait]
impl Sink for Remote {
    async fn send(&self, body: Bytes, key: &str, source: &str) -> Result<Receipt> {
        match self.0.send_lines(body, key, Some(source)).await {
            Err(ClientError::Refused(mut problem)) => match problem.receipt.take() {
                Some(receipt) => Ok(receipt),
                None => Err(anyhow!("{}", problem.detail)),
            },
            other => Ok(other?),
        }
    }

    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<()> {
        Ok(self.0.bury(&letters).await?)
    }

    async fn find(&self, mapping_hash: &str) -> Result<Vec<ImportEntry>> {
        let found: Found = self.0.get("/v1/imports", &[("mapping", mapping_hash.to_owned())]).await?;
        Ok(found.imports)
    }

    async fn record(&self, entry: &ImportEntry) -> Result<()> {
        let _: serde_json::Value = self.0.post("/v1/imports", entry).await?;
        Ok(())
    }

    async fn totals(&self) -> Result<Totals> {
        loop {
            let ready: Ready = self.0.get("/readyz", &[]).await?;
            if ready.lag_records == 0 {
                return Ok(ready.totals);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// A node of this process.
pub struct Local {
    /// Its gateway.
    pub ingest: Arc<dyn Ingest>,
    /// Its table of imports.
    pub imports: Arc<dyn Imports>,
    /// Its node, for the totals.
    pub health: Arc<dyn Fn() -> Option<Totals> + Send + Sync>,
}

#[async_trait]
impl Sink for Local {
    async fn send(&self, body: Bytes, key: &str, source: &str) -> Result<Receipt> {
        let submission = Submission {
            body,
            framing: Framing::Lines,
            idempotency_key: Some(key.to_owned()),
            source: Some(source.to_owned()),
            ..Submission::default()
        };
        loop {
            match self.ingest.submit(submission.clone()).await {
                Err(SubmitError::Malformed { receipt, .. }) => return Ok(*receipt),
                Err(SubmitError::Busy { .. }) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                other => return Ok(other?),
            }
        }
    }

    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<()> {
        Ok(self.ingest.bury(letters).await?)
    }

    async fn find(&self, mapping_hash: &str) -> Result<Vec<ImportEntry>> {
        self.imports.find(mapping_hash).await.map_err(|e| anyhow!(e))
    }

    async fn record(&self, entry: &ImportEntry) -> Result<()> {
        self.imports.record(entry.clone()).await.map_err(|e| anyhow!(e))
    }

    async fn totals(&self) -> Result<Totals> {
        loop {
            if let Some(totals) = (self.health)() {
                return Ok(totals);
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}
