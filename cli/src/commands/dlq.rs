//! `reckon dlq`: what was refused.

use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use reckon_data::config::Settings;
use serde_json::{Value, json};

use super::find::lost;
use super::target::{Target, TargetArgs};

/// Letters asked for at once.
const PAGE: u32 = 1_000;

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
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Try once more, after the cause is gone; each is counted once.
    Replay {
        /// With this reason only.
        #[arg(long)]
        reason: Option<String>,
        /// Until so many are counted; those that are refused still or were replayed before are passed over.
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
        for lack in lacks(&answer) {
            eprintln!("{lack}");
        }
        Ok(())
    }

    async fn act(&self, target: &Target) -> Result<Value> {
        match &self.action {
            Action::List { reason, limit } => list(target, reason.as_deref(), *limit).await,
            Action::Replay { reason, limit } => {
                target.post("/v1/dead-letters/replay", &json!({ "reason": reason, "limit": limit })).await
            }
        }
    }
}

/// Asks page by page; the answer is the last one, with the letters of all.
async fn list(target: &Target, reason: Option<&str>, limit: u32) -> Result<Value> {
    let (mut letters, mut after) = (Vec::new(), None);
    loop {
        let left = limit.saturating_sub(u32::try_from(letters.len())?);
        let mut query = vec![("limit", left.min(PAGE).to_string())];
        query.extend(reason.map(|reason| ("reason", reason.to_owned())));
        query.extend(after.map(|place| ("after", place)));
        let mut page = target.get("/v1/dead-letters", &query).await?;
        if let Value::Array(found) = page["letters"].take() {
            letters.extend(found);
        }
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() || letters.len() >= limit as usize {
            page["letters"] = Value::Array(letters);
            return Ok(page);
        }
    }
}

/// What the reader of a list has to know: where there are more.
fn lacks(answer: &Value) -> Vec<&str> {
    let more = (!answer["next"].is_null()).then_some("there are more dead letters: --limit says how many are listed");
    let behind = |at: &Value| at["durable_end"].as_u64() > at["dead_letters"].as_u64();
    let in_log = answer["archived"].as_array().is_some_and(|all| all.iter().any(behind));
    let in_log = in_log.then_some("there may be more in the log, which is archived within a minute");
    more.into_iter().chain(in_log).chain(lost(answer)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_that_there_are_more() {
        let whole = json!({"letters": [], "next": null, "archived": [{"dead_letters": 7, "durable_end": 7}]});
        assert_eq!(lacks(&whole).len(), 0);
        let cut = json!({"letters": [], "next": "0-7-1", "archived": [{"dead_letters": 6, "durable_end": 7}]});
        assert_eq!(lacks(&cut).len(), 2);
        assert_eq!(lacks(&json!({"accepted": 1, "refused": 0, "skipped": 0})).len(), 0, "a replay is no list");
    }
}
