//! `reckon top`: the entities to which something happened most often.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, CellAlignment, Table, presets};
use reckon_data::config::Settings;
use serde_json::Value;

use super::live;
use super::target::{TargetArgs, warn};

/// The top entities, exactly.
#[derive(Debug, Args)]
pub struct Top {
    #[command(flatten)]
    target: TargetArgs,
    /// How many.
    #[arg(short, long, default_value_t = 10)]
    n: u32,
    /// Of the last 5m, 1h, 7d; all that there is without it.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    window: Option<String>,
    /// From when, RFC 3339 or epoch milliseconds.
    #[arg(long)]
    from: Option<String>,
    /// Up to when, exclusive.
    #[arg(long)]
    to: Option<String>,
    /// Of one event type.
    #[arg(long = "type")]
    event_type: Option<String>,
    /// A filter's id, or column:value.
    #[arg(long)]
    filter: Option<String>,
    /// Ask again and again, and show how ranks change; q ends it. In a pipe one list after another.
    #[arg(long, conflicts_with = "as_of")]
    live: bool,
    /// How often, with --live.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration, requires = "live")]
    interval: Duration,
    /// As of an older version of batch: its time (RFC 3339 or epoch milliseconds), or version:N.
    #[arg(long)]
    as_of: Option<String>,
}

impl Top {
    /// Asks, and prints the list.
    ///
    /// # Errors
    /// When the question is refused.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let target = self.target.open(settings, "top").await?;
        let mut query = vec![("n", self.n.to_string())];
        let optional = [
            ("window", self.window),
            ("from", self.from),
            ("to", self.to),
            ("type", self.event_type),
            ("filter", self.filter),
            ("as_of", self.as_of),
        ];
        query.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        if self.live {
            let shown = Box::pin(live::show(&target, &query, self.interval, self.target.json)).await;
            target.close().await;
            return shown;
        }
        let answer = target.get("/v1/top", &query).await;
        target.close().await;
        let answer = answer?;
        if self.target.json {
            println!("{answer}");
        } else {
            println!("{}", table(&answer));
        }
        warn(&answer);
        Ok(())
    }
}

fn table(answer: &Value) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["", "entity", "count"]);
    for (index, entity) in answer["entities"].as_array().into_iter().flatten().enumerate() {
        let name = entity["entity_id"].as_str().unwrap_or_default();
        let count = Cell::new(&entity["count"]).set_alignment(CellAlignment::Right);
        table.add_row([Cell::new(index + 1), Cell::new(name), count]);
    }
    table
}
