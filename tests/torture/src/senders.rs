//! Clients that send every event until it is acknowledged, whatever happens to the server meanwhile.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::Client;
use serde_json::Value;

use crate::ledger::Ledger;

/// Entities there are.
const ENTITIES: u32 = 200;
/// Event times lie so far back at most, in seconds.
const LATE_SECONDS: u64 = 600;
/// How long a request is sent again and again: longer than any outage lasts.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Of a hundred events so many are sent twice.
const REPEATS: u32 = 1;

/// What all senders share.
#[derive(Debug)]
pub struct Sending {
    /// Where events go.
    pub url: String,
    /// What was acknowledged.
    pub ledger: Mutex<Ledger>,
    /// Set when no more is to be sent.
    pub stop: AtomicBool,
}

impl Sending {
    /// Requests that the server has refused so far and will take later.
    #[must_use]
    pub fn refused(&self) -> u64 {
        let ledger = self.ledger.lock();
        let refused = |what: &&String| what.starts_with('5') || what.starts_with("429");
        ledger.refusals.keys().filter(refused).map(|what| ledger.refusals[what]).sum()
    }
}

/// One sender.
pub struct Sender {
    /// What it shares with the others.
    pub shared: Arc<Sending>,
    /// Its number.
    pub number: usize,
    /// Events of a request.
    pub batch: usize,
    /// A request is due so often.
    pub every: Duration,
}

struct Event {
    entity: u32,
    seconds: u64,
    id: String,
}

impl Sender {
    /// Sends until it is told to stop, and then until all is acknowledged.
    pub async fn run(self) -> Result<()> {
        let client = Client::builder().timeout(Duration::from_secs(20)).build()?;
        let mut rng = StdRng::seed_from_u64(self.number as u64);
        let mut due = Instant::now();
        let mut sent = 0_u64;
        while !self.shared.stop.load(Ordering::Relaxed) {
            // What could not be sent while the server was down is not made up for: the rate is a rate.
            due = (due + self.every).max(Instant::now());
            tokio::time::sleep_until(due.into()).await;
            let events: Vec<Event> = (0..self.batch).map(|_| self.event(&mut rng, &mut sent)).collect();
            let repeats = (0..self.batch).filter(|_| rng.random_ratio(REPEATS, 100)).collect::<Vec<_>>();
            let body = body(&events, &repeats);
            deliver(&client, &self.shared, &body, events.len() + repeats.len()).await?;
            self.enter(&events, repeats.len());
        }
        Ok(())
    }

    #[allow(clippy::disallowed_methods, reason = "a client has the time of day from its machine")]
    fn event(&self, rng: &mut StdRng, sent: &mut u64) -> Event {
        *sent += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let late = if rng.random_ratio(1, 10) { rng.random_range(0..LATE_SECONDS) } else { 0 };
        // Few have much, as in life.
        let entity = (f64::from(ENTITIES).powf(rng.random::<f64>()) - 1.0) as u32;
        Event { entity, seconds: now - late, id: format!("{}-{sent}", self.number) }
    }

    fn enter(&self, events: &[Event], repeats: usize) {
        let mut ledger = self.shared.ledger.lock();
        for event in events {
            *ledger.cells.entry((format!("v{}", event.entity), minute(event.seconds))).or_default() += 1;
        }
        ledger.repeats += repeats as u64;
    }
}

/// The minute as the server writes it.
fn minute(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds / 60 * 60)).to_string()
}

fn body(events: &[Event], repeats: &[usize]) -> String {
    let mut body = String::new();
    for event in events.iter().chain(repeats.iter().filter_map(|at| events.get(*at))) {
        let Event { entity, seconds, id } = event;
        // Writing to a string cannot fail.
        let _ = writeln!(
            body,
            r#"{{"event_id":"{id}","event_type":"view","entity_id":"v{entity}","event_time":{}}}"#,
            seconds * 1_000
        );
    }
    body
}

/// Sends a body until it is acknowledged; what came of the attempts before is noted.
async fn deliver(client: &Client, shared: &Sending, body: &str, events: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let request = client.post(format!("{}/v1/events", shared.url)).header("content-type", "application/x-ndjson");
        let answer = request.body(body.to_owned()).send().await;
        if let Ok(refused) = &answer
            && refused.status().is_client_error()
            && ![408, 429].contains(&refused.status().as_u16())
        {
            anyhow::bail!("events were refused with {}", refused.status());
        }
        let refusal = match answer {
            Ok(answer) if answer.status().is_success() => match answer.text().await {
                Ok(text) => {
                    let receipt: Value = serde_json::from_str(&text)?;
                    anyhow::ensure!(receipt["accepted"] == events as u64, "{events} events got the receipt {receipt}");
                    return Ok(());
                }
                Err(_) => "half an answer".to_owned(),
            },
            Ok(refused) => {
                let later = refused.headers().contains_key("retry-after");
                format!("{}{}", refused.status(), if later { " with Retry-After" } else { "" })
            }
            Err(error) if error.is_timeout() => "no answer in 20 s".to_owned(),
            Err(_) => "a lost connection".to_owned(),
        };
        anyhow::ensure!(begun.elapsed() < PATIENCE, "after {} s still {refusal}", PATIENCE.as_secs());
        *shared.ledger.lock().refusals.entry(refusal).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
