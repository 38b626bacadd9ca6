//! The log's identity, and how a topic that was made anew is told from the one before.
//!
//! A topic has a name, and nothing that would change when it is deleted and made anew. So the first process that opens it
//! appends a cut to every partition, with the identity as its run, and writes identity and offsets of these cuts into
//! an object beside the tables, which can only be created. Who opens the topic later looks whether the cuts are still
//! where they were; as long as retention has left them there, that is a proof. And every record that is read has the
//! identity in its key (`codec`).

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use reckon_data::clock::{Clock, Names};
use reckon_data::log::LogError;
use reckon_data::record::{Body, decode, encode_cut};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::behind::catch_up;
use crate::cluster::Cluster;
use crate::ends::{Extent, extent};
use crate::requests::{append, fetch};

/// What is written down of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Birth {
    /// The format of this object.
    format: u32,
    pub identity: Uuid,
    topic: String,
    /// When it was made, microseconds since 1970. Stands in for the time of records that have none.
    pub made: i64,
    /// Where the log's first cut is, of each partition.
    cuts: Vec<u64>,
}

const FORMAT: u32 = 1;
/// Longest that such an object may be.
const BYTES_MAX: u64 = 64 * 1024;

/// Finds out which log the topic is, or makes it one.
pub(crate) async fn identify(
    cluster: &Cluster,
    store: &Arc<dyn ObjectStore>,
    partitions: u32,
    clock: &dyn Clock,
    names: &dyn Names,
) -> Result<Birth, LogError> {
    let path = Path::from(format!("{}.json", cluster.topic()));
    let birth = match read(store, &path).await? {
        Some(birth) => birth,
        None => make(cluster, store, &path, partitions, clock, names).await?,
    };
    if birth.cuts.len() != partitions as usize {
        return Err(LogError::Mismatch(format!(
            "topic {} has {partitions} partitions, and had {} when it became the log of these tables",
            cluster.topic(),
            birth.cuts.len()
        )));
    }
    for (partition, cut) in (0..).zip(&birth.cuts) {
        catch_up(cluster, partition, clock).await?;
        verify(cluster, partition, *cut, birth.identity).await?;
    }
    Ok(birth)
}

async fn read(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Option<Birth>, LogError> {
    let object = match store.get(path).await {
        Ok(object) if object.meta.size > BYTES_MAX => {
            return Err(LogError::Mismatch(format!("{path} is not what was written there")));
        }
        Ok(object) => object,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(LogError::Storage(format!("{path} cannot be read: {error}"))),
    };
    let bytes = object.bytes().await.map_err(|error| LogError::Storage(format!("{path} cannot be read: {error}")))?;
    let birth: Birth = serde_json::from_slice(&bytes)
        .map_err(|error| LogError::Mismatch(format!("{path} cannot be read: {error}")))?;
    if birth.format != FORMAT {
        return Err(LogError::Mismatch(format!("{path} has format {}: a newer version wrote it", birth.format)));
    }
    Ok(Some(birth))
}

/// Makes the topic a log. Of several who do so at once, the one whose object is there first has made it; the cuts of the
/// others harm nothing.
async fn make(
    cluster: &Cluster,
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    partitions: u32,
    clock: &dyn Clock,
    names: &dyn Names,
) -> Result<Birth, LogError> {
    for partition in 0..partitions {
        is_nobodys(cluster, partition).await?;
    }
    let identity = names.fresh();
    let cut = encode_cut(identity, 0, clock.now());
    let mut cuts = Vec::with_capacity(partitions as usize);
    for partition in 0..partitions {
        cuts.push(append(cluster, partition, None, std::slice::from_ref(&cut), clock.now()).await?);
    }
    let birth = Birth { format: FORMAT, identity, topic: cluster.topic().to_owned(), made: clock.now(), cuts };
    let text = serde_json::to_vec_pretty(&birth).map_err(|error| LogError::Storage(error.to_string()))?;
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match store.put_opts(path, Bytes::from(text).into(), options).await {
        Ok(_) => {
            tracing::info!(topic = cluster.topic(), %identity, "the topic is a log now");
            Ok(birth)
        }
        Err(error) => match read(store, path).await? {
            Some(other) => Ok(other),
            None => Err(LogError::Storage(format!("{path} cannot be written: {error}"))),
        },
    }
}

/// Whether no other tables have a topic for their log: records of two logs would stop both.
async fn is_nobodys(cluster: &Cluster, partition: u32) -> Result<(), LogError> {
    let Extent { start, end } = extent(cluster, partition).await?;
    for offset in [start, end.saturating_sub(1)].into_iter().filter(|offset| (start..end).contains(offset)) {
        let found = fetch(cluster, partition, offset, 2 << 20).await?;
        if let Some(log) = found.and_then(|found| found.answer.records.first()?.log) {
            return Err(LogError::Mismatch(format!(
                "topic {} is the log of other tables ({log}): give these another topic with --log-url",
                cluster.topic()
            )));
        }
    }
    Ok(())
}

/// Whether the log's first cut is where it was put, unless retention has removed it.
async fn verify(cluster: &Cluster, partition: u32, cut: u64, identity: Uuid) -> Result<(), LogError> {
    let Extent { start, end } = extent(cluster, partition).await?;
    if start > cut {
        return Ok(());
    }
    if end <= cut {
        return Err(made_anew(
            cluster.topic(),
            partition,
            &format!("it ends at {end}, before the log's first cut at {cut}"),
        ));
    }
    let found = fetch(cluster, partition, cut, 1 << 20).await?;
    let first = found.and_then(|found| Some(decode(&found.answer.records.first()?.value)));
    match first {
        Some(Ok(record)) if matches!(record.body, Body::Cut(run) if run == identity) => Ok(()),
        _ => Err(made_anew(cluster.topic(), partition, &format!("the log's first cut is not at {cut}"))),
    }
}

/// The topic is not the log that it was.
pub(crate) fn made_anew(topic: &str, partition: u32, why: &str) -> LogError {
    LogError::Mismatch(format!(
        "topic {topic} is not the log that these tables were made from (partition {partition}: {why}): it was deleted and made \
         anew, or is another cluster's. Nothing goes on with it: give these tables their log again"
    ))
}
