//! Every role as processes of their own, over a Fluvio topic, an S3 endpoint and a Ballista cluster that are started with them.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use object_store::ObjectStore;

use super::cluster::Cluster;
use super::place::{has_endpoint, shared_at, shared_store};
use super::server::{Server, command};

/// The processes, in the order in which they are started.
const PROCESSES: [&str; 10] = [
    "scheduler",
    "gateway-1",
    "gateway-2",
    "stream-1",
    "stream-2",
    "archive-1",
    "serve-1",
    "serve-2",
    "executor-1",
    "executor-2",
];

/// A worker that counts all partitions, whoever has them.
const INTRUDER: &str = "stream-3";

/// All processes; they end when this is dropped.
pub struct Roles {
    running: BTreeMap<&'static str, Server>,
    ports: BTreeMap<&'static str, u16>,
    pub log: Cluster,
    dir: tempfile::TempDir,
}

impl Roles {
    /// Starts them all; none, and a line that says so, when log or store cannot be started.
    pub fn start(test: &str) -> Option<Self> {
        let mut roles = Self::start_none(test)?;
        roles.start_rest();
        Some(roles)
    }

    /// The same, but log and store only.
    pub fn start_none(test: &str) -> Option<Self> {
        let log = Cluster::start(test)?;
        if !has_endpoint(test) {
            return None;
        }
        // All at once, so that no two are the same.
        let free: Vec<TcpListener> = (0..=PROCESSES.len()).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let names = PROCESSES.into_iter().chain([INTRUDER]);
        let ports = names.zip(free.iter().map(|free| free.local_addr().unwrap().port())).collect();
        drop(free);
        let dir = tempfile::tempdir().unwrap();
        Some(Self { running: BTreeMap::new(), ports, log, dir })
    }

    /// Starts those that do not run yet, and waits until all are ready.
    pub fn start_rest(&mut self) {
        for name in PROCESSES {
            if !self.running.contains_key(name) {
                self.start_one(name);
            }
        }
        for name in PROCESSES.into_iter().filter(|name| self.answers(name)) {
            self.of(name).wait_until("it is ready", || self.of(name).is_ready());
        }
    }

    /// Whether a process has a REST interface.
    fn answers(&self, name: &str) -> bool {
        !name.starts_with("scheduler") && !name.starts_with("executor")
    }

    fn address(&self, name: &str) -> String {
        format!("127.0.0.1:{}", self.ports[name])
    }

    /// Starts one, where it was before.
    pub fn start_one(&mut self, name: &'static str) {
        let mut start = command();
        let (role, _) = name.split_once('-').unwrap_or((name, ""));
        let (address, scheduler) = (self.address(name), format!("http://{}", self.address("scheduler")));
        match role {
            _ if name == INTRUDER => start.args([
                "stream",
                "--partitions",
                "0-3",
                "--without-leases",
                "--listen",
                &address,
                "--stream-listen",
                "127.0.0.1:0",
            ]),
            "scheduler" => start.args(["cluster", role, "--cluster-listen", &address]),
            "executor" => start.args(["cluster", role, "--cluster-listen", &address, "--scheduler", &scheduler]),
            "stream" => {
                start.args([role, "--listen", &address, "--stream-listen", "127.0.0.1:0", "--stream-seal-every", "1s"])
            }
            "serve" => start.args([
                role,
                "--listen",
                &address,
                "--batch-engine",
                "ballista",
                "--batch-scheduler-wait",
                "45s",
                // So little that a date of these tests is no small one.
                "--batch-memory",
                "256MiB",
                "--batch-scheduler",
                &scheduler,
            ]),
            _ => start.args([role, "--listen", &address]),
        };
        start.arg("--log-url").arg(format!("fluvio://{}/events", self.log.address()));
        shared_at(&mut start, self.dir.path(), name);
        let said = File::options().create(true).append(true).open(self.said_at(name)).unwrap();
        start.stderr(said);
        let server = Server::of(start, self.dir.path());
        self.running.insert(name, server);
    }

    fn said_at(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    /// What a process has said of itself so far, over all its lives.
    pub fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.said_at(name)).unwrap()
    }

    /// A process.
    pub fn of(&self, name: &str) -> &Server {
        &self.running[name]
    }

    /// Kills one as a power cut would.
    pub fn kill(&mut self, name: &str) {
        self.running.remove(name).unwrap().kill();
    }

    /// Tells a command where the data of all of them is.
    pub fn data_of<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        shared_at(command, self.dir.path(), "by-hand")
    }

    /// A folder of that data.
    pub fn store(&self, folder: &str) -> Arc<dyn ObjectStore> {
        shared_store(self.dir.path(), folder)
    }

    /// Where events are sent.
    pub fn gateways(&self) -> String {
        format!("http://{},http://{}", self.address("gateway-1"), self.address("gateway-2"))
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in self.running.keys() {
                println!("--- {name}\n{}", self.said(name));
            }
        }
    }
}
