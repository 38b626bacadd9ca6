//! `reckon batch`: a batch run, to its end.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reckon_batch::recompute::Progress;
use reckon_client::Client;
use reckon_data::config::Settings;
use reckon_data::jobs::{EngineName, RunRequest, RunState, RunStatus};
use serde_json::Value;

use super::target::{Target, TargetArgs};
use crate::roles;

/// How often a server is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Recount now.
#[derive(Debug, Args)]
pub struct Batch {
    #[command(flatten)]
    target: TargetArgs,
    /// Recount every date that still has its raw events, not only what changed.
    #[arg(long)]
    full: bool,
    /// Recount this date as well, 2013-02-08; may be given more than once.
    #[arg(long = "date", value_name = "DATE")]
    dates: Vec<String>,
    /// Who counts raw events: local, the process that runs batch; ballista, the executors of a cluster. Without it: as the
    /// settings say.
    #[arg(long, value_name = "NAME", value_parser = engine)]
    engine: Option<EngineName>,
    /// The scheduler of that cluster, http://host:50050, when this process runs batch; a server has it from its settings.
    #[arg(long, value_name = "URL")]
    scheduler: Option<String>,
}

fn engine(text: &str) -> Result<EngineName, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| "local or ballista".to_owned())
}

impl Batch {
    /// Runs, shows how far it is, and prints the report.
    ///
    /// # Errors
    /// When the run fails.
    pub async fn run(self, mut settings: Settings) -> Result<()> {
        let request = RunRequest { full: self.full, dates: self.dates, engine: self.engine, ..RunRequest::default() };
        let bar = progress_bar(self.target.json);
        if let Some(scheduler) = self.scheduler {
            settings.batch.scheduler = scheduler;
        }
        let progress = |at: Progress| show(&bar, &at.step, at.done, at.total, at.events);
        let report = if self.target.is_shared(&settings).await? {
            serde_json::to_value(roles::recount(settings, &request, &progress).await?)?
        } else {
            match self.target.open(settings, "batch").await? {
                Target::Remote(client) => remote(&client, &request, &bar).await?,
                Target::Local(node) => {
                    let report = node.runs.run_to_end(&request, &progress).await;
                    node.stop().await;
                    serde_json::to_value(report??)?
                }
            }
        };
        bar.finish_and_clear();
        if self.target.json {
            println!("{report}");
        } else {
            println!("{}", sentence(&report));
        }
        Ok(())
    }
}

async fn remote(client: &Client, request: &RunRequest, bar: &ProgressBar) -> Result<Value> {
    let mut run: RunStatus = client.post_once("/v1/batch/runs", request).await?;
    let path = format!("/v1/batch/runs/{}", run.id);
    while run.state == RunState::Running {
        show(bar, &run.step, run.done, run.total, run.events);
        tokio::time::sleep(ASK_EVERY).await;
        run = client.get(&path, &[]).await?;
    }
    match run.error {
        Some(error) => bail!("the batch run failed, nothing of it is visible: {error}"),
        None => Ok(run.report.unwrap_or_default()),
    }
}

pub(super) fn progress_bar(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let template = "{wide_bar} {pos}/{len} {elapsed} {msg}";
    ProgressBar::new(0)
        .with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

pub(super) fn show(bar: &ProgressBar, step: &str, done: u64, total: u64, events: u64) {
    bar.set_length(total);
    bar.set_position(done);
    bar.set_message(format!("{step}, {events} events"));
}

/// The report in a sentence.
fn sentence(report: &Value) -> String {
    let dates = report["dates"].as_array().map_or(0, Vec::len);
    let seconds: f64 = report["seconds"].as_object().into_iter().flatten().filter_map(|(_, part)| part.as_f64()).sum();
    format!(
        "{dates} dates recounted in {seconds:.1} s: {} events read, {} repeats dropped, {} rows written",
        report["events"], report["duplicates"], report["rows"]
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_sentence_says_how_long_it_took() {
        let seconds = json!({"wait": 0.5, "plan": 0.25, "count": 1.0, "commit": 0.25});
        let report = json!({"dates": [{}], "events": 9, "duplicates": 1, "rows": 3, "seconds": seconds});
        let expected = "1 dates recounted in 2.0 s: 9 events read, 1 repeats dropped, 3 rows written";
        assert_eq!(sentence(&report), expected);
    }
}
