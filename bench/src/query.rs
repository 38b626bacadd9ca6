//! How long questions take while events come in, and how soon an event acknowledged is seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use reckon_client::Client;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::lines::draw;
use crate::send::{Plan, Sent, now_millis, send};
use crate::server::Watched;
use crate::zipf::Zipf;

const DAY_MILLIS: u64 = 86_400_000;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Events of the last day, loaded and recounted by batch before the measurement.
    pub load: u64,
    /// Events a second while it is measured.
    pub rate: u64,
    /// Questions a second.
    pub questions: u64,
    /// Measured for so long.
    pub time: Duration,
    /// Entities, by a Zipf law.
    pub entities: u32,
}

/// What was measured; times in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Questions answered a second.
    pub questions_per_second: f64,
    /// Questions answered.
    pub questions: u64,
    /// Half of them took no longer.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// Events acknowledged a second meanwhile.
    pub events_per_second: f64,
    /// Half of the events were seen so soon after they were acknowledged.
    pub visible_p50: f64,
    /// 99 of 100.
    pub visible_p99: f64,
    /// The latest.
    pub visible_max: f64,
    /// How many events were watched for that.
    pub visible_probes: u64,
    /// Most memory of the server, bytes.
    pub memory_peak: u64,
}

/// Loads, and measures.
///
/// # Errors
/// When the server does not take the events, or a question fails.
pub async fn run(server: &Watched, client: Arc<Client>, options: Options, say: &dyn Fn(&str)) -> Result<Report> {
    let drawn = draw(1, options.entities);
    let plan = Plan {
        rate: 0,
        time: Duration::from_secs(3_600),
        events: options.load,
        connections: 4,
        body_events: 2_000,
        // The day that the questions are about ends now.
        until_millis: None,
        spread_millis: DAY_MILLIS - 600_000,
        plan: now_millis() & 0x7fff,
        drawn,
    };
    say(&format!("loading {} events of the last day", options.load));
    let loaded = Arc::new(Sent::default());
    send(Arc::clone(&client), plan.clone(), Arc::clone(&loaded)).await?;
    server.catch_up().await?;
    if options.load > 0 {
        say("batch");
        batch(&client).await?;
    }
    say("measuring");
    let sent = Arc::new(Sent::default());
    let stream = Plan {
        rate: options.rate,
        events: 0,
        body_events: 500,
        spread_millis: 1_000,
        plan: plan.plan | 0x8000,
        ..plan
    };
    let sender = tokio::spawn(send(Arc::clone(&client), stream, Arc::clone(&sent)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (start, lines) = (Instant::now(), sent.lines());
    let probes = tokio::spawn(probe(Arc::clone(&client), options.time));
    let mut times = ask(&server.client.urls(), options).await?;
    let seconds = start.elapsed().as_secs_f64();
    let events_per_second = (sent.lines() - lines) as f64 / seconds;
    let mut visible = probes.await??;
    sent.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    sender.await??;
    times.sort_by(f64::total_cmp);
    visible.sort_by(f64::total_cmp);
    Ok(Report {
        questions_per_second: times.len() as f64 / seconds,
        questions: times.len() as u64,
        p50: percentile(&times, 0.5),
        p99: percentile(&times, 0.99),
        max: percentile(&times, 1.0),
        events_per_second,
        visible_p50: percentile(&visible, 0.5),
        visible_p99: percentile(&visible, 0.99),
        visible_max: percentile(&visible, 1.0),
        visible_probes: visible.len() as u64,
        memory_peak: server.usage().memory_peak,
    })
}

pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

pub(crate) async fn batch(client: &Client) -> Result<()> {
    let mut run: Value = client.post("/v1/batch/runs", &json!({})).await?;
    let path = format!("/v1/batch/runs/{}", run["id"].as_str().unwrap_or_default());
    while run["state"] == "running" {
        tokio::time::sleep(Duration::from_millis(200)).await;
        run = client.get(&path, &[]).await?;
    }
    if run["state"] == "succeeded" { Ok(()) } else { bail!("the batch run failed: {}", run["error"]) }
}

/// Asks at a steady rate, whatever the answers take: a time counts from when the question was due. Each
/// asks for a random entity over the last day, so hardly two questions are the same; servers are asked in turn.
async fn ask(urls: &[&str], options: Options) -> Result<Vec<f64>> {
    let http = reqwest::Client::builder().pool_max_idle_per_host(256).tcp_nodelay(true).build()?;
    let zipf = Zipf::new(options.entities, 1.0);
    let mut random = SmallRng::seed_from_u64(now_millis());
    let total = options.questions * options.time.as_secs();
    let start = Instant::now();
    let mut asking = JoinSet::new();
    let mut times = Vec::new();
    for (number, url) in (0..total).zip(urls.iter().cycle()) {
        let due = start + Duration::from_secs_f64(number as f64 / options.questions as f64);
        tokio::time::sleep_until(due.into()).await;
        let now = now_millis();
        let entity = zipf.sample(&mut random);
        let question = format!(
            "{url}/v1/entities/video-{entity:07}/count?type=view&from={}&to={}",
            now - DAY_MILLIS,
            now + 60_000
        );
        let http = http.clone();
        asking.spawn(async move {
            let response = http.get(question).send().await?;
            let status = response.status();
            let body = response.bytes().await?;
            if !status.is_success() {
                return Err(anyhow!("{status}: {}", String::from_utf8_lossy(&body)));
            }
            Ok(due.elapsed().as_secs_f64() * 1e3)
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

/// Sends single events of entities of their own and asks until each is seen: milliseconds from the
/// acknowledgement to the answer that counts it.
async fn probe(client: Arc<Client>, time: Duration) -> Result<Vec<f64>> {
    let (start, run) = (Instant::now(), now_millis());
    let mut times = Vec::new();
    while start.elapsed() < time {
        let entity = format!("probe-{run}-{}", times.len());
        let event = json!({"event_id": entity, "event_type": "probe", "entity_id": entity, "event_time": now_millis()});
        client.send_lines(event.to_string().into(), &entity, Some("bench")).await?;
        let acknowledged = Instant::now();
        let path = format!("/v1/entities/{entity}/count");
        loop {
            let answer: Value = client.get(&path, &[]).await?;
            if answer["count"] == 1 {
                break;
            }
            if acknowledged.elapsed() > Duration::from_secs(30) {
                bail!("an event that was acknowledged 30 s ago is not seen: {answer}");
            }
        }
        times.push(acknowledged.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(times)
}

impl Report {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "{:>10.0} questions/s, {} in all: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms\n\
             {:>10.0} events/s acknowledged meanwhile\n\
             {:>10} probes, acknowledged to visible: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms\n\
             {:>10} MiB peak memory of the server\n",
            self.questions_per_second,
            self.questions,
            self.p50,
            self.p99,
            self.max,
            self.events_per_second,
            self.visible_probes,
            self.visible_p50,
            self.visible_p99,
            self.visible_max,
            self.memory_peak >> 20
        )
    }
}
