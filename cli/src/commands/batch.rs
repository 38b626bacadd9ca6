//! `reckon batch`: a batch run, to its end.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reckon_client::Client;
use reckon_data::config::Settings;
use reckon_data::jobs::{RunRequest, RunState, RunStatus};
use serde_json::Value;

use super::target::{Target, TargetArgs};

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
}

impl Batch {
    /// Runs, shows how far it is, and prints the report.
    ///
    /// # Errors
    /// When the run fails.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let request = RunRequest { full: self.full, dates: self.dates };
        let bar = progress_bar(self.target.json);
        let report = match self.target.open(settings, "batch").await? {
            Target::Remote(client) => remote(&client, &request, &bar).await?,
            Target::Local(node) => {
                let progress = |at: reckon_batch::recompute::Progress| {
                    show(&bar, &at.step, at.done, at.total, at.events);
                };
                let report = node.runs.run_to_end(&request, &progress).await;
                node.stop().await;
                serde_json::to_value(report??)?
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

fn progress_bar(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let template = "{wide_bar} {pos}/{len} {elapsed} {msg}";
    ProgressBar::new(0)
        .with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, step: &str, done: u64, total: u64, events: u64) {
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
