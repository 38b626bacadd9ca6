//! Settings are read, refused with a reason, and the example file tells the truth.

use super::*;

#[test]
fn the_example_shows_every_setting_with_its_default() {
    let text = include_str!("../../../reckon.example.toml");
    assert_eq!(Settings::from_toml(text).unwrap(), Settings::default());
    let example: toml::Table = text.parse().unwrap();
    let defaults = toml::Table::try_from(Settings::default()).unwrap();
    for (section, value) in &defaults {
        let shown = example.get(section).unwrap_or_else(|| panic!("the example lacks {section}"));
        for key in value.as_table().into_iter().flat_map(toml::Table::keys) {
            assert!(shown.get(key).is_some(), "the example lacks {section}.{key}");
        }
    }
}

#[test]
fn nothing_unknown_is_let_through() {
    let error = Settings::from_toml("[stream]\ndedup_minute = 3").unwrap_err();
    assert!(error.to_string().contains("dedup_minute"), "{error}");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    for (text, key) in [
        ("log.partitions = 0", "log.partitions"),
        ("log.partitions = 257", "log.partitions"),
        ("log.replicas = 0", "log.replicas"),
        ("log.hot_entities.a = 5", "log.hot_entities.a"),
        ("limits.event_time_ahead = '367d'", "limits.event_time_ahead"),
        ("stream.dedup_minutes = 15", "stream.dedup_minutes"),
        ("limits.event_time_min = 'long ago'", "limits.event_time_min"),
        ("definition.dimensions = ['colour']", "definition.dimensions"),
        ("definition.filters.x = 'country'", "definition.filters.x"),
        ("definition.reserved_prefixes = ['']", "definition.reserved_prefixes"),
        ("serving.query_time = '2h'", "retention.covered_segments"),
        ("gateway.queue = '1MiB'", "gateway.queue"),
        ("retention.events_days = 366001", "retention.events_days"),
        ("retention.dead_letters_days = 4000000000", "retention.dead_letters_days"),
        ("retention.minutes_days = 366001", "retention.minutes_days"),
        ("retention.minutes_days = 0", "retention.minutes_days"),
        ("retention.hours_days = 30", "retention.hours_days"),
        ("retention.hours_days = 30\nretention.minutes_days = 31", "retention.minutes_days"),
        ("retention.cold_days = 30", "retention.cold_days"),
        ("retention.cold_url = 'reckon-data'", "retention.cold_url"),
        ("retention.cold_url = 'reckon-data'\nretention.cold_days = 3", "retention.cold_url"),
        ("retention.cold_url = 'cold'\nretention.cold_days = 30\nretention.events_days = 30", "retention.cold_days"),
        ("retention.removed_files = '5h 59m'", "retention.removed_files"),
        ("canary.every = '500ms'", "canary.every"),
        ("definition.reserved_prefixes = []", "canary.every"),
        ("definition.reserved_prefixes = ['_', '_reckon']", "canary.every"),
        ("canary.events = 0", "canary.events"),
        ("canary.events = 100001", "canary.events"),
        ("serving.flight_sql = '7733'", "serving.flight_sql"),
        ("serving.flight_sql = 'localhost:many'", "serving.flight_sql"),
        ("serving.postgres_connections = 0", "serving.postgres_connections"),
        ("serving.rows_max = 5999", "canary.events"),
        ("canary.patience = '0s'", "canary.patience"),
        ("canary.patience = '10m'", "canary.patience"),
        ("stream.dedup_minutes = 1", "canary.patience"),
        ("canary.target = 'here'", "canary.target"),
        ("canary.token = 'a b'", "canary.token"),
        (
            "serving.query_time = '7h'\nretention.covered_segments = '8h'\nretention.removed_files = '7h'",
            "retention.removed_files",
        ),
    ] {
        let error = Settings::from_toml(text).expect_err(text);
        assert!(error.to_string().contains(key), "{text}: {error}");
    }
}

#[test]
fn a_canary_that_is_off_bounds_nothing() {
    let text =
        "canary.every = '0s'\ndefinition.reserved_prefixes = []\nserving.rows_max = 10\nstream.dedup_minutes = 1";
    Settings::from_toml(text).unwrap();
}

#[test]
fn no_log_shows_the_canarys_token() {
    let settings = Settings::from_toml("canary.token = 'hush'").unwrap();
    assert!(!format!("{settings:?}").contains("hush"));
}

#[test]
fn rollups_and_a_colder_store_go_with_each_other() {
    let text = "[retention]\nminutes_days = 30\nhours_days = 365\nevents_days = 400\n\
                cold_url = 's3://b/cold'\ncold_days = 60";
    let retention = Settings::from_toml(text).unwrap().retention;
    assert_eq!((retention.minutes_days, retention.hours_days, retention.cold_days), (Some(30), Some(365), Some(60)));
    // What has been moved stays readable though nothing moves any more.
    Settings::from_toml("retention.cold_url = 'cold'").unwrap();
    Settings::from_toml("retention.minutes_days = 30").unwrap();
}
