//! The report for people at a terminal: short, and without colours.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::format::{bytes, count, difference, exact_minutes, many, measured, signed, visible, whole};
use super::model::{Report, Verdict};
use super::words::{entity, events, place, repair};
use crate::finding::{Class, Finding};

/// Findings that are told.
const FINDINGS_TOLD: usize = 10;

/// A report in short, in lines of about `wide` characters.
///
/// It has no colours, and nothing from outside in it can bring any.
#[must_use]
pub fn terminal(report: &Report, wide: usize) -> String {
    let wide = wide.clamp(40, 400);
    let mut parts = vec![head(report), stages(report, wide)];
    parts.extend(classes(report));
    let listed = report.findings.iter().take(FINDINGS_TOLD);
    parts.extend(listed.map(|finding| told(finding, wide)));
    if report.findings.len() > FINDINGS_TOLD {
        let all = report.findings_total.values().sum::<u64>();
        parts.push(format!("The first {FINDINGS_TOLD} of {} are told here.", many(all, "finding", "findings")));
    }
    parts.extend(repaired(report));
    parts.push(horizon(report));
    parts.push(taken(report));
    parts.join("\n\n") + "\n"
}

fn head(report: &Report) -> String {
    let verdict = match report.verdict {
        Verdict::Balanced => "Balanced".to_owned(),
        Verdict::Findings => many(report.errors(), "finding", "findings"),
    };
    let expected = many(report.expected(), "difference", "differences");
    let events = many(report.events(), "raw event", "raw events");
    let (run, ended) = (report.run_id, visible(&report.finished_at));
    format!("{verdict}\n{events} recounted; {expected} that the design expects. Audit {run}, {ended}.")
}

fn stages(report: &Report, wide: usize) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    // At most 400, by the clamp above.
    table.set_width(u16::try_from(wide).unwrap_or(u16::MAX));
    table.set_header(["stage", "expected", "found", "difference", "fingerprints"]);
    for stage in &report.stages {
        let off = signed(difference(stage.expected, stage.found));
        let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let agree = if stage.fingerprints_agree { "agree" } else { "DIFFER" };
        let name = Cell::new(visible(&stage.stage));
        table.add_row([name, number(count(stage.expected)), number(count(stage.found)), number(off), Cell::new(agree)]);
    }
    table.to_string()
}

fn classes(report: &Report) -> Option<String> {
    let line = |(name, number): (&String, &u64)| {
        let expected = Class::ALL.into_iter().any(|class| class.name() == name && class.is_expected());
        format!("  {}  {}{}", visible(name), count(*number), if expected { " (expected)" } else { "" })
    };
    let lines: Vec<String> = report.findings_total.iter().map(line).collect();
    (!lines.is_empty()).then(|| format!("Findings of each class:\n{}", lines.join("\n")))
}

/// One finding: what it is, where, how many, which events, and what to do.
fn told(finding: &Finding, wide: usize) -> String {
    let sign = if finding.class.is_expected() { "(expected) " } else { "" };
    let mut lines = wrapped(&format!("{sign}{}: {}", finding.class, visible(&finding.explanation)), wide, "");
    let mut line = |name: &str, text: String| {
        if !text.is_empty() {
            lines.extend(wrapped(&format!("{name}: {text}"), wide, "  "));
        }
    };
    line("place", place(finding).join(", "));
    line("entity", entity(finding).join(", "));
    line("minute", finding.minute.as_deref().map(visible).unwrap_or_default());
    line("counts", counts(finding));
    line("events", events(finding).join(" "));
    line("action", visible(&finding.action));
    if !repair(finding.repair).is_empty() {
        lines.extend(wrapped(repair(finding.repair), wide, "  "));
    }
    lines.join("\n")
}

fn counts(finding: &Finding) -> String {
    let parts = [finding.expected.map(|n| ("expected", n)), finding.found.map(|n| ("found", n))];
    let parts: Vec<String> = parts.into_iter().flatten().map(|(name, n)| format!("{name} {}", whole(n))).collect();
    parts.join(", ")
}

fn repaired(report: &Report) -> Option<String> {
    let repair = report.repair.as_ref()?;
    let (before, after) = (many(repair.errors_before, "error", "errors"), count(repair.errors_after));
    let mut text = format!("Repair: {before} before, {after} after.");
    let lists = [("recounted", &repair.dates), ("made anew from the log", &repair.rebuilt), ("left", &repair.left)];
    for (name, items) in lists {
        for item in items {
            text += &format!("\n  {name}: {}", visible(item));
        }
    }
    Some(text)
}

fn horizon(report: &Report) -> String {
    let horizon = &report.horizon;
    if horizon.repeats == 0 {
        return format!("Dedup window: {}; no repeats were seen.", exact_minutes(horizon.window_minutes));
    }
    format!(
        "Dedup window: {} now, with {} of dedup set; {} of {} came after it.\nRecommended: {}, with {} of dedup set.",
        exact_minutes(horizon.window_minutes),
        bytes(horizon.window_memory),
        count(horizon.past_window),
        many(horizon.repeats, "repeat", "repeats"),
        exact_minutes(horizon.recommended_minutes),
        bytes(horizon.recommended_memory),
    )
}

fn taken(report: &Report) -> String {
    let parts: Vec<String> =
        report.seconds.iter().map(|(part, seconds)| format!("{} {}", visible(part), measured(*seconds))).collect();
    let memory = if report.memory_peak == 0 { "cannot be told".to_owned() } else { bytes(report.memory_peak) };
    format!("Took: {}. Most memory: {memory}.", if parts.is_empty() { "-".to_owned() } else { parts.join(", ") })
}

/// A text in lines of at most `wide` characters, each behind `indent`; a word that is longer stays whole, to be copied.
fn wrapped(text: &str, wide: usize, indent: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = indent.to_owned();
    let mut length = 0;
    for word in text.split(' ') {
        let more = word.chars().count();
        if length > 0 && indent.len() + length + 1 + more > wide {
            lines.push(std::mem::replace(&mut line, format!("{indent}  ")));
            length = 2;
        } else if length > 0 {
            line.push(' ');
            length += 1;
        }
        line += word;
        length += more;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::super::testing::{empty, sample};
    use super::*;

    #[test]
    fn it_says_what_was_found_and_what_to_do() {
        let report = sample();
        let text = terminal(&report, 100);
        assert!(text.starts_with("4 findings\n"), "{text}");
        for finding in report.findings.iter().take(FINDINGS_TOLD) {
            assert!(text.contains(finding.class.name()), "{text}");
            for id in &finding.event_ids {
                assert!(text.contains(&visible(id)), "{id} in {text}");
            }
        }
        for said in
            ["expected 1,201, found 1,204", "Repair: 9 errors before, 4 after.", "Recommended: 45 min", "Took: "]
        {
            assert!(text.contains(said), "{said} in {text}");
        }
    }

    #[test]
    fn nothing_from_outside_reaches_the_terminal_as_a_command() {
        let mut report = sample();
        report.findings[0].entity_id = Some("\u{1b}[2J\u{7}\r\n\u{202e}".to_owned());
        let text = terminal(&report, 80);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
        assert!(text.contains("\\u{1b}[2J"));
    }

    #[test]
    fn an_empty_report_is_told_too() {
        let text = terminal(&empty(), 0);
        assert!(text.starts_with("Balanced\n"), "{text}");
        assert!(text.contains("no repeats were seen"));
    }

    #[test]
    fn only_the_first_findings_are_told() {
        let mut report = sample();
        report.findings = vec![report.findings[0].clone(); 50];
        assert!(terminal(&report, 80).contains("The first 10 of "));
    }

    #[test]
    fn long_texts_are_wrapped_and_words_stay_whole() {
        assert_eq!(wrapped("aa bb cc", 5, ""), ["aa bb", "  cc"]);
        assert_eq!(wrapped("a-word-that-is-too-long b", 8, "  "), ["  a-word-that-is-too-long", "    b"]);
    }
}
