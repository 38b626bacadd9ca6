//! `reckon entities`: what is known of entities.

mod import;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use reckon_client::encode;
use reckon_data::config::Settings;
use serde_json::{Value, json};

use super::target::{Target, TargetArgs};

/// Texts of a record.
const TEXTS: [&str; 5] = ["entity_id", "title", "channel", "owner", "url"];

/// What is known of entities.
#[derive(Debug, Args)]
pub struct Entities {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Import files of records; those that are there already are replaced.
    Import(import::Import),
    /// The record of an entity.
    Get(Get),
    /// Write the record of an entity; what is left out is not known any more.
    Put(Put),
    /// Remove the record of an entity. Its counts stay.
    Delete(Delete),
    /// Records, by id.
    List(List),
}

#[derive(Debug, Args)]
struct Get {
    #[command(flatten)]
    target: TargetArgs,
    /// The entity.
    entity: String,
}

#[derive(Debug, Args)]
struct Put {
    #[command(flatten)]
    target: TargetArgs,
    /// What people call it.
    #[arg(long)]
    title: Option<String>,
    /// What it belongs to.
    #[arg(long)]
    channel: Option<String>,
    /// Whose it is.
    #[arg(long)]
    owner: Option<String>,
    /// Where it can be seen.
    #[arg(long = "link", value_name = "URL")]
    link: Option<String>,
    /// NAME=TEXT: anything else.
    #[arg(long = "attribute", value_name = "NAME=TEXT", value_parser = mapping)]
    attributes: Vec<(String, String)>,
    /// Only if the record has this ETag.
    #[arg(long)]
    if_match: Option<String>,
    /// The entity.
    entity: String,
}

#[derive(Debug, Args)]
struct Delete {
    #[command(flatten)]
    target: TargetArgs,
    /// Only if the record has this ETag.
    #[arg(long)]
    if_match: Option<String>,
    /// The entity.
    entity: String,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    target: TargetArgs,
    /// Ids that begin so, then titles that have it in them.
    #[arg(long)]
    search: Option<String>,
    /// Of a channel.
    #[arg(long)]
    channel: Option<String>,
    /// Of an owner.
    #[arg(long)]
    owner: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

impl Entities {
    /// Does it.
    ///
    /// # Errors
    /// What stands in its way.
    pub async fn run(self, settings: Settings) -> Result<()> {
        match self.task {
            Task::Import(import) => Box::pin(import.run(settings)).await,
            Task::Get(Get { target, entity }) => {
                let opened = target.open(settings, "entities").await?;
                let answer = opened.get(&path_of(&entity), &[]).await;
                opened.close().await;
                print(&answer?, target.json)
            }
            Task::Put(put) => Box::pin(put.run(settings)).await,
            Task::Delete(Delete { target, if_match, entity }) => {
                let opened = target.open(settings, "entities").await?;
                let answer = opened.delete(&path_of(&entity), if_match.as_deref()).await;
                opened.close().await;
                print(&answer?, target.json)
            }
            Task::List(list) => Box::pin(list.run(settings)).await,
        }
    }
}

impl Put {
    async fn run(self, settings: Settings) -> Result<()> {
        let attributes: BTreeMap<String, String> = self.attributes.into_iter().collect();
        let body = json!({
            "title": self.title, "channel": self.channel, "owner": self.owner, "url": self.link, "attributes": attributes,
        });
        let target = self.target.open(settings, "entities").await?;
        let answer = target.put(&path_of(&self.entity), &body, self.if_match.as_deref()).await;
        target.close().await;
        print(&answer?, self.target.json)
    }
}

impl List {
    async fn run(self, settings: Settings) -> Result<()> {
        let target = self.target.open(settings, "entities").await?;
        let pages = self.pages(&target).await;
        target.close().await;
        let entities = pages?;
        if self.target.json {
            println!("{}", json!({ "entities": entities }));
            return Ok(());
        }
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(TEXTS);
        for entity in &entities {
            table.add_row(TEXTS.map(|name| entity[name].as_str().unwrap_or("-").to_owned()));
        }
        println!("{table}");
        Ok(())
    }

    /// Pages until there are enough records, or no more.
    async fn pages(&self, target: &Target) -> Result<Vec<Value>> {
        let (mut entities, mut after): (Vec<Value>, Option<String>) = (Vec::new(), None);
        loop {
            let left = self.limit.saturating_sub(entities.len());
            if left == 0 {
                return Ok(entities);
            }
            let mut query = vec![("limit", left.min(1_000).to_string())];
            let optional = [
                ("search", self.search.clone()),
                ("channel", self.channel.clone()),
                ("owner", self.owner.clone()),
                ("after", after),
            ];
            query.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
            let answer = target.get("/v1/entities", &query).await?;
            entities.extend(answer["entities"].as_array().into_iter().flatten().cloned());
            after = answer["next"].as_str().map(str::to_owned);
            if after.is_none() {
                return Ok(entities);
            }
        }
    }
}

/// The path of an entity. `import` and `query` are written otherwise: their paths as they stand are other routes.
fn path_of(entity: &str) -> String {
    let id = match entity {
        "import" => "%69mport".to_owned(),
        "query" => "%71uery".to_owned(),
        other => encode(other),
    };
    format!("/v1/entities/{id}")
}

fn mapping(text: &str) -> Result<(String, String), String> {
    let (field, column) = text.split_once('=').ok_or("it is written NAME=VALUE")?;
    if field.is_empty() || column.is_empty() {
        return Err("both sides of = are needed".to_owned());
    }
    Ok((field.to_owned(), column.to_owned()))
}

/// Prints a record: as it is, or a line a field.
fn print(answer: &Value, json: bool) -> Result<()> {
    if json {
        println!("{answer}");
        return Ok(());
    }
    let fields = answer.as_object().context("the answer is no record")?;
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        match value {
            Value::String(text) => println!("{name}: {text}"),
            other => println!("{name}: {other}"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_mappings() {
        assert_eq!(path_of("a/b"), "/v1/entities/a%2Fb");
        assert_eq!(path_of("import"), "/v1/entities/%69mport");
        assert_eq!(path_of("query"), "/v1/entities/%71uery");
        assert_eq!(mapping("title=name=x"), Ok(("title".to_owned(), "name=x".to_owned())));
        assert!(mapping("title").is_err() && mapping("=x").is_err() && mapping("x=").is_err());
    }
}
