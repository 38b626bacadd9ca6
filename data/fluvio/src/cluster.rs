//! The cluster: who leads which partition, and connections to them.
//!
//! A broker answers the requests of one connection one after the other, and a request that is given up halfway leaves
//! its connection in a state that nobody knows. So every request has a connection of its own while it lasts; only one
//! that was answered goes back to those that wait for work.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fluvio::metadata::partition::PartitionSpec;
use fluvio::metadata::spu::SpuSpec;
use fluvio::metadata::topic::{CleanupPolicy, SegmentBasedPolicy, TopicSpec};
use fluvio::{FluvioAdmin, FluvioClusterConfig};
use fluvio_protocol::api::Request;
use fluvio_protocol::link::ErrorCode;
use fluvio_socket::{ClientConfig, MultiplexerSocket, VersionedSerialSocket};
use parking_lot::Mutex;
use reckon_data::log::LogError;
use tokio::time::timeout;

/// Longest time to connect, or for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Connections to one broker that wait for work.
const IDLE_MAX: usize = 32;
/// How long a new topic's partitions may take to have leaders.
const CREATED_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A broker, as far as it is needed here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Broker {
    id: i32,
    address: String,
    /// Stands before the domain of its certificate.
    name: String,
}

/// A topic of a cluster.
pub(crate) struct Cluster {
    config: FluvioClusterConfig,
    topic: String,
    /// Of each partition, none where there is none; empty when it has to be asked for.
    leaders: Mutex<Vec<Option<Broker>>>,
    idle: Mutex<HashMap<i32, Vec<VersionedSerialSocket>>>,
    /// Requests that failed, after which leaders were asked for anew.
    failures: AtomicU64,
}

impl Cluster {
    pub fn new(config: FluvioClusterConfig, topic: String) -> Self {
        Self { config, topic, leaders: Mutex::default(), idle: Mutex::default(), failures: AtomicU64::new(0) }
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Makes the topic, unless there is one, and returns how many partitions it has, all with leaders.
    pub async fn ensure_topic(&self, partitions: u32, replicas: u32, keep: Duration) -> Result<u32, LogError> {
        let admin = self.admin().await?;
        if self.topic_spec(&admin).await?.is_none() {
            let mut spec = TopicSpec::new_computed(partitions, replicas, None);
            let time_in_seconds = u32::try_from(keep.as_secs()).unwrap_or(u32::MAX);
            spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy { time_in_seconds }));
            let created = timeout(CREATED_MAX, admin.create(self.topic.clone(), false, spec)).await;
            let created = created.map_err(|_| self.failed("the topic cannot be made", &"no broker takes it"))?;
            match created {
                Ok(()) => tracing::info!(topic = self.topic, partitions, replicas, "topic made"),
                // Another process was quicker.
                Err(_) if matches!(self.topic_spec(&admin).await, Ok(Some(_))) => {}
                Err(error) => return Err(self.failed("the topic cannot be made", &error)),
            }
        }
        let ready = async {
            loop {
                let spec = self.topic_spec(&admin).await?;
                if spec.as_ref().is_some_and(|spec| spec.get_deduplication().is_some()) {
                    return Err(LogError::Mismatch(format!(
                        "topic {} drops repeats, and would drop events that it has acknowledged: it must have no deduplication",
                        self.topic
                    )));
                }
                match spec {
                    Some(spec)
                        if self.find_leaders(&admin).await?.iter().flatten().count() == spec.partitions() as usize =>
                    {
                        self.warn_of_copies(spec.replication_factor().unwrap_or(1));
                        return Ok(spec.partitions());
                    }
                    _ => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
        };
        let waited = timeout(CREATED_MAX, ready).await;
        waited.unwrap_or_else(|_| Err(self.failed("its partitions have no leaders", &"no broker took them")))
    }

    /// See "What it costs, and what it does not promise" in ADR 9.
    fn warn_of_copies(&self, copies: u32) {
        if copies > 1 {
            tracing::warn!(
                topic = self.topic,
                copies,
                "this version of Fluvio may lose acknowledged events when the lead of a partition changes twice: one copy is safer"
            );
        }
    }

    async fn topic_spec(&self, admin: &FluvioAdmin) -> Result<Option<TopicSpec>, LogError> {
        let topics = timeout(ANSWER_MAX, admin.all::<TopicSpec>()).await;
        let topics = topics.map_err(|_| self.failed("the controller", &"it does not answer"))?;
        let topics = topics.map_err(|error| self.failed("topics cannot be listed", &error))?;
        Ok(topics.into_iter().find(|topic| topic.name == self.topic).map(|topic| topic.spec))
    }

    async fn admin(&self) -> Result<FluvioAdmin, LogError> {
        let connecting = timeout(ANSWER_MAX, FluvioAdmin::connect_with_config(&self.config)).await;
        let connected = connecting.map_err(|_| self.failed("the controller", &"it does not answer"))?;
        connected.map_err(|error| self.failed("the controller cannot be reached", &error))
    }

    /// The leaders of all partitions.
    async fn find_leaders(&self, admin: &FluvioAdmin) -> Result<Vec<Option<Broker>>, LogError> {
        let asking = async { tokio::try_join!(admin.all::<PartitionSpec>(), admin.all::<SpuSpec>()) };
        let asked = timeout(ANSWER_MAX, asking).await;
        let asked = asked.map_err(|_| self.failed("the controller", &"it does not answer"))?;
        let (partitions, brokers) = asked.map_err(|error| self.failed("partitions cannot be listed", &error))?;
        let of_topic: HashMap<u32, i32> = (partitions.iter())
            .filter_map(|found| {
                let number = found.name.strip_prefix(&self.topic)?.strip_prefix('-')?.parse().ok()?;
                Some((number, found.spec.leader))
            })
            .collect();
        let broker = |id: i32| {
            let spu = brokers.iter().find(|spu| spu.spec.id == id)?;
            let local = spu.spec.public_endpoint_local.as_ref().filter(|_| self.config.use_spu_local_address);
            let address =
                local.map_or_else(|| spu.spec.public_endpoint.addr(), |local| format!("{}:{}", local.host, local.port));
            Some(Broker { id, address, name: spu.name.clone() })
        };
        let count = of_topic.keys().max().map_or(0, |last| last + 1);
        Ok((0..count).map(|partition| broker(*of_topic.get(&partition)?)).collect())
    }

    async fn leader(&self, partition: u32) -> Result<Broker, LogError> {
        if let Some(Some(known)) = self.leaders.lock().get(partition as usize) {
            return Ok(known.clone());
        }
        let found = self.look().await?;
        let none = || self.failed(&format!("partition {partition}"), &"it has no leader");
        found.into_iter().nth(partition as usize).flatten().ok_or_else(none)
    }

    async fn look(&self) -> Result<Vec<Option<Broker>>, LogError> {
        let admin = self.admin().await?;
        let found = self.find_leaders(&admin).await?;
        self.leaders.lock().clone_from(&found);
        Ok(found)
    }

    /// The partitions by the broker that leads them; those that have none are left out.
    pub async fn by_leader(&self) -> Result<Vec<Vec<u32>>, LogError> {
        let known = self.leaders.lock().clone();
        let leaders = if known.iter().all(Option::is_some) && !known.is_empty() { known } else { self.look().await? };
        let mut found: HashMap<i32, Vec<u32>> = HashMap::new();
        for (partition, leader) in (0..).zip(leaders) {
            if let Some(leader) = leader {
                found.entry(leader.id).or_default().push(partition);
            }
        }
        Ok(found.into_values().collect())
    }

    async fn connection(&self, broker: &Broker) -> Result<VersionedSerialSocket, LogError> {
        loop {
            let idle = self.idle.lock().get_mut(&broker.id).and_then(Vec::pop);
            match idle {
                Some(socket) if socket.is_stale() => {}
                Some(socket) => return Ok(socket),
                None => break,
            }
        }
        let unreachable = |error: &dyn std::fmt::Display| self.failed(&format!("broker {}", broker.address), error);
        let config = ClientConfig::try_from(self.config.clone()).map_err(|error| unreachable(&error))?;
        let mut config = config.with_prefix_sni_domain(&broker.name);
        config.set_addr(broker.address.clone());
        config.set_client_id("reckon");
        let connected = timeout(ANSWER_MAX, config.connect()).await;
        let connected =
            connected.map_err(|_| unreachable(&"it does not answer"))?.map_err(|error| unreachable(&error))?;
        let (socket, config, versions) = connected.split();
        Ok(VersionedSerialSocket::new(MultiplexerSocket::shared(socket), config, versions))
    }

    /// Asks the leader of a partition. After an error nobody knows whether the request was carried out.
    pub async fn ask<R: Request + Send + Sync>(&self, partition: u32, request: R) -> Result<R::Response, LogError> {
        let broker = self.leader(partition).await?;
        let answer = self.ask_broker(&broker, request).await;
        if answer.is_err() {
            self.forget(broker.id);
        }
        answer
    }

    async fn ask_broker<R: Request + Send + Sync>(&self, broker: &Broker, request: R) -> Result<R::Response, LogError> {
        let socket = self.connection(broker).await?;
        let failed = |error: &dyn std::fmt::Display| self.failed(&format!("broker {}", broker.address), error);
        let answered = timeout(ANSWER_MAX, socket.send_receive(request)).await;
        let answer = answered.map_err(|_| failed(&"it does not answer"))?.map_err(|error| failed(&error))?;
        let mut idle = self.idle.lock();
        let idle = idle.entry(broker.id).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(socket);
        }
        Ok(answer)
    }

    /// What a broker's refusal means. Of one that does not lead the partition any more, nothing is asked again.
    pub fn refused(&self, partition: u32, code: &ErrorCode) -> LogError {
        self.leaders.lock().clear();
        if is_full(code) { LogError::Full } else { self.failed(&format!("partition {partition}"), code) }
    }

    fn forget(&self, broker: i32) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.leaders.lock().clear();
        self.idle.lock().remove(&broker);
    }

    fn failed(&self, what: &str, why: &dyn std::fmt::Display) -> LogError {
        LogError::Storage(format!(
            "topic {} of the Fluvio cluster at {}: {what}: {why}",
            self.topic, self.config.endpoint
        ))
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("endpoint", &self.config.endpoint)
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// Whether the broker has no room for more.
const fn is_full(code: &ErrorCode) -> bool {
    matches!(code, ErrorCode::PartitionFull { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_partition_is_a_full_disk() {
        assert!(is_full(&ErrorCode::PartitionFull { replica_key: ("events", 0).into() }));
        assert!(!is_full(&ErrorCode::NotLeaderForPartition));
    }
}
