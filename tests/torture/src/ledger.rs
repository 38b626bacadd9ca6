//! What the server has acknowledged, by entity and minute, and whether it counts just that.

use std::collections::BTreeMap;

use serde_json::Value;

/// Entity and minute, as the server writes it.
pub type Cell = (String, String);

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Different events of each entity and minute.
    pub cells: BTreeMap<Cell, u64>,
    /// Events that were acknowledged once more in the same request.
    pub repeats: u64,
    /// What came of requests that had to be sent again.
    pub refusals: BTreeMap<String, u64>,
}

/// What the server counts and should not, or should and does not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Events that are lost.
    pub lost: u64,
    /// Events that are counted twice, or were never sent.
    pub extra: u64,
    /// The first cells that differ: what was acknowledged, and what is counted.
    pub examples: Vec<(Cell, u64, u64)>,
}

/// Cells that are named.
const EXAMPLES: usize = 5;

impl Ledger {
    /// Different events that were acknowledged.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.cells.values().sum()
    }

    /// Different events of each entity.
    #[must_use]
    pub fn entities(&self) -> BTreeMap<&str, u64> {
        let mut entities = BTreeMap::new();
        for ((entity, _), events) in &self.cells {
            *entities.entry(entity.as_str()).or_default() += events;
        }
        entities
    }

    /// How `counted` differs from what was acknowledged.
    #[must_use]
    pub fn compare(&self, counted: &BTreeMap<Cell, u64>) -> Difference {
        let mut difference = Difference::default();
        let mut cells: Vec<&Cell> = self.cells.keys().chain(counted.keys()).collect();
        cells.sort_unstable();
        cells.dedup();
        for cell in cells {
            let of = |map: &BTreeMap<Cell, u64>| map.get(cell).copied().unwrap_or(0);
            let (expected, found) = (of(&self.cells), of(counted));
            difference.lost += expected.saturating_sub(found);
            difference.extra += found.saturating_sub(expected);
            if expected != found && difference.examples.len() < EXAMPLES {
                difference.examples.push((cell.clone(), expected, found));
            }
        }
        difference
    }
}

/// The rows of an SQL answer: entity, minute, count.
#[must_use]
pub fn cells(answer: &Value) -> Option<BTreeMap<Cell, u64>> {
    let row = |row: &Value| {
        let count = row[2].as_u64().or_else(|| row[2].as_str()?.parse().ok())?;
        Some(((row[0].as_str()?.to_owned(), row[1].as_str()?.to_owned()), count))
    };
    answer["rows"].as_array()?.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_loss_and_one_double_count_do_not_cancel_out() {
        let cell = |minute: &str| ("v".to_owned(), minute.to_owned());
        let ledger = Ledger { cells: [(cell("1"), 2), (cell("2"), 3)].into(), ..Ledger::default() };
        assert_eq!(ledger.compare(&[(cell("1"), 2), (cell("2"), 3)].into()), Difference::default());
        let difference = ledger.compare(&[(cell("1"), 1), (cell("2"), 3), (cell("3"), 1)].into());
        assert_eq!((difference.lost, difference.extra, difference.examples.len()), (1, 1, 2));
    }

    #[test]
    fn counts_are_read_as_numbers_and_as_text() {
        let answer = serde_json::json!({"rows": [["v", "1", 2], ["w", "1", "3"]]});
        let cells = cells(&answer).unwrap();
        assert_eq!(cells.values().copied().collect::<Vec<_>>(), [2, 3]);
    }
}
