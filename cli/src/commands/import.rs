//! `reckon import`: files of events.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use reckon_data::config::Settings;

use super::target::{Target, TargetArgs};
use crate::import::{self, Local, MappingArgs, Remote, Report, Totals};

/// Import files.
#[derive(Debug, Args)]
#[command(after_help = "\
A line that is no event is reported with file and line, goes to the dead letters, and stops nothing.
A file imported twice counts once, whenever; an interrupted import goes on where it was.
With --id-from line, a last line without a line break may not be whole yet: it is left for the next import.

  reckon import --format ndjson --entity g --time t:s --country c --type click --skip-if _heartbeat_ clicks/*.gz
  reckon import --format ndjson --entity repo.name --time created_at --id id --type-field type *.json.gz
  reckon import --format tsv --entity url --time time:s --user host access.tsv
  reckon import --format combined access.log")]
pub struct Import {
    #[command(flatten)]
    mapping: MappingArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// The files: plain, gzip or zstd.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Import {
    /// Imports the files and prints the closing table.
    ///
    /// # Errors
    /// When a file cannot be imported whole.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let mapping = self.mapping.mapping()?;
        let target = self.target.open(settings, "import").await?;
        let report = match target {
            Target::Remote(client) => import::run(&Remote::new(client), &mapping, &self.files, self.target.json).await,
            Target::Local(node) => {
                let status = Arc::clone(&node.status);
                let sink = Local {
                    ingest: Arc::clone(&node.gateway) as _,
                    imports: Arc::clone(&node.imports) as _,
                    health: Arc::new(move || {
                        let (lag, all) = (status.lag_records(), status.totals());
                        let totals = Totals { accepted: all.accepted, duplicate: all.duplicate };
                        import::counted(status.trouble(), lag, totals)
                    }),
                };
                let report = import::run(&sink, &mapping, &self.files, self.target.json).await;
                node.stop().await;
                report
            }
        }?;
        self.print(&report)
    }

    fn print(&self, report: &Report) -> Result<()> {
        if self.target.json {
            println!("{}", serde_json::to_string(report)?);
        } else {
            println!("{}", report.table());
        }
        Ok(())
    }
}
