//! Partitions whose work cannot begin, and why.

use std::collections::BTreeMap;

use parking_lot::RwLock;

/// What stands in the way of each.
#[derive(Debug, Default)]
pub struct Troubles(RwLock<BTreeMap<u32, String>>);

impl Troubles {
    /// Remembers how an attempt to begin with a partition has ended; what it gave.
    pub fn note<T>(&self, partition: u32, begun: anyhow::Result<T>) -> Option<T> {
        match begun {
            Ok(begun) => {
                self.0.write().remove(&partition);
                Some(begun)
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(partition, error, "the work on a partition cannot begin, it is tried again");
                self.0.write().insert(partition, error);
                None
            }
        }
    }

    /// Forgets a partition that is another's.
    pub fn forget(&self, partition: u32) {
        self.0.write().remove(&partition);
    }

    /// Them all, as reasons.
    pub fn reasons(&self) -> Vec<String> {
        self.0.read().iter().map(|(partition, error)| format!("partition {partition}: {error}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn what_stands_in_the_way_is_said_until_it_does_not() {
        let troubles = Troubles::default();
        assert_eq!(troubles.note(3, Err::<(), _>(anyhow!("no log").context("the counter cannot start"))), None);
        assert_eq!(troubles.reasons(), ["partition 3: the counter cannot start: no log"]);
        assert_eq!(troubles.note(3, Ok(())), Some(()));
        assert!(troubles.reasons().is_empty());
    }
}
