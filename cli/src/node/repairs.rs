//! How an audit repairs: raw events made anew from the log, and dates recounted from them.

use std::time::Duration;

use reckon_batch::mend::{Mender, Rebuilt};
use reckon_batch::runs::BatchRuns;
use reckon_data::jobs::{JobError, Jobs as _, RunRequest, RunState};
use reckon_data::minute::parse_date;
use uuid::Uuid;

/// For how long a repair waits for a run that goes on already.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// How often it looks whether that is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Makes the raw events of a date (`2013-02-08`) and log partition anew, as far as the log still holds them.
///
/// # Errors
/// A sentence, when nothing could be made anew.
pub async fn rebuild(mender: &Mender, date: &str, partition: u32) -> Result<Rebuilt, String> {
    let days = parse_date(date).ok_or_else(|| format!("{date:?} is no date: write it as 2013-02-08"))?;
    mender.rebuild(days, partition).await.map_err(|error| error.to_string())
}

/// Recounts dates whole from their raw events, whatever was counted of them before. Waits for a run that goes on already.
///
/// # Errors
/// A sentence, when nothing was recounted.
pub async fn recount(runs: &BatchRuns, dates: &[String]) -> Result<(), String> {
    let request = RunRequest { replace: dates.to_vec(), ..RunRequest::default() };
    if let Some(running) = run(runs, &request).await? {
        tracing::info!(run = %running, "a repair waits for the batch run that goes on");
        let waited = tokio::time::timeout(WAIT_MAX, end_of(runs, running)).await;
        waited.map_err(|_| format!("run {running} is still going on after {} minutes", WAIT_MAX.as_secs() / 60))?;
        if let Some(running) = run(runs, &request).await? {
            return Err(JobError::AlreadyRunning(running).to_string());
        }
    }
    Ok(())
}

/// Runs to the end; or says which run goes on already.
async fn run(runs: &BatchRuns, request: &RunRequest) -> Result<Option<Uuid>, String> {
    match runs.run_to_end(request, &|_| {}).await {
        Ok(Ok(_)) => Ok(None),
        Ok(Err(error)) => Err(error.in_full()),
        Err(JobError::AlreadyRunning(running)) => Ok(Some(running)),
        Err(error) => Err(error.to_string()),
    }
}

async fn end_of(runs: &BatchRuns, run: Uuid) {
    while runs.get(run).is_some_and(|run| run.state == RunState::Running) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
