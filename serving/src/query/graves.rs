//! Dead letters at a glance: how many for each reason, and the newest.

use reckon_data::table::Table;
use serde::Serialize;

use super::Serving;
use super::rows::{natural, text_at, texts, whole};
use crate::ServingError;
use crate::times::as_time;

/// So many of the newest are told.
const NEWEST: usize = 5;
/// So many reasons are told, the commonest.
const REASONS: usize = 20;

/// Dead letters at a glance, of those that are archived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Graves {
    /// The version of the table.
    pub version: u64,
    /// Letters by reason, the commonest first.
    pub reasons: Vec<Reason>,
    /// The newest first.
    pub newest: Vec<Newest>,
}

/// How many letters have a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Its code.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// A letter without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Newest {
    /// When it was received, microseconds.
    #[serde(serialize_with = "as_time")]
    pub received_at: i64,
    /// The reason's code.
    pub reason: String,
    /// The field it is wrong with.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// Where it came from.
    pub source: Option<String>,
}

impl Serving {
    /// Dead letters at a glance; none when the table is still of the version that is `known`.
    ///
    /// # Errors
    /// Those of an SQL query.
    pub async fn graves(&self, known: Option<u64>) -> Result<Option<Graves>, ServingError> {
        let dead = self.snapshots.newest(Table::DeadLetters).await?;
        if known == Some(dead.version) {
            return Ok(None);
        }
        let mut graves = Graves { version: dead.version, ..Graves::default() };
        let counted = format!(
            "SELECT reason, count(*) AS letters FROM dead_letters GROUP BY reason ORDER BY letters DESC, reason LIMIT {REASONS}"
        );
        for batch in self.of_letters(&dead, counted).await? {
            let (reasons, counts) = (texts(&batch, "reason")?, whole(&batch, "letters")?);
            for row in 0..batch.num_rows() {
                let reason = reasons.value(row).to_owned();
                graves.reasons.push(Reason { reason, count: natural(&counts, row)? });
            }
        }
        let newest = format!(
            "SELECT received_at, reason, field, message, source FROM dead_letters ORDER BY received_at DESC LIMIT {NEWEST}"
        );
        for batch in self.of_letters(&dead, newest).await? {
            let (received, reason) = (whole(&batch, "received_at")?, texts(&batch, "reason")?);
            let (field, message) = (texts(&batch, "field")?, texts(&batch, "message")?);
            let source = texts(&batch, "source")?;
            graves.newest.extend((0..batch.num_rows()).map(|row| Newest {
                received_at: received.value(row),
                reason: reason.value(row).to_owned(),
                field: text_at(&field, row),
                message: message.value(row).to_owned(),
                source: text_at(&source, row),
            }));
        }
        Ok(Some(graves))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Log, World};

    #[tokio::test]
    async fn reasons_are_counted_and_the_newest_told() {
        let world = World::new(Log(vec![Vec::new()]));
        let letters = [(1, "malformed", "{"), (2, "too_old", "a"), (3, "malformed", "b")];
        world.bury(&letters).await;
        let serving = world.serve().await;
        let graves = serving.graves(None).await.unwrap().unwrap();
        let reasons: Vec<_> = graves.reasons.iter().map(|at| (at.reason.as_str(), at.count)).collect();
        assert_eq!(reasons, [("malformed", 2), ("too_old", 1)]);
        let newest: Vec<_> = graves.newest.iter().map(|at| (at.received_at, at.reason.as_str())).collect();
        assert_eq!(newest, [(3, "malformed"), (2, "too_old"), (1, "malformed")]);
        assert_eq!(serving.graves(Some(graves.version)).await.unwrap(), None, "nothing has come since");
        world.bury(&[(4, "too_old", "c")]).await;
        let later = serving.graves(Some(graves.version)).await.unwrap().unwrap();
        assert_eq!(later.reasons.iter().map(|at| at.count).sum::<u64>(), 4);
    }
}
