//! `torture`: loads `reckon up`, kills it at any moment, starts it again, and at the end compares every entity and
//! minute, and the count of every entity, with a ledger of what was acknowledged: before a batch run, after all dates
//! were counted anew from raw events, and after one more restart.
#![allow(clippy::print_stdout, reason = "it is a command")]

mod flips;
mod ledger;
mod outage;
mod senders;
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use flips::{Flipped, flip};
use ledger::{Difference, Ledger, cells};
use outage::{Outage, Survived};
use senders::{Sender, Sending};
use server::Server;

/// How often everything that can be in the middle of something is: seals, commits, batch runs.
const FLAGS: [&str; 8] = [
    "--stream-seal-every",
    "2s",
    "--archive-commit-every",
    "2s",
    "--batch-schedule",
    "* * * * *",
    "--stream-segment-events",
    "20000",
];
/// Should a bit flip in raw events, the log has them too.
const KEEP_LOG: [&str; 2] = ["--log-keep", "2h"];
/// Senders; each sends so many events at once.
const SENDERS: usize = 8;
/// How long the counter may take at the end.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);
const BATCH: usize = 250;
/// Before something befalls it.
const WARM_UP: Duration = Duration::from_secs(10);

/// Loads the server, kills it at any moment, and compares every entity and minute with what was acknowledged.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often it is killed.
    #[arg(default_value_t = 20)]
    kills: u32,
    /// Events a second.
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
    /// The program; beside this one if not given.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Its folder; a temporary one if not given.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The moments follow from it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Longest time between a start and a kill, seconds.
    #[arg(long, default_value_t = 6)]
    longest: u64,
    /// What befalls it after the kills.
    #[arg(long)]
    outage: Option<Outage>,
    /// How long that lasts, seconds.
    #[arg(long, default_value_t = 60)]
    outage_seconds: u64,
    /// How many bits flip in its files after that, while it is down.
    #[arg(long, default_value_t = 0)]
    flips: u32,
    /// Run it with its default settings; with those of the torture everything happens often.
    #[arg(long)]
    plain: bool,
    /// Do nothing to it for so long, seconds, and look at its memory.
    #[arg(long, default_value_t = 0)]
    quiet_seconds: u64,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let temporary = tempfile::tempdir()?;
    let dir = arguments.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&dir)?;
    if std::fs::read_dir(&dir)?.next().is_some() {
        bail!("{} is not empty: what is counted there already would be held against an empty ledger", dir.display());
    }
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("reckon"),
    };
    let more = if arguments.flips > 0 { &KEEP_LOG[..] } else { &[] };
    let often = if arguments.plain { &[] } else { &FLAGS[..] };
    let flags: Vec<String> = often.iter().chain(more).map(|&flag| flag.to_owned()).collect();
    let mut server = Server::new(&binary, &dir, &flags)?;
    if arguments.outage == Some(Outage::ReadOnly) {
        server.without_privileges()?;
    }
    server.start().await?;
    let shared =
        Arc::new(Sending { url: server.url(), ledger: Mutex::new(Ledger::default()), stop: AtomicBool::new(false) });
    let senders = start_senders(&shared, arguments.rate);
    let recoveries = torture(&mut server, &arguments).await?;
    watch(&server, &dir, Duration::from_secs(arguments.quiet_seconds)).await?;
    if let Some(outage) = arguments.outage {
        tokio::time::sleep(WARM_UP).await;
        let survived = outage.befall(&server, &dir, Duration::from_secs(arguments.outage_seconds), &shared).await;
        tell(outage, &survived?);
    }
    if arguments.flips > 0 {
        let Flipped { tables, log, given_up, named } = flip(&mut server, &dir, arguments.flips, arguments.seed).await?;
        println!(
            "bits have flipped in {tables} files of tables and {log} of the log; {named} times damage was named, and \
             {given_up} cuts of the log were set aside"
        );
    }
    shared.stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await??;
    }
    let ledger = std::mem::take(&mut *shared.ledger.lock());
    let exact = verdict(&mut server, &ledger, &recoveries).await?;
    server.stop()?;
    Ok(if exact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start_senders(shared: &Arc<Sending>, rate: u32) -> Vec<tokio::task::JoinHandle<Result<()>>> {
    let every = Duration::from_secs_f64((SENDERS * BATCH) as f64 / f64::from(rate.max(1)));
    let sender = |number| Sender { shared: Arc::clone(shared), number, batch: BATCH, every };
    (0..SENDERS).map(|number| tokio::spawn(sender(number).run())).collect()
}

/// Kills it again and again; how long each start took.
async fn torture(server: &mut Server, arguments: &Arguments) -> Result<Vec<Duration>> {
    let mut rng = StdRng::seed_from_u64(arguments.seed);
    let bar = ProgressBar::new(u64::from(arguments.kills));
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} kills, {msg}, {eta} left")?.progress_chars("━╸ "));
    let mut recoveries = Vec::new();
    for _ in 0..arguments.kills {
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..arguments.longest * 1_000))).await;
        if rng.random_ratio(1, 6) {
            server.signal("STOP")?;
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..2_000))).await;
            server.signal("CONT")?;
        }
        server.kill()?;
        // Every fourth once more while it recovers.
        if rng.random_ratio(1, 4) {
            server.spawn()?;
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..300))).await;
            server.kill()?;
        }
        let took = server.start().await?;
        bar.set_message(format!("ready after {:.2} s", took.as_secs_f64()));
        bar.inc(1);
        recoveries.push(took);
    }
    bar.finish_and_clear();
    recoveries.sort_unstable();
    Ok(recoveries)
}

fn tell(outage: Outage, survived: &Survived) {
    let Survived { lasted, before, peak, lag, refused, caught_up } = survived;
    println!(
        "{outage:?} for {:.0} s: {} MiB before, {} MiB at the most; {refused} requests were refused, {lag} records \
         behind at its end, none {:.1} s later",
        lasted.as_secs_f64(),
        before >> 20,
        peak >> 20,
        caught_up.as_secs_f64()
    );
}

/// Looks at its memory and its files every minute.
async fn watch(server: &Server, dir: &Path, time: Duration) -> Result<()> {
    let begun = std::time::Instant::now();
    while begun.elapsed() < time {
        tokio::time::sleep(Duration::from_secs(60).min(time)).await;
        let [events, sealed, batch] = server.live_files().await?;
        println!(
            "{:6} s: {} MiB; {} files of the log; the tables refer to {events} of raw events, {sealed} of sealed counts and \
             {batch} of batch counts; {} files lie in their folders",
            begun.elapsed().as_secs(),
            server.memory()? >> 20,
            files_or_none(&dir.join("log")),
            files_or_none(&dir.join("tables")),
        );
    }
    Ok(())
}

/// How many files there are below a folder. Some go while they are counted.
fn files(dir: &Path) -> Result<usize> {
    let mut files = 0;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        files += if path.is_dir() { files_or_none(&path) } else { 1 };
    }
    Ok(files)
}

fn files_or_none(dir: &Path) -> usize {
    files(dir).unwrap_or(0)
}

/// Compares, and says how it went.
async fn verdict(server: &mut Server, ledger: &Ledger, recoveries: &[Duration]) -> Result<bool> {
    println!(
        "{} kills; {} different events acknowledged, {} repeats",
        recoveries.len(),
        ledger.events(),
        ledger.repeats
    );
    for (refusal, times) in &ledger.refusals {
        println!("  {times} requests were sent again after {refusal}");
    }
    if let (Some(median), Some(longest)) = (recoveries.get(recoveries.len() / 2), recoveries.last()) {
        println!("ready again after: p50 {:.2} s, longest {:.2} s", median.as_secs_f64(), longest.as_secs_f64());
    }
    if ledger.events() == 0 {
        bail!("nothing was acknowledged: there is nothing to compare");
    }
    let mut exact = show("before batch", &compare(server, ledger).await?);
    // From raw events alone: what those lack is lost from then on.
    server.recount().await?;
    exact &= show("counted anew from raw events", &compare(server, ledger).await?);
    exact &= audited(server).await?;
    server.kill()?;
    server.start().await?;
    exact &= show("after one more kill", &compare(server, ledger).await?);
    Ok(exact)
}

/// Holds the audit to find nothing, now and after every batch run of before, but files whose bytes were flipped.
async fn audited(server: &Server) -> Result<bool> {
    let findings = server.audit().await?;
    let unexplained: Vec<&Value> = findings.iter().filter(|finding| finding["class"] != "corrupt_file").collect();
    println!("audit: {} findings, {} of them not of a flipped file", findings.len(), unexplained.len());
    unexplained.iter().take(5).for_each(|finding| println!("  {finding}"));
    let query = "select class, explanation, count(*) from audit_findings where is_error and class <> 'corrupt_file' \
                 group by 1, 2";
    let before = server.sql(query).await?;
    let rows = before["rows"].as_array().context("an answer without rows")?;
    let runs = server.sql("select verdict, count(*) from audit_runs group by 1").await?;
    println!("audits: {}", runs["rows"]);
    rows.iter().take(5).for_each(|row| println!("  {row}"));
    Ok(unexplained.is_empty() && rows.is_empty())
}

async fn compare(server: &Server, ledger: &Ledger) -> Result<Difference> {
    let begun = std::time::Instant::now();
    while server.get("/readyz").await?["lag_records"] != 0 {
        if begun.elapsed() > CATCH_UP_MAX {
            bail!("the counter has not caught up after {} s", CATCH_UP_MAX.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = server.sql("select entity_id, minute, sum(count) from stats group by 1, 2").await?;
    let difference = ledger.compare(&cells(&answer).context("an answer without counts")?);
    // The index answers for itself.
    for (entity, expected) in ledger.entities() {
        let answer = server.get(&format!("/v1/entities/{entity}/count?type=view")).await?;
        if answer["count"] != expected || answer["provenance"]["complete"] != true {
            bail!("{entity}: {expected} acknowledged, and the count is {answer}");
        }
    }
    Ok(difference)
}

fn show(when: &str, difference: &Difference) -> bool {
    let Difference { lost, extra, examples } = difference;
    println!("{when}: {lost} lost, {extra} counted twice or never sent");
    for ((entity, minute), expected, found) in examples {
        println!("  {entity} {minute}: {expected} acknowledged, {found} counted");
    }
    *difference == Difference::default()
}
