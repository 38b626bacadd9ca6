//! `reckon where`: what became of an event, stage by stage.

use anyhow::Result;
use clap::Args;
use reckon_client::encode;
use reckon_data::config::Settings;
use serde_json::Value;

use super::target::TargetArgs;

/// Where an event is.
#[derive(Debug, Args)]
pub struct Find {
    #[command(flatten)]
    target: TargetArgs,
    /// The event's id.
    event_id: String,
    /// Its entity; quicker.
    #[arg(long)]
    entity: Option<String>,
    /// UTC date of its time, 2013-02-08; quicker.
    #[arg(long)]
    date: Option<String>,
}

impl Find {
    /// Looks, and prints every copy.
    ///
    /// # Errors
    /// When it is not found.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let target = self.target.open(settings, "where").await?;
        let optional = [("entity", self.entity), ("date", self.date)];
        let query: Vec<(&str, String)> =
            optional.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let answer = target.get(&format!("/v1/events/{}", encode(&self.event_id)), &query).await;
        target.close().await;
        let answer = answer?;
        if self.target.json {
            println!("{answer}");
            return Ok(());
        }
        for copy in answer["copies"].as_array().into_iter().flatten() {
            println!("{}", line(copy));
            stages(copy).iter().for_each(|stage| println!("{stage}"));
        }
        for letter in answer["dead"].as_array().into_iter().flatten() {
            println!("dead       place {}  {}", text(letter, "place"), text(letter, "message"));
        }
        for lack in lacks(&answer) {
            eprintln!("{lack}");
        }
        Ok(())
    }
}

/// What had gone from the log before it was archived.
pub(super) fn lost(answer: &Value) -> impl Iterator<Item = &str> {
    answer["missing"].as_array().into_iter().flatten().filter_map(|missing| missing["reason"].as_str())
}

/// What the reader has to know: where there may be more.
fn lacks(answer: &Value) -> Vec<&str> {
    let truncated = (answer["truncated"] == true).then_some("there are more copies or dead letters than are listed");
    let in_log =
        (answer["may_be_in_log"] == true).then_some("there may be more in the log, which is archived within a minute");
    truncated.into_iter().chain(in_log).chain(lost(answer)).collect()
}

fn line(copy: &Value) -> String {
    format!(
        "{:<10} partition {} offset {} index {}  {} of {} at {}, received {}",
        text(copy, "verdict"),
        copy["partition"],
        copy["offset"],
        copy["index"],
        text(copy, "event_type"),
        text(copy, "entity_id"),
        text(copy, "event_time"),
        text(copy, "received_at"),
    )
}

/// The way of a copy, a line a stage; nothing when it was not followed.
fn stages(copy: &Value) -> Vec<String> {
    let stages = &copy["stages"];
    if !stages.is_object() {
        return Vec::new();
    }
    let [gateway, log, stream, raw, batch] = ["gateway", "log", "stream", "raw", "batch"].map(|name| &stages[name]);
    vec![
        format!("  gateway  received {}", text(gateway, "received_at")),
        format!("  log      {}", log_stage(log)),
        format!("  stream   {}", stream_stage(stream)),
        format!(
            "  raw      {}, archived up to offset {}",
            raw["file"].as_str().unwrap_or("no file named"),
            raw["archived"]
        ),
        format!("  batch    {}", batch_stage(batch)),
    ]
}

fn log_stage(log: &Value) -> String {
    let state = match text(log, "state") {
        "in_log" => "still there",
        "trimmed" => "trimmed since",
        _ => "whether it is still there cannot be asked here",
    };
    format!("partition {} offset {} index {}, {state}", log["partition"], log["offset"], log["index"])
}

fn stream_stage(stream: &Value) -> String {
    let verdict = stream["verdict"].as_str().map(|verdict| format!("{verdict}, ")).unwrap_or_default();
    let segment = &stream["segment"];
    match text(stream, "state") {
        "sealed" if segment.is_object() => {
            format!("{verdict}sealed in segment [{}, {})", segment["start"], segment["end"])
        }
        "sealed" => format!("{verdict}sealed, its segment is no longer kept"),
        "tail" => format!("{verdict}not sealed yet"),
        "not_yet" => "not counted yet".to_owned(),
        _ => "the counter does not say where it stands".to_owned(),
    }
}

fn batch_stage(batch: &Value) -> String {
    match (batch["covered"] == true, batch["version"].as_u64()) {
        (false, _) => "not covered yet".to_owned(),
        (true, Some(version)) => format!("covered since version {version} of {}", text(batch, "committed_at")),
        (true, None) => "covered, by a version that is no longer told of".to_owned(),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_stage_has_its_line() {
        let copy = |stream: Value, batch: Value| {
            json!({"stages": {
                "gateway": {"received_at": "2013-02-08T21:29:10Z"},
                "log": {"partition": 1, "offset": 3, "index": 0, "state": "trimmed"},
                "stream": stream,
                "raw": {"file": "f.parquet", "archived": 9},
                "batch": batch,
            }})
        };
        let sealed = json!({"state": "sealed", "segment": {"start": 2, "end": 5}, "verdict": "counted"});
        let covered = json!({"covered": true, "version": 4, "committed_at": "2013-02-09T00:00:00Z"});
        assert_eq!(
            stages(&copy(sealed, covered)),
            [
                "  gateway  received 2013-02-08T21:29:10Z",
                "  log      partition 1 offset 3 index 0, trimmed since",
                "  stream   counted, sealed in segment [2, 5)",
                "  raw      f.parquet, archived up to offset 9",
                "  batch    covered since version 4 of 2013-02-09T00:00:00Z",
            ]
        );
        let waiting = stages(&copy(json!({"state": "not_yet"}), json!({"covered": false})));
        assert_eq!((&*waiting[2], &*waiting[4]), ("  stream   not counted yet", "  batch    not covered yet"));
        assert!(stages(&json!({})).is_empty());
    }

    #[test]
    fn what_may_be_elsewhere_is_said() {
        assert_eq!(lacks(&json!({"truncated": true, "may_be_in_log": true})).len(), 2);
        assert_eq!(lacks(&json!({"truncated": false, "may_be_in_log": false})).len(), 0);
        let missing = json!({"truncated": false, "missing": [{"partition": 1, "reason": "2 records had gone"}]});
        assert_eq!(lacks(&missing), ["2 records had gone"]);
    }
}
