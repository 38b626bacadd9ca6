//! The trait.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStore;
use reckon_data::clock::{Clock, Names};
use reckon_data::foreign::Foreign;
use reckon_data::log::{Log, LogCounter, LogError, Stored, check_sizes};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::address::Address;
use crate::birth;
use crate::cluster::Cluster;
use crate::codec::Fetched;
use crate::ends::{self, Ends, Extent};
use crate::requests::{append, fetch};

/// Least and most bytes that are asked for at once. The most has room for any record.
const FETCH_MIN: usize = 256 * 1024;
const FETCH_MAX: usize = 32 * 1024 * 1024;
/// How long Fluvio keeps records at least, unless the topic was made by somebody else.
const KEEP_MIN: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How long a cluster that does not answer is waited for when a log is opened, and how often it is asked.
const OPEN_MAX: Duration = Duration::from_secs(30);
const OPEN_AGAIN: Duration = Duration::from_millis(500);

/// How a log is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which topic of which cluster.
    pub address: Address,
    /// Partitions that it has, or is made with.
    pub partitions: u32,
    /// Copies of each partition that the topic is made with, on as many brokers.
    pub replicas: u32,
    /// Records are kept at least this long, and a week.
    pub keep: Duration,
    /// Whether records of other producers are read as the JSON of one event; otherwise they are taken as they are.
    pub foreign: bool,
}

/// A topic as a log. Trimming is left to the topic's retention.
pub struct FluvioLog {
    cluster: Arc<Cluster>,
    ends: Arc<Ends>,
    identity: Uuid,
    clock: Arc<dyn Clock>,
    foreign: Option<Foreign>,
    /// Why nothing goes on.
    gone: OnceLock<String>,
    reads: AtomicU64,
    cut_reads: AtomicU64,
}

impl FluvioLog {
    /// Opens a topic, or makes it. `store` is where it is written down which log the topic is. A broker that does not lead its
    /// partitions yet, because the topic was just made or it was just started, is waited for.
    ///
    /// # Errors
    /// [`LogError::Mismatch`] when the topic has another number of partitions, or was made anew;
    /// [`LogError::Storage`] when cluster or store cannot be reached for [`OPEN_MAX`].
    pub async fn open(
        options: Options,
        store: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        names: &dyn Names,
    ) -> Result<Self, LogError> {
        let begun = Instant::now();
        loop {
            match Self::try_open(options.clone(), Arc::clone(&store), Arc::clone(&clock), names).await {
                Err(LogError::Storage(error)) if begun.elapsed() < OPEN_MAX => {
                    tracing::warn!(error, "the log is opened again");
                    tokio::time::sleep(OPEN_AGAIN).await;
                }
                opened => return opened,
            }
        }
    }

    async fn try_open(
        options: Options,
        store: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        names: &dyn Names,
    ) -> Result<Self, LogError> {
        let Address { topic, cluster } = options.address;
        let cluster = Arc::new(Cluster::new(cluster, topic));
        let found = cluster.ensure_topic(options.partitions, options.replicas, options.keep.max(KEEP_MIN)).await?;
        if found != options.partitions {
            return Err(LogError::Mismatch(format!(
                "topic {} has {found} partitions, and log.partitions is {}",
                cluster.topic(),
                options.partitions
            )));
        }
        let birth = birth::identify(&cluster, &store, found, clock.as_ref(), names).await?;
        let identity = birth.identity;
        let mut extents = Vec::with_capacity(found as usize);
        for partition in 0..found {
            extents.push(ends::extent(&cluster, partition).await?);
        }
        let ends = Arc::new(Ends::new(&extents));
        tokio::spawn(ends::follow(Arc::clone(&cluster), Arc::downgrade(&ends), Arc::clone(&clock)));
        let foreign = options.foreign.then_some(Foreign { began: birth.made });
        let (gone, reads, cut_reads) = (OnceLock::new(), AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { cluster, ends, identity, clock, foreign, gone, reads, cut_reads })
    }

    /// Nothing goes on with a topic that is not the log any more.
    fn check(&self) -> Result<(), LogError> {
        match self.gone.get() {
            Some(why) => Err(LogError::Mismatch(why.clone())),
            None => Ok(()),
        }
    }

    /// Remembers that the topic is not the log any more.
    fn is_gone(&self, error: LogError) -> LogError {
        self.gone.get_or_init(|| error.to_string());
        error
    }

    /// What a leader says that ends at `end`, asked when `before` was known; the end that is known now.
    fn heard(&self, partition: u32, before: u64, end: u64) -> Result<u64, LogError> {
        self.ends.heard(partition, before, end).map_err(|error| match error {
            gone @ LogError::Mismatch(_) => self.is_gone(gone),
            other => other,
        })
    }

    /// What the end of an answer says: there is nothing at `from`, or why nothing of it came.
    async fn nothing_at(&self, partition: u32, from: u64) -> Result<Vec<Stored>, LogError> {
        let before = self.ends.known(partition)?;
        let Extent { start, end } = ends::extent(&self.cluster, partition).await?;
        let end = self.heard(partition, before, end)?;
        match from {
            _ if from < start => Err(LogError::Trimmed { partition, offset: from, start }),
            _ if from > end => Err(LogError::PastEnd { partition, offset: from, end }),
            _ if from == end => Ok(Vec::new()),
            _ => {
                Err(LogError::Storage(format!("the leader of partition {partition} has nothing from offset {from} on")))
            }
        }
    }

    /// As many of the records as fit into `max_bytes`, one at least.
    fn take(&self, partition: u32, records: Vec<Fetched>, max_bytes: usize) -> Result<Vec<Stored>, LogError> {
        let mut taken = Vec::with_capacity(records.len());
        let mut room = max_bytes;
        for Fetched { offset, log, time, value } in records {
            if log.is_some_and(|log| log != self.identity) {
                let why = format!("the record at offset {offset} is another log's");
                return Err(self.is_gone(birth::made_anew(self.cluster.topic(), partition, &why)));
            }
            // What was fetched counts, not what becomes of it: otherwise most of an answer would be fetched again.
            let size = value.len();
            let bytes = match &self.foreign {
                Some(foreign) if log.is_none() => foreign.record(partition, offset, &value, time),
                _ => value,
            };
            if !taken.is_empty() && (room == 0 || size > room) {
                break;
            }
            room = room.saturating_sub(size);
            taken.push(Stored { offset, bytes });
        }
        Ok(taken)
    }
}

#[async_trait]
impl Log for FluvioLog {
    fn partitions(&self) -> u32 {
        self.ends.count()
    }

    fn identity(&self) -> Uuid {
        self.identity
    }

    async fn append(&self, partition: u32, records: Vec<Bytes>) -> Result<Range<u64>, LogError> {
        self.check()?;
        let end = self.ends.known(partition)?;
        check_sizes(&records)?;
        if records.is_empty() {
            return Ok(end..end);
        }
        let start = append(&self.cluster, partition, Some(self.identity), &records, self.clock.now()).await?;
        if start < end {
            // What was committed before is not there any more: what was appended now would never be read.
            let why = format!("records were put at offset {start}, and {end} were there");
            return Err(self.is_gone(birth::made_anew(self.cluster.topic(), partition, &why)));
        }
        let end = start + records.len() as u64;
        self.ends.raise(partition, end);
        Ok(start..end)
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Stored>, LogError> {
        self.check()?;
        let mut bytes = max_bytes.clamp(FETCH_MIN, FETCH_MAX);
        loop {
            let before = self.ends.known(partition)?;
            let Some(fetched) = fetch(&self.cluster, partition, from, bytes).await? else {
                return self.nothing_at(partition, from).await;
            };
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.cut_reads.fetch_add(u64::from(fetched.answer.cut), Ordering::Relaxed);
            let Extent { start, end } = fetched.extent;
            let known = self.heard(partition, before, end)?;
            if from > known || from < start {
                return self.nothing_at(partition, from).await;
            }
            if from == known {
                return Ok(Vec::new());
            }
            if from >= end {
                // Others have learned of more since this was asked.
                continue;
            }
            let records: Vec<Fetched> =
                fetched.answer.records.into_iter().take_while(|record| record.offset < end).collect();
            if !records.is_empty() {
                return self.take(partition, records, max_bytes);
            }
            // Not even one record was whole.
            if bytes >= FETCH_MAX {
                let reason = format!("the leader sends no whole record, though there are some up to {end}");
                return Err(LogError::Corrupt { partition, offset: from, reason });
            }
            bytes = (bytes * 4).min(FETCH_MAX);
        }
    }

    async fn extent(&self, partition: u32) -> Result<Range<u64>, LogError> {
        let before = self.ends.known(partition)?;
        let Extent { start, end } = ends::extent(&self.cluster, partition).await?;
        Ok(start..self.heard(partition, before, end)?)
    }

    fn watch_end(&self, partition: u32) -> Result<watch::Receiver<u64>, LogError> {
        self.ends.watch(partition)
    }

    async fn trim(&self, partition: u32, below: u64) -> Result<(), LogError> {
        let end = self.ends.known(partition)?;
        if below > end {
            return Err(LogError::PastEnd { partition, offset: below, end });
        }
        Ok(())
    }

    fn trims(&self) -> bool {
        false
    }

    fn drops_by_itself(&self) -> bool {
        true
    }

    fn counters(&self) -> Vec<LogCounter> {
        let counter = |name, help, value| LogCounter { name, help, value };
        vec![
            counter("reckon_fluvio_reads_total", "Answers with records.", self.reads.load(Ordering::Relaxed)),
            counter(
                "reckon_fluvio_reads_cut_total",
                "Answers that ended within a batch, after which reading began anew there.",
                self.cut_reads.load(Ordering::Relaxed),
            ),
            counter("reckon_fluvio_failures_total", "Requests that a broker did not answer.", self.cluster.failures()),
        ]
    }
}

impl fmt::Debug for FluvioLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FluvioLog")
            .field("cluster", &self.cluster)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
