//! `reckon why`: how a count came about.

use anyhow::Result;
use clap::Args;
use reckon_client::encode;
use reckon_data::config::Settings;
use serde_json::Value;

use super::target::{TargetArgs, warn};

/// How a count came about.
#[derive(Debug, Args)]
#[command(after_help = "  reckon why video-1 2013-02-08T21:29Z --type view")]
pub struct Why {
    #[command(flatten)]
    target: TargetArgs,
    /// What is counted.
    entity: String,
    /// The minute: RFC 3339 or epoch milliseconds.
    minute: String,
    /// Of one event type.
    #[arg(long = "type")]
    event_type: Option<String>,
}

impl Why {
    /// Asks, and prints what the count is made of.
    ///
    /// # Errors
    /// When the question is refused.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let target = self.target.open(settings, "why").await?;
        let mut query = vec![("minute", self.minute)];
        query.extend(self.event_type.map(|event_type| ("type", event_type)));
        let answer = target.get(&format!("/v1/entities/{}/why", encode(&self.entity)), &query).await;
        target.close().await;
        let answer = answer?;
        if self.target.json {
            println!("{answer}");
        } else {
            lines(&answer).iter().for_each(|line| println!("{line}"));
        }
        warn(&answer);
        Ok(())
    }
}

/// The answer for people.
fn lines(answer: &Value) -> Vec<String> {
    let mut lines = vec![format!("{} in the minute of {}", text(answer, "entity_id"), text(answer, "minute"))];
    let counts = list(answer, "counts");
    if counts.is_empty() {
        lines.push("nothing was counted".to_owned());
    }
    counts.iter().for_each(|count| count_lines(count, &mut lines));
    if answer["counts_total"].as_u64() > Some(counts.len() as u64) {
        lines.push(format!("and {} counts in all, of which these are the first", answer["counts_total"]));
    }
    lines.push(coverage(&answer["provenance"]));
    list(answer, "events").iter().for_each(|events| event_lines(events, &mut lines));
    let check = &answer["check"];
    lines.push(format!(
        "check      {}: {} counted, {} distinct of {} raw events; {}",
        text(check, "verdict"),
        check["answer"],
        check["raw_distinct"],
        check["raw"],
        text(check, "explanation"),
    ));
    lines.extend(list(answer, "history").iter().map(version));
    lines
}

fn count_lines(count: &Value, lines: &mut Vec<String>) {
    let named = |(name, value): (&String, &Value)| format!(" {name}={}", value.as_str().unwrap_or("none"));
    let dimensions: String = count["dimensions"].as_object().into_iter().flatten().map(named).collect();
    lines.push(format!("{}{dimensions}: {}", text(count, "event_type"), count["count"]));
    for row in list(count, "batch") {
        lines.push(format!("  batch    {}  {}, file {}", row["count"], proof(row), text(row, "file")));
    }
    for piece in list(count, "stream") {
        let place = if piece["sealed"] == true { "segment" } else { "in memory" };
        let (partition, start, end) = (&piece["partition"], &piece["start"], &piece["end"]);
        lines.push(format!(
            "  stream   {}  {}, {place} [{start}, {end}) of partition {partition}",
            piece["count"],
            proof(piece)
        ));
    }
}

/// What can be compared besides the count.
fn proof(row: &Value) -> String {
    let definition = row["definition"].as_str().map(|definition| format!(", definition {definition}"));
    format!("fingerprint {}, {} late{}", text(row, "fingerprint"), row["late"], definition.unwrap_or_default())
}

fn coverage(provenance: &Value) -> String {
    let partition = |at: &Value| format!(" {}:{}", at["partition"], at["coverage"]);
    let covered: String = list(provenance, "partitions").iter().map(partition).collect();
    format!("batch      version {} covers, by partition, the offsets below{covered}", provenance["batch_version"])
}

fn event_lines(events: &Value, lines: &mut Vec<String>) {
    let listed = list(events, "listed");
    lines.push(format!(
        "raw        {} {}, {} of them distinct, the first {}:",
        events["total"],
        text(events, "event_type"),
        events["distinct"],
        listed.len()
    ));
    lines.extend(listed.iter().map(|event| {
        format!(
            "  {:<10} {}  partition {} offset {} index {}, received {}{}",
            text(event, "verdict"),
            text(event, "event_id"),
            event["partition"],
            event["offset"],
            event["index"],
            text(event, "received_at"),
            if event["covered"] == true { ", covered" } else { "" },
        )
    }));
}

fn version(version: &Value) -> String {
    let (number, count) = (&version["version"], &version["count"]);
    format!("version    {number} of {}: {count}  ({})", text(version, "committed_at"), text(version, "operation"))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[][..], Vec::as_slice)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_a_count_is_made_of_has_its_line() {
        let piece = |sealed: bool| json!({"partition": 1, "start": 4, "end": 9, "sealed": sealed, "count": 1, "fingerprint": "0b", "late": 0});
        let event = json!({"event_id": "e1", "verdict": "duplicate", "partition": 1, "offset": 3, "index": 0,
            "received_at": "2013-02-08T21:29:10Z", "covered": true});
        let answer = json!({
            "entity_id": "v1", "minute": "2013-02-08T21:29:00Z", "counts_total": 2,
            "counts": [{"event_type": "view", "dimensions": {"country": "US"}, "count": 4,
                "batch": [{"count": 2, "fingerprint": "0a", "late": 1, "definition": "07", "file": "f.parquet"}],
                "stream": [piece(true), piece(false)]}],
            "events": [{"event_type": "view", "total": 5, "distinct": 4, "listed": [event]}],
            "check": {"verdict": "agrees", "explanation": "one for one", "answer": 4, "raw": 5, "raw_distinct": 4},
            "history": [{"version": 7, "committed_at": "2013-02-09T00:00:00Z", "operation": "batch", "count": 2}],
            "provenance": {"batch_version": 7, "partitions": [{"partition": 0, "coverage": 12}]},
        });
        let told = lines(&answer).join("\n");
        for part in [
            "view country=US: 4",
            "batch    2  fingerprint 0a, 1 late, definition 07, file f.parquet",
            "segment [4, 9) of partition 1",
            "in memory [4, 9) of partition 1",
            "and 2 counts in all",
            "version 7 covers, by partition, the offsets below 0:12",
            "5 view, 4 of them distinct, the first 1:",
            "duplicate  e1  partition 1 offset 3 index 0, received 2013-02-08T21:29:10Z, covered",
            "agrees: 4 counted, 4 distinct of 5 raw events; one for one",
            "7 of 2013-02-09T00:00:00Z: 2  (batch)",
        ] {
            assert!(told.contains(part), "{part} in\n{told}");
        }
        assert!(lines(&json!({})).contains(&"nothing was counted".to_owned()));
    }
}
