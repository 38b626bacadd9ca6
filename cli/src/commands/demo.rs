//! `reckon demo`: everything, with traffic to look at.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use reckon_bench::plausible::Traffic;
use reckon_client::batch::Batch;
use reckon_client::{Client, Options};
use reckon_data::clock::{Clock, Names, RandomNames, SystemClock};
use reckon_data::config::Settings;

use super::up::Server;

/// Batch runs every minute, so that both layers can be seen at work.
const SCHEDULE: &str = "* * * * *";
/// How often traffic is sent.
const TICK: Duration = Duration::from_millis(200);
/// Traffic of the half hour before, so that there is something to see at once.
const PAST_MINUTES: i64 = 30;
/// Of them, those that are there before the guide is.
const NEWEST_MINUTES: i64 = 5;

/// Everything with generated traffic.
#[derive(Debug, Args)]
pub struct Demo {
    /// Events a second, on average over a day.
    #[arg(long, default_value_t = 400.0)]
    rate: f64,
    /// Videos and ads.
    #[arg(long, default_value_t = 5_000)]
    entities: u32,
    /// Keep the data in this folder, as --data-dir does; without either, in one that goes with the demo.
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Demo {
    /// Runs until it is stopped; `data_dir` is the folder that was asked for.
    ///
    /// # Errors
    /// When the server cannot start.
    pub async fn run(self, mut settings: Settings, data_dir: Option<String>) -> Result<()> {
        let temporary = tempfile::tempdir()?;
        let keep = self.keep.as_ref().map(|path| path.to_string_lossy().into_owned());
        settings.data_dir = match (keep, data_dir) {
            (Some(keep), Some(dir)) if keep != dir => bail!("--keep {keep} and --data-dir {dir} are two folders"),
            (keep, dir) => keep.or(dir).unwrap_or_else(|| temporary.path().to_string_lossy().into_owned()),
        };
        let dir = settings.data_dir.clone();
        SCHEDULE.clone_into(&mut settings.batch.schedule);
        let server = Server::start(settings, "demo", Arc::new(SystemClock)).await?;
        let client = Client::new(server.url(), Options::default())?;
        let mut sender = Sender::new(client, self.rate, self.entities);
        // The newest first: whoever follows the guide asks for the last five minutes.
        sender.send_past(1..=NEWEST_MINUTES).await;
        println!("{}", guide(server.url(), &dir, &server.doors()));
        let traffic = tokio::spawn(sender.send());
        let stopped = server.until_stopped().await;
        traffic.abort();
        stopped
    }
}

/// Where to look.
fn guide(url: &str, dir: &str, doors: &[String]) -> String {
    let doors: String =
        doors.iter().filter_map(|line| line.split_once(": ")).map(|(_, how)| format!("    {how}\n")).collect();
    format!(
        "reckon counts generated traffic at {url}, data in {dir}\n\n\
         \x20 the most viewed videos of the last five minutes\n\
         \x20   curl '{url}/v1/top?type=view&n=10&window=5m'\n\
         \x20 one video, and what of its count comes from batch and what from the stream\n\
         \x20   curl '{url}/v1/entities/video-1/count?type=view'\n\
         \x20 per minute, and by country\n\
         \x20   curl '{url}/v1/entities/video-1/stats?step=1m&window=15m&filter=country:US'\n\
         \x20 SQL\n\
         \x20   reckon sql --url {url} \"select country, sum(count) from stats group by 1 order by 2 desc\"\n\
         \x20   curl {url}/v1/sql -d '{{\"query\":\"select * from stats_hour order by count desc limit 5\"}}'\n\
         {doors}\
         \x20 batch runs (one a minute), health, metrics, and all there is\n\
         \x20   curl {url}/v1/batch/runs; curl {url}/readyz; curl {url}/metrics; curl {url}/openapi.json\n\n\
         Ctrl-C ends it."
    )
}

/// Sends traffic.
struct Sender {
    client: Client,
    traffic: Traffic,
    rate: f64,
}

impl Sender {
    fn new(client: Client, rate: f64, entities: u32) -> Self {
        let seed = RandomNames.fresh().as_u64_pair().1;
        Self { client, traffic: Traffic::new(seed, entities), rate }
    }

    /// Traffic of so many minutes ago.
    async fn send_past(&mut self, minutes: std::ops::RangeInclusive<i64>) {
        for minute in minutes {
            let then = millis() - minute * 60_000;
            // A tenth of the traffic will do for the past.
            self.post((Traffic::rate(self.rate, then) * 6.0) as u64, then).await;
        }
    }

    /// First the rest of the past, then as time goes.
    async fn send(mut self) {
        self.send_past(NEWEST_MINUTES + 1..=PAST_MINUTES).await;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = millis();
            self.post((Traffic::rate(self.rate, now) * TICK.as_secs_f64()) as u64, now).await;
        }
    }

    async fn post(&mut self, events: u64, now: i64) {
        let mut batch = Batch::new(1 << 20);
        for event in self.traffic.lines(events, now) {
            batch.push(event.to_string().as_bytes());
        }
        if batch.is_empty() {
            return;
        }
        let key = RandomNames.fresh().to_string();
        if let Err(error) = self.client.send_lines(batch.take(), &key, Some("demo")).await {
            tracing::warn!(%error, "traffic is lost");
        }
    }
}

fn millis() -> i64 {
    SystemClock.now() / 1_000
}
