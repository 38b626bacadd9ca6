//! `reckon entities import`: files of records.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use reckon_data::config::Settings;
use serde_json::{Map, Value, json};

use super::super::target::{Target, TargetArgs};
use super::{TEXTS, mapping};

/// What is sent at once: the default of gateway.body_max is 8 MiB.
const SENT_BYTES_MAX: usize = 2 << 20;
/// Longest line of a file.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Refused lines that are printed.
const REFUSED_MAX: usize = 20;
const ATTRIBUTES: &str = "attributes";

/// Import files.
#[derive(Debug, Args)]
#[command(after_help = "\
  reckon entities import videos.csv
  reckon entities import --map entity_id=video_id --map title=name --map attributes.language=lang videos.csv
  reckon entities import --map channel=uploader videos.ndjson")]
pub struct Import {
    #[command(flatten)]
    target: TargetArgs,
    /// What the files are; without it their names say: .csv, .tsv, anything else is an object a line.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// FIELD=COLUMN: where a field comes from, entity_id, title, channel, owner, url or attributes.NAME; those that are not
    /// mapped come from the columns of the same names.
    #[arg(long, value_name = "FIELD=COLUMN", value_parser = mapping)]
    map: Vec<(String, String)>,
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// An object a line.
    Ndjson,
    /// Comma-separated, with a header.
    Csv,
    /// Tab-separated, with a header.
    Tsv,
}

impl Import {
    /// Imports the files, and says what came of it.
    ///
    /// # Errors
    /// When a file cannot be imported whole.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let target = self.target.open(settings, "entities").await?;
        let mut sent = Sent { target: &target, lines: Vec::new(), bytes: 0, stored: 0, refused: 0, told: Vec::new() };
        let mut outcome = Ok(());
        for file in &self.files {
            outcome =
                self.file(file, &mut sent).await.with_context(|| format!("{} cannot be imported", file.display()));
            if outcome.is_err() {
                break;
            }
        }
        let Sent { stored, refused, told, .. } = sent;
        target.close().await;
        for line in &told {
            eprintln!("{line}");
        }
        outcome.with_context(|| {
            format!("{stored} records are stored, {refused} were refused; those after them are not read")
        })?;
        if self.target.json {
            println!("{}", json!({ "stored": stored, "refused": refused }));
        } else {
            println!("{stored} records stored, {refused} refused");
        }
        if refused > 0 {
            bail!("{refused} lines were refused; all others are stored");
        }
        Ok(())
    }

    async fn file(&self, path: &Path, sent: &mut Sent<'_>) -> Result<()> {
        let file = File::open(path)?;
        let bar = progress_bar(path, file.metadata()?.len(), self.target.json);
        let reader = BufReader::new(bar.wrap_read(file));
        match self.format.unwrap_or_else(|| format_of(path)) {
            Format::Ndjson => self.lines(path, reader, sent).await?,
            Format::Csv => self.table(path, reader, b',', sent).await?,
            Format::Tsv => self.table(path, reader, b'\t', sent).await?,
        }
        sent.send().await?;
        bar.finish_and_clear();
        Ok(())
    }

    async fn lines(&self, path: &Path, mut reader: impl BufRead, sent: &mut Sent<'_>) -> Result<()> {
        let mut text = Vec::new();
        for line in 1_u64.. {
            text.clear();
            // One byte more than may be, so that a line that is too long is seen as such.
            if reader.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut text)? == 0 {
                break;
            }
            if text.len() as u64 > LINE_BYTES_MAX {
                bail!("line {line} has more than {LINE_BYTES_MAX} bytes");
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let place = format!("{}:{line}", path.display());
            match serde_json::from_slice::<Map<String, Value>>(&text) {
                Ok(object) => sent.add(place, self.mapped(object)).await?,
                Err(error) => sent.refuse(&place, &format!("it is no object: {error}")),
            }
        }
        Ok(())
    }

    async fn table(&self, path: &Path, reader: impl Read, delimiter: u8, sent: &mut Sent<'_>) -> Result<()> {
        let mut rows = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(reader);
        let header = rows.headers()?.clone();
        let mut row = csv::StringRecord::new();
        while rows.read_record(&mut row)? {
            let cells = header.iter().zip(row.iter()).filter(|(_, cell)| !cell.is_empty());
            let object = cells.map(|(name, cell)| (name.to_owned(), json!(cell))).collect();
            let line = row.position().map_or(0, csv::Position::line);
            sent.add(format!("{}:{line}", path.display()), self.mapped(object)).await?;
        }
        Ok(())
    }

    /// A record of an object: of its fields those that are mapped, or have the names of a record's.
    fn mapped(&self, mut object: Map<String, Value>) -> Value {
        let mut record = Map::new();
        let mut attributes = match object.remove(ATTRIBUTES) {
            Some(Value::Object(attributes)) => attributes,
            // The server says what is wrong with it.
            Some(other) if !other.is_null() => {
                record.insert(ATTRIBUTES.to_owned(), other);
                Map::new()
            }
            _ => Map::new(),
        };
        for (field, column) in &self.map {
            let Some(value) = object.get(column).filter(|value| !value.is_null()) else { continue };
            match field.strip_prefix("attributes.") {
                Some(name) => drop(attributes.insert(name.to_owned(), as_text(value))),
                None => drop(record.insert(field.clone(), as_text(value))),
            }
        }
        for field in TEXTS.into_iter().filter(|field| self.map.iter().all(|(mapped, _)| mapped != field)) {
            if let Some(value) = object.get(field).filter(|value| !value.is_null()) {
                record.insert(field.to_owned(), as_text(value));
            }
        }
        if !attributes.is_empty() {
            record.insert(ATTRIBUTES.to_owned(), Value::Object(attributes));
        }
        Value::Object(record)
    }
}

/// Records on their way.
struct Sent<'a> {
    target: &'a Target,
    /// Where each comes from, and it.
    lines: Vec<(String, Value)>,
    bytes: usize,
    stored: u64,
    refused: u64,
    /// The first that were refused.
    told: Vec<String>,
}

impl Sent<'_> {
    async fn add(&mut self, place: String, record: Value) -> Result<()> {
        self.bytes += record.to_string().len() + 1;
        self.lines.push((place, record));
        if self.bytes >= SENT_BYTES_MAX { self.send().await } else { Ok(()) }
    }

    fn refuse(&mut self, place: &str, message: &str) {
        self.refused += 1;
        if self.told.len() < REFUSED_MAX {
            self.told.push(format!("{place}: {message}"));
        }
    }

    async fn send(&mut self) -> Result<()> {
        self.bytes = 0;
        let lines = std::mem::take(&mut self.lines);
        if lines.is_empty() {
            return Ok(());
        }
        let (places, records): (Vec<String>, Vec<Value>) = lines.into_iter().unzip();
        let answer = self.target.post("/v1/entities/import", &Value::Array(records)).await?;
        self.stored += answer["stored"].as_u64().unwrap_or_default();
        let refusals = answer["refusals"].as_array().map_or(&[][..], Vec::as_slice);
        for refusal in refusals {
            let at = refusal["line"].as_u64().and_then(|line| usize::try_from(line).ok()?.checked_sub(1));
            let place = at.and_then(|at| places.get(at)).map_or("a line", String::as_str);
            self.refuse(place, refusal["message"].as_str().unwrap_or_default());
        }
        let refused = answer["refused"].as_u64().unwrap_or_default();
        self.refused += refused.saturating_sub(refusals.len() as u64);
        Ok(())
    }
}

/// A text, also of a number: ids often are. Anything else is left for the server to refuse.
fn as_text(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::String(number.to_string()),
        other => other.clone(),
    }
}

fn format_of(path: &Path) -> Format {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => Format::Csv,
        Some("tsv") => Format::Tsv,
        _ => Format::Ndjson,
    }
}

fn progress_bar(path: &Path, bytes: u64, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let template = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_message(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(map: &[(&str, &str)]) -> Import {
        Import {
            target: TargetArgs { url: None, json: true },
            format: None,
            map: map.iter().map(|(field, column)| ((*field).to_owned(), (*column).to_owned())).collect(),
            files: Vec::new(),
        }
    }

    #[test]
    fn fields_come_from_where_they_are_mapped() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let row = object(json!({"entity_id": "e", "id": 7, "name": "N", "title": "T", "lang": "en", "other": 1}));
        let plain = import(&[]).mapped(row.clone());
        assert_eq!(plain, json!({"entity_id": "e", "title": "T"}));
        let mapped = import(&[("entity_id", "id"), ("title", "name"), ("attributes.language", "lang")]).mapped(row);
        assert_eq!(mapped, json!({"entity_id": "7", "title": "N", "attributes": {"language": "en"}}));
        let own = object(json!({"entity_id": "e", "attributes": {"a": "b"}, "owner": null}));
        assert_eq!(import(&[]).mapped(own), json!({"entity_id": "e", "attributes": {"a": "b"}}));
    }
}
