//! Where the serving layer stands, for health checks and dashboards.

use serde::Serialize;
use utoipa::ToSchema;

use super::Serving;
use crate::times::as_time_or_null;
use crate::view::watermark::watermark;

/// Where the serving layer stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ServingStatus)]
pub struct Status {
    /// Whether every partition's counter answers.
    pub ready: bool,
    /// The version of `batch_counts`.
    pub batch_version: u64,
    /// The definition version in force, in hexadecimal.
    pub definition: String,
    /// Minutes before it are settled, microseconds; none when some counter does not say where it stands.
    #[serde(serialize_with = "as_time_or_null")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub watermark: Option<i64>,
    /// Every log partition.
    pub partitions: Vec<PartitionStatus>,
    /// Why records of entities are not, or not as new as they could be; none when nothing is in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entities_trouble: Option<String>,
}

/// Where one partition stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: u32,
    /// Batch has counted everything below.
    pub coverage: u64,
    /// The stream has counted everything below.
    pub position: Option<u64>,
    /// The stream has sealed everything below.
    pub sealed: Option<u64>,
    /// The log's durable end as last seen.
    pub durable_end: Option<u64>,
    /// Why the counter does not answer.
    pub trouble: Option<String>,
}

impl Status {
    /// Which partitions' counters do not answer, and why.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let named = |status: &PartitionStatus| {
            status.trouble.as_ref().map(|trouble| format!("partition {}: {trouble}", status.partition))
        };
        self.partitions.iter().filter_map(named).collect()
    }
}

impl Serving {
    /// Where everything stands; asks nothing of the tables.
    #[must_use]
    pub fn status(&self) -> Status {
        let view = self.current.get();
        let (asked, mut positions) = (self.parts.clock.now(), Vec::new());
        let all = (0_u32..).zip(&view.coverage);
        let partitions: Vec<PartitionStatus> = all
            .map(|(partition, &coverage)| {
                let bare = PartitionStatus {
                    partition,
                    coverage,
                    position: None,
                    sealed: None,
                    durable_end: None,
                    trouble: None,
                };
                match self.parts.tails.position(partition) {
                    Ok(at) => {
                        positions.push(at);
                        let (position, sealed, durable_end) = (Some(at.offset), Some(at.sealed), Some(at.durable_end));
                        PartitionStatus { position, sealed, durable_end, ..bare }
                    }
                    Err(error) => PartitionStatus { trouble: Some(error.to_string()), ..bare },
                }
            })
            .collect();
        let ready = positions.len() == partitions.len();
        Status {
            ready,
            batch_version: view.version,
            definition: format!("{:016x}", self.parts.definition.version()),
            watermark: ready.then(|| watermark(&positions, asked, self.patience())),
            partitions,
            entities_trouble: self.entities().and_then(|entities| entities.trouble()).map(|error| error.to_string()),
        }
    }
}
