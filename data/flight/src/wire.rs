//! What is asked and answered.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reckon_data::key::entity_hash;
use reckon_data::logtime::LogTime;
use reckon_data::metric::{Cell, Distinct, ValueState};
use reckon_data::run::{DimCondition, Selection};
use reckon_data::tail::Position;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A ticket: what is asked, and whom. Addresses are used again by others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Who is meant.
    pub whom: Whom,
    /// What.
    pub ask: Ask,
}

/// A process that counts a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whom {
    /// The log's identity.
    pub log: Uuid,
    /// The process, as the leases name it.
    pub member: Uuid,
}

/// What a ticket asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// All counts of [from, position).
    Tail {
        /// The partition.
        partition: u32,
        /// First offset.
        from: u64,
    },
    /// What a selection finds there.
    Sum {
        /// The partition.
        partition: u32,
        /// First offset.
        from: u64,
        /// Which counts.
        selection: Selected,
    },
    /// Where partitions stand.
    Positions {
        /// Those.
        partitions: Vec<u32>,
    },
}

/// A [`Selection`] on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selected {
    entity: String,
    event_type: Option<String>,
    minutes: Range<i64>,
    step: Option<i64>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Condition {
    index: usize,
    accepted: Vec<Option<String>>,
    negated: bool,
}

impl Selected {
    /// A selection to be sent.
    #[must_use]
    pub fn of(selection: &Selection<'_>) -> Self {
        let text = |value: &Option<Arc<str>>| value.as_deref().map(str::to_owned);
        let condition = |condition: &DimCondition| Condition {
            index: condition.index,
            accepted: condition.accepted.iter().map(text).collect(),
            negated: condition.negated,
        };
        Self {
            entity: selection.entity.to_owned(),
            event_type: selection.event_type.map(str::to_owned),
            minutes: selection.minutes.clone(),
            step: selection.step,
            conditions: selection.conditions.iter().map(condition).collect(),
        }
    }

    /// The selection that was sent.
    #[must_use]
    pub fn selection(&self) -> Selection<'_> {
        let condition = |condition: &Condition| DimCondition {
            index: condition.index,
            accepted: condition.accepted.iter().map(|value| value.as_deref().map(Arc::from)).collect(),
            negated: condition.negated,
        };
        Selection {
            entity: &self.entity,
            entity_hash: entity_hash(&self.entity),
            event_type: self.event_type.as_deref(),
            minutes: self.minutes.clone(),
            step: self.step,
            conditions: Cow::Owned(self.conditions.iter().map(condition).collect()),
        }
    }
}

/// What is small of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version of the definition that is counted by.
    pub definition: u64,
    /// Where partitions stand; those that cannot say are left out.
    pub positions: Vec<Stand>,
    /// Ranges to be read from `stream_counts`.
    pub on_disk: Vec<Range<u64>>,
    /// Sums by the minute in which their step starts.
    pub cells: Vec<(i64, Sums)>,
}

/// A [`Position`] on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    /// The partition.
    pub partition: u32,
    offset: u64,
    log_time: Option<i64>,
    event_time_max: i64,
    sealed: u64,
    durable_end: u64,
}

impl Stand {
    /// A position to be sent.
    #[must_use]
    pub const fn of(partition: u32, position: &Position) -> Self {
        let Position { offset, log_time, event_time_max, sealed, durable_end } = *position;
        Self { partition, offset, log_time: log_time.micros(), event_time_max, sealed, durable_end }
    }

    /// The position that was sent.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            offset: self.offset,
            log_time: self.log_time.map_or(LogTime::UNSET, LogTime::at),
            event_time_max: self.event_time_max,
            sealed: self.sealed,
            durable_end: self.durable_end,
        }
    }
}

/// A [`Cell`] on its way. Sums are decimal text, sketches base64.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    count: u64,
    fingerprint: u64,
    late: u64,
    value: Option<Values>,
    distinct: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Values {
    count: u64,
    sum: String,
    min: i64,
    max: i64,
}

impl Sums {
    /// A cell to be sent.
    #[must_use]
    pub fn of(cell: &Cell) -> Self {
        let values = |value: &ValueState| Values {
            count: value.count,
            sum: value.sum.to_string(),
            min: value.min,
            max: value.max,
        };
        Self {
            count: cell.count,
            fingerprint: cell.fingerprint,
            late: cell.late,
            value: cell.value.as_ref().map(values),
            distinct: cell.distinct.as_ref().map(|sketch| STANDARD.encode(sketch.to_bytes())),
        }
    }

    /// The cell that was sent; none if it is not what was.
    #[must_use]
    pub fn cell(&self) -> Option<Cell> {
        let value = match &self.value {
            Some(Values { count, sum, min, max }) => {
                Some(ValueState { count: *count, sum: sum.parse().ok()?, min: *min, max: *max })
            }
            None => None,
        };
        let distinct = match &self.distinct {
            Some(text) => Some(Distinct::from_bytes(&STANDARD.decode(text).ok()?).ok()?),
            None => None,
        };
        Some(Cell { count: self.count, fingerprint: self.fingerprint, late: self.late, value, distinct })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_sent_arrives() {
        let conditions = vec![DimCondition { index: 0, accepted: vec![None, Some("US".into())], negated: true }];
        let selection = Selection {
            event_type: Some("view"),
            minutes: 5..9,
            step: Some(2),
            conditions: Cow::Owned(conditions),
            ..Selection::all_of("video-1")
        };
        let ask = Ask::Sum { partition: 3, from: 17, selection: Selected::of(&selection) };
        let text = serde_json::to_string(&ask).unwrap();
        let Ask::Sum { selection: arrived, .. } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!(arrived.selection(), selection);

        let mut distinct = Distinct::new();
        distinct.insert("u");
        let value = Some(ValueState { count: 2, sum: i128::MAX, min: -1, max: 7 });
        let cell = Cell { count: u64::MAX, fingerprint: u64::MAX - 1, late: 3, value, distinct: Some(distinct) };
        let sent = serde_json::to_string(&Sums::of(&cell)).unwrap();
        let arrived: Sums = serde_json::from_str(&sent).unwrap();
        assert_eq!(arrived.cell().unwrap(), cell);
        assert_eq!(Sums::of(&Cell::default()).cell().unwrap(), Cell::default());

        let position =
            Position { offset: 5, log_time: LogTime::UNSET, event_time_max: i64::MIN, sealed: 3, durable_end: 9 };
        let arrived: Stand = serde_json::from_str(&serde_json::to_string(&Stand::of(2, &position)).unwrap()).unwrap();
        assert_eq!((arrived.partition, arrived.position()), (2, position));
    }
}
