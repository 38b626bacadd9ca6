//! How the lines of a file become events: the options of `reckon import`.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use xxhash_rust::xxh3::xxh3_128;

/// How a file's lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A JSON object a line.
    Ndjson,
    /// Comma-separated, with a header.
    Csv,
    /// Tab-separated, with a header; no quoting.
    Tsv,
    /// An access log in the combined log format: request target, client address, time.
    Combined,
}

/// What a line's id is made from when no field holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IdFrom {
    /// The file's contents and the line's number: two equal lines count twice, the file once.
    File,
    /// The line itself and its repeat number in the file: for files that grow or overlap. A last line without a
    /// line break may not be whole yet: it is left for the next import.
    Line,
}

/// The options that say which field is what.
#[derive(Debug, Clone, Args)]
pub struct MappingArgs {
    /// How the lines are written.
    #[arg(long, value_enum)]
    pub format: Format,
    /// The field that is counted; nested as `repo.name`. Combined logs: the request target.
    #[arg(long, value_name = "FIELD")]
    pub entity: Option<String>,
    /// The field with the event's time, and how it is written: s, ms, us, rfc3339 or a pattern like
    /// %d/%b/%Y:%H:%M:%S. Without a unit: RFC 3339 text, or milliseconds.
    #[arg(long, value_name = "FIELD[:UNIT]")]
    pub time: Option<String>,
    /// The field with the event's own id.
    #[arg(long, value_name = "FIELD")]
    pub id: Option<String>,
    /// What the id is made from when there is no field for it.
    #[arg(long, value_enum, default_value = "file")]
    pub id_from: IdFrom,
    /// The type of every event.
    #[arg(long = "type", value_name = "NAME", conflicts_with = "type_field")]
    pub event_type: Option<String>,
    /// The field with the event's type.
    #[arg(long, value_name = "FIELD")]
    pub type_field: Option<String>,
    /// The field with the user. Combined logs: the client's address.
    #[arg(long, value_name = "FIELD")]
    pub user: Option<String>,
    /// The field with the address.
    #[arg(long, value_name = "FIELD")]
    pub ip: Option<String>,
    /// The field with the country.
    #[arg(long, value_name = "FIELD")]
    pub country: Option<String>,
    /// The field with the value.
    #[arg(long, value_name = "FIELD")]
    pub value: Option<String>,
    /// Skip lines that have this field.
    #[arg(long, value_name = "FIELD")]
    pub skip_if: Option<String>,
}

/// How a time is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeUnit {
    /// RFC 3339 text, or milliseconds.
    Auto,
    /// Whole or decimal seconds since 1970.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// RFC 3339 text.
    Rfc3339,
    /// A pattern as of strftime.
    Pattern(String),
}

/// Which field is what.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// How lines are written.
    pub format: Format,
    /// Fields, see [`MappingArgs`].
    pub entity: String,
    /// The field with the time.
    pub time: String,
    /// How it is written.
    pub time_unit: TimeUnit,
    /// The field with the id.
    pub id: Option<String>,
    /// What an id is made from otherwise.
    pub id_from: IdFrom,
    /// The type, or the field with it.
    pub event_type: TypeFrom,
    /// The field with the user.
    pub user: Option<String>,
    /// The field with the address.
    pub ip: Option<String>,
    /// The field with the country.
    pub country: Option<String>,
    /// The field with the value.
    pub value: Option<String>,
    /// The field whose presence skips a line.
    pub skip_if: Option<String>,
}

/// Where an event's type comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeFrom {
    /// It is the same for all.
    Name(String),
    /// A field.
    Field(String),
}

impl MappingArgs {
    /// The mapping that the options mean.
    ///
    /// # Errors
    /// When an option is missing, or a time's unit is none.
    pub fn mapping(&self) -> Result<Mapping> {
        let combined = self.format == Format::Combined;
        let default = |given: &Option<String>, name: &str| given.clone().or_else(|| combined.then(|| name.to_owned()));
        let Some(entity) = default(&self.entity, "target") else { bail!("--entity FIELD says what is counted") };
        let Some(time) = default(&self.time, "time:%d/%b/%Y:%H:%M:%S %z") else {
            bail!("--time FIELD[:UNIT] says when an event happened")
        };
        let (time, time_unit) = split_time(&time)?;
        Ok(Mapping {
            format: self.format,
            entity,
            time,
            time_unit,
            id: self.id.clone(),
            id_from: self.id_from,
            event_type: match (&self.type_field, &self.event_type) {
                (Some(field), _) => TypeFrom::Field(field.clone()),
                (None, name) => TypeFrom::Name(name.clone().unwrap_or_else(|| "view".to_owned())),
            },
            user: default(&self.user, "client"),
            ip: self.ip.clone(),
            country: self.country.clone(),
            value: self.value.clone(),
            skip_if: self.skip_if.clone(),
        })
    }
}

fn split_time(text: &str) -> Result<(String, TimeUnit)> {
    let Some((field, unit)) = text.split_once(':') else { return Ok((text.to_owned(), TimeUnit::Auto)) };
    let unit = match unit {
        "s" => TimeUnit::Seconds,
        "ms" => TimeUnit::Millis,
        "us" => TimeUnit::Micros,
        "rfc3339" => TimeUnit::Rfc3339,
        pattern if pattern.contains('%') => TimeUnit::Pattern(pattern.to_owned()),
        other => bail!("--time {text}: {other:?} is none of s, ms, us, rfc3339 and a pattern with %"),
    };
    Ok((field.to_owned(), unit))
}

impl Mapping {
    /// Tells this mapping from others, in the table of imports.
    #[must_use]
    pub fn hash(&self) -> String {
        format!("{:032x}", xxh3_128(format!("1 {self:?}").as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_time() {
        assert_eq!(split_time("t").unwrap(), ("t".to_owned(), TimeUnit::Auto));
        assert_eq!(split_time("t:s").unwrap(), ("t".to_owned(), TimeUnit::Seconds));
        assert_eq!(split_time("t:%H:%M").unwrap(), ("t".to_owned(), TimeUnit::Pattern("%H:%M".to_owned())));
        assert!(split_time("t:weeks").is_err());
    }
}
