//! The `reckon` binary: commands, wiring of the roles, importers.

mod alerts;
mod commands;
mod doors;
mod exit;
mod import;
mod node;
mod roles;
mod settings;
mod telemetry;

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
use telemetry::Telemetry;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Threads that answer requests; work that takes long has threads of its own.
const RUNTIME_THREADS_MIN: usize = 2;

/// What a server tells; libraries only what is wrong. RECKON_LOG chooses otherwise.
const SERVER_LOG: &str = "warn,reckon=info,reckon_data=info,reckon_fluvio=info,reckon_flight=info,reckon_tables=info,reckon_stream=info,\
    reckon_batch=info,reckon_serving=info,reckon_postgres=info,reckon_flight_sql=info,reckon_audit=info";

fn main() -> ExitCode {
    let matches = commands::with_settings(commands::Cli::command()).get_matches();
    let cli = commands::Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let not_run = cli.not_run();
    raise_file_limit();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).max(RUNTIME_THREADS_MIN);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(Box::pin(run(cli, &matches)));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !exit::is_quiet(&error) {
                eprintln!("error: {error:#}");
            }
            ExitCode::from(exit::code_of(&error, not_run))
        }
    }
}

async fn run(cli: commands::Cli, matches: &ArgMatches) -> anyhow::Result<()> {
    let settings = commands::settings_of(matches)?;
    let telemetry = Telemetry::start(&settings.telemetry, if cli.is_server() { SERVER_LOG } else { "error" })?;
    let outcome = commands::run(cli, matches, settings).await;
    telemetry.stop();
    outcome
}

/// Every connection and every open data file is a descriptor, and 1,024 of them, usual on Linux, are few. What cannot be
/// had is done without.
#[cfg(unix)]
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the number of open files stays limited");
    }
}

#[cfg(not(unix))]
fn raise_file_limit() {}
