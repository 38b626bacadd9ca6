//! `reckon where`: what became of an event.

use anyhow::Result;
use clap::Args;
use reckon_data::config::Settings;
use serde_json::Value;

use super::target::TargetArgs;
use crate::node::encode;

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
        }
        for letter in answer["dead"].as_array().into_iter().flatten() {
            println!("dead       place {}  {}", text(letter, "place"), text(letter, "message"));
        }
        Ok(())
    }
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

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}
