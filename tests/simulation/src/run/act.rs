//! What happens beside traffic.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rand::Rng as _;
use rand::rngs::StdRng;
use reckon_batch::maintain::MaintainReport;
use reckon_batch::recompute::BatchError;
use reckon_data::minute::{MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE};
use tokio::time::{sleep, timeout};

use super::Simulation;
use crate::faults::{Faults, Rates};
use crate::plan::Kind;

/// Whether a batch run has failed for a reason that no fault explains: numbers that do not add up, or a panic.
const fn is_defect(error: &BatchError) -> bool {
    matches!(error, BatchError::Broken(_) | BatchError::Stopped(_))
}

/// What maintenance got done.
pub(super) fn note(faults: &Faults, report: &MaintainReport) {
    let done = [
        ("done: maintenance", report.failed.is_empty()),
        ("done: compacted events", report.events.commits > 0),
        ("done: compacted stream counts", report.stream_counts.commits > 0),
        ("done: dropped covered segments", report.covered_files > 0),
        ("done: rolled up old dates", report.rolled_up.dates > 0),
        ("done: deleted what nothing refers to", report.deleted > 0),
    ];
    done.iter().filter(|(_, done)| *done).for_each(|(what, _)| faults.note(what));
}

impl Simulation {
    /// Something else that happens.
    pub(super) async fn act(&mut self, kind: Kind, mut luck: StdRng) -> Result<()> {
        let Some(node) = self.node.clone() else { return Ok(()) };
        match kind {
            Kind::Batch => {
                let full = luck.random_ratio(1, 8);
                let (ledger, faults) = (Arc::clone(&self.ledger), self.faults.clone());
                self.jobs.spawn(async move {
                    let ran = tokio::select! {
                        biased;
                        () = node.io.died() => return,
                        ran = timeout(Duration::from_secs(1_800), node.batch(full)) => ran,
                    };
                    if matches!(ran, Ok(Ok(()))) {
                        faults.note("done: batch");
                    }
                    // A run that fails is no violation, the next one makes up for it; unless numbers do not add up.
                    if let Ok(Err(error)) = ran
                        && error.downcast_ref::<BatchError>().is_none_or(is_defect)
                    {
                        ledger.lock().wrong = Some(format!("R-2: batch: {error:#}"));
                    }
                });
            }
            Kind::Maintain => {
                let (ledger, faults) = (Arc::clone(&self.ledger), self.faults.clone());
                self.jobs.spawn(async move {
                    tokio::select! {
                        biased;
                        () = node.io.died() => {}
                        done = node.maintain() => match done {
                            Ok(report) => note(&faults, &report),
                            Err(error) => ledger.lock().wrong = Some(format!("maintenance: {error:#}")),
                        },
                    }
                });
            }
            Kind::Trim => {
                let faults = self.faults.clone();
                self.jobs.spawn(async move {
                    tokio::select! {
                        biased;
                        () = node.io.died() => {}
                        done = node.trim() => if done { faults.note("done: trim") },
                    }
                });
            }
            Kind::Crash if luck.random_ratio(4, 5) => {
                self.faults.note("crash, at some I/O");
                // Those that are few would hardly ever be struck.
                let kinds = ["", "store put", "store get", "table commit", "table snapshot", "log append", "log trim"];
                let kind = kinds[luck.random_range(0..kinds.len())];
                node.io.crash_in(luck.random_range(0..if kind.is_empty() { 60 } else { 6 }), kind);
            }
            Kind::Crash => {
                self.faults.note("crash, now");
                node.io.kill();
            }
            Kind::Rival => self.take_over(luck).await?,
            Kind::Clock => self.jump(luck),
            Kind::Storm => self.weather(luck),
            Kind::Flip => self.flip(luck).await?,
            Kind::Log => self.exchange(luck).await?,
            Kind::Replay => self.replay(&node, luck),
        }
        Ok(())
    }

    /// Storms come and go.
    fn weather(&mut self, mut luck: StdRng) {
        self.stormy = !self.stormy;
        self.faults.set(if self.stormy {
            Rates {
                error: luck.random_range(0..200),
                error_after: luck.random_range(0..100),
                slow: luck.random_range(0..200),
                stall: luck.random_range(0..20),
                list: luck.random_range(0..800),
            }
        } else {
            Rates::NONE
        });
    }

    fn jump(&self, mut luck: StdRng) {
        let far = match luck.random_range(0..4) {
            0 => MICROS_PER_DAY,
            1 => MICROS_PER_HOUR,
            _ => 2 * MICROS_PER_MINUTE,
        };
        let by = luck.random_range(-far..far);
        self.faults.note(if by < 0 { "clock set back" } else { "clock set forwards" });
        self.clock.jump(by);
    }

    /// The process stops where it stands, another takes its place, and later the first goes on as if nothing had
    /// happened: two owners of every partition.
    async fn take_over(&mut self, mut luck: StdRng) -> Result<()> {
        if self.zombie.is_some() {
            return Ok(());
        }
        let Some(first) = self.node.take() else { return Ok(()) };

        first.io.set_running(false);
        self.zombie = Some(first);
        self.revive().await?;
        sleep(Duration::from_millis(luck.random_range(1..120_000))).await;
        if let Some(first) = &self.zombie {
            self.rival = true;
            self.faults.note("stopped, replaced, and gone on");
            first.io.set_running(true);
        }
        Ok(())
    }
}
