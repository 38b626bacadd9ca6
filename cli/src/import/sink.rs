//! Where an import goes: a running server, or a node of this process.

use std::sync::Arc;
use std::time::Duration;

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
    /// Sends events, a line each, of which the first is line `first_line` of the source; the verdicts, also when all
    /// were refused.
    async fn send(&self, body: Bytes, key: &str, source: &str, first_line: u64) -> Result<Receipt>;
    /// Sends lines that are no events.
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<()>;
    /// What was imported with a mapping.
    async fn find(&self, mapping_hash: &str) -> Result<Vec<ImportEntry>>;
    /// Remembers how far a file is.
    async fn record(&self, entry: &ImportEntry) -> Result<()>;
    /// Totals once everything acknowledged is counted; none when others keep the counter too busy to tell, or there are
    /// several servers, none of which counts everything.
    async fn totals(&self) -> Result<Option<Totals>>;
}

/// How long a server may take to come to the end of its log.
const COUNTED_WAIT_MAX: Duration = Duration::from_secs(10);

/// A running server, or several.
pub struct Remote {
    client: Client,
    wait_max: Duration,
}

impl Remote {
    /// The servers that a client asks.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client, wait_max: COUNTED_WAIT_MAX }
    }
}

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
    async fn send(&self, body: Bytes, key: &str, source: &str, first_line: u64) -> Result<Receipt> {
        match self.client.send_numbered_lines(body, key, source, first_line).await {
            Err(ClientError::Refused(mut problem)) => match problem.receipt.take() {
                Some(receipt) => Ok(receipt),
                None => Err(anyhow!("{}", problem.detail)),
            },
            other => Ok(other?),
        }
    }

    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<()> {
        Ok(self.client.bury(&letters).await?)
    }

    async fn find(&self, mapping_hash: &str) -> Result<Vec<ImportEntry>> {
        let found: Found = self.client.get("/v1/imports", &[("mapping", mapping_hash.to_owned())]).await?;
        Ok(found.imports)
    }

    async fn record(&self, entry: &ImportEntry) -> Result<()> {
        let _: serde_json::Value = self.client.post("/v1/imports", entry).await?;
        Ok(())
    }

    async fn totals(&self) -> Result<Option<Totals>> {
        if self.client.urls().len() > 1 {
            return Ok(None);
        }
        let deadline = tokio::time::Instant::now() + self.wait_max;
        loop {
            let ready: Ready = self.client.get("/readyz", &[]).await?;
            if ready.lag_records == 0 {
                return Ok(Some(ready.totals));
            }
            // A busy server's log has hardly ever an end that is counted.
            if tokio::time::Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A node of this process.
pub struct Local {
    /// Its gateway.
    pub ingest: Arc<dyn Ingest>,
    /// Its table of imports.
    pub imports: Arc<dyn Imports>,
    /// The totals of its node once it has counted everything; an error when it cannot go on.
    pub health: Arc<dyn Fn() -> Result<Option<Totals>> + Send + Sync>,
}

/// What a node has counted, once that is everything.
///
/// # Errors
/// What is in its way: it will never be everything.
pub fn counted(trouble: Option<String>, lag_records: u64, totals: Totals) -> Result<Option<Totals>> {
    match trouble {
        Some(reason) => Err(anyhow!(reason)),
        None => Ok((lag_records == 0).then_some(totals)),
    }
}

#[async_trait]
impl Sink for Local {
    async fn send(&self, body: Bytes, key: &str, source: &str, first_line: u64) -> Result<Receipt> {
        let submission = Submission {
            body,
            framing: Framing::Lines,
            idempotency_key: Some(key.to_owned()),
            source: Some(source.to_owned()),
            first_line: Some(first_line),
            ..Submission::default()
        };
        loop {
            match self.ingest.submit(submission.clone()).await {
                Err(SubmitError::Malformed { receipt, .. }) => return Ok(*receipt),
                Err(SubmitError::Busy { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
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

    async fn totals(&self) -> Result<Option<Totals>> {
        loop {
            if let Some(totals) = (self.health)()? {
                return Ok(Some(totals));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use reckon_client::Options;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn a_node_that_has_stopped_is_not_waited_for() {
        let totals = Totals { accepted: 7, duplicate: 1 };
        assert_eq!(counted(None, 0, totals).unwrap(), Some(totals));
        assert_eq!(counted(None, 3, totals).unwrap(), None);
        assert_eq!(counted(Some("no room".to_owned()), 3, totals).unwrap_err().to_string(), "no room");
    }

    #[tokio::test]
    async fn none_of_several_servers_is_asked_for_the_totals() {
        let client = Client::new("http://127.0.0.1:1,http://127.0.0.1:2", Options::default()).unwrap();
        assert_eq!(Remote::new(client).totals().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_server_that_is_never_through_is_not_waited_for_without_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let body = r#"{"lag_records":3,"totals":{"accepted":7,"duplicate":1}}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4_096];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let client = Client::new(&url, Options::default()).unwrap();
        let remote = Remote { client, wait_max: Duration::from_millis(100) };
        assert_eq!(remote.totals().await.unwrap(), None);
        server.abort();
    }
}
