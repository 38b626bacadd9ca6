//! The sections of the settings, with their defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::jobs::EngineName;

/// All settings.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where everything lives: a folder, or the URL of an object store (`s3://bucket/path`).
    pub data_dir: String,
    /// What has to lie on this machine when `data_dir` does not: the embedded log, the lock, temporary files. Empty is
    /// `data_dir`.
    pub local_dir: String,
    /// Address and port that the server listens on.
    pub listen: String,
    /// The log.
    pub log: LogSettings,
    /// The gateway.
    pub gateway: Gateway,
    /// Limits on events.
    pub limits: LimitSettings,
    /// What is counted.
    pub definition: Definitions,
    /// The counter.
    pub stream: Counting,
    /// The archiver.
    pub archive: Archive,
    /// The batch layer.
    pub batch: Batch,
    /// How long things are kept.
    pub retention: Retention,
    /// The serving layer.
    pub serving: Serving,
    /// The audit.
    pub audit: Audit,
    /// The canary.
    pub canary: Canary,
    /// Alerts.
    pub alerts: Alerts,
    /// What a process tells of itself.
    pub telemetry: Telemetry,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: "reckon-data".to_owned(),
            local_dir: String::new(),
            listen: "127.0.0.1:7700".to_owned(),
            log: LogSettings::default(),
            gateway: Gateway::default(),
            limits: LimitSettings::default(),
            definition: Definitions::default(),
            stream: Counting::default(),
            archive: Archive::default(),
            batch: Batch::default(),
            retention: Retention::default(),
            serving: Serving::default(),
            audit: Audit::default(),
            canary: Canary::default(),
            alerts: Alerts::default(),
            telemetry: Telemetry::default(),
        }
    }
}

/// The log.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Which log: `embedded`, or a topic of a Fluvio cluster (`fluvio:///events`, `fluvio://host:9003/events`).
    pub url: String,
    /// Partitions, 1 to 256; fixed when the log is made.
    pub partitions: u32,
    /// Copies of a Fluvio topic's partitions, when it is made.
    pub replicas: u32,
    /// Records are kept at least this long, whatever else allows their removal.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
    /// Memory for the log's write buffers and cache.
    pub memory: ByteSize,
    /// Hot entities, and over how many partitions each one's events are spread, at most all.
    pub hot_entities: BTreeMap<String, u32>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            url: "embedded".to_owned(),
            partitions: 4,
            replicas: 1,
            keep: Duration::from_secs(0),
            memory: ByteSize::mib(256),
            hot_entities: BTreeMap::new(),
        }
    }
}

/// The gateway.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Longest body of a request, decompressed.
    pub body_max: ByteSize,
    /// Bodies waiting to be read and appended; above it requests get 429.
    pub queue: ByteSize,
    /// Threads that read bodies; 0 is one a core.
    pub workers: usize,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { body_max: ByteSize::mib(8), queue: ByteSize::mib(64), workers: 0 }
    }
}

/// Limits on events; lengths in bytes.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Longest `event_id`.
    pub event_id: usize,
    /// Longest `entity_id`.
    pub entity_id: usize,
    /// Longest `user_id`.
    pub user_id: usize,
    /// Longest `event_type`.
    pub event_type: usize,
    /// Longest `properties`.
    pub properties: ByteSize,
    /// Earliest event time, RFC 3339.
    pub event_time_min: String,
    /// How long after its arrival an event's time may lie; at most 366 days.
    #[serde(with = "humantime_serde")]
    pub event_time_ahead: Duration,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            event_id: 128,
            entity_id: 2_048,
            user_id: 256,
            event_type: 64,
            properties: ByteSize::kib(16),
            event_time_min: "1990-01-01T00:00:00Z".to_owned(),
            event_time_ahead: Duration::from_secs(600),
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Definitions {
    /// Event columns kept as keys of the counts: `country`, `user_id`, `ip`.
    pub dimensions: Vec<String>,
    /// `count`, `sum`, `min`, `max`, `avg` (of `value`), `approx_distinct` (of `user_id`).
    pub metrics: Vec<String>,
    /// Named filters: id → `country = 'US'`.
    pub filters: BTreeMap<String, String>,
    /// Entities whose ids begin so are Reckon's own.
    pub reserved_prefixes: Vec<String>,
}

impl Default for Definitions {
    fn default() -> Self {
        let texts = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            dimensions: texts(&["country"]),
            metrics: texts(&["count", "sum", "min", "max", "avg"]),
            filters: BTreeMap::from([("0012".to_owned(), "country = 'US'".to_owned())]),
            reserved_prefixes: texts(&["_reckon/"]),
        }
    }
}

/// The counter.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counting {
    /// Whole minutes of log time within which a repeated event is dropped; 1 to 14.
    pub dedup_minutes: u32,
    /// A segment ends after this many events at the latest.
    pub segment_events: u64,
    /// How late an event may be before its minute is called settled. Later ones are counted apart, too.
    #[serde(with = "humantime_serde")]
    pub lateness: Duration,
    /// A partition without records for this long does not hold back the watermark.
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// How often finished segments are sealed.
    #[serde(with = "humantime_serde")]
    pub seal_every: Duration,
    /// Memory for the counts of segments; older ones are read from `stream_counts`.
    pub memory: ByteSize,
    /// Address and port on which a `reckon stream` of its own answers for its tails (Arrow Flight).
    pub listen: String,
    /// Address and port at which other processes reach it; empty is the one that it listens on.
    pub advertise: String,
}

impl Default for Counting {
    fn default() -> Self {
        Self {
            dedup_minutes: 10,
            segment_events: 1_000_000,
            lateness: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            seal_every: Duration::from_secs(60),
            memory: ByteSize::mib(512),
            listen: "127.0.0.1:7701".to_owned(),
            advertise: String::new(),
        }
    }
}

/// The archiver.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Archive {
    /// Files are committed at least this often.
    #[serde(with = "humantime_serde")]
    pub commit_every: Duration,
    /// A file of raw events is closed at about this size, one of put together stream counts at half of it,
    /// at most 128 MiB. At least 64 MiB.
    pub file_size: ByteSize,
}

impl Default for Archive {
    fn default() -> Self {
        Self { commit_every: Duration::from_secs(20), file_size: ByteSize::mib(256) }
    }
}

/// The batch layer.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// When batch runs, as a cron expression in UTC; empty is never.
    pub schedule: String,
    /// Who counts raw events: `local`, this process; `ballista`, the executors of a cluster.
    pub engine: EngineName,
    /// The scheduler of that cluster, `http://host:50050`; empty when there is none.
    pub scheduler: String,
    /// A query that the cluster has sent nothing of for so long is sent again, twice.
    #[serde(with = "humantime_serde")]
    pub scheduler_wait: Duration,
    /// Queries that the cluster is asked at once: as many as its executors have threads.
    pub scheduler_queries: u16,
    /// Memory of a run.
    pub memory: ByteSize,
    /// Run when this many segments' counts lie in `stream_counts` above coverage, whatever the
    /// schedule; 0 is never.
    pub segments_max: u64,
    /// Small files are put together after a run.
    pub compact: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            schedule: "15 2 * * *".to_owned(),
            engine: EngineName::Local,
            scheduler: String::new(),
            scheduler_wait: Duration::from_secs(1_800),
            scheduler_queries: 8,
            memory: ByteSize::gib(1),
            segments_max: 0,
            compact: true,
        }
    }
}

/// How long things are kept; an absent setting is for ever.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days that raw events are kept; older dates are closed.
    pub events_days: Option<u32>,
    /// Days that counts by the minute are kept; older dates have hours and days.
    pub minutes_days: Option<u32>,
    /// Days that counts by the hour are kept; older dates have days.
    pub hours_days: Option<u32>,
    /// Where older raw events are moved to: a folder, or the URL of an object store; empty is nowhere.
    pub cold_url: String,
    /// Days after which they are.
    pub cold_days: Option<u32>,
    /// Days that dead letters are kept.
    pub dead_letters_days: Option<u32>,
    /// How long stream counts below coverage stay readable; longer than the longest query.
    #[serde(with = "humantime_serde")]
    pub covered_segments: Duration,
    /// How long files that no table refers to any more are kept; at least 6h, and longer than a batch run or a query.
    #[serde(with = "humantime_serde")]
    pub removed_files: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            events_days: None,
            minutes_days: None,
            hours_days: None,
            cold_url: String::new(),
            cold_days: None,
            dead_letters_days: None,
            covered_segments: Duration::from_secs(3_600),
            removed_files: Duration::from_secs(24 * 3_600),
        }
    }
}

/// The serving layer.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serving {
    /// Longest time that an SQL query works; it waits ten times as long, in all, for whoever reads its rows.
    #[serde(with = "humantime_serde")]
    pub query_time: Duration,
    /// Memory of an SQL query.
    pub query_memory: ByteSize,
    /// SQL queries that may run at once; further ones wait.
    pub queries: usize,
    /// Most rows of an answer of `POST /v1/sql`.
    pub rows_max: usize,
    /// Memory for the index over batch counts.
    pub index_memory: ByteSize,
    /// Memory for sums of batch counts that were asked for before; 0 keeps none.
    pub cache_memory: ByteSize,
    /// Where PostgreSQL clients come in, address and port; empty is nowhere.
    pub postgres: String,
    /// Connections of PostgreSQL clients at once.
    pub postgres_connections: usize,
    /// Where clients of Arrow Flight SQL come in, address and port; empty is nowhere.
    pub flight_sql: String,
}

/// Where PostgreSQL clients come in by default; a server goes on without when something else is there.
pub const POSTGRES: &str = "127.0.0.1:7732";
/// Where clients of Flight SQL come in by default; a server goes on without when something else is there.
pub const FLIGHT_SQL: &str = "127.0.0.1:7733";

impl Default for Serving {
    fn default() -> Self {
        Self {
            query_time: Duration::from_secs(60),
            query_memory: ByteSize::mib(512),
            queries: 4,
            rows_max: 100_000,
            index_memory: ByteSize::mib(1_024),
            cache_memory: ByteSize::mib(64),
            flight_sql: FLIGHT_SQL.to_owned(),
            postgres: POSTGRES.to_owned(),
            postgres_connections: 128,
        }
    }
}

/// The audit: the raw events counted a third time, and everything else held against them.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// When audits run by themselves: a cron expression in UTC; empty is not at all.
    pub schedule: String,
    /// Whether one runs after each batch run that was scheduled.
    pub after_batch: bool,
    /// Memory for the events that are held at once.
    pub memory: ByteSize,
    /// Entities of each date of which answers are asked; 0 is none.
    pub served_entities: usize,
    /// Whether the log is read as well, as far as it goes back.
    pub read_log: bool,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            schedule: String::new(),
            after_batch: true,
            memory: ByteSize::mib(1_024),
            served_entities: 20,
            read_log: true,
        }
    }
}

/// The canary: known events that are sent again and again, and asked for.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Canary {
    /// How often a round of events is sent; 0 is never.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
    /// Different events of a round; some are sent more than once.
    pub events: u32,
    /// How long a round's events may take until answers hold them.
    #[serde(with = "humantime_serde")]
    pub patience: Duration,
    /// The front door that events are sent to, or several, separated by commas; empty is the server itself.
    pub target: String,
    /// What lets the canary's events in at the front door; empty is one that is made up at each start.
    pub token: String,
}

/// Not the token, which is a secret.
impl fmt::Debug for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { every, events, patience, target, token: _ } = self;
        f.debug_struct("Canary")
            .field("every", every)
            .field("events", events)
            .field("patience", patience)
            .field("target", target)
            .finish_non_exhaustive()
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(60),
            // Of so many, one lost in a thousand is missed by a round in four hundred.
            events: 6_000,
            patience: Duration::from_secs(90),
            target: String::new(),
            token: String::new(),
        }
    }
}

/// Alerts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// File of rules and receivers (`alerts.example.toml`); empty is none.
    pub rules: String,
}

/// What a process tells of itself.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// How log lines are written.
    pub logs: LogFormat,
    /// Address of an OTLP collector that takes traces of requests, `http://host:4317`; empty is none.
    pub traces: String,
    /// Which share of the requests without a `traceparent` is traced, 0 to 1.
    pub traces_share: f64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { logs: LogFormat::Text, traces: String::new(), traces_share: 1.0 }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
