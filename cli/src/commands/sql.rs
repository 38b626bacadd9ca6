//! `reckon sql`: a query, printed as a table, JSON or CSV.

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use reckon_data::config::Settings;
use serde_json::{Map, Value, json};

use super::target::{TargetArgs, lack};

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for people.
    Table,
    /// An array of objects.
    Json,
    /// Comma-separated, with a header.
    Csv,
}

/// Ask in SQL.
#[derive(Debug, Args)]
#[command(after_help = "\
  reckon sql \"select entity_id, sum(count) from stats group by 1 order by 2 desc limit 10\"
  reckon sql --as-of 2013-02-09T06:00:00Z \"select sum(count) from stats\"
  reckon sql --format csv \"select minute, count from stats_hour where entity_id = 'video-1'\"")]
pub struct Sql {
    #[command(flatten)]
    target: TargetArgs,
    /// How rows are printed; --json prints the whole answer, with where it comes from.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// As of an older version of batch: its time (RFC 3339 or epoch milliseconds), or version:N.
    #[arg(long)]
    as_of: Option<String>,
    /// The query.
    query: String,
}

impl Sql {
    /// Asks, and prints the rows.
    ///
    /// # Errors
    /// When the query is refused, or the answer, which is printed, is not whole.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let target = self.target.open(settings, "sql").await?;
        let mut question = json!({ "query": self.query });
        if let Some(as_of) = self.as_of {
            question["as_of"] = json!(as_of);
        }
        let answer = target.post("/v1/sql", &question).await;
        target.close().await;
        let answer = answer?;
        if self.target.json {
            println!("{answer}");
        } else {
            print!("{}", render(&answer, self.format)?);
        }
        // Rows alone do not show that some are missing: a script must not take them for all.
        match lack(&answer) {
            Some(lack) => bail!("{lack}"),
            None => Ok(()),
        }
    }
}

fn render(answer: &Value, format: Format) -> Result<String> {
    let columns = answer["columns"].as_array().context("the answer has no columns")?;
    let names: Vec<String> =
        columns.iter().map(|column| column["name"].as_str().unwrap_or_default().to_owned()).collect();
    let rows: Vec<&Vec<Value>> =
        answer["rows"].as_array().context("the answer has no rows")?.iter().filter_map(Value::as_array).collect();
    match format {
        Format::Table => {
            let mut table = Table::new();
            table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(&names);
            for row in rows {
                table.add_row(row.iter().map(text));
            }
            Ok(format!("{table}\n"))
        }
        Format::Json => {
            let objects: Vec<Value> = rows
                .iter()
                .map(|row| Value::Object(names.iter().cloned().zip(row.iter().cloned()).collect::<Map<_, _>>()))
                .collect();
            Ok(format!("{}\n", serde_json::to_string_pretty(&objects)?))
        }
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(&names)?;
            for row in rows {
                writer.write_record(row.iter().map(text))?;
            }
            Ok(String::from_utf8(writer.into_inner().map_err(|error| error.into_error())?)?)
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_formats() {
        let answer = json!({"columns": [{"name": "a"}, {"name": "b"}], "rows": [["x,y", null], ["z", 1]]});
        assert_eq!(render(&answer, Format::Csv).unwrap(), "a,b\n\"x,y\",\nz,1\n");
        let objects: Value = serde_json::from_str(&render(&answer, Format::Json).unwrap()).unwrap();
        assert_eq!(objects, json!([{"a": "x,y", "b": null}, {"a": "z", "b": 1}]));
        assert!(render(&answer, Format::Table).unwrap().contains("x,y"));
    }
}
