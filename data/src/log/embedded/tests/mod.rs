//! Tests of the embedded log: the contract, and what only a log on a disk can suffer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damage;
mod kill;
mod opening;
mod space;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;

use super::super::conformance::{Kind, conformance};
use super::super::{Log, LogError};
use super::{EmbeddedLog, Options, Remains};
use crate::clock::RandomNames;

/// Small buffers, so that a short test sees files being written, and no reserve.
fn small(partitions: u32) -> Options {
    Options {
        partitions,
        memtable_bytes: 256 * 1024,
        write_buffer_bytes: 4 << 20,
        cache_bytes: 1 << 20,
        journal_bytes: 64 << 20,
        disk_reserve_bytes: 0,
        ..Options::default()
    }
}

fn open(dir: &Path, options: Options) -> Result<EmbeddedLog, LogError> {
    EmbeddedLog::open(dir, options, &RandomNames)
}

/// Bytes that follow from a number, and do not compress.
fn content(number: u64, bytes: usize) -> Bytes {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut record = number.to_le_bytes().to_vec();
    while record.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        record.extend_from_slice(&state.to_le_bytes());
    }
    record.truncate(bytes.max(8));
    Bytes::from(record)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_embedded_log_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        let opened = open(&dir.path().join(name), small(3)).map(|log| Arc::new(log) as Arc<dyn Log>);
        async move { opened }.boxed()
    };
    conformance(open, Kind::PLAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tiny_limits_only_slow_it_down() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        let tiny = Options {
            memtable_bytes: 8 * 1024,
            write_buffer_bytes: 32 * 1024,
            commit_bytes_max: 1000,
            commit_appends_max: 2,
            queue_bytes_max: 1,
            queue_appends_max: 1,
            ..small(2)
        };
        let opened = open(&dir.path().join(name), tiny).map(|log| Arc::new(log) as Arc<dyn Log>);
        async move { opened }.boxed()
    };
    conformance(open, Kind::PLAIN).await;
}
