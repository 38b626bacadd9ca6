//! Settings from four places: defaults, then the file, then variables, then flags.
//!
//! Every setting is a flag (`--stream-dedup-minutes`) and a variable (`RECKON_STREAM_DEDUP_MINUTES`).
//! Both are made from the example configuration, whose comments are the flags' help.

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Arg, ArgMatches, Command};
use reckon_data::config::Settings;
use toml::{Table, Value};

const EXAMPLE: &str = include_str!("../../reckon.example.toml");

/// A setting as the example configuration shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    section: Option<String>,
    key: String,
    help: String,
}

impl Setting {
    fn path(&self) -> String {
        self.section.as_ref().map_or_else(|| self.key.clone(), |section| format!("{section}.{}", self.key))
    }

    fn flag(&self) -> String {
        self.path().replace(['.', '_'], "-")
    }

    fn variable(&self) -> String {
        format!("RECKON_{}", self.path().replace('.', "_").to_uppercase())
    }
}

/// Reads the settings out of the example: a comment, then `key = value` or `# key = value`; a table of
/// its own, like `[log.hot_entities]`, is one setting.
fn all() -> Vec<Setting> {
    let mut settings = Vec::new();
    let (mut section, mut in_map, mut help) = (None, false, String::new());
    for line in EXAMPLE.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            in_map = name.contains('.');
            match name.split_once('.') {
                Some((outer, key)) => settings.push(Setting {
                    section: Some(outer.to_owned()),
                    key: key.to_owned(),
                    help: format!("{} As TOML: '{{ id = … }}'", help.trim()),
                }),
                None => section = Some(name.to_owned()),
            }
            help.clear();
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ").filter(|(key, _)| is_key(key)) {
            if !in_map {
                settings.push(Setting { section: section.clone(), key: key.to_owned(), help: help.trim().to_owned() });
            }
            help.clear();
        } else if let Some(comment) = line.strip_prefix('#') {
            help.push_str(comment);
        } else {
            help.clear();
        }
    }
    settings
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// Adds `--config` and a flag for every setting to a command.
#[must_use]
pub fn with_flags(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env("RECKON_CONFIG")
        .help("Settings, as in reckon.example.toml");
    all().into_iter().fold(command.arg(config), |command, setting| {
        // The two that everybody needs stand among the command's own options.
        let heading = setting.section.as_ref().map_or("Where", |_| "Settings");
        let flag = setting.flag();
        command.arg(
            Arg::new(setting.path())
                .long(flag)
                .value_name("VALUE")
                .help(setting.help.clone())
                .help_heading(heading)
                .hide_short_help(setting.section.is_some()),
        )
    })
}

/// The settings of a command line.
///
/// # Errors
/// A file that cannot be read, and whatever [`Settings::validate`] refuses.
pub fn from(matches: &ArgMatches) -> Result<Settings> {
    let mut table = match flag(matches, "config") {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("the settings {path} cannot be read"))?
            .parse::<Table>()
            .with_context(|| format!("the settings {path} are not TOML"))?,
        None => Table::new(),
    };
    let defaults = Table::try_from(Settings::default()).context("the defaults")?;
    for setting in all() {
        let flag = flag(matches, &setting.path()).cloned();
        let Some(text) = flag.or_else(|| std::env::var(setting.variable()).ok()) else { continue };
        let value = parse(&text, lookup(&defaults, &setting))
            .map_err(|reason| anyhow!("--{} {text:?}: {reason}", setting.flag()))?;
        put(&mut table, &setting, value)?;
    }
    let text = toml::to_string(&table).context("the settings")?;
    Settings::from_toml(&text).map_err(Into::into)
}

/// A flag's value; none also where the command has no such flag.
fn flag<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a String> {
    matches.try_get_one(name).ok().flatten()
}

fn lookup<'a>(defaults: &'a Table, setting: &Setting) -> Option<&'a Value> {
    match &setting.section {
        Some(section) => defaults.get(section)?.get(&setting.key),
        None => defaults.get(&setting.key),
    }
}

/// Reads a value of the same type as the default; a setting without one is a number.
fn parse(text: &str, default: Option<&Value>) -> Result<Value, String> {
    let number = |text: &str| text.parse().map(Value::Integer).map_err(|_| "a whole number is expected".to_owned());
    match default {
        None | Some(Value::Integer(_)) => number(text),
        Some(Value::Boolean(_)) => text.parse().map(Value::Boolean).map_err(|_| "true or false is expected".to_owned()),
        Some(Value::Float(_)) => text.parse().map(Value::Float).map_err(|_| "a number is expected".to_owned()),
        Some(Value::String(_) | Value::Datetime(_)) => Ok(Value::String(text.to_owned())),
        Some(Value::Array(_)) if !text.trim_start().starts_with('[') => Ok(Value::Array(
            text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|s| Value::String(s.to_owned())).collect(),
        )),
        Some(Value::Array(_) | Value::Table(_)) => {
            let table: Table =
                format!("value = {text}").parse().map_err(|e: toml::de::Error| e.message().to_owned())?;
            table.get("value").cloned().ok_or_else(|| "a value is expected".to_owned())
        }
    }
}

fn put(table: &mut Table, setting: &Setting, value: Value) -> Result<()> {
    let Some(section) = &setting.section else {
        table.insert(setting.key.clone(), value);
        return Ok(());
    };
    let inner = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
    let Some(inner) = inner.as_table_mut() else { bail!("the settings have {section} as a value, not as a section") };
    inner.insert(setting.key.clone(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Settings> {
        let command = with_flags(Command::new("reckon"));
        from(&command.try_get_matches_from([&["reckon"], arguments].concat())?)
    }

    #[test]
    fn every_setting_of_the_defaults_is_a_flag() {
        let flags: Vec<String> = all().iter().map(Setting::path).collect();
        for (section, value) in Table::try_from(Settings::default()).unwrap() {
            match value {
                Value::Table(keys) => {
                    for (key, _) in keys {
                        assert!(flags.contains(&format!("{section}.{key}")), "{section}.{key} in {flags:?}");
                    }
                }
                _ => assert!(flags.contains(&section), "{section} in {flags:?}"),
            }
        }
        assert!(all().iter().all(|setting| !setting.help.is_empty()), "{:?}", all());
    }

    #[test]
    fn flags_of_every_type_are_read() {
        let settings = read(&[
            "--stream-dedup-minutes",
            "3",
            "--batch-compact",
            "false",
            "--retention-events-days",
            "7",
            "--limits-event-time-min",
            "1800-01-01T00:00:00Z",
            "--definition-dimensions",
            "country,user_id",
            "--log-hot-entities",
            "{ a = 4 }",
            "--data-dir",
            "elsewhere",
            "--serving-query-time",
            "300ms",
        ])
        .unwrap();
        assert_eq!(settings.stream.dedup_minutes, 3);
        assert_eq!(settings.retention.events_days, Some(7));
        assert_eq!(settings.definition.dimensions, ["country", "user_id"]);
        assert_eq!(settings.log.hot_entities["a"], 4);
        assert_eq!(settings.data_dir, "elsewhere");
        assert!(!settings.batch.compact);
        assert_eq!(settings.serving.query_time.as_millis(), 300);
    }

    #[test]
    fn a_bad_value_names_its_flag() {
        let error = read(&["--stream-dedup-minutes", "many"]).unwrap_err();
        assert!(error.to_string().contains("--stream-dedup-minutes"), "{error}");
    }
}
