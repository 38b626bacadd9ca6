//! `reckon dlq`: what was refused.

use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use reckon_data::config::Settings;
use serde_json::{Value, json};

use super::target::{Target, TargetArgs};

/// Dead letters.
#[derive(Debug, Args)]
pub struct Dlq {
    #[command(flatten)]
    target: TargetArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List what was refused, and why.
    List {
        /// With this reason only: malformed, too_old, …
        #[arg(long)]
        reason: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Try once more, after the cause is gone; each is counted once.
    Replay {
        /// With this reason only.
        #[arg(long)]
        reason: Option<String>,
        /// At most so many.
        #[arg(long)]
        limit: Option<u64>,
    },
}

impl Dlq {
    /// Lists or replays.
    ///
    /// # Errors
    /// What the server says.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let target = self.target.open(settings, "dlq").await?;
        let answer = self.act(&target).await;
        target.close().await;
        let answer = answer?;
        match (&self.action, self.target.json) {
            (_, true) => println!("{answer}"),
            (Action::List { .. }, false) => println!("{}", table(&answer)),
            (Action::Replay { .. }, false) => println!(
                "{} counted now, {} still refused, {} replayed before",
                answer["accepted"], answer["refused"], answer["skipped"]
            ),
        }
        Ok(())
    }

    async fn act(&self, target: &Target) -> Result<Value> {
        match &self.action {
            Action::List { reason, limit } => {
                let mut query = vec![("limit", limit.to_string())];
                query.extend(reason.clone().map(|reason| ("reason", reason)));
                target.get("/v1/dead-letters", &query).await
            }
            Action::Replay { reason, limit } => {
                target.post("/v1/dead-letters/replay", &json!({ "reason": reason, "limit": limit })).await
            }
        }
    }
}

fn table(answer: &Value) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["place", "received", "reason", "source", "message"]);
    for letter in answer["letters"].as_array().into_iter().flatten() {
        let names = ["place", "received_at", "reason", "source", "message"];
        table.add_row(names.map(|name| letter[name].as_str().unwrap_or_default().to_owned()));
    }
    table
}
