//! `reckon bench`: measures a server, in a process of its own, with the load from this one.

mod recount;
mod started;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use reckon_bench::{ingest, log, mixed, query};
use reckon_data::clock::{Clock, RandomNames, SystemClock};
use reckon_data::config::Settings;
use reckon_data::log::Log;
use reckon_tables::Storage;
use serde::Serialize;
use started::Started;

use crate::node::open_log;

/// Measure.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

/// Which server is measured.
#[derive(Debug, Args)]
struct ServerArgs {
    /// A server that runs already, or several, separated by commas, to which events go in turn; without it one is started on a
    /// folder that goes with it.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The folder for the server that is started; it is kept.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// A setting of the server that is started: --with=--gateway-workers=1
    #[arg(long = "with", value_name = "FLAG", allow_hyphen_values = true)]
    flags: Vec<String>,
    /// Machine-readable output.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Events of 200 bytes over HTTP, 1 % repeats, Zipf entities: how many a second, and are the counts exact.
    Ingest {
        #[command(flatten)]
        server: ServerArgs,
        /// Events a second; 0 is as fast as they are taken.
        #[arg(long, default_value_t = 300_000)]
        rate: u64,
        /// Seconds measured.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Seconds sent before; the dedup window is full after 660.
        #[arg(long, default_value_t = 0)]
        prefill: u64,
        /// Entities.
        #[arg(long, default_value_t = 1_000_000)]
        entities: u32,
        /// Connections.
        #[arg(long, default_value_t = 4)]
        connections: u64,
        /// Events in a body.
        #[arg(long, default_value_t = 5_000)]
        body_events: u64,
    },
    /// Counts of random entities over a day while events come in: how long they take.
    Query {
        #[command(flatten)]
        server: ServerArgs,
        /// Events of the last day, loaded first.
        #[arg(long, default_value_t = 20_000_000)]
        load: u64,
        /// Events a second meanwhile.
        #[arg(long, default_value_t = 50_000)]
        rate: u64,
        /// Questions a second.
        #[arg(long, default_value_t = 1_000)]
        questions: u64,
        /// Seconds measured.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// Entities.
        #[arg(long, default_value_t = 1_000_000)]
        entities: u32,
    },
    /// Questions of all kinds over a week while events come in, and SQL over all of it: how long each takes.
    Mixed {
        #[command(flatten)]
        server: ServerArgs,
        /// Events of these days, loaded and recounted first.
        #[arg(long, default_value_t = 30_000_000)]
        load: u64,
        /// Events of the last hour, which only the stream has counted.
        #[arg(long, default_value_t = 10_000_000)]
        recent: u64,
        /// Days that questions are about.
        #[arg(long, default_value_t = 7)]
        days: u64,
        /// Events a second meanwhile.
        #[arg(long, default_value_t = 50_000)]
        rate: u64,
        /// Questions a second.
        #[arg(long, default_value_t = 1_000)]
        questions: u64,
        /// Seconds measured.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Entities.
        #[arg(long, default_value_t = 1_000_000)]
        entities: u32,
    },
    /// A log alone: how many records a second it takes and gives back, and whether all come back. --log-url names a topic
    /// of Fluvio; without it, the embedded log in a folder that goes with it.
    Log {
        /// Records.
        #[arg(long, default_value_t = 2_000_000)]
        records: u64,
        /// Bytes of a record.
        #[arg(long, default_value_t = 1_024)]
        bytes: usize,
        /// Records of one append.
        #[arg(long, default_value_t = 250)]
        append_records: u64,
        /// Appends to a partition that wait at once.
        #[arg(long, default_value_t = 4)]
        appends: u64,
        /// Bytes that are read at once.
        #[arg(long, default_value_t = 4 << 20)]
        read_bytes: usize,
        /// Machine-readable output.
        #[arg(long)]
        json: bool,
    },
    /// A batch run over raw events of so many dates: how long it takes and how much memory, beside DuckDB if wanted, and
    /// the audit of it.
    Batch(recount::Recount),
}

impl Bench {
    /// Measures and prints what was measured.
    ///
    /// # Errors
    /// When the server fails, or counts are not exact.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let say = |line: &str| eprintln!("{line}");
        match self.what {
            What::Ingest { server, rate, seconds, prefill, entities, connections, body_events } => {
                let started = Started::of(&server)?;
                let (prefill, time) = (Duration::from_secs(prefill), Duration::from_secs(seconds));
                let options = ingest::Options { rate, prefill, time, entities, connections, body_events };
                let report = ingest::run(&started.watched, started.client()?, options, &say).await?;
                print(&server, &report, report.text())?;
                if report.is_exact() { Ok(()) } else { bail!("the counts are not what was sent") }
            }
            What::Query { server, load, rate, questions, seconds, entities } => {
                let started = Started::of(&server)?;
                let time = Duration::from_secs(seconds);
                let options = query::Options { load, rate, questions, time, entities };
                let report = query::run(&started.watched, started.client()?, options, &say).await?;
                print(&server, &report, report.text())
            }
            What::Mixed { server, load, recent, days, rate, questions, seconds, entities } => {
                let started = Started::of(&server)?;
                let time = Duration::from_secs(seconds);
                let options = mixed::Options { load, recent, days, rate, questions, time, entities };
                let report = mixed::run(&started.watched, started.client()?, options, &say).await?;
                print(&server, &report, report.text())
            }
            What::Log { records, bytes, append_records, appends, read_bytes, json } => {
                let dir = tempfile::tempdir()?;
                let log = alone(settings, dir.path()).await?;
                let options = log::Options { records, bytes, append_records, appends, read_bytes };
                let report = log::run(Arc::clone(&log), options, &say).await;
                log.close().await?;
                let report = report?;
                println!("{}", if json { serde_json::to_string(&report)? } else { report.text() });
                Ok(())
            }
            What::Batch(recount) => recount.run(&say).await,
        }
    }
}

/// The log of the settings, and nothing else; what has to lie somewhere lies in `dir`.
async fn alone(settings: Settings, dir: &Path) -> Result<Arc<dyn Log>> {
    let settings = Settings { data_dir: dir.display().to_string(), ..settings };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    open_log(&settings, dir, &Storage::open(&settings.data_dir)?, &clock, &RandomNames).await
}

fn print(server: &ServerArgs, report: &impl Serialize, text: String) -> Result<()> {
    if server.json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        print!("{text}");
    }
    Ok(())
}
