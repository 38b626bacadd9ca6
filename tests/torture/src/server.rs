//! The server: started, killed, stopped, started again on the same folder and port.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use reqwest::Client;
use serde_json::Value;

/// How long a server may take to be ready.
const READY_MAX: Duration = Duration::from_secs(120);
/// What it says where a record of the log has to be given up.
pub const ADVICE: &str = "reckon log set-aside";
/// How long another batch run may go on.
const BUSY_MAX: Duration = Duration::from_secs(1_800);

/// A server and where it lives.
pub struct Server {
    binary: PathBuf,
    dir: PathBuf,
    address: String,
    flags: Vec<String>,
    client: Client,
    child: Option<Child>,
    /// It runs as another user than this program.
    user: Option<u32>,
}

/// Who has no rights of his own, on most systems.
const NOBODY: u32 = 65_534;

impl Server {
    /// A server that is not started yet, on a free port of this machine.
    pub fn new(binary: &Path, dir: &Path, flags: &[String]) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let client = Client::builder().timeout(Duration::from_secs(60)).build()?;
        Ok(Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            address,
            flags: flags.to_vec(),
            client,
            child: None,
            user: None,
        })
    }

    /// Has it run as a user who may not do what the superuser may: write what is read-only.
    pub fn without_privileges(&mut self) -> Result<()> {
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&self.dir, Some(NOBODY), Some(NOBODY))?;
            self.user = Some(NOBODY);
        }
        Ok(())
    }

    /// Bytes of memory it has now.
    pub fn memory(&self) -> Result<u64> {
        let process = self.child.as_ref().context("it does not run")?.id();
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("it has ended")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no memory")?.parse()?;
        Ok(kib << 10)
    }

    /// Files that the tables refer to: raw events, sealed counts and batch counts.
    pub async fn live_files(&self) -> Result<[u64; 3]> {
        let text = self.client.get(self.url() + "/metrics").send().await?.error_for_status()?.text().await?;
        let of = |table: &str| {
            let name = format!("reckon_table_files{{table=\"{table}\"}} ");
            let found = text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
            found.with_context(|| format!("no metric says how many files {table} has"))
        };
        Ok([of("events")?, of("stream_counts")?, of("batch_counts")?])
    }

    /// Records of the log that are not counted yet, or not archived, whichever are more.
    pub async fn lag(&self) -> Result<u64> {
        let text = self.client.get(self.url() + "/metrics").send().await?.error_for_status()?.text().await?;
        let sum = |name: &str| {
            let own = text.lines().filter(|line| line.starts_with(name));
            own.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
        };
        Ok(sum("reckon_counting_lag_records{").max(sum("reckon_archiver_lag_records")))
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts it, and returns how long it took until it was ready.
    pub async fn start(&mut self) -> Result<Duration> {
        self.spawn()?;
        self.wait_ready().await
    }

    /// Starts it and does not wait.
    pub fn spawn(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.args(["up", "--listen", &self.address, "--data-dir"]).arg(&self.dir).args(&self.flags);
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("server.log"))?;
        // The ledger knows what this program sends, and nothing else.
        command.stdout(Stdio::null()).stderr(log).env("RECKON_CANARY_EVERY", "0s");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        self.child = Some(command.spawn().with_context(|| format!("{} cannot be started", self.binary.display()))?);
        Ok(())
    }

    async fn wait_ready(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        while !self.is_ready().await {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                bail!("the server ended with {status}, see {}", self.dir.join("server.log").display());
            }
            if begun.elapsed() > READY_MAX {
                bail!("the server is not ready after {} s", READY_MAX.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(begun.elapsed())
    }

    /// Whether it is ready, or as ready as it gets before somebody does what it says.
    async fn is_ready(&self) -> bool {
        let Ok(answer) = self.client.get(self.url() + "/readyz").send().await else { return false };
        answer.status().is_success() || answer.text().await.is_ok_and(|text| text.contains(ADVICE))
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) -> Result<()> {
        let process = self.child.as_ref().context("it does not run")?.id();
        let status = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status()?;
        if status.success() { Ok(()) } else { bail!("kill -{name} {process}: {status}") }
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops it in order.
    pub fn stop(&mut self) -> Result<()> {
        self.signal("TERM")?;
        let status = self.child.take().context("it does not run")?.wait()?;
        if status.success() { Ok(()) } else { bail!("the server ended with {status}") }
    }

    /// The answer to a query.
    pub async fn sql(&self, query: &str) -> Result<Value> {
        let body = serde_json::json!({ "query": query }).to_string();
        let request = self.client.post(self.url() + "/v1/sql").header("content-type", "application/json").body(body);
        let answer: Value = serde_json::from_str(&request.send().await?.error_for_status()?.text().await?)?;
        if answer["provenance"]["complete"] != true || answer["truncated"] == true {
            bail!("the answer is not complete: {}", answer["provenance"]);
        }
        Ok(answer)
    }

    /// What it says at `path`.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let text = self.client.get(self.url() + path).send().await?.error_for_status()?.text().await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// What it says of itself, ready or not.
    pub async fn readiness(&self) -> Result<Value> {
        let text = self.client.get(self.url() + "/readyz").send().await?.text().await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Gives up a damaged record of the log, of which there is no other copy. It must not run.
    pub fn set_aside(&self, partition: &str, offset: &str) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.args(["log", "set-aside", "--partition", partition, "--offset", offset, "--yes", "--data-dir"]);
        let output = command.arg(&self.dir).output()?;
        if !output.status.success() {
            bail!("the record at {partition}/{offset} is not given up: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Recounts all dates from raw events, whatever is new.
    ///
    /// # Errors
    /// When the run fails, and when it misses raw events: it would keep the counts of before then.
    pub async fn recount(&self) -> Result<()> {
        let id = self.begin("/v1/batch/runs", r#"{"full":true}"#).await?;
        loop {
            let run = self.get(&format!("/v1/batch/runs/{id}")).await?;
            match run["state"].as_str() {
                Some("succeeded") => {
                    let dates = run["report"]["dates"].as_array().context("a run without dates")?;
                    return match dates.iter().find(|date| date["raw_missing"] != false || date["mode"] != "full") {
                        Some(date) => bail!("raw events are missing: {date}"),
                        None => Ok(()),
                    };
                }
                Some("failed") => bail!("batch: {}", run["error"]),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Audits everything, and returns the findings that are errors.
    ///
    /// # Errors
    /// When it could not be done.
    pub async fn audit(&self) -> Result<Vec<Value>> {
        let id = self.begin("/v1/audit/runs", "{}").await?;
        loop {
            let run = self.get(&format!("/v1/audit/runs/{id}")).await?;
            match run["state"].as_str() {
                Some("succeeded") => {
                    let findings = run["report"]["findings"].as_array().context("a report without findings")?;
                    let expected = ["duplicate_past_window", "late_not_recounted", "repeat_differs"];
                    let is_error = |finding: &&Value| !expected.iter().any(|class| finding["class"] == *class);
                    return Ok(findings.iter().filter(is_error).cloned().collect());
                }
                Some("failed") => bail!("audit: {}", run["error"]),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Starts a run, after the scheduled one that may be going on.
    async fn begin(&self, path: &str, body: &'static str) -> Result<String> {
        let url = self.url() + path;
        let begun = Instant::now();
        loop {
            let request = self.client.post(&url).header("content-type", "application/json").body(body);
            let answer = request.send().await?;
            if answer.status() != reqwest::StatusCode::CONFLICT {
                let run: Value = serde_json::from_str(&answer.error_for_status()?.text().await?)?;
                return Ok(run["id"].as_str().context("a run without an id")?.to_owned());
            }
            if begun.elapsed() > BUSY_MAX {
                bail!("a run has been going on for {} s", BUSY_MAX.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Gone already is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
