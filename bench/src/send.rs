//! Sends lines at a steady rate over a few connections; each body is answered before the next on its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use reckon_client::Client;
use tokio::task::JoinSet;

use crate::lines::Lines;

/// What is sent, and how fast.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Events a second in all; 0 is as fast as they are taken.
    pub rate: u64,
    /// For how long.
    pub time: Duration,
    /// Or until so many were sent; 0 is no limit.
    pub events: u64,
    /// Connections.
    pub connections: u64,
    /// Events in a body.
    pub body_events: u64,
    /// The latest event time, milliseconds since 1970; without it the time of sending.
    pub until_millis: Option<u64>,
    /// Event times lie at most so many milliseconds before that.
    pub spread_millis: u64,
    /// Sets the ids of this plan apart from others; below 2^16.
    pub plan: u64,
    /// Entities drawn in advance, see [`crate::lines::draw`].
    pub drawn: Arc<Vec<u32>>,
}

/// What was sent and acknowledged.
#[derive(Debug, Default)]
pub struct Sent {
    /// Lines acknowledged.
    pub lines: AtomicU64,
    /// Different events among them.
    pub distinct: AtomicU64,
    /// Longest wait for an answer, microseconds.
    pub wait_micros_max: AtomicU64,
    /// Tells the senders to end.
    pub stop: AtomicBool,
}

impl Sent {
    /// Lines acknowledged so far.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Different events acknowledged so far.
    #[must_use]
    pub fn distinct(&self) -> u64 {
        self.distinct.load(Ordering::Relaxed)
    }
}

/// Milliseconds since 1970.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "a load test lives in real time")]
pub fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Sends by a plan, and returns when the last body is acknowledged.
///
/// # Errors
/// The first body that was not taken, or not whole.
pub async fn send(client: Arc<Client>, plan: Plan, sent: Arc<Sent>) -> Result<()> {
    let mut senders = JoinSet::new();
    for connection in 0..plan.connections {
        senders.spawn(one(Arc::clone(&client), plan.clone(), connection, Arc::clone(&sent)));
    }
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    Ok(())
}

async fn one(client: Arc<Client>, plan: Plan, connection: u64, sent: Arc<Sent>) -> Result<()> {
    let stream = plan.plan << 8 | connection;
    let mut lines = Lines::new(Arc::clone(&plan.drawn), stream, plan.spread_millis);
    let start = Instant::now();
    let share = plan.rate as f64 / plan.connections as f64;
    let most = plan.events / plan.connections;
    let mut mine = 0_u64;
    while start.elapsed() < plan.time && !sent.stop.load(Ordering::Relaxed) && (plan.events == 0 || mine < most) {
        if plan.rate > 0 {
            let due = Duration::from_secs_f64(mine as f64 / share);
            tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
        }
        let body = lines.body(plan.body_events, plan.until_millis.unwrap_or_else(now_millis));
        let asked = Instant::now();
        let receipt = client.send_lines(Bytes::from(body.bytes), &format!("{stream}-{mine}"), Some("bench")).await?;
        if receipt.accepted != body.lines {
            return Err(anyhow!(
                "of {} events {} were taken: {:?}",
                body.lines,
                receipt.accepted,
                receipt.errors.first()
            ));
        }
        mine += body.lines;
        sent.lines.fetch_add(body.lines, Ordering::Relaxed);
        sent.distinct.fetch_add(body.distinct, Ordering::Relaxed);
        let wait = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        sent.wait_micros_max.fetch_max(wait, Ordering::Relaxed);
    }
    Ok(())
}
