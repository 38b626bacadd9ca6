//! How long questions take while events come in, and how soon an event acknowledged is seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use reckon_client::Client;
use serde::Serialize;
use serde_json::{Value, json};

use crate::load::{Meanwhile, ask, batch, load, past, percentile};
use crate::send::now_millis;
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
    let plan = past(options.load, DAY_MILLIS - 600_000, options.entities);
    if options.load > 0 {
        say(&format!("loading {} events of the last day", options.load));
        load(server, &client, plan.clone()).await?;
        say("batch");
        batch(&client).await?;
    }
    say("measuring");
    let meanwhile = Meanwhile::start(&client, options.rate, plan).await;
    let probes = tokio::spawn(probe(Arc::clone(&client), options.time));
    let times = ask(&server.client.urls(), options.questions, options.time, counts(options.entities)).await?;
    let (seconds, events_per_second) = meanwhile.so_far();
    let mut visible = probes.await??;
    meanwhile.end().await?;
    let mut times: Vec<f64> = times.into_iter().map(|((), time)| time).collect();
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

/// Questions of random entities over the last day, so that hardly two are the same.
fn counts(entities: u32) -> impl FnMut() -> ((), String) {
    let (zipf, mut random) = (Zipf::new(entities, 1.0), SmallRng::seed_from_u64(now_millis()));
    move || {
        let (now, entity) = (now_millis(), zipf.sample(&mut random));
        let (from, to) = (now - DAY_MILLIS, now + 60_000);
        ((), format!("/v1/entities/video-{entity:07}/count?type=view&from={from}&to={to}"))
    }
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
