//! Where an answer comes from.

use std::collections::BTreeSet;

use reckon_data::invariant::NO_SILENT_HOLE;
use reckon_data::tail::Position;
use serde::Serialize;
use utoipa::ToSchema;

use super::meet::{Missing, Part, missing_parts};
use super::watermark::{Patience, watermark};
use crate::query::Archived;
use crate::times::as_time_or_null;

/// Where an answer comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Provenance {
    /// What it was computed from.
    pub source: Source,
    /// Whether it holds all that it should.
    pub complete: bool,
    /// What it should hold and does not.
    pub missing: Vec<Missing>,
    /// Whether its window's minutes are settled; of counts and steps also whether late events have changed them since.
    pub state: State,
    /// Minutes before it are settled, microseconds; none when a counter does not say where it stands.
    #[serde(serialize_with = "as_time_or_null")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub watermark: Option<i64>,
    /// The version of `batch_counts`.
    pub batch_version: u64,
    /// What batch has counted of the answer; none of an SQL answer.
    pub batch: Option<u64>,
    /// What the stream has counted of the answer; none of an SQL answer.
    pub stream: Option<u64>,
    /// How many of the events in the answer were late; none of a top list and of an SQL answer, whose tables have a column
    /// `late`.
    pub late: Option<u64>,
    /// Every log partition.
    pub partitions: Vec<PartitionProvenance>,
    /// How far the raw tables go, of an SQL answer that reads them: not as far as the counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub archived: Vec<Archived>,
    /// The definition version in force, in hexadecimal.
    pub definition: String,
    /// Whether other versions took part.
    pub definitions_mixed: bool,
    /// Which older version of batch an answer is of, if one was asked for: it holds what batch had counted then and
    /// nothing of the stream. It is not live, and nothing is said to be settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<AsOfVersion>,
}

/// See [`Provenance::as_of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct AsOfVersion {
    /// The version of `batch_counts`.
    pub version: u64,
    /// When it was committed, microseconds; none when the table's log does not go back so far.
    #[serde(serialize_with = "as_time_or_null")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub committed_at: Option<i64>,
}

/// What an answer was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Batch counts below coverage, stream counts from there on.
    Counts,
    /// Raw events up to the archived position, deduplicated.
    Events,
}

/// Whether a window's minutes are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All before the watermark.
    Settled,
    /// All before the watermark, and some of what the answer counts came late: one that was given before, when the minutes
    /// were settled already, may have been smaller.
    Corrected,
    /// Not all.
    Provisional,
}

/// How far an answer goes in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct PartitionProvenance {
    /// The partition.
    pub partition: u32,
    /// Batch has counted everything below this offset.
    pub coverage: u64,
    /// The answer holds everything below this offset; none when nobody can say.
    pub position: Option<u64>,
}

/// What is known when a provenance is written.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The version of `batch_counts`.
    pub batch_version: u64,
    /// Coverage of every partition.
    pub coverage: &'a [u64],
    /// What the stream gave.
    pub parts: &'a [Part],
    /// What else is missing.
    pub missing: Vec<Missing>,
    /// Definition versions that took part.
    pub definitions: &'a BTreeSet<u64>,
    /// The definition version in force.
    pub definition: u64,
    /// The clock, microseconds.
    pub now: i64,
    /// When a minute is settled.
    pub patience: Patience,
}

impl Provenance {
    /// The same of an answer that counts so many late events.
    #[must_use]
    pub const fn with_late(mut self, late: u64) -> Self {
        self.late = Some(late);
        if late > 0 && matches!(self.state, State::Settled) {
            self.state = State::Corrected;
        }
        self
    }
}

impl Facts<'_> {
    /// The provenance of an answer about events before `to` (microseconds) with its parts of batch and stream.
    #[must_use]
    pub fn provenance(mut self, to: i64, counts: Option<(u64, u64)>) -> Provenance {
        let mut missing = missing_parts(self.coverage, self.parts);
        missing.append(&mut self.missing);
        missing.sort();
        missing.dedup();
        let watermark = self.watermark();
        let partitions = self.partitions();
        let told = |own: &PartitionProvenance| {
            own.position.is_some() || missing.iter().any(|missing| missing.partition == Some(own.partition))
        };
        if !NO_SILENT_HOLE.holds(partitions.iter().all(told)) {
            missing.push(Missing::silent());
        }
        let settled = watermark.is_some_and(|watermark| to <= watermark);
        Provenance {
            source: Source::Counts,
            complete: missing.is_empty(),
            missing,
            state: if settled { State::Settled } else { State::Provisional },
            watermark,
            batch_version: self.batch_version,
            batch: counts.map(|(batch, _)| batch),
            stream: counts.map(|(_, stream)| stream),
            late: None,
            partitions,
            archived: Vec::new(),
            definition: format!("{:016x}", self.definition),
            definitions_mixed: self.definitions.iter().any(|version| *version != self.definition),
            as_of: None,
        }
    }

    fn watermark(&self) -> Option<i64> {
        let positions: Option<Vec<Position>> = self.parts.iter().map(|part| part.position().copied()).collect();
        let positions = positions.filter(|positions| positions.len() == self.coverage.len())?;
        Some(watermark(&positions, self.now, self.patience))
    }

    fn partitions(&self) -> Vec<PartitionProvenance> {
        let position = |partition| {
            let part = self.parts.iter().find(|part| part.partition == partition)?;
            part.position().map(|position| position.offset)
        };
        let all = (0_u32..).zip(self.coverage);
        all.map(|(partition, &coverage)| PartitionProvenance { partition, coverage, position: position(partition) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reckon_data::logtime::LogTime;

    use super::super::meet::Given;
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn part(partition: u32) -> Part {
        let position = Position {
            offset: 9,
            log_time: LogTime::at(1_000 * SECOND),
            event_time_max: 1_000 * SECOND,
            sealed: 3,
            durable_end: 9,
        };
        Part { partition, from: 5, given: Given::Counts { position, on_disk: vec![] } }
    }

    fn facts<'a>(parts: &'a [Part], definitions: &'a BTreeSet<u64>) -> Facts<'a> {
        Facts {
            batch_version: 7,
            coverage: &[5, 5],
            parts,
            missing: vec![],
            definitions,
            definition: 1,
            now: 1_000 * SECOND,
            patience: Patience { lateness: Duration::from_secs(60), idle: Duration::from_secs(60) },
        }
    }

    #[test]
    fn an_answer_says_what_it_is_made_of() {
        let (parts, definitions) = ([part(0), part(1)], BTreeSet::from([1]));
        let settled = facts(&parts, &definitions).provenance(930 * SECOND, Some((3, 4)));
        assert!(settled.complete && !settled.definitions_mixed);
        assert_eq!((settled.state, settled.batch, settled.stream), (State::Settled, Some(3), Some(4)));
        assert_eq!(settled.partitions[1], PartitionProvenance { partition: 1, coverage: 5, position: Some(9) });
        let provisional = facts(&parts, &BTreeSet::from([1, 2])).provenance(930 * SECOND + 1, Some((3, 4)));
        assert_eq!(provisional.state, State::Provisional);
        assert!(provisional.definitions_mixed);
        assert_eq!(provisional.with_late(1).state, State::Provisional);
        let corrected = settled.clone().with_late(2);
        assert_eq!((corrected.state, corrected.late), (State::Corrected, Some(2)));
        assert_eq!(settled.clone().with_late(0).state, State::Settled);
        let json = serde_json::to_value(&settled).unwrap();
        assert_eq!(json["watermark"], "1970-01-01T00:15:30Z");
        assert_eq!(json["state"], "settled");
    }

    #[test]
    fn a_partition_that_is_silent_is_named_and_settles_nothing() {
        let parts = [part(0), Part::nothing(1, 5, "it has stopped")];
        let answer = facts(&parts, &BTreeSet::new()).provenance(0, None);
        assert!(!answer.complete);
        assert_eq!((answer.state, answer.watermark), (State::Provisional, None));
        assert_eq!((answer.missing[0].partition, answer.missing[0].from), (Some(1), Some(5)));
    }
}
