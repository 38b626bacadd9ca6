//! What a finding says, line by line.

use super::format::{count, visible};
use crate::finding::{Finding, Repair};

/// Where it is: table, file, offsets, date.
pub fn place(finding: &Finding) -> Vec<String> {
    let mut place = vec![visible(&finding.table)];
    place.extend(finding.file.as_deref().map(visible));
    place.extend(finding.partition.map(|partition| format!("partition {partition}")));
    match (finding.offset_start, finding.offset_end) {
        (Some(start), Some(end)) => place.push(format!("offsets {} to {}", count(start), count(end))),
        (Some(start), None) => place.push(format!("from offset {}", count(start))),
        (None, Some(end)) => place.push(format!("up to offset {}", count(end))),
        (None, None) => {}
    }
    let date = [finding.date.as_deref(), finding.granularity.as_deref()];
    let date: Vec<String> = date.into_iter().flatten().map(visible).collect();
    if !date.is_empty() {
        place.push(date.join(", per "));
    }
    place
}

/// What it counts: entity, type, other dimensions.
pub fn entity(finding: &Finding) -> Vec<String> {
    let parts = [&finding.entity_id, &finding.event_type, &finding.dimensions];
    parts.into_iter().flatten().map(|part| visible(part)).collect()
}

/// How many events are concerned, and those that are named.
pub fn events(finding: &Finding) -> Vec<String> {
    let mut lines = vec![count(finding.events)];
    lines.extend(finding.event_ids.iter().map(|id| visible(id)));
    let named = finding.event_ids.len() as u64;
    if named > 0 && finding.events > named {
        lines.push(format!("and {} more", count(finding.events - named)));
    }
    lines
}

/// What a repair can do about it.
pub const fn repair(repair: Repair) -> &'static str {
    match repair {
        Repair::NotNeeded => "",
        Repair::Recount => "Repair: the date is recounted.",
        Repair::Rebuild => "Repair: raw events are made anew from the log, then the date is recounted.",
        Repair::Impossible => "Repair: it cannot be made good.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Class;

    fn finding() -> Finding {
        Finding::new(Class::Lost, "batch_counts", String::new())
    }

    #[test]
    fn a_place_is_as_exact_as_it_is_known() {
        assert_eq!(place(&finding()), ["batch_counts"]);
        let exact = Finding {
            partition: Some(3),
            offset_start: Some(1_000),
            offset_end: Some(2_000),
            date: Some("2013-02-08".to_owned()),
            granularity: Some("minute".to_owned()),
            ..finding()
        };
        let lines = ["batch_counts", "partition 3", "offsets 1,000 to 2,000", "2013-02-08, per minute"];
        assert_eq!(place(&exact), lines);
        assert_eq!(place(&Finding { offset_start: Some(5), ..finding() })[1], "from offset 5");
    }

    #[test]
    fn events_that_are_not_named_are_counted() {
        assert_eq!(events(&finding()), ["0"]);
        let named = Finding { events: 1_002, event_ids: vec!["a\u{7}".to_owned(), "b".to_owned()], ..finding() };
        assert_eq!(events(&named), ["1,002", "a\\u{7}", "b", "and 1,000 more"]);
    }
}
