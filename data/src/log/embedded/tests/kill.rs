//! what was acknowledged is there after kill -9, at whatever moment.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::{EmbeddedLog, Log, content, open, small};

const DIR: &str = "RECKON_TEST_LOG_DIR";
const ROUND: &str = "RECKON_TEST_LOG_ROUND";
const PARTITIONS: u32 = 2;

fn bytes_of(number: u64) -> usize {
    8 + (number as usize * 7919) % 60_000
}

/// Not a test of its own: the process that gets killed. It appends and says what was acknowledged.
#[test]
fn victim() {
    let (Ok(dir), Ok(round)) = (std::env::var(DIR), std::env::var(ROUND)) else { return };
    let round: u64 = round.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let log = Arc::new(open(Path::new(&dir), small(PARTITIONS)).unwrap());
        let tasks: Vec<_> = (0..4).map(|task| tokio::spawn(keep_appending(Arc::clone(&log), round, task))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn keep_appending(log: Arc<EmbeddedLog>, round: u64, task: u64) {
    for nth in 0u64.. {
        let number = round << 40 | task << 32 | nth << 2;
        let partition = (task % u64::from(PARTITIONS)) as u32;
        let numbers: Vec<_> = (0..=nth % 3).map(|i| number + i).collect();
        let records = numbers.iter().map(|n| content(*n, bytes_of(*n))).collect();
        let offsets = log.append(partition, records).await.unwrap();
        let said: String =
            offsets.zip(&numbers).map(|(offset, number)| format!("ack {partition} {offset} {number}\n")).collect();
        say(&said);
        if task == 0 && nth % 16 == 15 {
            let extent = log.extent(partition).await.unwrap();
            log.trim(partition, extent.end.saturating_sub(40)).await.unwrap();
        }
    }
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(what.as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Runs the victim for a while, kills it, and returns (partition, offset) → number for what it acknowledged.
fn run_and_kill(dir: &Path, round: u64) -> BTreeMap<(u32, u64), u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "log::embedded::tests::kill::victim", "--nocapture", "--test-threads=1"])
        .envs([(DIR, dir.as_os_str()), (ROUND, round.to_string().as_ref())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut acknowledged = BTreeMap::new();
        for line in out.lines().map_while(Result::ok) {
            // The last line may be cut; the test runner prints lines of its own.
            let words: Vec<_> = line.split(' ').collect();
            let ["ack", partition, offset, number] = words[..] else { continue };
            let place = (partition.parse().unwrap(), offset.parse().unwrap());
            assert_eq!(acknowledged.insert(place, number.parse::<u64>().unwrap()), None, "an offset was given twice");
        }
        acknowledged
    });
    std::thread::sleep(Duration::from_millis(150 + 83 * round));
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = BTreeMap::new();
    let mut identity = None;
    for round in 0..6 {
        let acknowledged = run_and_kill(dir.path(), round);
        for (place, number) in acknowledged {
            assert_eq!(all.insert(place, number), None, "an acknowledged offset was given again");
        }
        let log = open(dir.path(), small(PARTITIONS)).unwrap();
        assert_eq!(*identity.get_or_insert(log.identity()), log.identity());
        for partition in 0..PARTITIONS {
            check(&log, partition, &all).await;
        }
    }
    assert!(all.len() > 100, "the victim got something done: {}", all.len());
}

/// Every record of the log is whole, and those that were acknowledged are the right ones.
async fn check(log: &EmbeddedLog, partition: u32, all: &BTreeMap<(u32, u64), u64>) {
    let extent = log.extent(partition).await.unwrap();
    let mut next = extent.start;
    while next < extent.end {
        for stored in log.read(partition, next, 1 << 20).await.unwrap() {
            assert_eq!(stored.offset, next);
            let number = u64::from_le_bytes(*stored.bytes.first_chunk().unwrap());
            assert_eq!(stored.bytes, content(number, bytes_of(number)));
            if let Some(expected) = all.get(&(partition, next)) {
                assert_eq!(number, *expected, "partition {partition}, offset {next}");
            }
            next += 1;
        }
    }
    let last = all.range((partition, 0)..=(partition, u64::MAX)).next_back();
    assert!(
        last.is_none_or(|((_, offset), _)| *offset < extent.end),
        "{last:?} was acknowledged, the end is {extent:?}"
    );
}
