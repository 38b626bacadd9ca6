//! How many events a second a server takes, counts and archives, everything on.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::lines::draw;
use crate::send::{Plan, Sent, send};
use crate::server::Watched;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Events a second; 0 is as fast as they are taken.
    pub rate: u64,
    /// Sent before the measurement, so that the dedup window is full.
    pub prefill: Duration,
    /// Measured for so long.
    pub time: Duration,
    /// Entities, by a Zipf law.
    pub entities: u32,
    /// Connections.
    pub connections: u64,
    /// Events in a body.
    pub body_events: u64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Events acknowledged a second while measured.
    pub events_per_second: f64,
    /// For how long that was measured.
    pub seconds: f64,
    /// Events acknowledged in all.
    pub sent: u64,
    /// Different ones among them.
    pub distinct: u64,
    /// What the server says it has counted.
    pub counted: u64,
    /// Longest wait for an answer, seconds.
    pub wait_seconds_max: f64,
    /// How long the counter needed at the end to have counted everything.
    pub counter_lag_seconds: f64,
    /// How old the newest archived record was at the end.
    pub archiver_lag_seconds: f64,
    /// Most memory of the server, bytes.
    pub memory_peak: u64,
    /// Processor time of the server while measured, in cores.
    pub server_cores: f64,
    /// Processor time of the server by stage, microseconds an event.
    pub stages: Vec<(String, f64)>,
}

/// Measures.
///
/// # Errors
/// When the server does not take everything, or does not count it.
pub async fn run(
    server: &Watched,
    client: Arc<reckon_client::Client>,
    options: Options,
    say: &dyn Fn(&str),
) -> Result<Report> {
    let before = server.total().await?;
    let sent = Arc::new(Sent::default());
    let plan = Plan {
        rate: options.rate,
        time: options.prefill + options.time,
        events: 0,
        connections: options.connections,
        body_events: options.body_events,
        until_millis: None,
        spread_millis: 1_000,
        plan: crate::send::now_millis() & 0xffff,
        drawn: draw(1, options.entities),
    };
    let sender = tokio::spawn(send(client, plan, Arc::clone(&sent)));
    watch(server, &sent, options.prefill, "filling the dedup window", say).await;
    let (start, lines) = (Instant::now(), sent.lines());
    let (metrics, usage) = (server.metrics().await?, server.usage());
    watch(server, &sent, options.time, "measuring", say).await;
    let (seconds, measured) = (start.elapsed().as_secs_f64(), sent.lines() - lines);
    let (metrics_after, usage_after) = (server.metrics().await?, server.usage());
    sender.await??;
    let archiver_lag = metrics_after.get("reckon_archiver_lag_seconds").copied().unwrap_or(0.0);
    let counter_lag = server.catch_up().await?;
    let counted = server.total().await? - before;
    let stages = metrics_after
        .iter()
        .filter(|(name, _)| name.contains("_stage_seconds_total"))
        .map(|(name, after)| {
            let spent = after - metrics.get(name).copied().unwrap_or(0.0);
            (stage_name(name), spent * 1e6 / measured.max(1) as f64)
        })
        .collect();
    Ok(Report {
        events_per_second: measured as f64 / seconds,
        seconds,
        sent: sent.lines(),
        distinct: sent.distinct(),
        counted,
        wait_seconds_max: sent.wait_micros_max.load(std::sync::atomic::Ordering::Relaxed) as f64 / 1e6,
        counter_lag_seconds: counter_lag.as_secs_f64(),
        archiver_lag_seconds: archiver_lag,
        memory_peak: server.usage().memory_peak,
        server_cores: (usage_after.cpu_seconds - usage.cpu_seconds) / seconds,
        stages,
    })
}

/// `reckon_gateway_stage_seconds_total{stage="judge"}` is gateway judge.
fn stage_name(metric: &str) -> String {
    let part = metric.strip_prefix("reckon_").and_then(|name| name.split("_stage").next()).unwrap_or(metric);
    let stage = metric.split('"').nth(1).unwrap_or_default();
    format!("{part} {stage}")
}

/// Says every ten seconds how it goes.
async fn watch(server: &Watched, sent: &Sent, time: Duration, what: &str, say: &dyn Fn(&str)) {
    let (start, mut last) = (Instant::now(), (Instant::now(), sent.lines()));
    while start.elapsed() < time {
        tokio::time::sleep((time - start.elapsed()).min(Duration::from_secs(10))).await;
        let lines = sent.lines();
        let rate = (lines - last.1) as f64 / last.0.elapsed().as_secs_f64();
        last = (Instant::now(), lines);
        let lag = server.lag_records().await.unwrap_or(0);
        let memory = server.usage().memory >> 20;
        say(&format!(
            "{what}: {:>4.0} s {rate:>9.0} events/s, {lag} records behind, {memory} MiB",
            start.elapsed().as_secs_f64()
        ));
    }
}

impl Report {
    /// Whether every event acknowledged was counted once.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.counted == self.distinct
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let exact = if self.is_exact() { "exact" } else { "NOT EXACT" };
        let mut text = format!(
            "{:>12.0} events/s acknowledged over {:.1} s, longest wait {:.3} s\n\
             {:>12} events sent, {} different, {} counted: {exact}\n\
             {:>12.3} s until the counter had counted everything\n\
             {:>12.1} s age of the newest archived record\n\
             {:>12} MiB peak memory of the server, {:.2} cores\n",
            self.events_per_second,
            self.seconds,
            self.wait_seconds_max,
            self.sent,
            self.distinct,
            self.counted,
            self.counter_lag_seconds,
            self.archiver_lag_seconds,
            self.memory_peak >> 20,
            self.server_cores
        );
        text.push_str("\nstage                      µs an event\n");
        for (stage, micros) in &self.stages {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{stage:<26} {micros:>7.3}");
        }
        text
    }
}
