//! `reckon audit`: holds every number against the raw events, and says what differs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use reckon_audit::ledger::Progress;
use reckon_audit::report::model::{AuditRequest, Report, Verdict};
use reckon_audit::report::{json, terminal};
use reckon_client::Client;
use reckon_data::config::Settings;
use reckon_data::jobs::{RunState, RunStatus};

use super::batch::{progress_bar, show};
use super::target::{Target, TargetArgs};
use crate::exit::Exit;
use crate::roles;

/// How often a server is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Columns of a terminal whose width is not known.
const COLUMNS: usize = 100;
/// The code of a process whose audit has found something.
const FINDINGS: u8 = 1;

/// Count the raw events a third time, and hold the log, the stream's counts, batch and answers against them.
///
/// Exit code 0: every number is what it should be; 1: there are findings; 2: the audit could not be done.
#[derive(Debug, Args)]
pub struct Audit {
    #[command(flatten)]
    target: TargetArgs,
    /// Audit this date only, 2013-02-08; may be given more than once. Without it: all dates, the log, the stream's segments and the older reports.
    #[arg(long = "date", value_name = "DATE")]
    dates: Vec<String>,
    /// Make good what can be made good (raw events from the log, counts from raw events), and audit again.
    #[arg(long)]
    repair: bool,
    /// Write the report as one HTML page.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

/// A report, with what its page needs.
struct Done {
    report: Report,
    page: Option<String>,
}

impl Audit {
    /// Audits, shows how far it is, and prints the report.
    ///
    /// # Errors
    /// When it cannot be done; an [`Exit`] when there are findings.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let bar = progress_bar(self.target.json);
        let done = Box::pin(self.audit(settings, &bar)).await?;
        bar.finish_and_clear();
        if let (Some(path), Some(text)) = (&self.page, &done.page) {
            std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        if self.target.json {
            println!("{}", json(&done.report));
        } else {
            print!("{}", terminal(&done.report, columns()));
        }
        match done.report.verdict {
            Verdict::Balanced => Ok(()),
            Verdict::Findings => Err(Exit::quiet(FINDINGS).into()),
        }
    }

    async fn audit(&self, settings: Settings, bar: &ProgressBar) -> Result<Done> {
        let request = AuditRequest { dates: self.dates.clone(), repair: self.repair };
        let progress = |at: Progress| show(bar, &at.step, at.done, at.total, at.events);
        if self.target.is_shared(&settings).await? {
            let (report, page) = Box::pin(roles::audit(settings, &request, &progress)).await?;
            return Ok(Done { report, page: Some(page) });
        }
        match self.target.open(settings, "audit").await? {
            Target::Remote(client) => self.remote(&client, &request, bar).await,
            Target::Local(node) => {
                let audits = std::sync::Arc::clone(&node.audits);
                let outcome = async {
                    // What lies in the log is archived first: it is part of what is audited.
                    node.settle().await?;
                    let report = Box::pin(audits.run_to_end(&request, &progress)).await??;
                    let page = match &self.page {
                        Some(_) => audits.page_of(Some(report.run_id)).await.map_err(anyhow::Error::msg)?,
                        None => None,
                    };
                    Ok::<_, anyhow::Error>(Done { report, page })
                };
                let outcome = Box::pin(outcome).await;
                node.stop().await;
                outcome
            }
        }
    }

    async fn remote(&self, client: &Client, request: &AuditRequest, bar: &ProgressBar) -> Result<Done> {
        let mut run: RunStatus = client.post_once("/v1/audit/runs", request).await?;
        let path = format!("/v1/audit/runs/{}", run.id);
        while run.state == RunState::Running {
            show(bar, &run.step, run.done, run.total, run.events);
            tokio::time::sleep(ASK_EVERY).await;
            run = client.get(&path, &[]).await?;
        }
        if let Some(error) = run.error {
            bail!("the audit could not be done: {error}");
        }
        let report: Report = serde_json::from_value(run.report.unwrap_or_default())
            .context("the server's report is not one that this version knows")?;
        let page = match &self.page {
            Some(_) => Some(client.get_text(&format!("{path}/page")).await?),
            None => None,
        };
        Ok(Done { report, page })
    }
}

fn columns() -> usize {
    let named = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    named.unwrap_or(COLUMNS)
}
