//! `simulate`: runs seeds, and closes with their number, the faults that struck, and the violations.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "it is a command")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};
use reckon_simulation::{Kind, Outcome, Plan, run};
use tikv_jemallocator::Jemalloc;

// Seeds make and drop many small files: with the system's allocator a good part of the time goes there.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Runs all layers under seeded schedules with faults, and holds every answer to an oracle.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Steps of each.
    #[arg(long, default_value_t = 50)]
    steps: u32,
    /// Events that are sent in each step.
    #[arg(long, default_value_t = 42)]
    events: usize,
    /// What does not happen.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Kind>,
    /// Print all I/O of every seed.
    #[arg(long)]
    tell: bool,
    /// End after so many seconds, even if not all seeds were run.
    #[arg(long)]
    seconds: Option<u64>,
    /// Threads; each runs a seed of its own. All cores unless told otherwise.
    #[arg(long)]
    threads: Option<usize>,
}

impl Arguments {
    fn plan(&self, seed: u64) -> Plan {
        Plan {
            seed,
            steps: self.steps,
            events: self.events,
            without: self.without.iter().copied().collect(),
            tell: self.tell,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcomes = run_all(&arguments);
    report(&arguments, &outcomes);
    if outcomes.iter().any(|outcome| outcome.violation.is_some()) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run_all(arguments: &Arguments) -> Vec<Outcome> {
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    let (next, begun) = (AtomicU64::new(0), Instant::now());
    let bar = ProgressBar::new(arguments.seeds);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {msg} violations, {eta} left") {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar.set_message("0");
    let violations = AtomicU64::new(0);
    let work = || {
        let mut outcomes = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let late = arguments.seconds.is_some_and(|seconds| begun.elapsed().as_secs() >= seconds);
            if at >= arguments.seeds || late {
                return outcomes;
            }
            let plan = arguments.plan(arguments.from + at);
            let outcome = caught(&plan);
            if let Some(violation) = &outcome.violation {
                let so_far = violations.fetch_add(1, Ordering::Relaxed) + 1;
                bar.set_message(so_far.to_string());
                let shorter = shrunk(plan.clone());
                bar.suspend(|| println!("seed {}: {violation}\n  {}", plan.seed, command(&shorter)));
            }
            if arguments.tell {
                bar.suspend(|| outcome.told.iter().for_each(|io| println!("{io}")));
            }
            bar.inc(1);
            outcomes.push(outcome);
        }
    };
    let outcomes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..arguments.threads.unwrap_or(cores)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread of the simulation")).collect()
    });
    bar.finish_and_clear();
    outcomes
}

/// Runs a seed; a panic is a violation too.
fn caught(plan: &Plan) -> Outcome {
    std::panic::catch_unwind(|| run(plan)).unwrap_or_else(|panic| Outcome {
        seed: plan.seed,
        violation: Some(format!("it panicked: {}", said(&*panic))),
        ..Outcome::default()
    })
}

/// The shortest run of a seed that still violates something, and the fewest kinds of things that happen in it.
fn shrunk(mut plan: Plan) -> Plan {
    let fails = |plan: &Plan| caught(plan).violation.is_some();
    for kind in Kind::ALL {
        let mut without = plan.clone();
        without.without.insert(kind);
        if fails(&without) {
            plan = without;
        }
    }
    // A violation that comes in a step comes in the same step of every longer run.
    let (mut low, mut high) = (0, plan.steps);
    while low + 1 < high {
        let middle = low.midpoint(high);
        if fails(&Plan { steps: middle, ..plan.clone() }) { high = middle } else { low = middle }
    }
    Plan { steps: high, ..plan }
}

/// How to see a plan again.
fn command(plan: &Plan) -> String {
    let without: Vec<String> = plan
        .without
        .iter()
        .filter_map(|kind| Some(clap::ValueEnum::to_possible_value(kind)?.get_name().to_owned()))
        .collect();
    let without = if without.is_empty() { String::new() } else { format!(" --without {}", without.join(",")) };
    format!("simulate 1 --from {} --steps {} --events {}{without}", plan.seed, plan.steps, plan.events)
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

fn report(arguments: &Arguments, outcomes: &[Outcome]) {
    let mut struck: BTreeMap<&str, u64> = BTreeMap::new();
    for (kind, times) in outcomes.iter().flat_map(|outcome| &outcome.struck) {
        *struck.entry(kind).or_default() += times;
    }
    let mut table = Table::new();
    table.set_header(["fault", "struck"]);
    for (kind, times) in struck {
        table.add_row([kind.to_owned(), times.to_string()]);
    }
    println!("{table}");
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    println!(
        "{} seeds from {} on, {} steps each: {} events sent, {} acknowledged, {} I/Os, {} complete answers held to the \
         oracle, {} that said what is missing",
        outcomes.len(),
        arguments.from,
        arguments.steps,
        sum(|outcome| outcome.sent),
        sum(|outcome| outcome.acknowledged),
        sum(|outcome| outcome.trace.0),
        sum(|outcome| outcome.answers),
        sum(|outcome| outcome.incomplete),
    );
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.violation.is_some()).collect();
    println!("{} violations", failed.len());
    for outcome in failed {
        println!("  seed {}", outcome.seed);
    }
}
