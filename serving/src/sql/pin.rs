//! What one query reads, pinned: views, runs and snapshots, and what an answer from them says of itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use reckon_data::table::{Snapshot, Table};

use super::gone::Noted;
use super::samples;
use crate::ServingError;
use crate::query::gather::StreamRuns;
use crate::query::{Archived, AsOf, Serving, Window};
use crate::view::{AsOfVersion, BatchView, Missing, Part, Provenance, Source};

/// Tables that no older version of batch goes with.
const UNVERSIONED: [&str; 5] = ["events", "dead_letters", "audit_runs", "audit_findings", samples::METRICS];
/// Tables of events: what is lost or missing of these is missing from an answer that reads one of them.
const OF_EVENTS: [&str; 7] =
    ["stats", "stats_hour", "stats_day", "stats_batch", "stats_stream", "events", "dead_letters"];

/// What one query reads, pinned.
pub(super) struct Pinned {
    pub(super) view: Arc<BatchView>,
    pub(super) stream: StreamRuns,
    pub(super) events: Option<Arc<Snapshot>>,
    pub(super) dead: Option<Arc<Snapshot>>,
    pub(super) audit_runs: Option<Arc<Snapshot>>,
    pub(super) audit_findings: Option<Arc<Snapshot>>,
    /// How far the raw tables go, if one of them is read.
    pub(super) archived: Vec<Archived>,
    pub(super) missing: Vec<Missing>,
    /// Dates that the query could have had rows of, and that its tables have none of; known once it is planned.
    pub(super) gone: Noted,
    /// The older version that it is, if one was asked for.
    pub(super) as_of: Option<AsOfVersion>,
    /// Whether it reads any of [`OF_EVENTS`].
    pub(super) of_events: bool,
}

impl Serving {
    /// Pins what the named tables are made of: nothing that is not asked for is loaded.
    pub(super) async fn pin(&self, names: &BTreeSet<String>) -> Result<Pinned, ServingError> {
        let merged = ["stats", "stats_hour", "stats_day", "stats_stream"];
        let (view, stream) = if merged.iter().any(|name| names.contains(*name)) {
            self.with_view(|view| async move { self.stream_runs(&view, None).await }).await?
        } else {
            (self.current.get(), StreamRuns::default())
        };
        // A run is written after its findings: whoever sees it sees them.
        let audit_runs = self.newest_if_named(Table::AuditRuns, names).await?;
        let audit_findings = self.newest_if_named(Table::AuditFindings, names).await?;
        let mut pinned = Pinned {
            view,
            stream,
            events: None,
            dead: None,
            audit_runs,
            audit_findings,
            archived: Vec::new(),
            missing: Vec::new(),
            gone: Noted::default(),
            as_of: None,
            of_events: OF_EVENTS.iter().any(|name| names.contains(*name)),
        };
        if names.contains("events") || names.contains("dead_letters") {
            let events = self.snapshots.newest(Table::Events).await?;
            let dead = self.snapshots.newest(Table::DeadLetters).await?;
            pinned.archived = self.archived(&events, &dead);
            pinned.missing.extend(pinned.view.lost_of(&events, self.parts.log));
            pinned.events = names.contains("events").then_some(events);
            pinned.dead = names.contains("dead_letters").then_some(dead);
        }
        Ok(pinned)
    }

    async fn newest_if_named(
        &self,
        table: Table,
        names: &BTreeSet<String>,
    ) -> Result<Option<Arc<Snapshot>>, ServingError> {
        if names.contains(table.name()) { self.snapshots.newest(table).await.map(Some) } else { Ok(None) }
    }

    /// Pins an older version of batch, and nothing else.
    pub(super) async fn pin_past(&self, names: &BTreeSet<String>, as_of: AsOf) -> Result<Pinned, ServingError> {
        refuse_unversioned(names)?;
        let past = self.past(as_of).await?;
        let (view, as_of) = (Arc::clone(&past.view), Some(past.version));
        let stream = StreamRuns { asked: self.parts.clock.now(), ..StreamRuns::default() };
        Ok(Pinned {
            view,
            stream,
            events: None,
            dead: None,
            audit_runs: None,
            audit_findings: None,
            archived: Vec::new(),
            missing: Vec::new(),
            gone: Noted::default(),
            as_of,
            of_events: true,
        })
    }

    /// Pins nothing: the tables as they are planned with, with no rows of the stream and none of raw tables.
    pub(super) fn pin_nothing(&self, names: &BTreeSet<String>, as_of: Option<AsOf>) -> Result<Pinned, ServingError> {
        if as_of.is_some() {
            refuse_unversioned(names)?;
        }
        Ok(Pinned {
            view: self.current.get(),
            stream: StreamRuns::default(),
            events: None,
            dead: None,
            audit_runs: None,
            audit_findings: None,
            archived: Vec::new(),
            missing: Vec::new(),
            gone: Noted::default(),
            as_of: None,
            of_events: false,
        })
    }

    pub(super) fn provenance_of(&self, pinned: &Pinned) -> Provenance {
        let mut provenance = self.provenance_of_events(pinned);
        if !pinned.of_events {
            // What audits and metrics say lacks nothing when events are lost.
            provenance.missing.clear();
            provenance.complete = true;
        }
        provenance
    }

    fn provenance_of_events(&self, pinned: &Pinned) -> Provenance {
        let missing = pinned.stream.missing.iter().chain(&pinned.missing).cloned().collect();
        // Nobody knows which window a query is about.
        let all = Window { from: i64::MIN, to: i64::MAX };
        let asked = pinned.stream.asked;
        if !pinned.stream.parts.is_empty() || pinned.view.coverage.is_empty() {
            let counts = self.provenance(&pinned.view, asked, &pinned.stream.parts, missing, all, None);
            return Provenance { archived: pinned.archived.clone(), ..counts };
        }
        // What lies in tables alone needs no tail to meet it: it goes as far as it goes.
        let standing = (0_u32..).zip(&pinned.view.coverage).map(|(partition, at)| Part::standing(partition, *at));
        let mut provenance = self.provenance(&pinned.view, asked, &standing.collect::<Vec<_>>(), missing, all, None);
        provenance.watermark = None;
        provenance.as_of = pinned.as_of;
        for (at, archived) in provenance.partitions.iter_mut().zip(&pinned.archived) {
            at.position = Some(if pinned.events.is_some() { archived.events } else { archived.dead_letters });
            provenance.source = Source::Events;
        }
        provenance.archived.clone_from(&pinned.archived);
        provenance
    }
}

/// Of an older version only what is kept by versions can be asked.
fn refuse_unversioned(names: &BTreeSet<String>) -> Result<(), ServingError> {
    let Some(name) = UNVERSIONED.into_iter().find(|name| names.contains(*name)) else { return Ok(()) };
    let message = format!("{name} is not kept as it was: leave as_of out, or ask stats, stats_hour or stats_day");
    Err(ServingError::bad("as_of", message))
}
