//! What measurements of questions share: events that are loaded before, events that come in meanwhile, and questions at a
//! steady rate.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use reckon_client::Client;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::lines::draw;
use crate::send::{Plan, Sent, now_millis, send};
use crate::server::Watched;

/// How long events are sent before anything is measured.
const SETTLES: Duration = Duration::from_secs(5);

/// A plan that sends `events` as fast as they are taken, of times up to now.
pub fn past(events: u64, spread_millis: u64, entities: u32) -> Plan {
    Plan {
        rate: 0,
        time: Duration::from_secs(24 * 3_600),
        events,
        connections: 4,
        body_events: 2_000,
        // The days that the questions are about end now.
        until_millis: None,
        spread_millis,
        plan: now_millis() & 0x3fff,
        drawn: draw(1, entities),
    }
}

/// Sends by a plan, and returns when all of it is counted.
///
/// # Errors
/// When the server does not take the events, or does not catch up.
pub async fn load(server: &Watched, client: &Arc<Client>, plan: Plan) -> Result<()> {
    send(Arc::clone(client), plan, Arc::default()).await?;
    server.catch_up().await?;
    Ok(())
}

/// Lets batch count everything.
///
/// # Errors
/// When it fails.
pub async fn batch(client: &Client) -> Result<()> {
    let mut run: Value = client.post("/v1/batch/runs", &json!({})).await?;
    let path = format!("/v1/batch/runs/{}", run["id"].as_str().unwrap_or_default());
    while run["state"] == "running" {
        tokio::time::sleep(Duration::from_millis(200)).await;
        run = client.get(&path, &[]).await?;
    }
    if run["state"] == "succeeded" { Ok(()) } else { bail!("the batch run failed: {}", run["error"]) }
}

/// Events that come in while something is measured.
#[derive(Debug)]
pub struct Meanwhile {
    sent: Arc<Sent>,
    sender: JoinHandle<Result<()>>,
    start: Instant,
    lines: u64,
}

impl Meanwhile {
    /// Sends `rate` events of now a second from here on, of the entities of a `plan` of the past, and returns after five
    /// seconds, from which on it counts.
    pub async fn start(client: &Arc<Client>, rate: u64, plan: Plan) -> Self {
        let sent = Arc::new(Sent::default());
        let plan = Plan { rate, events: 0, body_events: 500, spread_millis: 1_000, plan: plan.plan | 0x8000, ..plan };
        let sender = tokio::spawn(send(Arc::clone(client), plan, Arc::clone(&sent)));
        tokio::time::sleep(SETTLES).await;
        let (start, lines) = (Instant::now(), sent.lines());
        Self { sent, sender, start, lines }
    }

    /// Seconds so far, and events acknowledged a second.
    pub fn so_far(&self) -> (f64, f64) {
        let seconds = self.start.elapsed().as_secs_f64();
        (seconds, (self.sent.lines() - self.lines) as f64 / seconds)
    }

    /// Ends it.
    ///
    /// # Errors
    /// The first body that was not taken.
    pub async fn end(self) -> Result<()> {
        self.sent.stop.store(true, Ordering::Relaxed);
        self.sender.await?
    }
}

/// Asks `rate` questions a second, whatever the answers take, of the servers in turn. `question` says of which kind the
/// next one is, and its path. Returns each one's kind, and milliseconds from when it was due.
///
/// # Errors
/// The first question that fails.
pub async fn ask<K: Send + 'static>(
    urls: &[&str],
    rate: u64,
    time: Duration,
    mut question: impl FnMut() -> (K, String),
) -> Result<Vec<(K, f64)>> {
    let http = reqwest::Client::builder().pool_max_idle_per_host(256).tcp_nodelay(true).build()?;
    let total = rate * time.as_secs();
    let start = Instant::now();
    let (mut asking, mut times) = (JoinSet::new(), Vec::new());
    for (number, url) in (0..total).zip(urls.iter().cycle()) {
        let due = start + Duration::from_secs_f64(number as f64 / rate as f64);
        tokio::time::sleep_until(due.into()).await;
        let (kind, path) = question();
        let (http, question) = (http.clone(), format!("{url}{path}"));
        asking.spawn(async move {
            let response = http.get(&question).send().await?;
            let status = response.status();
            let body = response.bytes().await?;
            if !status.is_success() {
                return Err(anyhow!("{question}: {status}: {}", String::from_utf8_lossy(&body)));
            }
            Ok((kind, due.elapsed().as_secs_f64() * 1e3))
        });
        while let Some(done) = asking.try_join_next() {
            times.push(done??);
        }
    }
    while let Some(done) = asking.join_next().await {
        times.push(done??);
    }
    Ok(times)
}

/// The time that so large a share took no longer than.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hundred_times_the_second_longest_is_that_of_99() {
        let times: Vec<f64> = (1..=100_u8).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| percentile(&times, share)), [50.0, 99.0, 100.0]);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
