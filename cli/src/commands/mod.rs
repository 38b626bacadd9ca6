//! The commands.

mod alerts;
mod audit;
mod batch;
mod bench;
mod canary;
mod cluster;
mod demo;
mod dlq;
mod entities;
mod find;
mod import;
mod live;
mod log;
mod ranks;
mod report;
mod sql;
mod status;
mod target;
mod top;
mod up;
mod why;

use anyhow::{Context as _, Result};
use clap::{ArgMatches, Command, Parser, Subcommand};
use reckon_data::config::Settings;

use crate::{roles, settings};

pub use target::Target;

/// Counts events per entity and minute, exactly, and says where every number comes from.
#[derive(Debug, Parser)]
#[command(name = "reckon", version, max_term_width = 110, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Everything in one process with generated traffic, to look at; batch runs every minute.
    Demo(demo::Demo),
    /// Run a server: gateway, counter, archiver, batch and REST in one process.
    Up(up::Up),
    /// Take events and append them to a log that other processes count; any number of them.
    Gateway(roles::Gateway),
    /// Count partitions of a log, and answer for what is not sealed yet; any number of them.
    Stream(roles::Stream),
    /// Archive partitions of a log to raw events, and maintain the tables; any number of them.
    Archive(roles::Archive),
    /// Answer questions over what other processes count, and run batch; any number of them.
    Serve(roles::Serve),
    /// Import files of events, each once, however often it is asked.
    Import(import::Import),
    /// Ask in SQL: tables stats, stats_hour, stats_day, stats_batch, stats_stream, events, dead_letters, audit_runs,
    /// audit_findings, metrics, entities.
    Sql(sql::Sql),
    /// The entities to which something happened most often.
    Top(top::Top),
    /// What is known of entities, titles, channels, owners: import files of it, get, put, delete, list.
    Entities(entities::Entities),
    /// How a server is: whether it is ready and why not, what it does, what it last found out.
    Status(status::Status),
    /// Where an event is: counted, duplicate or dead, and its place in the log.
    Where(find::Find),
    /// How a count came about: batch, stream and raw events of an entity and a minute.
    Why(why::Why),
    /// What was refused: list it, or try it once more.
    Dlq(dlq::Dlq),
    /// Recount exactly from the raw events, now.
    Batch(batch::Batch),
    /// Send known events, ask for them until the answers are right, and say what is lost or counted twice.
    Canary(canary::Canary),
    /// Count the raw events a third time, and hold every number against them: is what is answered true?
    Audit(audit::Audit),
    /// Machines that count raw events for batch runs: a scheduler, and any number of executors (Ballista).
    Cluster(cluster::Cluster),
    /// The log: give up a damaged record, while no server has it; accept what its own retention has lost.
    Log(log::Log),
    /// Rules that people are told by: ask them now, or tell everybody something.
    Alerts(alerts::Alerts),
    /// Measure: how many events a second are taken, how long questions take.
    Bench(bench::Bench),
}

impl Cli {
    /// Whether the process goes on until it is stopped.
    #[must_use]
    pub const fn is_server(&self) -> bool {
        matches!(
            self.command,
            Task::Up(_)
                | Task::Demo(_)
                | Task::Gateway(_)
                | Task::Stream(_)
                | Task::Archive(_)
                | Task::Serve(_)
                | Task::Cluster(_)
        )
    }

    /// The code that the process ends with when a command could not be run: another one than when it has found something.
    #[must_use]
    pub const fn not_run(&self) -> u8 {
        match self.command {
            Task::Alerts(_) | Task::Audit(_) | Task::Canary(_) => 2,
            _ => 1,
        }
    }
}

/// Commands that work with settings.
const WITH_SETTINGS: [&str; 16] = [
    "demo", "up", "gateway", "stream", "archive", "serve", "import", "sql", "top", "status", "where", "why", "dlq",
    "batch", "canary", "audit",
];

/// Those whose settings stand behind what they are to do.
const WITHIN: [(&str, &str); 12] = [
    ("entities", "import"),
    ("entities", "get"),
    ("entities", "put"),
    ("entities", "delete"),
    ("entities", "list"),
    ("log", "set-aside"),
    ("log", "accept"),
    ("cluster", "scheduler"),
    ("cluster", "executor"),
    ("bench", "log"),
    ("alerts", "check"),
    ("alerts", "test"),
];

/// Adds the settings' flags to the commands that work on a data folder.
#[must_use]
pub fn with_settings(mut command: Command) -> Command {
    for name in WITH_SETTINGS {
        command = command.mut_subcommand(name, settings::with_flags);
    }
    for (outer, inner) in WITHIN {
        command = command.mut_subcommand(outer, |outer| outer.mut_subcommand(inner, settings::with_flags));
    }
    command
}

/// The folder that was asked for; none when it is the default.
fn data_dir(matches: &ArgMatches, settings: &Settings) -> Option<String> {
    let flag = matches.get_one::<String>("data_dir").cloned();
    flag.or_else(|| (settings.data_dir != Settings::default().data_dir).then(|| settings.data_dir.clone()))
}

/// The arguments that settings stand among.
fn innermost(matches: &ArgMatches) -> Result<&ArgMatches> {
    let (name, matches) = matches.subcommand().context("a command is expected")?;
    let within = matches.subcommand().filter(|(inner, _)| WITHIN.contains(&(name, inner)));
    Ok(within.map_or(matches, |(_, inner)| inner))
}

/// The settings of the command.
///
/// # Errors
/// As [`settings::from`].
pub fn settings_of(matches: &ArgMatches) -> Result<Settings> {
    settings::from(innermost(matches)?)
}

/// Runs the command.
///
/// # Errors
/// Whatever stands in its way, and what to do about it.
pub async fn run(cli: Cli, matches: &ArgMatches, settings: Settings) -> Result<()> {
    let matches = innermost(matches)?;
    match cli.command {
        Task::Demo(demo) => {
            let dir = data_dir(matches, &settings);
            Box::pin(demo.run(settings, dir)).await
        }
        Task::Up(up) => Box::pin(up.run(settings)).await,
        Task::Gateway(gateway) => Box::pin(gateway.run(settings)).await,
        Task::Stream(stream) => Box::pin(stream.run(settings)).await,
        Task::Archive(archive) => Box::pin(archive.run(settings)).await,
        Task::Serve(serve) => Box::pin(serve.run(settings)).await,
        Task::Import(import) => Box::pin(import.run(settings)).await,
        Task::Sql(sql) => Box::pin(sql.run(settings)).await,
        Task::Top(top) => Box::pin(top.run(settings)).await,
        Task::Entities(entities) => Box::pin(entities.run(settings)).await,
        Task::Status(status) => Box::pin(status.run(settings)).await,
        Task::Where(find) => Box::pin(find.run(settings)).await,
        Task::Why(why) => Box::pin(why.run(settings)).await,
        Task::Dlq(dlq) => Box::pin(dlq.run(settings)).await,
        Task::Batch(batch) => Box::pin(batch.run(settings)).await,
        Task::Audit(audit) => Box::pin(audit.run(settings)).await,
        Task::Canary(canary) => Box::pin(canary.run(settings)).await,
        Task::Cluster(cluster) => Box::pin(cluster.run(settings)).await,
        Task::Log(log) => Box::pin(log.run(settings)).await,
        Task::Alerts(alerts) => Box::pin(alerts.run(settings)).await,
        Task::Bench(bench) => Box::pin(bench.run(settings)).await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory as _;

    use super::*;

    /// What a command calls its own must not be what a setting is called.
    #[test]
    fn settings_and_arguments_of_commands_are_apart() {
        let within = WITHIN.iter().map(|(outer, inner)| vec!["reckon", outer, inner]);
        let commands = WITH_SETTINGS.iter().map(|name| vec!["reckon", name]).chain(within);
        for mut words in commands {
            words.extend(match words[1] {
                "import" => &["--format", "ndjson", "a.ndjson"][..],
                "sql" => &["select 1"],
                "where" => &["id"],
                "why" => &["entity", "2013-02-08T21:29:00Z"],
                "dlq" => &["list"],
                "entities" if words[2] == "import" => &["a.ndjson"],
                "entities" if words[2] != "list" => &["v1"],
                "log" if words[2] == "set-aside" => &["--partition", "0", "--offset", "0"],
                _ => &[],
            });
            let matches = with_settings(Cli::command()).try_get_matches_from(&words);
            let matches = matches.unwrap_or_else(|error| panic!("{words:?}: {error}"));
            let (_, matches) = matches.subcommand().unwrap();
            let matches = if WITHIN.iter().any(|(outer, _)| *outer == words[1]) {
                matches.subcommand().unwrap().1
            } else {
                matches
            };
            assert_eq!(settings::from(matches).unwrap(), Settings::default(), "{words:?}");
        }
    }
}
