//! A log in memory whose appends can be held up or made to fail, and helpers around it.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use reckon_data::clock::{ManualClock, SeededNames};
use reckon_data::config;
use reckon_data::dead::DeadLetter;
use reckon_data::definition::Definition;
use reckon_data::event::Limits;
use reckon_data::ingest::{Framing, Ingest, Submission, SubmitError};
use reckon_data::log::{Log, LogError, RECORD_BYTES_MAX, Stored};
use reckon_data::partition::Router;
use reckon_data::receipt::Receipt;
use reckon_data::record::{Body, Header, decode};
use tokio::sync::watch;
use uuid::Uuid;

use super::super::{Gateway, GatewayParts};

/// 2013-02-08T21:29:00Z.
pub(super) const NOW: i64 = 1_360_358_940_000_000;
pub(super) const PARTITIONS: u32 = 4;

/// What the log answers instead of appending.
type Failing = fn(u32) -> Option<LogError>;

#[derive(Debug)]
pub(super) struct TestLog {
    stored: Vec<Mutex<Vec<Bytes>>>,
    open: watch::Sender<bool>,
    failing: Mutex<Option<Failing>>,
}

impl TestLog {
    pub(super) fn new() -> Arc<Self> {
        let stored = (0..PARTITIONS).map(|_| Mutex::default()).collect();
        Arc::new(Self { stored, open: watch::Sender::new(true), failing: Mutex::new(None) })
    }

    /// Holds appends up, or lets them go.
    pub(super) fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }

    pub(super) fn fail(&self, failing: Failing) {
        *self.failing.lock() = Some(failing);
    }

    pub(super) fn records(&self, partition: u32) -> Vec<(Header, Body)> {
        let stored = self.stored[partition as usize].lock();
        stored.iter().map(|bytes| decode(bytes).unwrap()).map(|record| (record.header, record.body)).collect()
    }

    /// All events, by partition, offset and index: their ids.
    pub(super) fn event_ids(&self) -> Vec<String> {
        let bodies = (0..PARTITIONS).flat_map(|p| self.records(p)).map(|(_, body)| body);
        let events = bodies.filter_map(|body| if let Body::Events(events) = body { Some(events) } else { None });
        events
            .flat_map(|e| (0..e.len()).map(|row| e.event(row).unwrap().event_id.to_owned()).collect::<Vec<_>>())
            .collect()
    }

    /// (id, partition, key hash) of all events, sorted.
    pub(super) fn keys(&self) -> Vec<(String, u32, u64)> {
        let mut keys = Vec::new();
        for partition in 0..PARTITIONS {
            for (_, body) in self.records(partition) {
                let Body::Events(events) = body else { continue };
                for row in 0..events.len() {
                    let event = events.event(row).unwrap();
                    assert_eq!(events.key_hash.value(row), event.key().hash());
                    keys.push((event.event_id.to_owned(), partition, event.key().hash()));
                }
            }
        }
        keys.sort();
        keys
    }

    pub(super) fn letters(&self) -> Vec<DeadLetter> {
        let bodies = (0..PARTITIONS).flat_map(|p| self.records(p)).map(|(_, body)| body);
        bodies.filter_map(|body| if let Body::Dead(letters) = body { Some(letters) } else { None }).flatten().collect()
    }

    /// The ids of the events a receipt points at, in the order of its places.
    pub(super) fn at(&self, receipt: &Receipt) -> Vec<String> {
        let mut ids = Vec::new();
        for place in &receipt.places {
            let (_, Body::Events(events)) = &self.records(place.partition)[place.offset as usize] else {
                panic!("{place:?} is no record of events")
            };
            ids.extend(
                (place.first_index..=place.last_index).map(|i| events.event(i as usize).unwrap().event_id.to_owned()),
            );
        }
        ids
    }
}

#[async_trait]
impl Log for TestLog {
    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    fn identity(&self) -> Uuid {
        Uuid::nil()
    }

    async fn append(&self, partition: u32, records: Vec<Bytes>) -> Result<Range<u64>, LogError> {
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        tokio::task::yield_now().await;
        if let Some(error) = self.failing.lock().and_then(|failing| failing(partition)) {
            return Err(error);
        }
        for record in &records {
            assert!(
                record.len() <= RECORD_BYTES_MAX || matches!(decode(record).unwrap().header.events, 1),
                "too large"
            );
        }
        let mut stored = self.stored[partition as usize].lock();
        let start = stored.len() as u64;
        stored.extend(records);
        Ok(start..stored.len() as u64)
    }

    async fn read(&self, _: u32, _: u64, _: usize) -> Result<Vec<Stored>, LogError> {
        Err(LogError::Storage("not read this way".to_owned()))
    }

    async fn extent(&self, partition: u32) -> Result<Range<u64>, LogError> {
        Ok(0..self.stored[partition as usize].lock().len() as u64)
    }

    fn watch_end(&self, partition: u32) -> Result<watch::Receiver<u64>, LogError> {
        Err(LogError::UnknownPartition { partition })
    }

    async fn trim(&self, _: u32, _: u64) -> Result<(), LogError> {
        Ok(())
    }
}

pub(super) fn settings() -> config::Gateway {
    config::Gateway { workers: 2, ..config::Gateway::default() }
}

pub(super) fn start_with(log: &Arc<TestLog>, settings: config::Gateway) -> Arc<Gateway> {
    Gateway::start(GatewayParts {
        log: Arc::clone(log) as Arc<dyn Log>,
        router: Router::new(PARTITIONS, std::collections::BTreeMap::new()),
        definition: Arc::new(Definition::default()),
        limits: Limits::default(),
        clock: Arc::new(ManualClock::at(NOW)),
        names: Arc::new(SeededNames::new(7)),
        settings,
    })
}

pub(super) fn start() -> (Arc<TestLog>, Arc<Gateway>) {
    let log = TestLog::new();
    let gateway = start_with(&log, settings());
    (log, gateway)
}

pub(super) fn json(body: impl Into<Bytes>) -> Submission {
    Submission { body: body.into(), source: Some("http".to_owned()), ..Submission::default() }
}

pub(super) fn ndjson(body: impl Into<Bytes>) -> Submission {
    Submission { framing: Framing::Lines, ..json(body) }
}

/// An event named `id`.
pub(super) fn event(id: &str) -> String {
    format!(r#"{{"event_id":"{id}","event_type":"view","entity_id":"v-{id}","event_time":"2013-02-08T21:29:00Z"}}"#)
}

/// An event without an id.
pub(super) fn nameless(entity: &str) -> String {
    format!(r#"{{"event_type":"view","entity_id":"{entity}","event_time":1360358940000,"value":1.5}}"#)
}

pub(super) fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

/// The message and the receipt of a body that was malformed.
pub(super) fn malformed(answer: Result<Receipt, SubmitError>) -> (String, Receipt) {
    match answer {
        Err(SubmitError::Malformed { message, receipt }) => (message, *receipt),
        other => panic!("not malformed: {other:?}"),
    }
}

pub(super) async fn taken(gateway: &Gateway, submission: Submission) -> Receipt {
    gateway.submit(submission).await.unwrap()
}
