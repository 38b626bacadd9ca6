//! The commands.

mod batch;
mod bench;
mod demo;
mod dlq;
mod find;
mod import;
mod log;
mod sql;
mod target;
mod top;
mod up;

use anyhow::{Context as _, Result};
use clap::{ArgMatches, Command, Parser, Subcommand};
use reckon_data::config::Settings;

use crate::settings;

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
    /// Import files of events, each once, however often it is asked.
    Import(import::Import),
    /// Ask in SQL: tables stats, stats_hour, stats_day, stats_batch, stats_stream, events, dead_letters.
    Sql(sql::Sql),
    /// The entities to which something happened most often.
    Top(top::Top),
    /// Where an event is: counted, duplicate or dead, and its place in the log.
    Where(find::Find),
    /// What was refused: list it, or try it once more.
    Dlq(dlq::Dlq),
    /// Recount exactly from the raw events, now.
    Batch(batch::Batch),
    /// The log, while no server has it: give up a damaged record.
    Log(log::Log),
    /// Measure: how many events a second are taken, how long questions take.
    Bench(bench::Bench),
}

impl Cli {
    /// Whether the process goes on until it is stopped.
    #[must_use]
    pub const fn is_server(&self) -> bool {
        matches!(self.command, Task::Up(_) | Task::Demo(_))
    }
}

/// Adds the settings' flags to the commands that work on a data folder.
#[must_use]
pub fn with_settings(mut command: Command) -> Command {
    for name in ["demo", "up", "import", "sql", "top", "where", "dlq", "batch", "bench"] {
        command = command.mut_subcommand(name, settings::with_flags);
    }
    command.mut_subcommand("log", |log| log.mut_subcommand("set-aside", settings::with_flags))
}

/// The folder that was asked for; none when it is the default.
fn data_dir(matches: &ArgMatches, settings: &Settings) -> Option<String> {
    let flag = matches.get_one::<String>("data_dir").cloned();
    flag.or_else(|| (settings.data_dir != Settings::default().data_dir).then(|| settings.data_dir.clone()))
}

/// Runs the command.
///
/// # Errors
/// Whatever stands in its way, and what to do about it.
pub async fn run(cli: Cli, matches: &ArgMatches) -> Result<()> {
    let (name, matches) = matches.subcommand().context("a command is expected")?;
    // Its settings stand behind what it is to do with the log.
    let matches = matches.subcommand().filter(|_| name == "log").map_or(matches, |(_, inner)| inner);
    let settings = settings::from(matches)?;
    match cli.command {
        Task::Demo(demo) => {
            let dir = data_dir(matches, &settings);
            Box::pin(demo.run(settings, dir)).await
        }
        Task::Up(up) => Box::pin(up.run(settings)).await,
        Task::Import(import) => Box::pin(import.run(settings)).await,
        Task::Sql(sql) => Box::pin(sql.run(settings)).await,
        Task::Top(top) => Box::pin(top.run(settings)).await,
        Task::Where(find) => Box::pin(find.run(settings)).await,
        Task::Dlq(dlq) => Box::pin(dlq.run(settings)).await,
        Task::Batch(batch) => Box::pin(batch.run(settings)).await,
        Task::Log(log) => Box::pin(log.run(settings)).await,
        Task::Bench(bench) => Box::pin(bench.run(settings)).await,
    }
}
