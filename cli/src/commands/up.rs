//! `reckon up`: a server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use reckon_audit::alert::{IsMine, Running};
use reckon_data::clock::{Clock, Names, RandomNames, SystemClock};
use reckon_data::config::Settings;
use reckon_serving::rest;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::target::{forget_address, remember_address};
use crate::alerts;
use crate::doors::{Doors, Open, say};
use crate::node::{Node, local_dir};
use crate::telemetry::traced;

/// Run a server.
#[derive(Debug, Args)]
pub struct Up {
    /// Runs with a clock that is ahead by this much: to rehearse what happens later.
    #[arg(long, hide = true, value_name = "DURATION", value_parser = duration)]
    clock_ahead: Option<Duration>,
}

fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

/// The machine's clock, moved ahead.
#[derive(Debug)]
struct Ahead(i64);

impl Clock for Ahead {
    fn now(&self) -> i64 {
        SystemClock.now().saturating_add(self.0)
    }
}

impl Up {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When the server cannot start.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let clock: Arc<dyn Clock> = match self.clock_ahead {
            Some(ahead) => Arc::new(Ahead(i64::try_from(ahead.as_micros())?)),
            None => Arc::new(SystemClock),
        };
        let server = Server::start(settings, "up", clock).await?;
        let mut lines = vec![format!("reckon counts at {}", server.url())];
        lines.extend(server.doors());
        say(&lines);
        server.until_stopped().await
    }
}

/// A running server.
pub struct Server {
    node: Node,
    dir: PathBuf,
    url: String,
    stop: watch::Sender<bool>,
    rest: tokio::task::JoinHandle<()>,
    canary: Option<tokio::task::JoinHandle<()>>,
    alerts: Option<Running>,
    doors: Open,
    term: Signal,
    int: Signal,
}

impl Server {
    /// Opens the folder and listens.
    ///
    /// # Errors
    /// When the folder cannot be opened, or the address cannot be had.
    pub async fn start(settings: Settings, role: &str, clock: Arc<dyn Clock>) -> Result<Self> {
        let (listen, dir) = (settings.listen.clone(), local_dir(&settings)?);
        let names: Arc<dyn Names> = Arc::new(RandomNames);
        let alerts = alerts::open(&settings, &clock, &names)?;
        let listener = TcpListener::bind(&listen)
            .await
            .with_context(|| format!("{listen} cannot be listened on; --listen ADDR:PORT takes another"))?;
        let doors = Doors::listen(&settings.serving).await?;
        let mut node = Node::open(settings, role, clock, names).await?;
        node.start_background()?;
        let url = format!("http://{}", listener.local_addr()?);
        let (stop, stopped) = watch::channel(false);
        let canary = node.canary(&url)?;
        let mut parts = node.rest_parts();
        parts.health = alerts::health(parts.health, alerts.as_ref());
        parts.listens = doors.listens()?;
        let (routes, samples) = rest::open(parts);
        let routes = traced(routes);
        let doors = doors.open(&node.serving, &samples, &stopped)?;
        let always: IsMine = Arc::new(|| true);
        let rest = tokio::spawn(rest::serve(listener, routes.clone(), stopped.clone()));
        let canary = canary.map(|canary| tokio::spawn(canary.run(stopped)));
        remember_address(&dir, &url)?;
        let alerts = alerts::start(alerts, &routes, &always, &url);
        // Whoever knows where it listens may stop it at once.
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { node, dir, url, stop, rest, canary, alerts, doors, term, int })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Lines that say where else clients come in.
    #[must_use]
    pub fn doors(&self) -> Vec<String> {
        self.doors.lines()
    }

    /// Serves until SIGTERM or SIGINT, then stops in order: no more requests, seal, exit.
    ///
    /// # Errors
    /// When it stops by itself, which is a defect.
    pub async fn until_stopped(mut self) -> Result<()> {
        let failed = tokio::select! {
            _ = self.term.recv() => None,
            _ = self.int.recv() => None,
            ended = &mut self.rest => Some(ended),
        };
        tracing::info!("stopping");
        self.stop.send_replace(true);
        forget_address(&self.dir);
        if let Some(canary) = self.canary.take() {
            // It ends at once.
            let _ = canary.await;
        }
        if failed.is_none() {
            // Requests under way end, within the grace that serving gives them.
            let _ = self.rest.await;
        }
        self.doors.end().await;
        tokio::join!(alerts::stop(self.alerts), self.node.stop());
        match failed {
            Some(Err(error)) => Err(error).context("the server has failed"),
            _ => Ok(()),
        }
    }
}
