//! Bits that flip on its disk while the server is down.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::server::{ADVICE, Server};

/// How long it goes on with what has flipped before all is counted anew.
const WHILE: std::time::Duration = std::time::Duration::from_secs(3);
/// So often what is damaged is given up after one flip.
const GIVEN_UP_MAX: usize = 5;
/// What it says of a record that the tables have nothing of.
const CUT: &str = "it was a cut";
/// Of so many flips one is in the log.
const LOG_EVERY: u32 = 4;
/// Of the newest files so many are in question.
const NEWEST: usize = 4;
/// Every column of the raw events.
const EVERYTHING: &str = "select max(event_id), max(event_type), max(entity_id), max(event_time), max(user_id), max(ip), \
    max(country), sum(value), max(properties), max(key_hash), max(received_at), max(log_partition), max(log_offset), \
    max(log_index) from events";
const TABLES: [&str; 3] = ["events", "stream_counts", "batch_counts"];

/// What has flipped, and what was noticed.
#[derive(Debug, Default)]
pub struct Flipped {
    /// Bits in files of tables.
    pub tables: u32,
    /// Bits in records of the log.
    pub log: u32,
    /// Records of the log that had to be given up: cuts, for the tables have all others.
    pub given_up: u32,
    /// Files and records that the server has named, as far as they were still damaged when it was asked.
    pub named: usize,
}

/// Flips `times` bits, one after the other: each time the server is killed, and later all is counted anew. Before a bit of
/// the log flips the server is stopped in order, so that the log is not the only copy.
///
/// # Errors
/// When the server does not come through it.
pub async fn flip(server: &mut Server, dir: &Path, times: u32, seed: u64) -> Result<Flipped> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut flipped = Flipped::default();
    for number in 1..=times {
        let is_log = number.is_multiple_of(LOG_EVERY);
        let folder = if is_log {
            server.stop()?;
            dir.join("log")
        } else {
            server.kill()?;
            dir.join("tables").join(TABLES[rng.random_range(0..TABLES.len())])
        };
        let mut files = Vec::new();
        find(&folder, &mut files)?;
        files.retain(|file| if is_log { is_blob(file) } else { is_data(file) });
        // What is newest is in use; the rest may be waiting for its end.
        files.sort_by_key(|file| std::cmp::Reverse(fs::metadata(file).and_then(|about| about.modified()).ok()));
        files.truncate(NEWEST);
        // A log whose records all lie in its journal has none.
        if !files.is_empty() {
            flip_in(&files[rng.random_range(0..files.len())], &mut rng)?;
            *(if is_log { &mut flipped.log } else { &mut flipped.tables }) += 1;
        }
        server.start().await.with_context(|| format!("after a bit has flipped in {}", folder.display()))?;
        tokio::time::sleep(WHILE).await;
        // Somebody asks for all of it; that it is refused is right. What nobody reads is not mended, and a second flip
        // may then strike the other copy.
        for query in ["select max(entity_id), sum(count), sum(sum), max(minute) from stats", EVERYTHING] {
            let _ = server.sql(query).await;
        }
        flipped.named += damaged(server).await?.len();
        flipped.given_up += give_up(server).await?;
        server.recount().await?;
    }
    if flipped.tables == 0 {
        bail!("there was nothing in which a bit could flip");
    }
    if flipped.named == 0 {
        bail!("bits have flipped, and nobody has noticed");
    }
    Ok(flipped)
}

/// What the server has found damaged.
async fn damaged(server: &Server) -> Result<Vec<String>> {
    let readiness = server.readiness().await?;
    let damaged = readiness["damaged"].as_array().into_iter().flatten();
    Ok(damaged.filter_map(|text| text.as_str().map(str::to_owned)).collect())
}

/// Does for records that cannot be read what the server says is to be done; how many.
async fn give_up(server: &mut Server) -> Result<u32> {
    let (mut given_up, mut rounds) = (0, 0);
    loop {
        let lost: Vec<String> = damaged(server).await?.into_iter().filter(|text| text.contains(ADVICE)).collect();
        if lost.is_empty() {
            return Ok(given_up);
        }
        if rounds == GIVEN_UP_MAX {
            bail!("however much is given up, something is damaged still: {lost:?}");
        }
        rounds += 1;
        server.stop()?;
        for text in &lost {
            // What was archived is made anew, and stopping in order archives nearly all.
            if !text.contains(CUT) {
                bail!("it is no cut: {text}");
            }
            let after = |name: &str| text.split(name).nth(1)?.split(|c: char| !c.is_ascii_digit()).next();
            let place = after("partition ").zip(after("offset "));
            let (partition, offset) = place.with_context(|| format!("no place in {text:?}"))?;
            server.set_aside(partition, offset)?;
            given_up += 1;
        }
        server.start().await?;
        tokio::time::sleep(WHILE).await;
    }
}

fn flip_in(file: &Path, rng: &mut StdRng) -> Result<()> {
    let mut bytes = fs::read(file)?;
    let at = rng.random_range(0..bytes.len().max(1));
    let byte = bytes.get_mut(at).with_context(|| format!("{} is empty", file.display()))?;
    *byte ^= 1 << rng.random_range(0..8);
    fs::write(file, bytes)?;
    Ok(())
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { find(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

fn is_data(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "parquet")
        && file.components().all(|part| part.as_os_str() != "_delta_log")
}

/// Records that have left the journal.
fn is_blob(file: &Path) -> bool {
    file.parent().is_some_and(|folder| folder.ends_with("blobs"))
}
