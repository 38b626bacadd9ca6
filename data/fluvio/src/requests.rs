//! What is asked of a partition's leader: to append a batch, and for records from an offset on.

use std::time::Duration;

use bytes::Bytes;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::{RawRecords, RecordSet};
use fluvio_spu_schema::Isolation;
use fluvio_spu_schema::fetch::{FetchPartition, FetchRequest, FetchableTopic};
use fluvio_spu_schema::produce::{DefaultProduceRequest, PartitionProduceData, TopicProduceData};
use reckon_data::log::LogError;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::codec::{self, Answer};
use crate::ends::Extent;

/// How long a leader may wait until its followers have what is appended.
const COMMIT_MAX: Duration = Duration::from_secs(10);

/// What came of a fetch.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub answer: Answer,
    pub extent: Extent,
}

/// Appends a batch and returns the offset of its first record, once it is committed. After an error it may be there all the
/// same: a broker that does not lead the partition any more may say so after it has stored the batch.
pub(crate) async fn append(
    cluster: &Cluster,
    partition: u32,
    log: Option<Uuid>,
    records: &[Bytes],
    now: i64,
) -> Result<u64, LogError> {
    let answer = cluster.ask(partition, produce(cluster.topic(), partition, log, records, now)?).await?;
    let found = answer.find_partition_response(cluster.topic(), partition);
    let found = found.ok_or_else(|| LogError::Storage(format!("nothing was said of partition {partition}")))?;
    if found.error_code != ErrorCode::None {
        return Err(cluster.refused(partition, &found.error_code));
    }
    let offset = u64::try_from(found.base_offset);
    offset.map_err(|_| LogError::Storage(format!("records have offset {}", found.base_offset)))
}

fn produce(
    topic: &str,
    partition: u32,
    log: Option<Uuid>,
    records: &[Bytes],
    now: i64,
) -> Result<DefaultProduceRequest, LogError> {
    let batch = codec::batch(log, records, now).map_err(LogError::Storage)?;
    let records = RecordSet { batches: vec![batch] };
    let data = PartitionProduceData { partition_index: partition, records };
    let topic = TopicProduceData { name: topic.to_owned(), partitions: vec![data], ..TopicProduceData::default() };
    Ok(DefaultProduceRequest {
        isolation: Isolation::ReadCommitted,
        timeout: COMMIT_MAX,
        topics: vec![topic],
        ..DefaultProduceRequest::default()
    })
}

/// Asks for committed records from `from` on, `bytes` of them at the most. None when the leader says nothing of such
/// an offset: it is past its end, or was removed.
pub(crate) async fn fetch(
    cluster: &Cluster,
    partition: u32,
    from: u64,
    bytes: usize,
) -> Result<Option<Fetched>, LogError> {
    fetch_as(cluster, partition, from, bytes, Isolation::ReadCommitted).await
}

/// The same, of records that are not committed too where `isolation` says so.
pub(crate) async fn fetch_as(
    cluster: &Cluster,
    partition: u32,
    from: u64,
    bytes: usize,
    isolation: Isolation,
) -> Result<Option<Fetched>, LogError> {
    let out_of_range = || LogError::Storage(format!("offset {from} of partition {partition} is no offset"));
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    let wanted = FetchPartition {
        partition_index: partition,
        fetch_offset: i64::try_from(from).map_err(|_| out_of_range())?,
        max_bytes: bytes,
        ..FetchPartition::default()
    };
    let request = FetchRequest::<RecordSet<RawRecords>> {
        max_bytes: bytes,
        isolation_level: isolation,
        topics: vec![FetchableTopic { name: cluster.topic().to_owned(), fetch_partitions: vec![wanted] }],
        ..FetchRequest::default()
    };
    let answer = cluster.ask(partition, request).await?;
    let found = answer.find_partition(cluster.topic(), partition);
    let found = found.ok_or_else(|| LogError::Storage(format!("nothing was said of partition {partition}")))?;
    match &found.error_code {
        ErrorCode::None => {}
        ErrorCode::Other(_) | ErrorCode::OffsetOutOfRange | ErrorCode::OffsetEvicted { .. } => return Ok(None),
        code => return Err(cluster.refused(partition, code)),
    }
    let offset = |offset: i64| u64::try_from(offset).map_err(|_| out_of_range());
    let extent = Extent { start: offset(found.log_start_offset)?, end: offset(found.high_watermark)? };
    let corrupt = |reason| LogError::Corrupt { partition, offset: from, reason };
    let answer = codec::records(&found.records, from).map_err(corrupt)?;
    Ok(Some(Fetched { answer, extent }))
}
