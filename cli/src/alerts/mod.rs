//! Alerts of a process: their file, whom they ask, and their metrics.
//!
//! [`ask`] asks the process's own routes, or a server; [`metrics`] adds what alerts count to `/metrics`.

mod ask;
mod metrics;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use reckon_audit::alert::{AlertSettings, Alerts, AlertsParts, Ask, IsMine, Running, receivers};
use reckon_data::clock::{Clock, Names};
use reckon_data::config::Settings;
use reckon_serving::rest::Health;

use ask::AskRoutes;
pub use ask::AskTarget;
use metrics::WithAlerts;

/// The rules and receivers that the settings name; none when they name no file.
///
/// # Errors
/// When the file cannot be read, or something in it makes no sense.
pub fn read(settings: &Settings) -> Result<Option<AlertSettings>> {
    let path = &settings.alerts.rules;
    if path.is_empty() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("the alert rules {path} cannot be read"))?;
    Ok(Some(AlertSettings::from_toml(&text).with_context(|| format!("in {path}"))?))
}

/// The alerts of a server; none when it has no rules.
///
/// # Errors
/// Those of [`read`], and when a receiver cannot be made.
pub fn open(settings: &Settings, clock: &Arc<dyn Clock>, names: &Arc<dyn Names>) -> Result<Option<Alerts>> {
    let Some(rules) = read(settings)?.filter(|read| !read.rules.is_empty()) else { return Ok(None) };
    let receivers = receivers(&rules)?;
    if receivers.is_empty() {
        tracing::warn!("there are alert rules, and nobody who is told");
    }
    let (clock, names) = (Arc::clone(clock), Arc::clone(names));
    Ok(Some(Alerts::new(AlertsParts { settings: rules, receivers, clock, names })))
}

/// How a process is, with what its alerts count.
#[must_use]
pub fn health(health: Arc<dyn Health>, alerts: Option<&Alerts>) -> Arc<dyn Health> {
    match alerts {
        Some(alerts) => Arc::new(WithAlerts { health, stats: Arc::clone(alerts.stats()) }),
        None => health,
    }
}

/// Starts looking at the rules, which ask the routes of this process; messages say that it is at `url`.
#[must_use]
pub fn start(alerts: Option<Alerts>, routes: &Router, is_mine: &IsMine, url: &str) -> Option<Running> {
    let ask: Arc<dyn Ask> = Arc::new(AskRoutes(routes.clone()));
    alerts.map(|alerts| alerts.start(&ask, is_mine, &node(url)))
}

/// The machine's name and the address: one that listens on all addresses is not told apart by that.
fn node(url: &str) -> String {
    let uname = rustix::system::uname();
    format!("{} {url}", uname.nodename().to_string_lossy())
}

/// Ends that.
pub async fn stop(running: Option<Running>) {
    if let Some(running) = running {
        running.stop().await;
    }
}
