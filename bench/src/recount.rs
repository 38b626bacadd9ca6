//! Raw events for a batch run to recount.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use reckon_client::Client;
use serde_json::json;

use crate::lines::draw;
use crate::send::{Plan, Sent, now_millis, send};
use crate::server::Watched;

const DAY_MILLIS: u64 = 86_400_000;
/// The archiver stores what it has after a minute at the latest; a busy one takes a little longer.
const ARCHIVED_MAX: Duration = Duration::from_secs(900);
/// The dedup window of the server is a minute: two later, nothing of the load is in it.
const QUIET: Duration = Duration::from_secs(130);

/// What is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Events.
    pub events: u64,
    /// Whole dates before today that they are spread over.
    pub dates: u64,
    /// Entities, by a Zipf law.
    pub entities: u32,
}

/// Sends the events, and waits until all of them are raw files and the dedup window is empty.
///
/// # Errors
/// When the server does not take them, or does not archive them.
pub async fn load(server: &Watched, client: Arc<Client>, options: Options, say: &dyn Fn(&str)) -> Result<()> {
    let midnight = now_millis() / DAY_MILLIS * DAY_MILLIS;
    let plan = Plan {
        rate: 0,
        time: Duration::from_secs(7_200),
        events: options.events,
        connections: 4,
        body_events: 5_000,
        until_millis: Some(midnight - 1),
        spread_millis: options.dates.max(1) * DAY_MILLIS,
        plan: now_millis() & 0xffff,
        drawn: draw(1, options.entities),
    };
    say(&format!("loading {} events of {} dates", options.events, options.dates));
    let sent = Arc::new(Sent::default());
    send(Arc::clone(&client), plan, Arc::clone(&sent)).await?;
    server.catch_up().await?;
    say("waiting until they are archived");
    wait_archived(server, sent.lines()).await?;
    tokio::time::sleep(QUIET).await;
    let last = json!({"event_type": "last", "entity_id": "last", "event_time": midnight - 1});
    client.send_lines(last.to_string().into(), "last", Some("bench")).await?;
    wait_archived(server, sent.lines() + 1).await
}

async fn wait_archived(server: &Watched, events: u64) -> Result<()> {
    let start = std::time::Instant::now();
    loop {
        let count = server.archived().await?;
        if count >= events {
            return Ok(());
        }
        if start.elapsed() > ARCHIVED_MAX {
            bail!("of {events} events {count} were archived within {} s", ARCHIVED_MAX.as_secs());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
