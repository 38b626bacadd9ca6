//! `reckon top`: the entities to which something happened most often.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, CellAlignment, Table, presets};
use reckon_data::config::Settings;
use serde_json::Value;

use super::live;
use super::ranks::fitted;
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
    /// Grouped: by channel, all entities of each.
    #[arg(long, value_parser = ["channel"], conflicts_with = "as_of")]
    group: Option<String>,
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
            ("group", self.group),
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
    if answer["channels"].is_array() {
        return table_of(&answer["channels"], &[("channel", "channel"), ("entities", "entities")]);
    }
    let rows = answer["entities"].as_array();
    let has = |name: &str| rows.is_some_and(|rows| rows.iter().any(|row| !row[name].is_null()));
    let known = [("title", "title"), ("channel", "channel"), ("owner", "owner")];
    let mut columns = vec![("entity", "entity_id")];
    columns.extend(known.into_iter().filter(|(_, name)| has(name)));
    table_of(&answer["entities"], &columns)
}

/// A list with these columns, a header and a field each, and the counts.
fn table_of(rows: &Value, columns: &[(&str, &str)]) -> Table {
    let mut table = Table::new();
    let headers = columns.iter().map(|(header, _)| *header);
    let header: Vec<&str> = std::iter::once("").chain(headers).chain(std::iter::once("count")).collect();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header);
    for (index, row) in rows.as_array().into_iter().flatten().enumerate() {
        let mut cells = vec![Cell::new(index + 1)];
        cells.extend(columns.iter().map(|(_, field)| match &row[*field] {
            Value::Null => Cell::new("-"),
            // Names come from outside, and a terminal does what some of them say.
            Value::String(text) => Cell::new(fitted(text, usize::MAX)),
            other => Cell::new(other),
        }));
        cells.push(Cell::new(&row["count"]).set_alignment(CellAlignment::Right));
        table.add_row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_show_what_is_known() {
        let plain = table(&json!({"entities": [{"entity_id": "v1", "count": 3}]})).to_string();
        assert!(plain.contains("v1") && !plain.contains("title"), "{plain}");
        let named =
            json!({"entities": [{"entity_id": "v1", "count": 3}, {"entity_id": "v2", "title": "Two", "count": 1}]});
        let named = table(&named).to_string();
        assert!(named.contains("Two") && named.contains("title") && !named.contains("owner"), "{named}");
        let grouped = table(&json!({"channels": [{"channel": null, "count": 7, "entities": 2}]})).to_string();
        assert!(grouped.contains("channel") && grouped.contains('7'), "{grouped}");
        let hostile = table(&json!({"entities": [{"entity_id": "a\u{1b}[2J", "count": 1}]})).to_string();
        assert!(!hostile.contains('\u{1b}') && hostile.contains("a·[2J"), "{hostile}");
    }
}
