//! What a data set holds, added up in the plainest way from its list of events: what an audit's report is held against.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chrono::DateTime;
use serde_json::Value;

use crate::harness::number;

/// A data set's events, added up.
#[derive(Debug, Default)]
pub struct Plain {
    /// Events of each hour, `2013-02-08T21:00:00Z`.
    pub hours: BTreeMap<String, u64>,
    /// Events of each date.
    pub dates: BTreeMap<String, u64>,
    /// Entities of each date.
    pub entities: BTreeMap<String, BTreeSet<String>>,
    /// Rows of counts there should be: minutes, hours and days of each entity, type and country.
    pub rows: u64,
}

impl Plain {
    /// Reads `events.csv.gz`: number, milliseconds, entity, user, country, kind. The kind is the event type, or all
    /// events are of one.
    pub fn read(path: &Path, kind_is_type: bool) -> Self {
        let file = std::fs::File::open(path).unwrap();
        let mut reader = csv::Reader::from_reader(flate2::read::MultiGzDecoder::new(file));
        let (mut plain, mut rows) = (Self::default(), BTreeSet::new());
        for record in reader.records() {
            let record = record.unwrap();
            let at = DateTime::from_timestamp_millis(record[1].parse().unwrap()).unwrap();
            let [minute, hour, date] =
                ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:00:00Z", "%Y-%m-%d"].map(|form| at.format(form).to_string());
            let kind = if kind_is_type { &record[5] } else { "" };
            for span in [&minute, &hour, &date] {
                rows.insert(format!("{span}\t{}\t{kind}\t{}", &record[2], &record[4]));
            }
            *plain.hours.entry(hour).or_default() += 1;
            *plain.dates.entry(date.clone()).or_default() += 1;
            plain.entities.entry(date).or_default().insert(record[2].to_owned());
        }
        plain.rows = u64::try_from(rows.len()).unwrap();
        plain
    }

    /// All events.
    pub fn events(&self) -> u64 {
        self.dates.values().sum()
    }

    /// That the facts, which somebody else has counted, say the same.
    pub fn assert_facts(&self, facts: &Value) {
        assert_eq!(self.events(), number(&facts["events"]), "events");
        let per_day = facts["per_day"].as_array().unwrap().iter();
        let per_day: BTreeMap<String, u64> =
            per_day.map(|pair| (pair[0].as_str().unwrap().to_owned(), number(&pair[1]))).collect();
        assert_eq!(self.dates, per_day, "events of each date");
        assert_eq!(u64::try_from(self.hours.len()).unwrap(), number(&facts["hours_with_events"]), "hours");
        for pair in facts["busiest_hours"].as_array().unwrap() {
            let hour = pair[0].as_str().unwrap();
            assert_eq!(self.hours.get(hour).copied(), Some(number(&pair[1])), "{hour}");
        }
        let all: BTreeSet<&String> = self.entities.values().flatten().collect();
        assert_eq!(u64::try_from(all.len()).unwrap(), number(&facts["distinct_entities"]), "entities");
    }
}
