//! `--partitions`: which of the log's partitions a process takes.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use object_store::ObjectStore;
use reckon_data::lease::{Keeper, Member};
use reckon_data::log::PARTITIONS_MAX;

/// Partitions, as `0-3,7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitions(BTreeSet<u32>);

impl Partitions {
    /// Their numbers.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }
}

impl FromStr for Partitions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| format!("{text:?} is no partition's number"));
        let mut partitions = BTreeSet::new();
        for part in text.split(',') {
            let (from, to) = match part.split_once('-') {
                Some((from, to)) => (number(from)?, number(to)?),
                None => (number(part)?, number(part)?),
            };
            if from > to || to >= PARTITIONS_MAX {
                return Err(format!("{part:?} is no range of partitions: 0-3,7 is one and another"));
            }
            partitions.extend(from..=to);
        }
        Ok(Self(partitions))
    }
}

/// The leases of a role, of these partitions or of its share.
pub fn keeper(
    leases: Arc<dyn ObjectStore>,
    role: &str,
    me: Member,
    only: Option<Partitions>,
    partitions: u32,
) -> Result<Keeper, anyhow::Error> {
    let Some(Partitions(only)) = only else { return Ok(Keeper::shared(leases, role, me, partitions)) };
    if let Some(missing) = only.iter().find(|partition| **partition >= partitions) {
        anyhow::bail!("--partitions names {missing}, and the log has {partitions} partitions, the first of which is 0");
    }
    Ok(Keeper::fixed(leases, role, me, only))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_are_read() {
        let read = |text: &str| text.parse::<Partitions>().map(|Partitions(found)| found);
        assert_eq!(read("0-3,7").unwrap(), BTreeSet::from([0, 1, 2, 3, 7]));
        assert_eq!(read("5").unwrap(), BTreeSet::from([5]));
        for wrong in ["", "3-1", "a", "1-", "0-256"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
