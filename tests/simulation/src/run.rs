//! One seed: its steps.

mod act;
mod ask;
mod damage;
mod lists;
mod replay;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytesize::ByteSize;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reckon_data::clock::{Clock, Names, SeededNames};
use reckon_data::config::Settings;
use reckon_data::log::memory::MemoryLog;
use reckon_data::minute::start_of_minute;
use reckon_serving::query::CountQuery;
use reckon_tables::MemoryTables;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{Client, Front, Ledger};
use crate::clock::SimClock;
use crate::faults::{Faults, Rates};
use crate::node::{Durable, Node};
use crate::oracle::{Key, Oracle, Question, Reach};
use crate::plan::{Kind, Outcome, Plan};
use crate::shelf::Shelf;
use crate::tables;
use crate::traffic::{ENTITIES, Traffic};

/// How often a process tries to start; in the second half nothing stands in its way.
const STARTS: u32 = 8;

/// A process that has not started by then hangs.
const PATIENCE_TO_START: Duration = Duration::from_secs(900);

/// What a process says that another has fenced off, or trimmed the log of.
const RIVALRY: [&str; 3] = ["fenced", "but counting has to go on from", "the records between are gone"];

/// Whatever else happens, the process dies in each of these steps.
const CRASH_EVERY: u32 = 12;

/// Runs a seed, on this thread and in virtual time.
///
/// # Panics
/// When the runtime cannot be made.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    reckon_data::files::compress_nothing();
    runtime.block_on(async {
        let mut simulation = Simulation::new(plan, scratch.path().to_owned());
        let result = simulation.run().await;
        let mut outcome = simulation.outcome();
        outcome.violation = result.err().map(|error| format!("{error:#}"));
        outcome
    })
}

struct Simulation {
    plan: Plan,
    rng: StdRng,
    faults: Faults,
    clock: Arc<SimClock>,
    durable: Durable,
    oracle: Oracle,
    traffic: Traffic,
    ledger: Arc<Mutex<Ledger>>,
    front: watch::Sender<Front>,
    node: Option<Arc<Node>>,
    /// A process that was stopped while another took its place.
    zombie: Option<Arc<Node>>,
    jobs: JoinSet<()>,
    clients: JoinSet<()>,
    answers: u64,
    incomplete: u64,
    stormy: bool,
    /// Whether the process has had a rival, who may have fenced it.
    rival: bool,
    /// Whether a bit has flipped somewhere.
    flipped: bool,
    /// Whether one has flipped in counts.
    flipped_counts: bool,
}

fn settings(rng: &mut StdRng) -> Settings {
    let mut settings = Settings::default();
    settings.log.partitions = 3;
    // Not as many as there are cores: a seed is the same on every machine.
    settings.gateway.workers = 2;
    settings.log.hot_entities = BTreeMap::from([("v0".to_owned(), 2)]);
    settings.stream.dedup_minutes = rng.random_range(1..=12);
    settings.stream.segment_events = rng.random_range(20..300);
    settings.stream.seal_every = Duration::from_secs(rng.random_range(5..120));
    settings.stream.memory = ByteSize::kib(rng.random_range(16..512));
    settings.archive.commit_every = Duration::from_secs(rng.random_range(2..60));
    settings.archive.file_size = ByteSize::kib(rng.random_range(8..256));
    settings.batch.memory = ByteSize::mib(64);
    settings.retention.covered_segments = Duration::from_secs(rng.random_range(60..1_200));
    // Longer than whatever a process may be stopped for between writing a file and committing it.
    settings.retention.removed_files = Duration::from_secs(rng.random_range(2_100..3_600));
    settings.serving.index_memory = ByteSize::mib(rng.random_range(0..16));
    if settings.stream.dedup_minutes.is_multiple_of(2) {
        // Events are up to three days old, some of them years.
        settings.retention.minutes_days = Some(1 + settings.stream.dedup_minutes / 6);
        settings.retention.hours_days = settings.stream.dedup_minutes.is_multiple_of(4).then_some(100);
    }
    settings
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

impl Simulation {
    fn new(plan: &Plan, scratch: std::path::PathBuf) -> Self {
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let settings = settings(&mut rng);
        let clock = Arc::new(SimClock::start());
        let names: Arc<dyn Names> = Arc::new(SeededNames::new(plan.seed));
        let partitions = settings.log.partitions;
        let durable = Durable {
            log: MemoryLog::new(partitions, &*names),
            history: Arc::new(Mutex::new(vec![Vec::new(); partitions as usize])),
            tables: Arc::new(MemoryTables::new(Arc::clone(&clock) as Arc<dyn Clock>)),
            store: Arc::new(InMemory::new()),
            sums: Arc::default(),
            shelf: Shelf::new(micros(settings.retention.removed_files)),
            flipped: Arc::default(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            names,
            scratch,
            settings,
        };
        Self {
            oracle: Oracle::new(partitions, durable.settings.stream.dedup_minutes),
            traffic: Traffic::new(plan.seed),
            faults: Faults::new(plan.seed, plan.tell),
            ledger: Arc::default(),
            front: watch::Sender::new(None),
            node: None,
            zombie: None,
            jobs: JoinSet::new(),
            clients: JoinSet::new(),
            answers: 0,
            incomplete: 0,
            stormy: false,
            rival: false,
            flipped: false,
            flipped_counts: false,
            plan: plan.clone(),
            rng,
            clock,
            durable,
        }
    }

    fn outcome(&self) -> Outcome {
        let ledger = self.ledger.lock();
        Outcome {
            seed: self.plan.seed,
            sent: ledger.sent,
            acknowledged: ledger.acknowledged.len() as u64,
            answers: self.answers,
            incomplete: self.incomplete,
            struck: self.faults.struck(),
            trace: self.faults.trace(),
            told: self.faults.told(),
            violation: None,
        }
    }

    async fn run(&mut self) -> Result<()> {
        self.revive().await?;
        for step in 0..self.plan.steps {
            // Each step draws its own luck: one that is left out changes nothing for those after it.
            self.rng = StdRng::seed_from_u64(self.plan.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(step)));
            self.step(step).await.with_context(|| format!("in step {step}"))?;
        }
        self.end().await.context("at the end")
    }

    async fn step(&mut self, step: u32) -> Result<()> {
        self.traffic();
        let (drawn, luck) = (Kind::of(self.rng.random_range(0..100)), self.rng.random());
        let happens = if step == 0 {
            Some(Kind::Storm)
        } else if step.is_multiple_of(CRASH_EVERY) {
            Some(Kind::Crash)
        } else {
            drawn
        };
        let wait = match self.rng.random_range(0..10) {
            0..5 => self.rng.random_range(1..5_000),
            5..9 => self.rng.random_range(1..90_000),
            _ => self.rng.random_range(1..900_000),
        };
        if let Some(kind) = happens.filter(|kind| !self.plan.without.contains(kind) && !self.plan.rests(*kind, step)) {
            self.act(kind, StdRng::seed_from_u64(luck)).await?;
        }
        sleep(Duration::from_millis(wait)).await;
        self.revive().await?;
        self.ask(3).await?;
        if self.rng.random_ratio(1, 4)
            && let Some(zombie) = self.zombie.take()
        {
            zombie.io.kill();
            // It may have been fenced off without knowing: whatever befalls the next one is its own fault.
            if let Some(node) = &self.node {
                node.io.kill();
            }
        }
        self.hold_to_ledger()
    }

    /// Clients send what is due in this step.
    fn traffic(&mut self) {
        let mut due = self.plan.events;
        while due > 0 {
            let lines = self.rng.random_range(1..=due.min(30));
            due -= lines;
            let request = self.traffic.request(lines, self.clock.now());
            let client = Client {
                front: self.front.subscribe(),
                ledger: Arc::clone(&self.ledger),
                rng: StdRng::seed_from_u64(self.rng.random()),
            };
            self.clients.spawn(client.send(request));
        }
        for set in [&mut self.clients, &mut self.jobs] {
            while let Some(ended) = set.try_join_next() {
                if let Err(error) = ended {
                    self.ledger.lock().wrong = Some(format!("a task has ended: {error}"));
                }
            }
        }
    }

    /// Makes sure that a process runs which can go on.
    async fn revive(&mut self) -> Result<()> {
        let broken = self.node.as_ref().is_some_and(|node| !node.io.is_alive() || node.failure().is_some());
        if broken && let Some(node) = self.node.take() {
            // Fenced by the other owner, or dead.
            if let Some(failure) = node.failure()
                && node.io.is_alive()
                && !(self.rival && RIVALRY.iter().any(|said| failure.contains(said)))
            {
                let others = if self.rival { "for a reason that no other explains" } else { "with nobody else there" };
                bail!("a process stopped by itself, {others}: {failure}");
            }
            node.io.kill();
            if let Some(zombie) = self.zombie.take() {
                zombie.io.kill();
            }
        }
        let mut tries = 0;
        while self.node.is_none() {
            self.rival = self.zombie.is_some();
            let io = self.faults.process();
            let started = timeout(PATIENCE_TO_START, Node::start(&self.durable, io.clone())).await;
            match started {
                Ok(Ok(node)) => {
                    self.front.send_replace(Some((Arc::clone(&node.gateway), io)));
                    self.node = Some(Arc::new(node));
                }
                Ok(Err(_)) | Err(_) => {
                    io.kill();
                    tries += 1;
                    if tries == STARTS / 2 {
                        self.faults.set(Rates::NONE);
                    }
                    if tries > STARTS {
                        bail!(
                            "a process cannot start: {:#}",
                            started.map_or_else(|_| anyhow::anyhow!("it hangs"), |r| r.err().unwrap())
                        );
                    }
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
        Ok(())
    }

    fn follow(&mut self) {
        self.oracle.follow(&self.durable.history.lock());
    }

    /// what was acknowledged is in the log. What was held to it once stays so: nothing is ever taken from the history.
    fn hold_to_ledger(&mut self) -> Result<()> {
        self.follow();
        let mut ledger = self.ledger.lock();
        if let Some(wrong) = ledger.wrong.clone().or_else(|| self.durable.shelf.wrong()) {
            bail!("{wrong}");
        }
        if let Some(lost) = std::mem::take(&mut ledger.unheld).iter().find(|key| !self.oracle.is_logged(key)) {
            bail!("R-3: {lost:?} was acknowledged and is not in the log");
        }
        let refused = std::mem::take(&mut ledger.refused);
        if let Some(refused) = refused.iter().find(|refused| !self.oracle.is_buried(refused.as_bytes())) {
            bail!("R-8: {refused} was refused and is in no dead letter");
        }
        let unsent = self.oracle.unheld().filter(|key| !ledger.submitted.contains(*key));
        let unsent: Vec<Key> = unsent.cloned().collect();
        if let Some(made) = unsent.iter().find(|key| !ledger.is_replayed(&self.oracle, key)) {
            bail!("R-2: {made:?} is in the log and nobody has sent it");
        }
        Ok(())
    }

    /// The faults are over: everything is counted, once.
    async fn end(&mut self) -> Result<()> {
        self.faults.set(Rates::NONE);
        if let Some(zombie) = self.zombie.take() {
            zombie.io.kill();
        }
        if let Some(node) = &self.node {
            node.io.kill();
        }
        self.revive().await?;
        let clients = std::mem::take(&mut self.clients).join_all();
        if timeout(Duration::from_secs(7_200), clients).await.is_err() {
            bail!("clients wait for ever, with nothing in their way");
        }
        self.jobs.abort_all();
        let node = self.node.clone().context("no process")?;
        // All is counted, sealed and archived: nothing may be missing, while batch has not covered the end.
        sleep(Duration::from_secs(300)).await;
        if self.flipped {
            self.make_good(&node).await?;
        } else if let [damaged, ..] = node.damaged().as_slice() {
            bail!("no bit has flipped, and {damaged}");
        }
        if !self.flipped_counts {
            self.audit(&node, false).await?;
        }
        self.replay_all(&node).await.context("a replay of all dead letters")?;
        // A run that a process which is gone has begun may have left a cut, and nothing else.
        timeout(Duration::from_secs(3_600), node.batch(false)).await.context("batch hangs")?.context("batch")?;
        self.hold_to_ledger()?;
        let report = node.maintain().await.context("maintenance")?;
        if !report.failed.is_empty() {
            bail!("maintenance fails, with nothing in its way: {:?}", report.failed);
        }
        act::note(&self.faults, &report);
        self.sweep(&node).await?;
        sleep(Duration::from_secs(180)).await;
        if let Some(failure) = node.failure() {
            bail!("a process stopped by itself: {failure}");
        }
        self.audit(&node, true).await
    }

    /// Every entity and the tables, when all is over: up to the end of the log, and once batch has `covered` it, too.
    async fn audit(&mut self, node: &Arc<Node>, covered: bool) -> Result<()> {
        self.follow();
        let ends: Vec<Reach> = self
            .oracle
            .ends()
            .into_iter()
            .map(|end| Reach { coverage: end, position: end, holes: Vec::new() })
            .collect();
        for at in 0..ENTITIES {
            let minutes = i64::from(i32::MIN)..i64::from(i32::MAX);
            let question = Question { entity: Some(format!("v{at}")), event_type: None, minutes, country: None };
            self.ask_count(node, &question).await?;
            let (from, to) = (start_of_minute(question.minutes.start), start_of_minute(question.minutes.end));
            let entity = format!("v{at}");
            let query = CountQuery { entity: entity.clone(), event_type: None, from, to, filter: None };
            let answer = node.serving.count(&query).await?;
            if !answer.provenance.complete
                || answer.provenance.partitions.iter().zip(&ends).any(|(own, end)| own.position != Some(end.position))
            {
                bail!("R-7: {entity} is not complete, with nothing in its way: {:?}", answer.provenance);
            }
            let (distinct, _) = self.oracle.counted(&question, &ends);
            if covered && answer.count != distinct.len() as u64 {
                bail!("R-2: {entity} has {} at the end, not {}: {:?}", answer.count, distinct.len(), answer.provenance);
            }
        }
        tables::hold(&self.oracle, &self.durable).await.map_err(anyhow::Error::msg)?;
        // The audit counts for itself, too, and may find nothing but what was flipped.
        Box::pin(crate::audit::hold(&self.durable, &node.serving)).await.map_err(anyhow::Error::msg)
    }
}
