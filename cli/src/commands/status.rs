//! `reckon status`: how a server is, on one screen.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use reckon_client::Client;
use reckon_data::config::Settings;
use rustix::termios::tcgetwinsize;
use serde_json::{Value, json};

use super::report::{Facts, Report};
use super::target::TargetArgs;
use crate::exit::Exit;

/// The code that a server that is not ready makes it end with.
const NOT_READY: u8 = 1;
/// Over how long the rate of events is measured.
const RATE_OVER: Duration = Duration::from_secs(1);
/// Columns where nobody says how many there are.
const COLUMNS: usize = 100;
const LAST_AUDIT: &str = "select verdict, finished_at from audit_runs order by finished_at desc limit 1";
const DEAD_TODAY: &str = "select count(*) from dead_letters where received_date = current_date()";

/// How a server is. Ends with 0 when it is ready, with 1 when it is not.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    target: TargetArgs,
}

impl Status {
    /// Asks, and prints what is answered.
    ///
    /// # Errors
    /// When no server answers, or it is not ready.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let client = self.target.server(&settings).await?;
        let report = Report::of(&ask(&client).await?);
        if self.target.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            report.lines(columns()).iter().for_each(|line| println!("{line}"));
        }
        if report.ready { Ok(()) } else { Err(Exit::quiet(NOT_READY).into()) }
    }
}

/// What a server says of itself. What it does not say, because it has no such part, is null.
async fn ask(client: &Client) -> Result<Facts> {
    let begin = Instant::now();
    let (_, before) = client.look("/metrics").await?;
    let ready = resource(client, "/readyz").await?;
    let batch = resource(client, "/v1/batch/runs").await.unwrap_or_default();
    let (audit, dead) = if ready["serving"].is_object() {
        tokio::join!(first_row(client, LAST_AUDIT), first_row(client, DEAD_TODAY))
    } else {
        (Value::Null, Value::Null)
    };
    tokio::time::sleep(RATE_OVER.saturating_sub(begin.elapsed())).await;
    let seconds = begin.elapsed().as_secs_f64();
    let (_, after) = client.look("/metrics").await?;
    Ok(Facts { url: client.url().to_owned(), ready, before, after, seconds, batch, audit, dead: dead[0].clone() })
}

/// A resource, also of a server that is not ready.
async fn resource(client: &Client, path: &str) -> Result<Value> {
    let (status, text) = client.look(path).await?;
    serde_json::from_str(&text).with_context(|| format!("{}{path} answers {status} and no JSON", client.url()))
}

/// The first row of a query's answer; null when there is none, or when the server cannot answer now. An answer that may
/// not be whole is no number either.
async fn first_row(client: &Client, query: &str) -> Value {
    let body = json!({ "query": query });
    let answer: Result<Value, _> = client.post_once("/v1/sql", &body).await;
    match answer {
        Ok(answer) if answer["provenance"]["complete"] == true => answer["rows"][0].clone(),
        _ => Value::Null,
    }
}

fn columns() -> usize {
    let size = tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_col > 0);
    size.map_or(COLUMNS, |size| size.ws_col.into())
}
