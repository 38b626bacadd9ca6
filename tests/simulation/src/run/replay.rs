//! Operators who replay dead letters.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reckon_data::clock::Clock as _;
use reckon_serving::rest::{ReplayReport, ReplayRequest};
use tokio::time::{sleep, timeout};

use super::Simulation;
use crate::client::Ledger;
use crate::faults::Faults;
use crate::node::Node;
use crate::plan::Kind;

/// Where a process dies in the middle of a replay: between what it appends and what it remembers of that, above all.
const CRASHES: [&str; 4] = ["log append", "store put imports", "table commit imports", "table snapshot imports"];
/// By then all that was appended is archived.
const ARCHIVED: Duration = Duration::from_secs(300);

impl Simulation {
    /// One operator, or two at once, replay all dead letters or some, once or again and again; the process may die over it.
    pub(super) fn replay(&mut self, node: &Arc<Node>, mut luck: StdRng) {
        let operators = if luck.random_ratio(1, 3) { 2 } else { 1 };
        if operators == 2 {
            self.faults.note("replay beside another");
        }
        if luck.random_ratio(1, 3) {
            node.io.crash_in(luck.random_range(0..3), CRASHES[luck.random_range(0..CRASHES.len())]);
        }
        for _ in 0..operators {
            let (ledger, faults) = (Arc::clone(&self.ledger), self.faults.clone());
            let operator =
                Operator { node: Arc::clone(node), ledger, faults, rng: StdRng::seed_from_u64(luck.random()) };
            self.jobs.spawn(operator.work());
        }
    }

    /// the cause is gone, and whatever is an event is counted, however often it was replayed before; what is none
    /// stays a dead letter. So what was received is what is in the log and what is refused still.
    pub(super) async fn replay_all(&mut self, node: &Node) -> Result<()> {
        if self.plan.without.contains(&Kind::Replay) {
            return Ok(());
        }
        let ahead = self.ledger.lock().latest() - self.clock.now();
        self.clock.jump(ahead.max(0));
        let all = || async {
            let report = timeout(Duration::from_secs(3_600), node.replay(ReplayRequest::default())).await;
            report.context("it hangs")?.map_err(|error| anyhow!("R-8: {error}, with nothing in its way"))
        };
        let (first, second) = (all().await?, all().await?);
        sleep(ARCHIVED).await;
        self.hold_to_ledger()?;
        let (mut counted, mut refused) = (0, 0);
        let ledger = self.ledger.lock();
        for (place, letter) in self.oracle.dead() {
            let Some(key) = ledger.replayed(place, letter) else {
                refused += 1;
                continue;
            };
            counted += 1;
            if !letter.is_again && !self.oracle.is_logged(&key) {
                bail!("R-8: the letter at {place:?} is replayed, and {key:?} is in no log");
            }
        }
        let expected = ReplayReport { accepted: 0, refused, skipped: counted };
        if second != expected {
            bail!("R-8: after {first:?} a replay says {second:?}, not {expected:?}");
        }
        Ok(())
    }
}

/// Somebody who replays.
struct Operator {
    node: Arc<Node>,
    ledger: Arc<Mutex<Ledger>>,
    faults: Faults,
    rng: StdRng,
}

impl Operator {
    async fn work(mut self) {
        for _ in 0..self.rng.random_range(1..=4) {
            let request = self.request();
            let patience = Duration::from_millis(self.rng.random_range(1_000..300_000));
            let replay = tokio::select! {
                biased;
                () = self.node.io.died() => return self.faults.note("replay: the process dies"),
                replay = timeout(patience, self.node.replay(request.clone())) => replay,
            };
            match replay {
                Ok(Ok(report)) => self.take(&request, report),
                Ok(Err(_)) => self.faults.note("replay: fails, and is tried again"),
                Err(_) => self.faults.note("replay: given up in the middle"),
            }
            sleep(Duration::from_millis(self.rng.random_range(1..20_000))).await;
        }
    }

    fn request(&mut self) -> ReplayRequest {
        let reason = match self.rng.random_range(0..5) {
            0..2 => Some("in_future".to_owned()),
            2 => Some("malformed".to_owned()),
            _ => None,
        };
        ReplayRequest { reason, limit: self.rng.random_ratio(1, 3).then(|| self.rng.random_range(1..10)) }
    }

    fn take(&self, request: &ReplayRequest, report: ReplayReport) {
        self.faults.note("done: replay");
        if report.accepted > 0 {
            self.faults.note("done: replay that counts");
        }
        if request.limit.is_some_and(|limit| report.accepted > limit) {
            self.ledger.lock().wrong = Some(format!("R-8: {request:?} was answered with {report:?}"));
        }
    }
}
