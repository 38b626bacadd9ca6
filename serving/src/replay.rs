//! Replaying dead letters: each is counted at most once, and one that is refused still stays as it is.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use reckon_data::clock::Clock;
use reckon_data::definition::Definition;
use reckon_data::event::{Draft, Limits, wire};
use reckon_data::imports::{ImportEntry, Imports};
use reckon_data::ingest::{Framing, Ingest, Submission};

use crate::Serving;
use crate::query::{DeadLetterRow, DeadLettersQuery, Place};
use crate::rest::{Replay, ReplayReport, ReplayRequest};

/// In the table of imports, replayed letters stand under this mapping.
const MAPPING: &str = "replayed";
/// Letters read at once.
const PAGE: usize = 500;

/// Replays dead letters.
#[derive(Debug)]
pub struct Replayer {
    /// Where the letters are read.
    pub serving: Arc<Serving>,
    /// Where they go.
    pub ingest: Arc<dyn Ingest>,
    /// Where it is remembered which were taken.
    pub imports: Arc<dyn Imports>,
    /// What the front door judges events by.
    pub limits: Limits,
    /// See `limits`.
    pub definition: Arc<Definition>,
    /// See `limits`.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl Replay for Replayer {
    async fn replay(&self, request: ReplayRequest) -> Result<ReplayReport, String> {
        let done: std::collections::BTreeSet<String> =
            self.imports.find(MAPPING).await?.into_iter().map(|entry| entry.file_hash).collect();
        let mut report = ReplayReport::default();
        let mut after: Option<Place> = None;
        let mut left = request.limit.unwrap_or(u64::MAX);
        loop {
            let query = DeadLettersQuery { limit: PAGE, after, reason: request.reason.clone() };
            let page = self.serving.dead_letters(&query).await.map_err(|error| error.to_string())?;
            let mut taken = Vec::new();
            let mut outcome = Ok(());
            for letter in &page.letters {
                if left == 0 || outcome.is_err() {
                    break;
                }
                outcome = self.one(letter, &done, &mut report).await.map(|entry| {
                    // Letters that are passed over use up nothing, so that a limit always gets further.
                    left -= entry.as_ref().map_or(0, |entry| entry.accepted.min(left));
                    taken.extend(entry);
                });
            }
            // Once a page, and what was taken before a failure too.
            let remembered = self.imports.record_all(taken).await;
            outcome.and(remembered)?;
            if left == 0 {
                return Ok(report);
            }
            let Some(next) = page.next else { return Ok(report) };
            after = Some(next);
        }
    }
}

impl Replayer {
    /// Replays a letter; what is to be remembered of it.
    async fn one(
        &self,
        letter: &DeadLetterRow,
        done: &std::collections::BTreeSet<String>,
        report: &mut ReplayReport,
    ) -> Result<Option<ImportEntry>, String> {
        let id = format!("dead-{}", letter.place);
        if done.contains(&id) {
            report.skipped += 1;
            return Ok(None);
        }
        let Some(body) = letter.body.as_ref().filter(|body| self.is_valid(body, &id)) else {
            report.refused += 1;
            return Ok(None);
        };
        // An event without an id gets one from the letter's place, so that a replay that is cut short and
        // repeated is harmless.
        let submission = Submission {
            body: Bytes::from(body.clone()),
            framing: Framing::Json,
            idempotency_key: Some(id.clone()),
            source: Some(format!("replay of {}", letter.place)),
            ..Submission::default()
        };
        let receipt = self.ingest.submit(submission).await.map_err(|error| error.to_string())?;
        report.accepted += receipt.accepted;
        report.refused += receipt.refused;
        // One that was refused after all is another letter now, and this one may be tried again.
        Ok((receipt.accepted > 0).then(|| ImportEntry {
            file_hash: id,
            mapping_hash: MAPPING.to_owned(),
            name: format!("dead letter {}", letter.place),
            accepted: receipt.accepted,
            finished: true,
            ..ImportEntry::default()
        }))
    }

    /// Whether the gateway would take it now. One that it would refuse is not sent: it would only become
    /// another letter.
    fn is_valid(&self, body: &[u8], id: &str) -> bool {
        let Ok(wire) = wire::parse(body) else { return false };
        let Ok(draft) = wire.draft() else { return false };
        let draft = Draft { event_id: draft.event_id.or(Some(id)), ..draft };
        draft
            .validate(&self.limits, self.clock.now())
            .is_ok_and(|event| self.definition.reserved_prefix(event.entity_id).is_none())
    }
}
