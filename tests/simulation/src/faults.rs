//! What goes wrong, and when: every I/O of the layers asks here first.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::Notify;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::shelf::Shown;

/// How often things go wrong, each in thousandths of all I/O.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// An error, and nothing has happened.
    pub error: u32,
    /// An error, although it has happened: an unknown outcome.
    pub error_after: u32,
    /// It takes up to some seconds.
    pub slow: u32,
    /// It takes up to a minute: whoever has a time limit meets it.
    pub stall: u32,
    /// A list is not what there is; in thousandths of all lists.
    pub list: u32,
}

impl Rates {
    /// Nothing goes wrong.
    pub const NONE: Self = Self { error: 0, error_after: 0, slow: 0, stall: 0, list: 0 };
}

/// What becomes of one I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It succeeds.
    Fine,
    /// It fails without an effect.
    Error,
    /// It fails and has its effect.
    ErrorAfter,
    /// The process dies before it.
    CrashBefore,
    /// The process dies after it, or in the middle, where that can be.
    CrashAfter,
}

/// A process: it can be killed, and stopped for a while.
#[derive(Debug)]
struct Process {
    alive: bool,
    running: bool,
    /// So many I/Os until it dies, and of which kind; of any if empty.
    crash_in: Option<(u32, &'static str)>,
}

/// The I/O of one process. Clones are the same process.
#[derive(Debug, Clone)]
pub struct Io {
    world: Arc<Mutex<World>>,
    process: Arc<Mutex<Process>>,
    resumed: Arc<Notify>,
    died: Arc<Notify>,
}

#[derive(Debug)]
struct World {
    rng: StdRng,
    rates: Rates,
    struck: BTreeMap<String, u64>,
    ops: u64,
    trace: u64,
    /// All of them in words, if somebody wants to read them.
    told: Option<Vec<String>>,
    begun: Instant,
}

/// What goes wrong in a world; makes processes.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Mutex<World>>);

impl Faults {
    /// Faults that follow from a seed; none until [`Faults::set`].
    #[must_use]
    pub fn new(seed: u64, tell: bool) -> Self {
        let rng = StdRng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15);
        let world = World {
            rng,
            rates: Rates::NONE,
            struck: BTreeMap::new(),
            ops: 0,
            trace: seed,
            told: tell.then(Vec::new),
            begun: Instant::now(),
        };
        Self(Arc::new(Mutex::new(world)))
    }

    /// How often things go wrong from now on.
    pub fn set(&self, rates: Rates) {
        self.0.lock().rates = rates;
    }

    /// Notes that something was done to the world that is no I/O.
    pub fn note(&self, what: &str) {
        *self.0.lock().struck.entry(what.to_owned()).or_default() += 1;
    }

    /// How often each kind of fault struck.
    #[must_use]
    pub fn struck(&self) -> BTreeMap<String, u64> {
        self.0.lock().struck.clone()
    }

    /// I/Os so far, and a hash of all of them: two runs of a seed have the same.
    #[must_use]
    pub fn trace(&self) -> (u64, u64) {
        let world = self.0.lock();
        (world.ops, world.trace)
    }

    /// All I/Os in words.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        self.0.lock().told.clone().unwrap_or_default()
    }

    /// A new process.
    #[must_use]
    pub fn process(&self) -> Io {
        Io {
            world: Arc::clone(&self.0),
            process: Arc::new(Mutex::new(Process { alive: true, running: true, crash_in: None })),
            resumed: Arc::new(Notify::new()),
            died: Arc::new(Notify::new()),
        }
    }
}

impl Io {
    /// The process dies at its `ios`-th I/O from now, of those whose names, or names and places, begin with `kind`.
    pub fn crash_in(&self, ios: u32, kind: &'static str) {
        self.process.lock().crash_in = Some((ios, kind));
    }

    /// The process dies now: none of its I/O has an effect any more, and none returns.
    pub fn kill(&self) {
        self.process.lock().alive = false;
        self.died.notify_waiters();
        self.died.notify_one();
    }

    /// Whether it lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.process.lock().alive
    }

    /// Waits until it dies.
    pub async fn died(&self) {
        while self.is_alive() {
            self.died.notified().await;
        }
        // Others may wait too.
        self.died.notify_one();
    }

    /// Stops the process where it stands (`false`), or lets it go on.
    pub fn set_running(&self, running: bool) {
        self.process.lock().running = running;
        if running {
            self.resumed.notify_waiters();
        }
    }

    /// What becomes of an I/O; called right before it. Does not return if the process is dead.
    pub async fn fate(&self, op: &str, place: &str) -> Fate {
        self.wait_for_turn().await;
        let delay = self.delay(op);
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
            self.wait_for_turn().await;
        }
        let crash = {
            let mut process = self.process.lock();
            match process.crash_in.as_mut() {
                Some((ios, kind)) if is_of(kind, op, place) => {
                    let now = *ios == 0;
                    *ios = ios.saturating_sub(1);
                    now
                }
                _ => false,
            }
        };
        let mut world = self.world.lock();
        world.ops += 1;
        world.trace = xxh3_64_with_seed(place.as_bytes(), xxh3_64_with_seed(op.as_bytes(), world.trace));
        let fate = if crash {
            if world.rng.random() { Fate::CrashBefore } else { Fate::CrashAfter }
        } else {
            let at = world.rng.random_range(0..1_000);
            let Rates { error, error_after, .. } = world.rates;
            match at {
                at if at < error => Fate::Error,
                at if at < error + error_after => Fate::ErrorAfter,
                _ => Fate::Fine,
            }
        };
        let at = world.begun.elapsed();
        if let Some(told) = &mut world.told {
            told.push(format!("{:10.3} {op} {place}: {fate:?}", at.as_secs_f64()));
        }
        let name = match fate {
            Fate::Fine => None,
            Fate::Error => Some("error"),
            Fate::ErrorAfter => Some("unknown outcome"),
            Fate::CrashBefore => Some("crash before"),
            Fate::CrashAfter => Some("crash after"),
        };
        if let Some(name) = name {
            *world.struck.entry(format!("{name}: {op}")).or_default() += 1;
        }
        fate
    }

    /// A number below `below`, from the world's seed.
    #[must_use]
    pub fn below(&self, below: usize) -> usize {
        if below == 0 { 0 } else { self.world.lock().rng.random_range(0..below) }
    }

    /// What a list shows.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let mut world = self.world.lock();
        if world.rng.random_range(0..1_000) >= world.rates.list {
            return Shown::Whole;
        }
        let (name, shown) =
            if world.rng.random() { ("list: lacks files", Shown::Partial) } else { ("list: stale", Shown::Stale) };
        *world.struck.entry(name.to_owned()).or_default() += 1;
        shown
    }

    /// Dies, and does not return.
    pub async fn die<T>(&self) -> T {
        self.kill();
        pending().await
    }

    async fn wait_for_turn(&self) {
        loop {
            // Before it looks: what resumes in between is not missed.
            let resumed = self.resumed.notified();
            if self.process.lock().running {
                break;
            }
            resumed.await;
        }
        if !self.is_alive() {
            pending::<()>().await;
        }
    }

    fn delay(&self, op: &str) -> Option<Duration> {
        let mut world = self.world.lock();
        let Rates { slow, stall, .. } = world.rates;
        let at = world.rng.random_range(0..1_000);
        let (name, most) = match at {
            at if at < stall => ("stall", 60_000),
            at if at < stall + slow => ("slow", 3_000),
            _ => return None,
        };
        *world.struck.entry(format!("{name}: {op}")).or_default() += 1;
        Some(Duration::from_millis(world.rng.random_range(1..most)))
    }
}

/// Whether an I/O is of a kind: `table commit` is, and `table commit imports`.
fn is_of(kind: &str, op: &str, place: &str) -> bool {
    op.starts_with(kind)
        || kind.strip_prefix(op).and_then(|rest| rest.strip_prefix(' ')).is_some_and(|rest| place.starts_with(rest))
}
