//! A Fluvio cluster of one broker, started by the program that `RECKON_TEST_FLUVIO_RUN` names (`fluvio-run`).

use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fluvio::metadata::customspu::CustomSpuSpec;
use fluvio::metadata::spu::SpuSpec;
use fluvio::metadata::topic::{TopicSpec, TopicStorageConfig};
use fluvio::{FluvioAdmin, FluvioClusterConfig};

use super::server::RUNTIME;

const BROKER: i32 = 5001;
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A cluster; it ends when it is dropped.
pub struct Cluster {
    program: String,
    dir: tempfile::TempDir,
    /// Of the controller, for clients and for brokers, and of the broker, for both.
    ports: [u16; 4],
    controller: Child,
    broker: Child,
}

impl Cluster {
    /// Starts one; none, and a line that says so, when nobody says which program does it.
    pub fn start(test: &str) -> Option<Self> {
        let Ok(program) = std::env::var("RECKON_TEST_FLUVIO_RUN") else {
            println!("skipped: {test} starts a Fluvio cluster, and RECKON_TEST_FLUVIO_RUN names no fluvio-run");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        // All at once, so that no two are the same.
        let free = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = free.each_ref().map(|free| free.local_addr().unwrap().port());
        drop(free);
        let controller = run(&program, dir.path(), "controller", &controller_arguments(dir.path(), ports));
        let register = || RUNTIME.block_on(register(ports));
        wait("the controller takes the broker", || register().is_ok());
        let broker = run(&program, dir.path(), "broker", &broker_arguments(dir.path(), ports));
        let cluster = Self { program, dir, ports, controller, broker };
        wait("the broker listens", || cluster.is_up());
        Some(cluster)
    }

    /// Where it is, as `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// The log that one of its topics is.
    pub fn url(&self, topic: &str) -> String {
        format!("fluvio://{}/{topic}", self.address())
    }

    /// Makes a topic that begins a new file of records where one would have more than so many bytes.
    pub fn make_topic(&self, topic: &str, partitions: u32, file_bytes: u32) {
        let mut spec = TopicSpec::new_computed(partitions, 1, None);
        spec.set_storage(TopicStorageConfig { segment_size: Some(file_bytes), max_partition_size: None });
        let config = FluvioClusterConfig::new(self.address());
        RUNTIME.block_on(async {
            let admin = FluvioAdmin::connect_with_config(&config).await.unwrap();
            admin.create(topic.to_owned(), false, spec).await.unwrap();
        });
    }

    fn is_up(&self) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", self.ports[2])).is_ok()
    }

    /// Kills the broker as a power cut would.
    pub fn kill_broker(&mut self) {
        self.broker.kill().unwrap();
        self.broker.wait().unwrap();
    }

    /// Starts it again.
    pub fn start_broker(&mut self) {
        self.broker = run(&self.program, self.dir.path(), "broker", &broker_arguments(self.dir.path(), self.ports));
        wait("the broker listens", || self.is_up());
    }

    /// Removes the oldest file of records of each of these partitions, as retention would. The broker is killed for it,
    /// and started again.
    pub fn lose_oldest(&mut self, topic: &str, partitions: Range<u32>) {
        self.kill_broker();
        for partition in partitions {
            let folder = self.dir.path().join(format!("data/spu-logs-{BROKER}/{topic}-{partition}"));
            let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
            let mut files: Vec<PathBuf> =
                files.filter(|file| file.extension().is_some_and(|kind| kind == "log")).collect();
            // They are named by their first offsets, with zeros in front. The last one is being written.
            files.sort();
            assert!(files.len() > 1, "{} has no file of records to spare: {files:?}", folder.display());
            std::fs::remove_file(files[0].with_extension("index")).unwrap();
            std::fs::remove_file(&files[0]).unwrap();
        }
        self.start_broker();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in [&mut self.broker, &mut self.controller] {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn run(program: &str, dir: &Path, name: &str, arguments: &[String]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join(format!("{name}.log"))).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap_or_else(|error| panic!("{program} cannot be run: {error}"))
}

fn controller_arguments(dir: &Path, ports: [u16; 4]) -> Vec<String> {
    let metadata: PathBuf = dir.join("metadata");
    let at = |port: u16| format!("127.0.0.1:{port}");
    let texts =
        ["sc", "--local", metadata.to_str().unwrap(), "--bind-public", &at(ports[0]), "--bind-private", &at(ports[1])];
    texts.map(str::to_owned).to_vec()
}

fn broker_arguments(dir: &Path, ports: [u16; 4]) -> Vec<String> {
    let data: PathBuf = dir.join("data");
    let at = |port: u16| format!("127.0.0.1:{port}");
    let id = BROKER.to_string();
    let texts = [
        "spu",
        "-i",
        &id,
        "-p",
        &at(ports[2]),
        "-v",
        &at(ports[3]),
        "--sc-addr",
        &at(ports[1]),
        "--log-base-dir",
        data.to_str().unwrap(),
    ];
    texts.map(str::to_owned).to_vec()
}

async fn register(ports: [u16; 4]) -> Result<(), String> {
    let config = FluvioClusterConfig::new(format!("127.0.0.1:{}", ports[0]));
    let admin = FluvioAdmin::connect_with_config(&config).await.map_err(|error| error.to_string())?;
    let mut spec = SpuSpec::new_public_addr(BROKER, ports[2], "127.0.0.1".to_owned()).set_custom();
    spec.private_endpoint.port = ports[3];
    spec.private_endpoint.host = "127.0.0.1".to_owned();
    let spec = CustomSpuSpec::from(spec);
    admin.create(format!("custom-spu-{BROKER}"), false, spec).await.map_err(|error| error.to_string())
}

fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < WAIT_MAX, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
