//! The complement of a batch view, from the stream layer.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use reckon_data::paths::Transaction;
use reckon_data::run::{Run, Selection, StepSums};
use reckon_data::table::{Snapshot, Table};
use reckon_data::tail::TailError;

use super::Serving;
use crate::ServingError;
use crate::index::segments::{Chunk, OnDisk};
use crate::view::{BatchView, Facts, Missing, MissingWhat, Part, Provenance};

/// So many views are tried before an answer is called incomplete.
const ATTEMPTS: u32 = 4;
/// How long to wait for the table to show what the stream layer already knows.
const PAUSE: Duration = Duration::from_millis(20);

/// What the stream layer has, added up.
#[derive(Debug)]
pub(crate) struct StreamSums {
    /// The clock before anybody was asked: what is counted after that came later.
    pub(crate) asked: i64,
    pub(crate) sums: StepSums,
    pub(crate) parts: Vec<Part>,
    pub(crate) missing: Vec<Missing>,
}

/// What the stream layer has: runs in memory, and where the rest lies.
#[derive(Debug, Default)]
pub(crate) struct StreamRuns {
    /// See [`StreamSums::asked`].
    pub(crate) asked: i64,
    pub(crate) runs: Vec<Arc<Run>>,
    pub(crate) on_disk: Vec<Chunk>,
    pub(crate) parts: Vec<Part>,
    pub(crate) missing: Vec<Missing>,
}

/// Whether another view may do better.
pub(crate) enum Outcome<T> {
    Answer(T),
    /// The view is too old for some partition.
    Stale(T),
}

impl Serving {
    /// Adds up what the stream has of `selection` above coverage.
    pub(crate) async fn stream_sums(
        &self,
        view: &BatchView,
        selection: &Selection<'_>,
    ) -> Result<Outcome<StreamSums>, ServingError> {
        let ask = (0_u32..).zip(&view.coverage).map(|(partition, from)| async move {
            (partition, *from, self.parts.tails.sum(partition, *from, selection).await)
        });
        let asked = self.parts.clock.now();
        let mut found = StreamSums { asked, sums: StepSums::new(), parts: Vec::new(), missing: Vec::new() };
        let mut stale = false;
        for (partition, from, answer) in join_all(ask).await {
            match answer {
                Ok(sum) => {
                    let part = Part::of_sum(partition, from, &sum);
                    found.sums.add_all(&sum.cells);
                    let on_disk = self.on_disk(view, &part, Some(&selection.minutes)).await?;
                    for chunk in &on_disk.chunks {
                        match self.segments.runs(&self.index, chunk).await {
                            Err(ServingError::Damaged { damaged }) => found.missing.extend(chunk.missing(&damaged)),
                            runs => runs?.iter().for_each(|run| run.sum(selection, &mut found.sums)),
                        }
                    }
                    found.missing.extend(on_disk.missing);
                    found.parts.push(part);
                }
                Err(error) => {
                    stale |= matches!(error, TailError::Gone { .. });
                    found.parts.push(Part::nothing(partition, from, error));
                }
            }
        }
        Ok(if stale { Outcome::Stale(found) } else { Outcome::Answer(found) })
    }

    /// All that the stream has above coverage; what lies on disk only if it has counts of `minutes` (any when none).
    pub(crate) async fn stream_runs(
        &self,
        view: &BatchView,
        minutes: Option<&Range<i64>>,
    ) -> Result<Outcome<StreamRuns>, ServingError> {
        let ask = (0_u32..)
            .zip(&view.coverage)
            .map(|(partition, from)| async move { (partition, *from, self.parts.tails.tail(partition, *from).await) });
        let mut found = StreamRuns { asked: self.parts.clock.now(), ..StreamRuns::default() };
        let mut stale = false;
        for (partition, from, answer) in join_all(ask).await {
            match answer {
                Ok(tail) => {
                    let part = Part::of_tail(&tail);
                    let on_disk = self.on_disk(view, &part, minutes).await?;
                    found.runs.extend(tail.runs);
                    found.on_disk.extend(on_disk.chunks);
                    found.missing.extend(on_disk.missing);
                    found.parts.push(part);
                }
                Err(error) => {
                    stale |= matches!(error, TailError::Gone { .. });
                    found.parts.push(Part::nothing(partition, from, error));
                }
            }
        }
        Ok(if stale { Outcome::Stale(found) } else { Outcome::Answer(found) })
    }

    /// Where what a part has on disk lies; only segments that have counts of `minutes` (any when none).
    pub(super) async fn on_disk(
        &self,
        view: &BatchView,
        part: &Part,
        minutes: Option<&Range<i64>>,
    ) -> Result<OnDisk, ServingError> {
        let Some(end) = part.on_disk().iter().map(|range| range.end).max() else { return Ok(OnDisk::default()) };
        let name = Transaction::Stream(self.parts.log, part.partition).to_string();
        let holds = |snapshot: &Snapshot| u64::try_from(snapshot.transaction(&name)).is_ok_and(|sealed| sealed >= end);
        let snapshot = if holds(&view.stream) {
            Arc::clone(&view.stream)
        } else {
            self.snapshots.one_that(Table::StreamCounts, holds).await?
        };
        self.segments.find(&self.index, &snapshot, part.partition, part.on_disk(), minutes).await
    }

    /// Asks with the newest view, and again with a newer one as long as the view is stale or its files are
    /// gone, a bounded number of times. What is stale even then is answered as it is: its parts say so.
    pub(crate) async fn with_view<T, F>(
        &self,
        mut ask: impl FnMut(Arc<BatchView>) -> F,
    ) -> Result<(Arc<BatchView>, T), ServingError>
    where
        F: Future<Output = Result<Outcome<T>, ServingError>>,
    {
        let mut view = self.current.get();
        let mut attempt = 1;
        loop {
            let outcome = ask(Arc::clone(&view)).await;
            let last = attempt >= ATTEMPTS;
            match outcome {
                Ok(Outcome::Answer(answer)) => return Ok((view, answer)),
                Ok(Outcome::Stale(answer)) if last => return Ok((view, answer)),
                Err(ServingError::Damaged { damaged }) if !last => {
                    // A newer version may have been made without the file.
                    let newer = self.refresh_now().await?;
                    if newer.version == view.version {
                        return Err(ServingError::Damaged { damaged });
                    }
                    attempt += 1;
                    view = newer;
                    continue;
                }
                Err(error) if last || !matches!(error, ServingError::Unavailable { .. }) => return Err(error),
                Ok(Outcome::Stale(_)) | Err(_) => {}
            }
            attempt += 1;
            let newer = self.refresh_now().await?;
            if newer.version == view.version {
                tokio::time::sleep(PAUSE).await;
            }
            view = newer;
        }
    }

    /// Writes down where an answer comes from; it lacks what is `missing`, and what the view says is lost. `window` is what
    /// it is about, and `asked` the clock before the stream was asked, microseconds.
    pub(crate) fn provenance(
        &self,
        view: &BatchView,
        asked: i64,
        parts: &[Part],
        mut missing: Vec<Missing>,
        window: super::Window,
        counts: Option<(u64, u64)>,
    ) -> Provenance {
        // Raw events may know of more that is lost of a partition than the view does.
        let told: Vec<Option<u32>> = lost_partitions(&missing).collect();
        missing.extend(view.lost().filter(|lost| !told.contains(&lost.partition)));
        let facts = Facts {
            batch_version: view.version,
            coverage: &view.coverage,
            parts,
            missing,
            definitions: &view.definitions(window.dates()),
            definition: self.parts.definition.version(),
            now: asked,
            patience: self.patience(),
        };
        facts.provenance(window.to, counts)
    }
}

/// The partitions of which raw events are named as missing.
fn lost_partitions(missing: &[Missing]) -> impl Iterator<Item = Option<u32>> {
    let of_events = missing.iter().filter(|missing| missing.what == MissingWhat::Events);
    of_events.map(|missing| missing.partition).filter(Option::is_some)
}

/// A count that has not overflowed.
pub(crate) fn exact(count: u64) -> Result<u64, ServingError> {
    if count == u64::MAX { Err(ServingError::internal("the count overflows 64 bits")) } else { Ok(count) }
}

/// The sum of two counts that has not overflowed.
pub(crate) fn exact_sum(a: u64, b: u64) -> Result<u64, ServingError> {
    exact(exact(a)?.saturating_add(exact(b)?))
}
