//! `reckon alerts`: rules asked once, receivers tried once.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use reckon_audit::alert::once::{self, Checked};
use reckon_audit::alert::{AlertSettings, Message, receivers};
use reckon_data::clock::{Clock as _, Names as _, RandomNames, SystemClock};
use reckon_data::config::Settings;
use serde_json::{Value, json};

use super::target::TargetArgs;
use crate::alerts::{self, AskTarget};
use crate::exit::Exit;

/// Some alert fires, or some receiver did not take its message.
const SOME: Exit = Exit::quiet(1);
/// It could not be found out.
const UNKNOWN: Exit = Exit::quiet(2);

/// Alerts.
#[derive(Debug, Args)]
pub struct Alerts {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Ask every rule once, and print which would fire. Exit code 0: none; 1: some; 2: not all could be asked.
    Check {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Send a test message to every receiver, and say what became of it. Exit code 1: not all have taken it.
    Test {
        /// Machine-readable output.
        #[arg(long)]
        json: bool,
    },
}

impl Alerts {
    /// Checks or tests.
    ///
    /// # Errors
    /// An [`Exit`] with what was found, and whatever stands in the way.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let rules = alerts::read(&settings)?.context("there are no alert rules: --alerts-rules names their file")?;
        match self.action {
            Action::Check { target } => check(&target, settings, &rules).await,
            Action::Test { json } => test(&rules, json).await,
        }
    }
}

async fn check(target: &TargetArgs, settings: Settings, rules: &AlertSettings) -> Result<()> {
    // A rule that asks well does not help when nobody can be told of it.
    receivers(rules)?;
    let asked = target.open(settings, "alerts").await?;
    let checked = once::check(rules, &AskTarget(&asked)).await;
    asked.close().await;
    if target.json {
        println!("{}", Value::Array(checked.iter().map(as_json).collect()));
    } else {
        checked.iter().for_each(|rule| println!("{}", as_text(rule)));
    }
    match exit(&checked) {
        Some(exit) => Err(exit.into()),
        None => Ok(()),
    }
}

async fn test(rules: &AlertSettings, json: bool) -> Result<()> {
    let receivers = receivers(rules)?;
    if receivers.is_empty() {
        bail!("the alert rules name no receiver");
    }
    let sent = once::test(&receivers, &Message::test(RandomNames.fresh(), SystemClock.now())).await;
    for (receiver, outcome) in &sent {
        let error = outcome.as_ref().err().map(ToString::to_string);
        match (json, error) {
            (true, error) => println!("{}", json!({ "receiver": receiver, "error": error })),
            (false, None) => println!("{receiver:<20} has taken it"),
            (false, Some(error)) => println!("{receiver:<20} has not: {error}"),
        }
    }
    if sent.iter().all(|(_, outcome)| outcome.is_ok()) { Ok(()) } else { Err(SOME.into()) }
}

/// What the command ends with; none when all is well.
fn exit(checked: &[Checked]) -> Option<Exit> {
    if checked.iter().any(|rule| rule.seen.is_err()) {
        return Some(UNKNOWN);
    }
    let fires = |rule: &Checked| rule.seen.as_ref().is_ok_and(|answer| answer.total > 0);
    checked.iter().any(fires).then_some(SOME)
}

/// `fires`, `quiet` or `failing`.
fn state(rule: &Checked) -> &'static str {
    match &rule.seen {
        Ok(answer) if answer.total > 0 => "fires",
        Ok(_) => "quiet",
        Err(_) => "failing",
    }
}

fn as_text(rule: &Checked) -> String {
    let mut text = format!("{:<8} {}", state(rule), rule.name);
    match &rule.seen {
        Ok(answer) if answer.total > 0 => {
            let least = if answer.is_cut { "at least " } else { "" };
            text.push_str(&format!(", {least}{} rows", answer.total));
            let missing = answer.missing.iter();
            missing.for_each(|missing| text.push_str(&format!("\n         incomplete, it lacks: {missing}")));
            answer.rows.iter().for_each(|row| text.push_str(&format!("\n         {row}")));
        }
        Ok(_) => {}
        Err(error) => text.push_str(&format!(": {error}")),
    }
    text
}

fn as_json(rule: &Checked) -> Value {
    let answer = rule.seen.as_ref().ok();
    json!({
        "alert": rule.name,
        "state": state(rule),
        "rows": answer.map(|answer| &answer.rows),
        "rows_total": answer.map(|answer| answer.total),
        "rows_cut": answer.map(|answer| answer.is_cut),
        "missing": answer.and_then(|answer| answer.missing.as_ref()),
        "error": rule.seen.as_ref().err(),
    })
}

#[cfg(test)]
mod tests {
    use reckon_audit::alert::Answer;

    use super::*;

    fn rule(seen: Result<u64, &str>) -> Checked {
        let answer = |total| Answer { rows: vec![json!({"n": 7})], total, ..Answer::default() };
        Checked { name: "late".to_owned(), seen: seen.map(answer).map_err(str::to_owned) }
    }

    #[test]
    fn the_exit_code_says_what_was_found() {
        assert_eq!(exit(&[]), None);
        assert_eq!(exit(&[rule(Ok(0))]), None);
        assert_eq!(exit(&[rule(Ok(0)), rule(Ok(1))]), Some(Exit::quiet(1)));
        assert_eq!(exit(&[rule(Ok(1)), rule(Err("no"))]), Some(Exit::quiet(2)), "nobody knows what else fires");
    }

    #[test]
    fn a_line_says_name_state_and_rows() {
        assert_eq!(as_text(&rule(Ok(0))), "quiet    late");
        assert_eq!(as_text(&rule(Ok(3))), "fires    late, 3 rows\n         {\"n\":7}");
        assert_eq!(as_text(&rule(Err("no table"))), "failing  late: no table");
    }
}
