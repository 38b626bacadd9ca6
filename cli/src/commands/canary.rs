//! `reckon canary`: some rounds of the canary, now.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use reckon_audit::canary::{Canary as Rounds, CanaryParts, HttpDoor, Outcome, Record, RoundReport};
use reckon_audit::finding::Finding;
use reckon_data::clock::{RandomNames, SystemClock};
use reckon_data::config::{Canary as CanarySettings, Settings};
use serde_json::json;

use crate::exit::Exit;

/// The codes that the process ends with, beside 0.
const FINDINGS: u8 = 1;
const NOT_RUN: u8 = 2;

/// Send known events and hold the answers to them.
///
/// Each round sends --canary-events events of entities of its own, _reckon/canary/…, over HTTP: views and likes, some
/// twice, some minutes late. Then it asks SQL and REST until every count is right, for as long as --canary-patience.
/// Too much is a finding at once, too little when patience has run out. Ends with 0 when all was right, with 1 when there
/// are findings, and with 2 when nothing could be found out.
#[derive(Debug, Args)]
#[command(after_help = "\
  reckon canary --token SECRET                       # the server of canary.token = \"SECRET\" on this machine
  reckon canary --url http://gateway:7711 --ask http://serve:7751 --token SECRET --rounds 3
  reckon canary --url http://127.0.0.1:7700 --token SECRET --json | jq .findings

What it sends stays out of top lists, and of SQL whose strings do not name _reckon/. `reckon up` does a round a minute by itself:
see [canary] in reckon.example.toml, and reckon_canary_… in /metrics.")]
pub struct Canary {
    /// Where the events go; several front doors, separated by commas, take turns. Without it canary.target, or
    /// the address that --listen names.
    #[arg(long, env = "RECKON_URL", value_name = "URL")]
    url: Option<String>,
    /// Where questions go, when the front door answers none; without it, as events do.
    #[arg(long, value_name = "URL")]
    ask: Option<String>,
    /// What lets the events in: canary.token of the front door. Without it canary.token of the settings here.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// How many rounds, one after the other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rounds: u64,
    /// Machine-readable output.
    #[arg(long)]
    json: bool,
}

impl Canary {
    /// Does the rounds, and prints what came of each.
    ///
    /// # Errors
    /// With the code 1 when there are findings, 2 when no round could be done.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let canary = self.rounds_of(&settings)?;
        let mut reports = Vec::new();
        for number in 0..self.rounds {
            let report = canary.round(number).await;
            if !self.json {
                print!("{}", told(&report));
            }
            reports.push(report);
        }
        if self.json {
            println!("{}", as_json(&reports));
        }
        verdict(&reports).map_err(Into::into)
    }

    fn rounds_of(&self, settings: &Settings) -> Result<Rounds> {
        let not_run = |message: String| Exit::new(NOT_RUN, message);
        let token = self.token.clone().unwrap_or_else(|| settings.canary.token.clone());
        if token.is_empty() {
            let advice =
                "there is no token: set canary.token where the server is started, and name it here with --token";
            return Err(not_run(advice.to_owned()).into());
        }
        let target = Some(settings.canary.target.clone()).filter(|target| !target.is_empty());
        let url = self.url.clone().or(target).unwrap_or_else(|| format!("http://{}", settings.listen));
        let first = url.split(',').next().unwrap_or_default().trim().to_owned();
        let ask = self.ask.clone().unwrap_or(first);
        let door = HttpDoor::new(&url, &ask, &token).map_err(|error| not_run(error.to_string()))?;
        Ok(Rounds::new(CanaryParts {
            door: Arc::new(door),
            // No two of these rounds share an entity, however soon they follow each other.
            settings: CanarySettings { every: Duration::ZERO, ..settings.canary.clone() },
            commit_every: settings.archive.commit_every,
            partitions: settings.log.partitions,
            clock: Arc::new(SystemClock),
            names: Arc::new(RandomNames),
            record: Arc::new(Record::default()),
        }))
    }
}

/// What the rounds come to.
fn verdict(reports: &[RoundReport]) -> Result<(), Exit> {
    let differ = reports.iter().filter(|report| report.outcome == Outcome::Differs).count();
    if differ > 0 {
        let message = format!("{differ} of {} rounds were not answered as they were sent", reports.len());
        return Err(Exit::new(FINDINGS, message));
    }
    let reason = reports.iter().find_map(|report| match &report.outcome {
        Outcome::NotSent(reason) => Some(format!("the events could not be sent: {reason}")),
        Outcome::Unanswered(reason) => Some(format!("no answer came: {reason}")),
        Outcome::Right { .. } | Outcome::Differs => None,
    });
    reason.map_or(Ok(()), |reason| Err(Exit::new(NOT_RUN, reason)))
}

/// A round for people.
fn told(report: &RoundReport) -> String {
    let number = report.number + 1;
    if let Outcome::Right { delay } = report.outcome {
        return format!("round {number}: {} events, all right after {:.1} s\n", report.events, delay.as_secs_f64());
    }
    let RoundReport { events, lost, excess, findings, .. } = report;
    let mut text = format!("round {number}: {events} events, {lost} lost, {excess} too many\n");
    findings.iter().for_each(|finding| text.push_str(&line(finding)));
    text
}

fn line(finding: &Finding) -> String {
    let key = [&finding.entity_id, &finding.event_type, &finding.minute].map(|part| part.as_deref().unwrap_or("-"));
    let ids =
        if finding.event_ids.is_empty() { String::new() } else { format!("\n    {}", finding.event_ids.join(" ")) };
    format!("  {}: {}\n    {}{ids}\n", key.join(" "), finding.explanation, finding.action)
}

fn as_json(reports: &[RoundReport]) -> String {
    let round = |report: &RoundReport| {
        let (outcome, delay, reason) = match &report.outcome {
            Outcome::Right { delay } => ("right", Some(delay.as_secs_f64()), None),
            Outcome::Differs => ("differs", None, None),
            Outcome::NotSent(reason) => ("not_sent", None, Some(reason)),
            Outcome::Unanswered(reason) => ("unanswered", None, Some(reason)),
        };
        json!({
            "round": report.number + 1, "outcome": outcome, "delay_seconds": delay, "reason": reason,
            "events": report.events, "lost": report.lost, "excess": report.excess,
        })
    };
    let findings: Vec<&Finding> = reports.iter().flat_map(|report| &report.findings).collect();
    json!({ "rounds": reports.iter().map(round).collect::<Vec<_>>(), "findings": findings }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::code_of;

    fn report(outcome: Outcome) -> RoundReport {
        RoundReport { number: 0, outcome, events: 10, lost: 0, excess: 0, findings: Vec::new() }
    }

    #[test]
    fn a_difference_goes_before_what_could_not_be_found_out() {
        let right = || report(Outcome::Right { delay: Duration::from_secs(1) });
        let mute = || report(Outcome::Unanswered("no server".to_owned()));
        let code = |reports: &[RoundReport]| verdict(reports).map_err(anyhow::Error::new).err().map(|e| code_of(&e, 1));
        assert_eq!(code(&[right(), right()]), None);
        assert_eq!(code(&[right(), mute()]), Some(NOT_RUN));
        assert_eq!(code(&[mute(), report(Outcome::Differs)]), Some(FINDINGS));
        assert_eq!(told(&right()), "round 1: 10 events, all right after 1.0 s\n");
    }
}
