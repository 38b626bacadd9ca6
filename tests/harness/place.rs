//! Where servers under test have their data: in a folder; or, when `RECKON_TEST_STORE` is `s3`, all but the log in a bucket of
//! an S3 endpoint that is started here. When `RECKON_TEST_FLUVIO` names a cluster and `RECKON_TEST_LOG` is `fluvio`, the log is a topic of it.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::prefix::PrefixStore;

const BUCKET: &str = "reckon";

/// Tells a command where its data is: in `dir`, or under its name elsewhere.
pub fn data_at<'a>(command: &'a mut Command, dir: &Path) -> &'a mut Command {
    if log_is("fluvio") {
        let cluster = std::env::var("RECKON_TEST_FLUVIO").expect("RECKON_TEST_FLUVIO names the cluster");
        command.arg("--log-url").arg(format!("fluvio://{cluster}/t-{}", name(dir)));
    }
    if !store_is("s3") {
        return command.arg("--data-dir").arg(dir);
    }
    command.arg("--data-dir").arg(format!("s3://{BUCKET}/{}", name(dir))).arg("--local-dir").arg(dir);
    with_endpoint(command)
}

/// Where older raw events of some data go, which has `dir` for it: a folder, or a path of the bucket.
pub fn cold_at(dir: &Path) -> String {
    if store_is("s3") { format!("s3://{BUCKET}/{}", name(dir)) } else { dir.display().to_string() }
}

/// Tells a process of a cluster where the data of all of them is: in the bucket, under the name of their common folder. Its own
/// folder is `dir/own`.
pub fn shared_at<'a>(command: &'a mut Command, dir: &Path, own: &str) -> &'a mut Command {
    command.arg("--data-dir").arg(format!("s3://{BUCKET}/{}", name(dir))).arg("--local-dir").arg(dir.join(own));
    with_endpoint(command)
}

/// A folder of that data.
pub fn shared_store(dir: &Path, folder: &str) -> Arc<dyn ObjectStore> {
    let bucket = AmazonS3Builder::new().with_endpoint(&ENDPOINT.url).with_allow_http(true).with_bucket_name(BUCKET);
    let bucket = bucket.with_access_key_id("test").with_secret_access_key("test").with_region("us-east-1");
    Arc::new(PrefixStore::new(bucket.build().unwrap(), format!("{}/{folder}", name(dir))))
}

/// Whether an S3 endpoint can be started.
pub fn has_endpoint(test: &str) -> bool {
    let there = Command::new(program()).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        println!("skipped: {test} needs an S3 endpoint, and RECKON_TEST_MOTO names no moto_server");
    }
    there
}

fn with_endpoint(command: &mut Command) -> &mut Command {
    command.env("AWS_ENDPOINT", &ENDPOINT.url).env("AWS_ALLOW_HTTP", "true").envs([
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
    ])
}

fn program() -> String {
    std::env::var("RECKON_TEST_MOTO").unwrap_or_else(|_| "moto_server".to_owned())
}

/// Whether tables and log lie in a folder of this machine; a test that looks into it says that it is skipped when not.
pub fn in_folder(test: &str) -> bool {
    let folder = !store_is("s3") && !log_is("fluvio");
    if !folder {
        println!("skipped: {test} looks into the folder of its data, which is elsewhere");
    }
    folder
}

fn store_is(kind: &str) -> bool {
    std::env::var("RECKON_TEST_STORE").is_ok_and(|set| set == kind)
}

fn log_is(kind: &str) -> bool {
    std::env::var("RECKON_TEST_LOG").is_ok_and(|set| set == kind)
}

/// A name for a folder's data that nobody else has.
fn name(dir: &Path) -> String {
    format!("{:016x}", BuildHasherDefault::<DefaultHasher>::default().hash_one((dir, std::process::id())))
}

/// An S3 endpoint that ends with this process.
struct Endpoint {
    url: String,
    /// It ends when its input is closed, however this process ends.
    _shell: Child,
}

static ENDPOINT: LazyLock<Endpoint> = LazyLock::new(Endpoint::start);

impl Endpoint {
    fn start() -> Self {
        let program = program();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // It ends with this process: when its input is closed.
        let script = "command -v \"$0\" > /dev/null || exit 1; \"$0\" -H 127.0.0.1 -p \"$1\" > /dev/null 2>&1 & server=$!; read -r _; kill $server";
        let mut shell: Child =
            Command::new("sh").args(["-c", script, &program, &port.to_string()]).stdin(Stdio::piped()).spawn().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let start = Instant::now();
        while !makes_bucket(&url) {
            let is_there = shell.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(60);
            assert!(is_there, "{program} does not answer: is moto[server] installed?");
            std::thread::sleep(Duration::from_millis(100));
        }
        Self { url, _shell: shell }
    }
}

fn makes_bucket(url: &str) -> bool {
    let request = reqwest::Client::new().put(format!("{url}/{BUCKET}"));
    let made = super::server::RUNTIME.block_on(request.send());
    made.is_ok_and(|answer| answer.status().is_success())
}
