//! A server in a process of its own, on a free port of the loopback address.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;

use super::place::data_at;

/// For tests that are no part of a runtime themselves.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// The binary under test, free of the settings of whoever runs the tests.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reckon"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RECKON_")) {
        command.env_remove(name);
    }
    // Tests count their events to the last one; those of the canary switch it on.
    command.env("RECKON_CANARY_EVERY", "0s");
    // Many servers run at once.
    command.env("RECKON_SERVING_POSTGRES", "127.0.0.1:0");
    command.env("RECKON_SERVING_FLIGHT_SQL", "127.0.0.1:0");
    command
}

/// Runs a command to its end, which must be a success.
pub fn run_ok(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A running `reckon up`; killed when dropped.
pub struct Server {
    child: Child,
    url: String,
    dir: PathBuf,
}

impl Server {
    /// Starts a server on a data folder and waits until it is ready.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// The same, with more arguments.
    pub fn start_with(dir: &Path, arguments: &[&str]) -> Self {
        let server = Self::start_unready(dir, arguments);
        server.wait_until("it is ready", || server.is_ready());
        server
    }

    /// The same, and does not wait until it is ready, which it may never be.
    pub fn start_unready(dir: &Path, arguments: &[&str]) -> Self {
        let mut up = command();
        up.args(["up", "--listen", "127.0.0.1:0"]).args(arguments);
        data_at(&mut up, dir);
        Self::of(up, dir)
    }

    /// Starts a process that says where it listens.
    pub fn of(mut command: Command, dir: &Path) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let url = read_url(&mut child);
        Self { child, url, dir: dir.to_owned() }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: &str) {
        run_ok(Command::new("kill").args([signal, &self.child.id().to_string()]));
    }

    /// Whether it answers, and is ready.
    pub fn is_ready(&self) -> bool {
        self.status("/readyz") == Some(200)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where PostgreSQL clients come in.
    pub fn postgres(&self) -> std::net::SocketAddr {
        self.get("/readyz")["listens"]["postgres"].as_str().unwrap().parse().unwrap()
    }

    /// Bytes of memory it has now; none where nobody can say.
    pub fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
    }

    /// Waits for something that must come true within a minute.
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(60), "waited a minute in vain until {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn status(&self, path: &str) -> Option<u16> {
        let url = format!("{}{path}", self.url);
        RUNTIME.block_on(async { reqwest::get(url).await.ok().map(|response| response.status().as_u16()) })
    }

    /// Status and body of a request.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Value) {
        let client = reqwest::Client::new();
        let mut request = client.request(method.parse().unwrap(), format!("{}{path}", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        RUNTIME.block_on(async {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let text = response.text().await.unwrap();
            (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
        })
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.request("GET", path, &[], Vec::new());
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    /// The same, for tests that are part of a runtime.
    pub async fn get_in(&self, path: &str) -> Value {
        let text = reqwest::get(format!("{}{path}", self.url)).await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.request("POST", path, &[("content-type", "application/json")], body.to_string().into_bytes())
    }

    pub fn sql(&self, query: &str) -> Value {
        let (status, body) = self.post("/v1/sql", &serde_json::json!({ "query": query }));
        assert_eq!(status, 200, "{query}: {body}");
        assert_eq!(body["provenance"]["complete"], true, "{query}: {body}");
        body
    }

    /// Waits until everything acknowledged so far is counted: the counter stands at the end of the log.
    pub fn wait_counted(&self) {
        self.wait_until("everything is counted", || {
            let ready = self.get("/readyz");
            ready["lag_records"].as_u64() == Some(0)
        });
    }

    /// Runs batch to its end.
    pub fn batch(&self) {
        run_ok(command().args(["batch", "--url", &self.url]));
    }

    /// Kills it as a power cut would.
    pub fn kill(mut self) -> PathBuf {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.dir.clone()
    }

    /// Asks it to stop, and returns how long that took.
    pub fn terminate(mut self) -> Duration {
        let start = Instant::now();
        let id = self.child.id().to_string();
        run_ok(Command::new("kill").args(["-TERM", &id]));
        let status = self.child.wait().unwrap();
        assert!(status.success(), "SIGTERM ended it with {status}");
        start.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already dead after `kill` and `terminate`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address stands in the first line that begins with it.
fn read_url(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = loop {
        let line = lines.next().unwrap_or_else(|| panic!("the server ended before it listened")).unwrap();
        if let Some(at) = line.find("http://127.0.0.1:") {
            break line[at..].split_whitespace().next().unwrap().trim_end_matches('/').to_owned();
        }
    };
    // Keep reading, so that the server never waits for room in the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    url
}
