//! `reckon bench batch`: a batch run in a process of its own, over a folder that a server filled before.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use reckon_bench::recount::{self, Options};
use reckon_bench::server::{Finished, run_watched};

use super::ServerArgs;
use super::started::Started;

/// What DuckDB does for comparison.
const DUCKDB_SCRIPT: &str = "bench/duckdb_recount.py";

/// What is recounted.
#[derive(Debug, Args)]
pub(super) struct Recount {
    /// Events.
    #[arg(long, default_value_t = 20_000_000)]
    events: u64,
    /// Dates that they are spread over.
    #[arg(long, default_value_t = 1)]
    dates: u64,
    /// Entities.
    #[arg(long, default_value_t = 1_000_000)]
    entities: u32,
    /// The folder; it is kept, and if it holds a table of events already nothing is loaded.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// A Python with duckdb and deltalake: DuckDB recounts the same files after that, from the project's folder.
    #[arg(long, value_name = "PYTHON")]
    duckdb: Option<PathBuf>,
    /// Audit it after that, in a process of its own.
    #[arg(long)]
    audit: bool,
    /// A setting of the batch run: --with=--batch-memory --with="2 GiB"
    #[arg(long = "with", value_name = "FLAG", allow_hyphen_values = true)]
    flags: Vec<String>,
}

impl Recount {
    /// Loads if need be, recounts, and prints what was measured.
    ///
    /// # Errors
    /// When the server or a run fails.
    pub(super) async fn run(self, say: &dyn Fn(&str)) -> Result<()> {
        if !self.dir.join("tables/events").exists() {
            self.load(say).await?;
        }
        let mut batch = Command::new(std::env::current_exe()?);
        batch.args(["batch", "--full", "--json", "--data-dir"]).arg(&self.dir).args(&self.flags);
        println!("reckon batch   {}", text(&run_watched(&mut batch)?)?);
        if self.audit {
            let mut audit = Command::new(std::env::current_exe()?);
            audit.args(["audit", "--data-dir"]).arg(&self.dir);
            println!("reckon audit   {}", text(&run_watched(&mut audit)?)?);
        }
        if let Some(python) = &self.duckdb {
            println!("duckdb         {}", text(&run_watched(&mut self.duckdb(python))?)?);
        }
        Ok(())
    }

    async fn load(&self, say: &dyn Fn(&str)) -> Result<()> {
        let server = ServerArgs {
            url: None,
            dir: Some(self.dir.clone()),
            // Short, so that the batch process has little of the window to read again when it opens the folder.
            flags: ["--stream-dedup-minutes=1", "--batch-schedule="].map(str::to_owned).to_vec(),
            json: false,
        };
        let started = Started::of(&server)?;
        let options = Options { events: self.events, dates: self.dates, entities: self.entities };
        recount::load(&started.watched, started.client()?, options, say).await?;
        started.stop()
    }

    fn duckdb(&self, python: &Path) -> Command {
        let mut command = Command::new(python);
        command.arg(DUCKDB_SCRIPT).arg(&self.dir);
        command
    }
}

fn text(run: &Finished) -> Result<String> {
    if !run.success {
        bail!("it failed: {}", run.output);
    }
    let last = run.output.lines().last().context("it printed nothing")?;
    Ok(format!("{:.1} s, {} MiB peak: {last}", run.seconds, run.memory_peak >> 20))
}
