//! Questions of all kinds over a week while events come in, hardly two alike: how long each kind takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use reckon_client::Client;
use serde::Serialize;
use serde_json::{Value, json};

use crate::load::{Meanwhile, ask, batch, load, past, percentile};
use crate::send::{Plan, now_millis};
use crate::server::Watched;
use crate::zipf::Zipf;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Events loaded and recounted by batch before the measurement, spread over `days`.
    pub load: u64,
    /// Events of the last hour, loaded after that, which only the stream has counted.
    pub recent: u64,
    /// Days that questions are about.
    pub days: u64,
    /// Events a second while it is measured.
    pub rate: u64,
    /// Questions a second.
    pub questions: u64,
    /// Measured for so long.
    pub time: Duration,
    /// Entities, by a Zipf law.
    pub entities: u32,
}

/// A kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The count of an entity over all days, ending now.
    Whole,
    /// The count of an entity over a random window.
    Window,
    /// An entity's counts by the hour over a random window.
    Hours,
    /// The 100 first of the last 60 minutes.
    TopHour,
    /// The 100 first of a random number of minutes up to now.
    TopAny,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Whole, Self::Window, Self::Hours, Self::TopHour, Self::TopAny];

    const fn name(self) -> &'static str {
        match self {
            Self::Whole => "count over all days",
            Self::Window => "count over a random window",
            Self::Hours => "counts by the hour, random window",
            Self::TopHour => "top 100 of the last 60 minutes",
            Self::TopAny => "top 100 of the last M minutes",
        }
    }

    /// Of 200 questions 100 are about all days, 76 about a random window, 20 by the hour, 2 lists of each kind.
    fn draw(random: &mut SmallRng) -> Self {
        match random.random_range(0..200) {
            0..100 => Self::Whole,
            100..176 => Self::Window,
            176..196 => Self::Hours,
            196..198 => Self::TopHour,
            _ => Self::TopAny,
        }
    }

    fn path(self, random: &mut SmallRng, zipf: &Zipf, days: u64) -> String {
        let now = now_millis();
        let first = now.saturating_sub(days * DAY);
        let entity = zipf.sample(random);
        let about = |what: &str, from: u64, to: u64| {
            format!("/v1/entities/video-{entity:07}/{what}?type=view&from={from}&to={to}")
        };
        let mut window = || {
            let (a, b) = (random.random_range(first..now), random.random_range(first..now));
            (a.min(b), a.max(b) + MINUTE)
        };
        match self {
            Self::Whole => about("count", first + random.random_range(0..HOUR), now + MINUTE),
            Self::Window => {
                let (from, to) = window();
                about("count", from, to)
            }
            Self::Hours => {
                let (from, to) = window();
                format!("{}&step=hour", about("stats", from, to))
            }
            Self::TopHour => "/v1/top?type=view&n=100&window=60m".to_owned(),
            Self::TopAny => {
                let minutes = random.random_range(1..days * DAY / MINUTE);
                format!("/v1/top?type=view&n=100&window={minutes}m")
            }
        }
    }
}

/// Times of one kind of question, milliseconds, from when the question was due.
#[derive(Debug, Clone, Serialize)]
pub struct Times {
    /// Which.
    pub kind: &'static str,
    /// How many were answered.
    pub questions: usize,
    /// Half of them took no longer.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Questions answered a second, of all kinds.
    pub questions_per_second: f64,
    /// Events acknowledged a second meanwhile.
    pub events_per_second: f64,
    /// Each kind of question.
    pub times: Vec<Times>,
    /// Rows of `stats` that SQL read, once for each query.
    pub rows: u64,
    /// The SQL queries over all of them.
    pub sql: Vec<Scan>,
    /// Most memory of the server, bytes.
    pub memory_peak: u64,
}

/// A query over the whole table.
#[derive(Debug, Clone, Serialize)]
pub struct Scan {
    /// Which.
    pub query: &'static str,
    /// What it took.
    pub seconds: f64,
    /// What the last column of its answer adds up to.
    pub total: u64,
}

/// Queries over the whole table that SQL is measured by; `bench/duckdb_scan.py` asks DuckDB the same of the same files,
/// and compares what their last columns add up to.
const SCANS: [&str; 4] = [
    "select sum(count) from stats",
    "select country, sum(count) from stats group by country order by 1",
    "select entity_id, sum(count) from stats group by entity_id order by 2 desc, 1 limit 10",
    "select date_trunc('hour', minute), count(*), sum(count) from stats group by 1 order by 1",
];

/// Loads, and measures.
///
/// # Errors
/// When the server does not take the events, or a question fails.
pub async fn run(server: &Watched, client: Arc<Client>, options: Options, say: &dyn Fn(&str)) -> Result<Report> {
    let plan = past(options.load, options.days * DAY, options.entities);
    if options.load > 0 {
        say(&format!("loading {} events of the last {} days", options.load, options.days));
        load(server, &client, plan.clone()).await?;
        say("batch");
        batch(&client).await?;
    }
    if options.recent > 0 {
        say(&format!("loading {} events of the last hour", options.recent));
        let recent = Plan { events: options.recent, spread_millis: HOUR, plan: plan.plan | 0x4000, ..plan.clone() };
        load(server, &client, recent).await?;
    }
    say("measuring");
    let meanwhile = Meanwhile::start(&client, options.rate, plan).await;
    let question = questions(options.entities, options.days);
    let times = ask(&server.client.urls(), options.questions, options.time, question).await?;
    let (seconds, events_per_second) = meanwhile.so_far();
    meanwhile.end().await?;
    let memory_peak = server.usage().memory_peak;
    say("batch, so that files hold all counts");
    batch(&client).await?;
    let rows = number(&client, "select count(*) from stats").await?;
    let mut sql = Vec::new();
    for query in SCANS {
        let start = Instant::now();
        let answer: Value = client.post("/v1/sql", &json!({ "query": query })).await?;
        let seconds = start.elapsed().as_secs_f64();
        let total = total(&answer).with_context(|| format!("{query} answers {answer}"))?;
        sql.push(Scan { query, seconds, total });
    }
    let questions_per_second = times.len() as f64 / seconds;
    Ok(Report { questions_per_second, events_per_second, times: by_kind(&times), rows, sql, memory_peak })
}

async fn number(client: &Client, query: &str) -> Result<u64> {
    let answer: Value = client.post("/v1/sql", &json!({ "query": query })).await?;
    answer["rows"][0][0].as_u64().with_context(|| format!("{query} answers {answer}"))
}

/// What the last column of an answer adds up to; none if it is not whole or not of numbers.
fn total(answer: &Value) -> Option<u64> {
    if answer["truncated"] == true {
        return None;
    }
    answer["rows"].as_array()?.iter().map(|row| row.as_array()?.last()?.as_u64()).sum()
}

fn by_kind(times: &[(Kind, f64)]) -> Vec<Times> {
    let of = |kind: Kind| {
        let mut own: Vec<f64> = times.iter().filter(|(of, _)| *of == kind).map(|(_, time)| *time).collect();
        own.sort_by(f64::total_cmp);
        let at = |share| percentile(&own, share);
        Times { kind: kind.name(), questions: own.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    };
    Kind::ALL.into_iter().map(of).collect()
}

/// Questions of all kinds over so many days.
fn questions(entities: u32, days: u64) -> impl FnMut() -> (Kind, String) {
    let (zipf, mut random) = (Zipf::new(entities, 1.0), SmallRng::seed_from_u64(now_millis()));
    move || {
        let kind = Kind::draw(&mut random);
        (kind, kind.path(&mut random, &zipf, days))
    }
}

impl Report {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{:>8.0} questions/s answered, {:.0} events/s acknowledged meanwhile, {} MiB peak memory of the server\n",
            self.questions_per_second,
            self.events_per_second,
            self.memory_peak >> 20
        );
        for Times { kind, questions, p50, p99, max } in &self.times {
            text += &format!("{questions:>8} × {kind:<34} p50 {p50:8.2} ms, p99 {p99:8.2} ms, max {max:8.2} ms\n");
        }
        for Scan { query, seconds, total } in &self.sql {
            let rate = self.rows as f64 / seconds / 1e6;
            text += &format!("{seconds:>8.3} s, {rate:.1} million rows/s, {total} in all: {query}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_asked_within_the_days() {
        let (zipf, mut random) = (Zipf::new(10, 1.0), SmallRng::seed_from_u64(1));
        let mut seen = [0; 5];
        for _ in 0..2_000 {
            let kind = Kind::draw(&mut random);
            seen[kind as usize] += 1;
            assert!(kind.path(&mut random, &zipf, 7).starts_with("/v1/"));
        }
        assert!(seen.iter().all(|seen| *seen > 0) && seen[0] > seen[1] && seen[1] > seen[2], "{seen:?}");
    }

    #[test]
    fn an_answer_adds_up_if_it_is_whole_and_of_numbers() {
        let answer = |rows: Value, truncated: bool| total(&json!({"rows": rows, "truncated": truncated}));
        assert_eq!(answer(json!([["US", 3], [null, 4]]), false), Some(7));
        assert_eq!(answer(json!([["US", 3], [null, 4]]), true), None);
        assert_eq!(answer(json!([["US", 3], ["GB", null]]), false), None);
        assert_eq!(total(&json!({"error": "no rows"})), None);
    }
}
