//! The partitions' ends as they move.

use std::sync::{Arc, Weak};
use std::time::Duration;

use fluvio_protocol::link::ErrorCode;
use fluvio_spu_schema::server::fetch_offset::{FetchOffsetPartition, FetchOffsetTopic, FetchOffsetsRequest};
use futures::future::join_all;
use parking_lot::Mutex;
use reckon_data::clock::Clock;
use reckon_data::log::LogError;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::behind::catch_up;
use crate::cluster::Cluster;

/// How often the ends are asked for while somebody watches them.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long to wait after a failure, at most.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A leader that was just chosen, or has just started, may know less of what was committed than the one before. When it
/// knows less for longer, the records are gone.
const SHORT_MAX: Duration = Duration::from_secs(60);

/// Where a partition begins and ends, as its leader says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub start: u64,
    pub end: u64,
}

/// The ends that are known. They never go back.
#[derive(Debug)]
pub(crate) struct Ends {
    partitions: Vec<Partition>,
    watched: Notify,
}

#[derive(Debug)]
struct Partition {
    end: watch::Sender<u64>,
    /// Since when the leader has said less than that.
    short_since: Mutex<Option<Instant>>,
}

impl Ends {
    pub fn new(extents: &[Extent]) -> Self {
        let partition =
            |extent: &Extent| Partition { end: watch::Sender::new(extent.end), short_since: Mutex::new(None) };
        Self { partitions: extents.iter().map(partition).collect(), watched: Notify::new() }
    }

    pub fn count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    fn partition(&self, partition: u32) -> Result<&Partition, LogError> {
        self.partitions.get(partition as usize).ok_or(LogError::UnknownPartition { partition })
    }

    pub fn known(&self, partition: u32) -> Result<u64, LogError> {
        Ok(*self.partition(partition)?.end.borrow())
    }

    pub fn watch(&self, partition: u32) -> Result<watch::Receiver<u64>, LogError> {
        let receiver = self.partition(partition)?.end.subscribe();
        self.watched.notify_one();
        Ok(receiver)
    }

    /// Takes what a leader says who was asked when `before` was known, and returns the end that is known now: others may have
    /// learned more meanwhile.
    ///
    /// # Errors
    /// [`LogError::Storage`] when it says less than was known when it was asked; [`LogError::Mismatch`] when it does so for
    /// long.
    pub fn heard(&self, partition: u32, before: u64, end: u64) -> Result<u64, LogError> {
        let Partition { end: known, short_since } = self.partition(partition)?;
        if end >= before {
            *short_since.lock() = None;
            known.send_if_modified(|known| end > *known && std::mem::replace(known, end) != end);
            return Ok(*known.borrow());
        }
        let since = *short_since.lock().get_or_insert_with(Instant::now);
        if since.elapsed() < SHORT_MAX {
            let text = format!("partition {partition}: its leader knows records up to {end}, and there were {before}");
            return Err(LogError::Storage(text));
        }
        Err(LogError::Mismatch(format!(
            "partition {partition} of the topic ends at {end} now, and {before} records of it were committed: was the topic \
             deleted and made anew, or restored from an older copy?"
        )))
    }

    /// Takes an end that an append has made: somebody else may have gone further.
    pub fn raise(&self, partition: u32, end: u64) {
        if let Ok(Partition { end: known, .. }) = self.partition(partition) {
            known.send_if_modified(|known| end > *known && std::mem::replace(known, end) != end);
        }
    }

    fn is_watched(&self) -> bool {
        self.partitions.iter().any(|partition| partition.end.receiver_count() > 0)
    }
}

/// Where partitions begin and end, all led by one broker.
pub(crate) async fn extents(cluster: &Cluster, partitions: &[u32]) -> Result<Vec<(u32, Extent)>, LogError> {
    let Some(first) = partitions.first() else { return Ok(Vec::new()) };
    let wanted = partitions.iter().map(|partition| FetchOffsetPartition { partition_index: *partition }).collect();
    let topic = FetchOffsetTopic { name: cluster.topic().to_owned(), partitions: wanted };
    let request = FetchOffsetsRequest { topics: vec![topic], ..FetchOffsetsRequest::default() };
    let answer = cluster.ask(*first, request).await?;
    let found =
        answer.topics.into_iter().filter(|topic| topic.name == cluster.topic()).flat_map(|topic| topic.partitions);
    let mut extents = Vec::with_capacity(partitions.len());
    for partition in found {
        let number = partition.partition_index;
        if partition.error_code != ErrorCode::None {
            return Err(cluster.refused(number, &partition.error_code));
        }
        let offset = |offset: i64| {
            u64::try_from(offset).map_err(|_| LogError::Storage(format!("partition {number} has offset {offset}")))
        };
        extents.push((
            number,
            Extent { start: offset(partition.start_offset)?, end: offset(partition.last_stable_offset)? },
        ));
    }
    Ok(extents)
}

/// Where one partition begins and ends.
pub(crate) async fn extent(cluster: &Cluster, partition: u32) -> Result<Extent, LogError> {
    let found = extents(cluster, &[partition]).await?;
    let found = found.into_iter().find(|(number, _)| *number == partition);
    found.map(|(_, extent)| extent).ok_or(LogError::UnknownPartition { partition })
}

/// Asks for the ends while somebody watches, until the log is gone.
pub(crate) async fn follow(cluster: Arc<Cluster>, ends: Weak<Ends>, clock: Arc<dyn Clock>) {
    let mut pause = ASK_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let Some(ends) = ends.upgrade() else { return };
        if !ends.is_watched() {
            // Not for ever: the log may be dropped meanwhile.
            tokio::time::timeout(PAUSE_MAX, ends.watched.notified()).await.ok();
            continue;
        }
        pause = match ask(&cluster, &ends, &*clock).await {
            Ok(()) => ASK_EVERY,
            Err(error) => {
                if pause == ASK_EVERY {
                    tracing::warn!(%error, "the ends of the log are asked for again");
                }
                (pause * 2).min(PAUSE_MAX)
            }
        };
    }
}

async fn ask(cluster: &Cluster, ends: &Ends, clock: &dyn Clock) -> Result<(), LogError> {
    let groups = cluster.by_leader().await?;
    let led: usize = groups.iter().map(Vec::len).sum();
    let asked = join_all(groups.iter().map(|partitions| ask_leader(cluster, ends, partitions, clock))).await;
    asked.into_iter().collect::<Result<(), LogError>>()?;
    match ends.partitions.len() - led.min(ends.partitions.len()) {
        0 => Ok(()),
        without => Err(LogError::Storage(format!("{without} partitions have no leader"))),
    }
}

/// Asks for the ends of partitions that one broker leads.
async fn ask_leader(cluster: &Cluster, ends: &Ends, partitions: &[u32], clock: &dyn Clock) -> Result<(), LogError> {
    let before: Vec<u64> = partitions.iter().map(|partition| ends.known(*partition).unwrap_or(0)).collect();
    for (partition, extent) in extents(cluster, partitions).await? {
        let at = partitions.iter().position(|asked| *asked == partition);
        let heard = ends.heard(partition, at.and_then(|at| before.get(at)).copied().unwrap_or(0), extent.end);
        if let Err(error) = heard {
            catch_up(cluster, partition, clock).await?;
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ends_never_go_back_and_a_leader_that_lost_records_is_found_out() {
        let ends = Ends::new(&[Extent { start: 0, end: 5 }]);
        let watch = ends.watch(0).unwrap();
        assert_eq!(ends.heard(0, 5, 7).unwrap(), 7);
        assert_eq!(ends.heard(0, 5, 6).unwrap(), 7, "an answer from before");
        assert!(matches!(ends.heard(0, 7, 6), Err(LogError::Storage(_))));
        assert_eq!((*watch.borrow(), ends.known(0).unwrap()), (7, 7));
        tokio::time::advance(SHORT_MAX).await;
        assert!(matches!(ends.heard(0, 7, 6), Err(LogError::Mismatch(_))));
        assert_eq!(ends.heard(0, 7, 8).unwrap(), 8);
        assert!(matches!(ends.heard(0, 8, 7), Err(LogError::Storage(_))), "patience begins anew");
        assert!(matches!(ends.heard(1, 0, 7), Err(LogError::UnknownPartition { partition: 1 })));
    }
}
