//! One copy of an event on its way: gateway, log, stream, raw events, batch.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use reckon_data::minute::{minute_of, parse_date};
use reckon_data::paths::Transaction;
use reckon_data::table::{DataFile, Snapshot, Table, Version};
use serde::Serialize;
use utoipa::ToSchema;

use super::Serving;
use super::locate::reached;
use super::rows::{natural, quoted, whole};
use super::types::{EventCopy, Verdict};
use crate::ServingError;
use crate::sql::engine::collect;
use crate::times::{as_time, as_time_or_null};

/// Copies that are followed.
const COPIES_MAX: usize = 100;
/// Files that are read to find out which of them holds a copy.
const FILES_MAX: usize = 16;
/// Versions of batch that are looked through for the first one that covers a copy: these, and if some copy is older
/// than all of them, those.
const VERSIONS: usize = 64;
const VERSIONS_MAX: usize = 512;

/// What became of a copy, stage by stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Stages {
    /// The gateway took it.
    pub gateway: GatewayStage,
    /// The log has, or had, it.
    pub log: LogStage,
    /// The stream counted it, or dropped it as a repeat.
    pub stream: StreamStage,
    /// It is kept among the raw events.
    pub raw: RawStage,
    /// Batch counted it, or will.
    pub batch: BatchStage,
}

/// See [`Stages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct GatewayStage {
    /// When it was appended, microseconds.
    #[serde(serialize_with = "as_time")]
    #[schema(value_type = String, format = DateTime)]
    pub received_at: i64,
}

/// See [`Stages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct LogStage {
    /// Log partition.
    pub partition: u32,
    /// Record.
    pub offset: u64,
    /// Index in the record.
    pub index: u32,
    /// Whether it still lies there.
    pub state: Kept,
}

/// Whether the log still holds a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// It does.
    InLog,
    /// It was trimmed: what it held is in the tables.
    Trimmed,
    /// This process has no log to ask, or it did not answer.
    Unknown,
}

/// See [`Stages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct StreamStage {
    /// How far the stream is with it.
    pub state: Streamed,
    /// The sealed segment that it lies in, if `stream_counts` still has that.
    pub segment: Option<SegmentRange>,
    /// What the stream made of it, judged by when it and the copies before it were received; none as long as it has
    /// not got there. A repeat that came after the dedup window was counted, until batch.
    pub verdict: Option<Verdict>,
}

/// How far the stream is with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Streamed {
    /// Its segment is sealed.
    Sealed,
    /// It is counted in memory.
    Tail,
    /// The counter is not there yet.
    NotYet,
    /// The counter does not say where it stands.
    Unknown,
}

/// Offsets of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct SegmentRange {
    /// First offset.
    pub start: u64,
    /// Offset after the last.
    pub end: u64,
}

/// See [`Stages`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RawStage {
    /// The file of `events` that holds it; none when too many would have to be read to tell.
    pub file: Option<String>,
    /// Up to where its partition is archived.
    pub archived: u64,
}

/// See [`Stages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct BatchStage {
    /// Whether batch has counted (or dropped) it.
    pub covered: bool,
    /// The first version of `batch_counts` that covered it, if the table's log still tells.
    pub version: Option<u64>,
    /// When that was committed, microseconds.
    #[serde(serialize_with = "as_time_or_null")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub committed_at: Option<i64>,
}

/// A place in the log: partition, offset, index.
type At = (u32, u64, u32);

const fn at(copy: &EventCopy) -> At {
    (copy.partition, copy.offset, copy.index)
}

impl Serving {
    /// Follows the copies of an event, which come ordered by key and place, through the layers; of very many the first.
    pub(super) async fn follow(
        &self,
        events: &Snapshot,
        event_id: &str,
        copies: &mut [EventCopy],
    ) -> Result<(), ServingError> {
        let followed = copies.len().min(COPIES_MAX);
        let copies = &mut copies[..followed];
        if copies.is_empty() {
            return Ok(());
        }
        let stream = self.snapshots.newest(Table::StreamCounts).await?;
        let versions = self.versions_since(copies).await?;
        let starts = self.log_starts(copies).await;
        let files = self.files_of_copies(events, event_id, copies).await?;
        let verdicts = stream_verdicts(copies, i64::from(self.parts.stream.dedup_minutes));
        for (copy, verdict) in copies.iter_mut().zip(verdicts) {
            let (partition, offset) = (copy.partition, copy.offset);
            let name = Transaction::Batch(self.parts.log, partition).to_string();
            let first = if copy.covered { first_covering(&versions, &name, offset) } else { None };
            let archived = reached(events, &Transaction::Archive(self.parts.log, partition));
            copy.stages = Some(Stages {
                gateway: GatewayStage { received_at: copy.received_at },
                log: LogStage { partition, offset, index: copy.index, state: kept(starts.get(&partition), offset) },
                stream: self.stream_stage(&stream, copy, verdict).await?,
                raw: RawStage { file: files.get(&at(copy)).cloned(), archived },
                batch: BatchStage {
                    covered: copy.covered,
                    version: first.map(|version| version.version),
                    committed_at: first.map(|version| version.committed_at),
                },
            });
        }
        Ok(())
    }

    /// The versions of batch since the oldest of some copies was received, as far as that is not too far back.
    async fn versions_since(&self, copies: &[EventCopy]) -> Result<Arc<Vec<Version>>, ServingError> {
        let versions = self.versions(VERSIONS).await?;
        let told_since = versions.last().map_or(i64::MAX, |oldest| oldest.committed_at);
        let is_older = |copy: &EventCopy| copy.covered && copy.received_at <= told_since;
        if versions.len() < VERSIONS || !copies.iter().any(is_older) {
            return Ok(versions);
        }
        self.versions(VERSIONS_MAX).await
    }

    /// Where the log begins in the partitions of some copies, as far as it can be asked.
    async fn log_starts(&self, copies: &[EventCopy]) -> BTreeMap<u32, u64> {
        let mut starts = BTreeMap::new();
        let Some(log) = self.events_log.get() else { return starts };
        for copy in copies {
            if starts.contains_key(&copy.partition) {
                continue;
            }
            // One that does not answer says nothing of whether the record is there.
            if let Ok(extent) = log.extent(copy.partition).await {
                starts.insert(copy.partition, extent.start);
            }
        }
        starts
    }

    async fn stream_stage(
        &self,
        stream: &Snapshot,
        copy: &EventCopy,
        verdict: Verdict,
    ) -> Result<StreamStage, ServingError> {
        let sealed = reached(stream, &Transaction::Stream(self.parts.log, copy.partition));
        let position = self.parts.tails.position(copy.partition).ok().map(|position| position.offset);
        let state = streamed(copy.offset, sealed, position);
        let segment = match state {
            Streamed::Sealed => self.segment_of(stream, copy).await?,
            _ => None,
        };
        let verdict = matches!(state, Streamed::Sealed | Streamed::Tail).then_some(verdict);
        Ok(StreamStage { state, segment, verdict })
    }

    async fn segment_of(&self, stream: &Snapshot, copy: &EventCopy) -> Result<Option<SegmentRange>, ServingError> {
        let found = self.segments.holding(&self.index, stream, copy.partition, copy.offset).await?;
        Ok(found.map(|Range { start, end }| SegmentRange { start, end }))
    }

    /// The files that hold the copies. Statistics mostly leave one; where they leave more, those are read.
    async fn files_of_copies(
        &self,
        events: &Snapshot,
        event_id: &str,
        copies: &[EventCopy],
    ) -> Result<BTreeMap<At, String>, ServingError> {
        let mut found = BTreeMap::new();
        let mut doubtful: BTreeMap<&str, &DataFile> = BTreeMap::new();
        for copy in copies {
            let near: Vec<&DataFile> = events.files.iter().filter(|file| may_hold(file, copy)).collect();
            match near.as_slice() {
                [only] => {
                    found.insert(at(copy), only.path.clone());
                }
                more => doubtful.extend(more.iter().map(|file| (file.path.as_str(), *file))),
            }
        }
        if doubtful.len() <= FILES_MAX {
            for file in doubtful.into_values() {
                let places = self.places_in(file, event_id).await?;
                found.extend(places.into_iter().map(|place| (place, file.path.clone())));
            }
        }
        Ok(found)
    }

    /// Where the copies of an event lie that a file of raw events holds.
    async fn places_in(&self, file: &DataFile, event_id: &str) -> Result<Vec<At>, ServingError> {
        let turn = self.engine.turn().await?;
        let context = self.engine.context()?;
        context.register_table("events", Arc::new(self.pinned_table(Table::Events, vec![file.clone()])?))?;
        let only = quoted(event_id);
        let query = format!("SELECT log_partition, log_offset, log_index FROM events WHERE event_id = {only}");
        let limits = self.engine.limits();
        let work = async move {
            let frame = context.sql(&query).await.map_err(|error| limits.of_query(&error))?;
            collect(frame, limits).await
        };
        let (_, batches, _) = self.engine.run(turn, work).await?;
        let mut places = Vec::new();
        for batch in &batches {
            let [partitions, offsets, indexes] =
                [whole(batch, "log_partition")?, whole(batch, "log_offset")?, whole(batch, "log_index")?];
            for row in 0..batch.num_rows() {
                places.push((natural(&partitions, row)?, natural(&offsets, row)?, natural(&indexes, row)?));
            }
        }
        Ok(places)
    }
}

fn kept(start: Option<&u64>, offset: u64) -> Kept {
    match start {
        Some(start) if offset >= *start => Kept::InLog,
        Some(_) => Kept::Trimmed,
        None => Kept::Unknown,
    }
}

fn streamed(offset: u64, sealed: u64, position: Option<u64>) -> Streamed {
    match position {
        _ if offset < sealed => Streamed::Sealed,
        Some(position) if offset < position => Streamed::Tail,
        Some(_) => Streamed::NotYet,
        None => Streamed::Unknown,
    }
}

/// Whether a file of raw events may hold a copy, by its statistics.
fn may_hold(file: &DataFile, copy: &EventCopy) -> bool {
    let date = file.partition.get("event_date").and_then(Option::as_deref).and_then(parse_date);
    let within = |column: &str, value: i64| {
        file.min_i64(column).is_none_or(|min| min <= value) && file.max_i64(column).is_none_or(|max| value <= max)
    };
    date.is_none_or(|date| Some(date) == parse_date(&copy.event_date))
        && within("log_partition", i64::from(copy.partition))
        && within("log_offset", i64::try_from(copy.offset).unwrap_or(i64::MAX))
}

/// What the stream makes of copies, which come ordered by key and place: it drops one whose key occurred in the same
/// partition no more than `window` minutes before. A minute of log time is mostly that of the record.
fn stream_verdicts<'a>(copies: &'a [EventCopy], window: i64) -> Vec<Verdict> {
    let mut last: BTreeMap<(&'a str, &'a str, &'a str, u32), i64> = BTreeMap::new();
    let judge = |copy: &'a EventCopy| {
        let key = (copy.event_date.as_str(), copy.entity_id.as_str(), copy.event_type.as_str(), copy.partition);
        let minute = minute_of(copy.received_at);
        match last.insert(key, minute) {
            Some(before) if minute.saturating_sub(before) <= window => Verdict::Duplicate,
            // The first one, or one that came when the stream had forgotten the others.
            _ => Verdict::Counted,
        }
    };
    copies.iter().map(judge).collect()
}

/// The first version whose coverage, transaction `name`, lies above an offset; none when the versions, the newest
/// first, do not go back so far that one is seen that does not.
fn first_covering<'a>(versions: &'a [Version], name: &str, offset: u64) -> Option<&'a Version> {
    let mut first = None;
    for version in versions {
        match version.transactions.get(name) {
            Some(covered) if u64::try_from(*covered).is_ok_and(|covered| covered > offset) => first = Some(version),
            Some(_) => return first,
            // Before the first version nothing was covered.
            None if version.version == 0 => return first,
            None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use reckon_data::clock::SeededNames;
    use reckon_data::log::Log as _;
    use reckon_data::log::memory::MemoryLog;

    use super::*;
    use crate::testing::{Ev, Log, World};

    fn one(id: &str, entity: &str, minute: i64) -> Ev {
        Ev {
            id: id.to_owned(),
            entity: entity.to_owned(),
            event_type: "view",
            minute,
            country: None,
            ip: None,
            value: None,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_event_is_followed_from_the_gateway_to_batch() {
        let first = vec![one("a", "v1", 1), one("b", "v1", 2), one("a", "v1", 1), one("c", "v1", 3)];
        let world = World::new(Log(vec![first, vec![one("a", "v2", 1)]]));
        world.clock.set(10_000_000);
        world.batch(&[1, 0]).await;
        world.clock.set(20_000_000);
        world.batch(&[2, 0]).await;
        world.seal(&[3, 0], 3, false).await;
        world.archive(&[4, 1]).await;
        let serving = world.serve().await;
        let found = serving.locate("a", Some("v1"), None).await.unwrap().copies;
        let stages: Vec<Stages> = found.iter().map(|copy| copy.stages.clone().unwrap()).collect();
        assert_eq!(stages[0].batch, BatchStage { covered: true, version: Some(1), committed_at: Some(10_000_000) });
        assert_eq!(stages[1].batch, BatchStage { covered: false, version: None, committed_at: None });
        let segment = Some(SegmentRange { start: 0, end: 3 });
        let sealed = |verdict| StreamStage { state: Streamed::Sealed, segment, verdict: Some(verdict) };
        assert_eq!((stages[0].stream, stages[1].stream), (sealed(Verdict::Counted), sealed(Verdict::Duplicate)));
        assert_eq!((stages[1].log.offset, stages[1].log.state), (2, Kept::Unknown));
        assert_eq!(stages[0].gateway.received_at, found[0].received_at);
        assert_eq!(stages[0].raw.archived, 4);

        // Nothing in the tables' logs says which of the files of a date holds which partition: they are read.
        let all = serving.locate("a", None, None).await.unwrap().copies;
        let files: Vec<String> = all.iter().map(|copy| copy.stages.clone().unwrap().raw.file.unwrap()).collect();
        assert_eq!(files[0], files[1]);
        assert_ne!(files[1], files[2], "another partition");
        let b = serving.locate("b", None, None).await.unwrap().copies[0].stages.clone().unwrap();
        assert_eq!(b.batch.version, Some(2));

        let log = Arc::new(MemoryLog::new(2, &SeededNames::new(9)));
        let records = (0..4).map(|_| bytes::Bytes::from_static(b"x")).collect();
        log.append(0, records).await.unwrap();
        log.trim(0, 3).await.unwrap();
        serving.follow_log(log);
        let c = serving.locate("c", None, None).await.unwrap().copies[0].stages.clone().unwrap();
        assert_eq!(c.log.state, Kept::InLog);
        let tail = StreamStage { state: Streamed::Tail, segment: None, verdict: Some(Verdict::Counted) };
        assert_eq!((c.stream, c.batch.covered), (tail, false));
        let b = serving.locate("b", None, None).await.unwrap().copies[0].stages.clone().unwrap();
        assert_eq!(b.log.state, Kept::Trimmed);
    }

    fn version(number: u64, covered: Option<i64>) -> Version {
        Version {
            version: number,
            committed_at: i64::try_from(number).unwrap() * 10,
            operation: "test".to_owned(),
            token: None,
            transactions: covered.map(|covered| ("batch".to_owned(), covered)).into_iter().collect(),
        }
    }

    #[test]
    fn the_first_version_that_covers_is_found_or_nobody_can_say() {
        let told = [version(4, Some(9)), version(3, None), version(2, Some(6)), version(1, Some(3)), version(0, None)];
        let first = |told: &[Version], offset| first_covering(told, "batch", offset).map(|version| version.version);
        assert_eq!(first(&told, 7), Some(4));
        assert_eq!(first(&told, 3), Some(2));
        assert_eq!(first(&told, 0), Some(1));
        assert_eq!(first(&told, 9), None, "not covered");
        assert_eq!(first(&told[..3], 3), None, "who knows what was before");
        assert_eq!(first(&told[..4], 3), Some(2));
    }

    #[test]
    fn the_stream_is_where_it_says_it_is() {
        for (offset, sealed, position, expected) in [
            (3, 4, None, Streamed::Sealed),
            (4, 4, Some(5), Streamed::Tail),
            (5, 4, Some(5), Streamed::NotYet),
            (5, 4, None, Streamed::Unknown),
        ] {
            assert_eq!(streamed(offset, sealed, position), expected, "{offset}");
        }
        assert_eq!((kept(Some(&3), 3), kept(Some(&4), 3), kept(None, 3)), (Kept::InLog, Kept::Trimmed, Kept::Unknown));
    }

    #[test]
    fn a_repeat_after_the_window_was_counted_by_the_stream() {
        use Verdict::{Counted, Duplicate};
        let copy = |partition, minute: i64| EventCopy {
            verdict: Duplicate,
            partition,
            offset: 0,
            index: 0,
            received_at: reckon_data::minute::start_of_minute(minute),
            event_time: 0,
            event_date: "1970-01-01".to_owned(),
            entity_id: "v".to_owned(),
            event_type: "view".to_owned(),
            covered: false,
            stages: None,
        };
        let copies = [copy(0, 0), copy(0, 10), copy(0, 20), copy(0, 31), copy(1, 32)];
        assert_eq!(stream_verdicts(&copies, 10), [Counted, Duplicate, Duplicate, Counted, Counted]);
    }
}
