//! The log as a topic of a Fluvio cluster: the one that `RECKON_TEST_FLUVIO` names, or one that is started here
//! (`RECKON_TEST_FLUVIO_RUN`). Without either, what is skipped is said.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fluvio::metadata::topic::TopicSpec;
use fluvio::{Compression, Fluvio, FluvioAdmin, FluvioClusterConfig, TopicProducerConfigBuilder};
use futures::FutureExt as _;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use reckon_data::clock::{RandomNames, SystemClock};
use reckon_data::log::conformance::{Kind, conformance};
use reckon_data::log::{Log, LogError};
use reckon_data::record::{Body, decode};
use reckon_fluvio::{Address, FluvioLog, Options};
use serde_json::json;

use crate::harness::{Cluster, Dataset, RUNTIME, Server, number, total};

/// A cluster that is there, or one that ends with the test.
struct There {
    address: String,
    _own: Option<Cluster>,
}

fn there(test: &str) -> Option<There> {
    match std::env::var("RECKON_TEST_FLUVIO") {
        Ok(address) => Some(There { address, _own: None }),
        Err(_) => Cluster::start(test).map(|own| There { address: own.address(), _own: Some(own) }),
    }
}

impl There {
    /// A topic that nobody else has.
    fn topic(&self, name: &str) -> String {
        format!("{name}-{:x}", rand_number())
    }

    fn config(&self) -> FluvioClusterConfig {
        FluvioClusterConfig::new(self.address.clone())
    }

    fn options(&self, topic: &str, foreign: bool) -> Options {
        let address = Address::parse(&format!("fluvio://{}/{topic}", self.address)).unwrap();
        Options { address, partitions: 2, replicas: 1, keep: Duration::ZERO, foreign }
    }
}

fn rand_number() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(()) >> 24
}

async fn open(options: Options, store: Arc<dyn ObjectStore>) -> Result<FluvioLog, LogError> {
    FluvioLog::open(options, store, Arc::new(SystemClock), &RandomNames).await
}

#[test]
fn a_topic_is_a_log() {
    let Some(there) = there("the conformance suite of the log") else { return };
    let (store, unique) = (Arc::new(InMemory::new()), there.topic("c"));
    let opening = |name: &str| {
        let (options, store) =
            (there.options(&format!("{unique}-{name}"), false), Arc::clone(&store) as Arc<dyn ObjectStore>);
        async move { Ok(Arc::new(open(options, store).await?) as Arc<dyn Log>) }.boxed()
    };
    // It begins with the cut that says which log it is.
    RUNTIME.block_on(conformance(opening, Kind { trims: false, first: 1 }));
}

#[test]
fn a_topic_that_was_made_anew_is_another_log() {
    let Some(there) = there("a topic made anew") else { return };
    let (store, topic): (Arc<dyn ObjectStore>, _) = (Arc::new(InMemory::new()), there.topic("anew"));
    RUNTIME.block_on(async {
        let log = open(there.options(&topic, false), Arc::clone(&store)).await.unwrap();
        let records = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        assert_eq!(log.append(0, records.clone()).await.unwrap(), 1..3);
        let admin = FluvioAdmin::connect_with_config(&there.config()).await.unwrap();
        admin.delete::<TopicSpec>(topic.clone()).await.unwrap();
        let spec = TopicSpec::new_computed(2, 1, None);
        // While the old one is on its way out it is refused, or never answered.
        let create = || tokio::time::timeout(Duration::from_secs(5), admin.create(topic.clone(), false, spec.clone()));
        for attempt in 0.. {
            if matches!(create().await, Ok(Ok(()))) {
                break;
            }
            assert!(attempt < 50, "the topic is not made anew");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let empty = open(there.options(&topic, false), Arc::clone(&store)).await.unwrap_err();
        assert!(matches!(&empty, LogError::Mismatch(why) if why.contains("made anew")), "{empty}");
        // Another's log may have grown past what was there: no record of it is taken for ours.
        let other = open(there.options(&topic, false), Arc::new(InMemory::new())).await.unwrap();
        for _ in 0..3 {
            other.append(0, records.clone()).await.unwrap();
        }
        let grown = open(there.options(&topic, false), Arc::clone(&store)).await.unwrap_err();
        assert!(matches!(&grown, LogError::Mismatch(why) if why.contains("made anew")), "{grown}");
        let read = log.read(0, 1, 1 << 20).await.unwrap_err();
        assert!(matches!(&read, LogError::Mismatch(why) if why.contains("another log's")), "{read}");
        let append = log.append(1, records.clone()).await.unwrap_err();
        assert!(matches!(append, LogError::Mismatch(_)), "nothing goes on: {append}");
        // And a third one's tables do not get the topic at all.
        let third = open(there.options(&topic, false), Arc::new(InMemory::new())).await.unwrap_err();
        assert!(matches!(&third, LogError::Mismatch(why) if why.contains("of other tables")), "{third}");
    });
}

#[test]
fn another_number_of_partitions_is_refused() {
    let Some(there) = there("a topic with other partitions") else { return };
    let topic = there.topic("parts");
    RUNTIME.block_on(async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        open(there.options(&topic, false), Arc::clone(&store)).await.unwrap();
        let error = open(Options { partitions: 3, ..there.options(&topic, false) }, store).await.unwrap_err();
        assert!(error.to_string().contains("has 2 partitions, and log.partitions is 3"), "{error}");
    });
}

/// What the cluster's own producer appends, in batches of its making, is read whole, whatever is asked for at once.
#[test]
fn records_of_other_producers_are_read_whole() {
    const RECORDS: usize = 30_000;
    let Some(there) = there("records of other producers") else { return };
    for compression in [Compression::None, Compression::Gzip] {
        let topic = there.topic("json");
        RUNTIME.block_on(async {
            let log = open(there.options(&topic, true), Arc::new(InMemory::new())).await.unwrap();
            let client = Fluvio::connect_with_config(&there.config()).await.unwrap();
            let config = TopicProducerConfigBuilder::default().batch_size(400_000).compression(compression).build().unwrap();
            let producer = client.topic_producer_with_config(&topic, config).await.unwrap();
            for number in 0..RECORDS {
                let event = json!({"event_id": number.to_string(), "event_type": "view", "entity_id": "v", "event_time": 1_360_281_600_000_i64});
                let text = if number == 7 { "not json".to_owned() } else { event.to_string() };
                producer.send(number.to_string(), text).await.unwrap();
            }
            producer.flush().await.unwrap();
            let (mut events, mut dead) = (0, 0);
            for partition in 0..2 {
                let (mut next, end) = (0, log.extent(partition).await.unwrap().end);
                while next < end {
                    for stored in log.read(partition, next, 64 << 10).await.unwrap() {
                        assert_eq!(stored.offset, next);
                        next += 1;
                        match decode(&stored.bytes).unwrap().body {
                            Body::Events(found) => events += found.len(),
                            Body::Dead(found) => dead += found.len(),
                            Body::Cut(_) => {}
                        }
                    }
                }
            }
            assert_eq!((events, dead), (RECORDS - 1, 1), "{compression:?}");
            let counted = |name: &str| log.counters().iter().find(|counter| counter.name == name).map(|counter| counter.value);
            // Compressed, a batch is smaller than what is asked for at once.
            if compression == Compression::None {
                assert!(counted("reckon_fluvio_reads_cut_total") > Some(0), "answers ended within batches");
            }
        });
    }
}

/// whatever the broker acknowledged is counted, and while it is away, that is said.
#[test]
fn a_broker_that_is_killed_loses_nothing() {
    let Some(data) = Dataset::find("usagov_clicks_2013_jan_mar") else { return };
    let Some(mut cluster) = Cluster::start("a broker that is killed") else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = cluster.url("events");
    let more = ["--log-url", &url, "--stream-seal-every", "300ms", "--archive-commit-every", "300ms"];
    let server = Server::start_with(dir.path(), &more);
    let mut import = data.import_command(server.url(), &data.files());
    let mut child = import.stdout(std::process::Stdio::null()).spawn().unwrap();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(400));
        cluster.kill_broker();
        std::thread::sleep(Duration::from_millis(700));
        cluster.start_broker();
    }
    child.wait().unwrap();
    data.import(server.url(), &data.files());
    let events = number(&data.facts["events"]);
    assert_eq!(total(&server), events);
    server.batch();
    assert_eq!(total(&server), events, "after batch");
    let path = server.kill();
    let server = Server::start_with(&path, &more);
    assert_eq!(total(&server), events, "after a restart");
}
