//! Looks at each rule by the clock, and has told what there is to tell.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use reckon_data::clock::{Clock, Names};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::deliver::{Outbox, backoff, stopped};
use super::message::Message;
use super::receiver::Receiver;
use super::rules::{AlertSettings, Rule};
use super::state::{Machine, Seen};
use super::stats::AlertStats;
use super::{Answer, Ask};

/// How long messages may still be on their way after the stop.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Whether it is this process that looks at the rules now: one of several should.
pub type IsMine = Arc<dyn Fn() -> bool + Send + Sync>;

/// What alerts are made of.
#[derive(Debug)]
pub struct AlertsParts {
    /// The rules.
    pub settings: AlertSettings,
    /// Who is told ([`super::receivers`]).
    pub receivers: Vec<Arc<dyn Receiver>>,
    /// The clock of all times that are told.
    pub clock: Arc<dyn Clock>,
    /// Ids of alerts.
    pub names: Arc<dyn Names>,
}

/// Alerts that are not looked at yet.
#[derive(Debug)]
pub struct Alerts {
    parts: AlertsParts,
    stats: Arc<AlertStats>,
}

impl Alerts {
    /// Alerts of these parts.
    #[must_use]
    pub fn new(parts: AlertsParts) -> Self {
        let rules = parts.settings.rules.keys().map(String::as_str);
        let stats = AlertStats::of(rules, parts.receivers.iter().map(|receiver| receiver.name()));
        Self { stats: Arc::new(stats), parts }
    }

    /// What they count.
    #[must_use]
    pub const fn stats(&self) -> &Arc<AlertStats> {
        &self.stats
    }

    /// Looks at every rule now and from then on, a task each, until [`Running::stop`]; messages name the `node`. Rules
    /// over `metrics` are looked at whosever turn it is: every process has its own.
    #[must_use]
    pub fn start(self, ask: &Arc<dyn Ask>, is_mine: &IsMine, node: &str) -> Running {
        let AlertsParts { settings, receivers, clock, names } = self.parts;
        let outbox = Arc::new(Outbox::start(&receivers, backoff(), &self.stats));
        let stop = watch::Sender::new(false);
        let mut tasks = Vec::new();
        for (name, rule) in settings.rules {
            let watcher = Watcher {
                machine: Machine::new(micros(rule.hold), micros(settings.repeat)),
                repeat: settings.repeat,
                is_own: rule.is_of_process(),
                node: node.to_owned(),
                name,
                rule,
                ask: Arc::clone(ask),
                clock: Arc::clone(&clock),
                names: Arc::clone(&names),
                stats: Arc::clone(&self.stats),
                outbox: Arc::clone(&outbox),
            };
            tasks.push(tokio::spawn(watcher.watch(Arc::clone(is_mine), stop.subscribe())));
        }
        Running { stop, tasks, outbox }
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// Alerts that are looked at.
#[derive(Debug)]
pub struct Running {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    outbox: Arc<Outbox>,
}

impl Running {
    /// Looks at nothing any more, and delivers what waits as far as that is quickly done.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a rule was not looked at any more");
            }
        }
        self.outbox.stop(STOP_MAX).await;
    }
}

/// Looks at one rule.
struct Watcher {
    name: String,
    rule: Rule,
    repeat: Duration,
    /// Whether it is about this process.
    is_own: bool,
    node: String,
    machine: Machine,
    ask: Arc<dyn Ask>,
    clock: Arc<dyn Clock>,
    names: Arc<dyn Names>,
    stats: Arc<AlertStats>,
    outbox: Arc<Outbox>,
}

impl Watcher {
    async fn watch(mut self, is_mine: IsMine, mut stop: watch::Receiver<bool>) {
        loop {
            if self.is_own || is_mine() {
                tokio::select! {
                    biased;
                    () = stopped(&mut stop) => return,
                    () = self.look() => {}
                }
            } else {
                self.forget();
            }
            // A sender that is gone is a stop, too.
            if tokio::time::timeout(self.rule.every, stopped(&mut stop)).await.is_ok() {
                return;
            }
        }
    }

    async fn look(&mut self) {
        // A panic would end the task, and nobody would be told anything of this rule any more.
        let asked = AssertUnwindSafe(self.ask.rows(&self.rule.sql)).catch_unwind().await;
        let seen = asked.unwrap_or_else(|_| Err("the query has panicked".to_owned()));
        self.judge(&seen);
    }

    fn judge(&mut self, answer: &Result<Answer, String>) {
        let seen = match answer {
            Ok(answer) if answer.total > 0 => Seen::Rows,
            Ok(_) => Seen::Nothing,
            Err(error) => {
                tracing::warn!(alert = self.name, error, "the rule is not answered");
                Seen::Failed
            }
        };
        let now = self.clock.now();
        for tell in self.machine.step(now, seen, self.names.as_ref()) {
            let message = Message::new(&self.name, &self.rule, &tell, now, answer).from_node(&self.node);
            tracing::info!(alert = self.name, state = tell.state.name(), rows = message.rows_total, id = %tell.id, "alert");
            self.outbox.send(&self.rule.to, message);
        }
        self.stats.evaluated(seen == Seen::Failed);
        self.stats.fires(&self.name, self.machine.is_firing());
    }

    /// Another process looks at it: what was seen before it does says nothing when this one does again.
    fn forget(&mut self) {
        self.machine = Machine::new(micros(self.rule.hold), micros(self.repeat));
        self.stats.fires(&self.name, false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use reckon_data::clock::SeededNames;

    use super::*;
    use crate::alert::state::State;
    use crate::alert::testing::{Inbox, Oracle, RuntimeClock};

    const RULES: &str = "repeat = '1h'\n[rules.late]\nsql = 'select lag'\nevery = '10s'\nfor = '30s'";

    struct World {
        oracle: Arc<Oracle>,
        inbox: Arc<Inbox>,
        stats: Arc<AlertStats>,
        is_mine: Arc<AtomicBool>,
        running: Running,
    }

    fn world(rules: &str) -> World {
        let (oracle, inbox) = (Arc::new(Oracle::default()), Arc::new(Inbox::failing(0)));
        let alerts = Alerts::new(AlertsParts {
            settings: AlertSettings::from_toml(rules).unwrap(),
            receivers: vec![Arc::clone(&inbox) as _],
            clock: Arc::new(RuntimeClock::start()),
            names: Arc::new(SeededNames::new(1)),
        });
        let stats = Arc::clone(alerts.stats());
        let is_mine = Arc::new(AtomicBool::new(true));
        let mine = Arc::clone(&is_mine);
        let asked: Arc<dyn Ask> = Arc::clone(&oracle) as _;
        let turn: IsMine = Arc::new(move || mine.load(Ordering::SeqCst));
        let running = alerts.start(&asked, &turn, "here http://here");
        World { oracle, inbox, stats, is_mine, running }
    }

    impl World {
        async fn after(&self, seconds: u64) -> Vec<State> {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            self.inbox.taken().iter().map(|message| message.state).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_alert_fires_in_its_time_is_told_again_and_resolves() {
        let world = world(RULES);
        assert!(world.after(65).await.is_empty());
        world.oracle.set(25);
        assert!(world.after(31).await.is_empty(), "not for long enough");
        assert_eq!(world.after(10).await, [State::Firing]);
        let firing = world.inbox.taken().remove(0);
        assert_eq!((firing.alert.as_str(), firing.rows_total, firing.reminder), ("late", 25, 0));
        assert!(world.stats.firing()["late"]);
        assert_eq!(world.after(3_000).await.len(), 1, "no repeats");
        assert_eq!(world.after(700).await, [State::Firing, State::Firing], "a reminder after an hour");
        world.oracle.set(0);
        assert_eq!(world.after(11).await, [State::Firing, State::Firing, State::Resolved]);
        assert!(world.inbox.taken().iter().all(|message| message.id == firing.id));
        assert!(!world.stats.firing()["late"]);
        world.running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_that_fails_or_panics_is_told_and_asked_again() {
        for trouble in [Oracle::FAILS, Oracle::PANICS] {
            let world = world(RULES);
            world.oracle.set(trouble);
            assert_eq!(world.after(1_000).await, [State::Failing]);
            world.oracle.set(0);
            assert_eq!(world.after(11).await, [State::Failing, State::Resolved]);
            assert!(world.stats.failures() >= 99 && world.stats.evaluations() > world.stats.failures());
            world.running.stop().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_the_turn_tells_nothing() {
        let world = world(RULES);
        world.is_mine.store(false, Ordering::SeqCst);
        world.oracle.set(1);
        assert!(world.after(1_000).await.is_empty());
        world.is_mine.store(true, Ordering::SeqCst);
        assert_eq!(world.after(100).await, [State::Firing]);
        world.is_mine.store(false, Ordering::SeqCst);
        world.oracle.set(0);
        assert_eq!(world.after(100).await, [State::Firing], "nobody says that it is over");
        assert!(!world.stats.firing()["late"]);
        world.running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_process_says_of_itself_is_looked_at_by_each() {
        let world = world("[rules.own]\nsql = 'select 1 from metrics'\n[rules.shared]\nsql = 'select 1 from stats'");
        world.is_mine.store(false, Ordering::SeqCst);
        world.oracle.set(0);
        assert!(world.after(61).await.is_empty());
        world.oracle.set(1);
        assert_eq!(world.after(120).await, [State::Firing]);
        let message = world.inbox.taken().remove(0);
        assert_eq!((message.alert.as_str(), message.node.as_str()), ("own", "here http://here"));
        world.running.stop().await;
    }
}
