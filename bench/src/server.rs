//! The server under load: what it says of itself, and what the system says of its process.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use reckon_client::{Client, Options};
use serde_json::Value;

/// How long a server may take to catch up at the end.
const CATCH_UP_MAX: Duration = Duration::from_secs(300);

/// A server under load.
#[derive(Debug)]
pub struct Watched {
    /// A client of it.
    pub client: Client,
    /// Its process, when it runs on this machine.
    pub process: Option<u32>,
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Most memory resident so far, bytes.
    pub memory_peak: u64,
    /// Memory resident now, bytes.
    pub memory: u64,
    /// Processor time, seconds.
    pub cpu_seconds: f64,
}

impl Watched {
    /// The server at `url`, in process `process` if it runs here; several, separated by commas, share the load.
    ///
    /// # Errors
    /// When that is no address.
    pub fn new(url: &str, process: Option<u32>) -> Result<Self> {
        Ok(Self { client: Client::new(url, Options::default())?, process })
    }

    /// Its metrics by name and labels, as they stand in the text; of several servers, those of the first.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let text = reqwest::get(format!("{}/metrics", self.client.url())).await?.text().await?;
        Ok(text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect())
    }

    /// Records that are not counted yet.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn lag_records(&self) -> Result<u64> {
        let ready: Value = self.client.get("/readyz", &[]).await?;
        ready["lag_records"].as_u64().context("readyz without lag_records")
    }

    /// Waits until everything is counted, and returns how long that took.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn catch_up(&self) -> Result<Duration> {
        let start = Instant::now();
        while self.lag_records().await? > 0 {
            if start.elapsed() > CATCH_UP_MAX {
                bail!("the counter did not catch up within {} s", CATCH_UP_MAX.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(start.elapsed())
    }

    /// Everything it has counted.
    ///
    /// # Errors
    /// When it does not answer, or not completely.
    pub async fn total(&self) -> Result<u64> {
        let answer = self.client.sql("select coalesce(sum(count), 0) from stats").await?;
        if answer["provenance"]["complete"] != true {
            bail!("the answer is not complete: {}", answer["provenance"]);
        }
        count_in(&answer)
    }

    /// Raw events that are archived.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn archived(&self) -> Result<u64> {
        count_in(&self.client.sql("select count(*) from events").await?)
    }

    /// What its process has used; nothing when it runs elsewhere.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.process.map_or_else(Usage::default, usage)
    }
}

/// The one number of an answer; large ones come as text.
fn count_in(answer: &Value) -> Result<u64> {
    let count = &answer["rows"][0][0];
    count.as_u64().or_else(|| count.as_str()?.parse().ok()).context("no count in the answer")
}

fn usage(process: u32) -> Usage {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Usage {
        memory_peak: kib("VmHWM:").unwrap_or(0) * 1_024,
        memory: kib("VmRSS:").unwrap_or(0) * 1_024,
        cpu_seconds: cpu_seconds(process).unwrap_or(0.0),
    }
}

/// A process that ran to its end.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How long it ran.
    pub seconds: f64,
    /// Most memory resident, bytes, as of 20 ms before its end or later.
    pub memory_peak: u64,
    /// Whether it succeeded.
    pub success: bool,
    /// What it printed to standard output.
    pub output: String,
}

/// Runs a command that prints little, and watches what it uses.
///
/// # Errors
/// When it cannot be started.
pub fn run_watched(command: &mut Command) -> Result<Finished> {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().context("it cannot be started")?;
    let mut memory_peak = 0;
    let status = loop {
        memory_peak = usage(child.id()).memory_peak.max(memory_peak);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let seconds = start.elapsed().as_secs_f64();
    let mut output = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut output)?;
    }
    Ok(Finished { seconds, memory_peak, success: status.success(), output })
}

/// User and system time of a process; Linux counts in hundredths of a second.
fn cpu_seconds(process: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}
