//! Which events are taken, and what a refusal says.

use super::wire::parse;
use super::*;

const NOW: i64 = 1_360_358_940_000_000;

fn judge(json: &str) -> Result<(), Refusal> {
    parse(json.as_bytes())?.draft()?.validate(&Limits::default(), NOW).map(|_| ())
}

fn with(extra: &str) -> String {
    format!(r#"{{"event_id":"e","event_type":"view","entity_id":"v","event_time":"2013-02-08T21:29:00Z"{extra}}}"#)
}

#[test]
fn a_whole_event_is_read() {
    let json =
        with(r#","user_id":"u\u0031","ip":"10.0.0.1","country":"US","value":1.25,"properties":{"a":[1,{"b":null}]}"#);
    let wire = parse(json.as_bytes()).unwrap();
    let event = wire.draft().unwrap().validate(&Limits::default(), NOW).unwrap();
    assert_eq!(event.user_id, Some("u1"));
    assert_eq!(event.value, Some(1_250_000));
    assert_eq!(event.properties, Some(r#"{"a":[1,{"b":null}]}"#));
    assert_eq!(event.event_time, NOW);
}

#[test]
fn nulls_and_empty_options_are_left_out() {
    let json = with(r#","user_id":null,"country":"","value":null"#);
    let wire = parse(json.as_bytes()).unwrap();
    let event = wire.draft().unwrap().validate(&Limits::default(), NOW).unwrap();
    assert_eq!((event.user_id, event.country, event.value), (None, None, None));
}

#[test]
fn every_refusal_names_its_field() {
    let long = "x".repeat(129);
    let cases = [
        (r#"{"event_id":"e"}"#.to_owned(), Reason::Missing, Some("event_time")),
        (with(r#","colour":"red""#), Reason::UnknownField, Some("colour")),
        (with(r#","event_id":"f""#), Reason::RepeatedField, Some("event_id")),
        (with(r#","country":7"#), Reason::WrongType, Some("country")),
        (with(r#","properties":[]"#), Reason::WrongType, Some("properties")),
        (with(r#","value":0.1234567"#), Reason::BadValue, Some("value")),
        (with(r#","value":"much""#), Reason::BadValue, Some("value")),
        (with("").replace("\"v\"", "\"\""), Reason::Empty, Some("entity_id")),
        (with("").replace("\"e\"", &format!("\"{long}\"")), Reason::TooLong, Some("event_id")),
        (with("").replace("2013-02-08T21:29:00Z", "Friday"), Reason::BadTime, Some("event_time")),
        (with("").replace("2013", "1989"), Reason::TooOld, Some("event_time")),
        (with("").replace("21:29:00Z", "21:39:01Z"), Reason::InFuture, Some("event_time")),
        ("[]".to_owned(), Reason::Malformed, None),
        (with("").replace('}', ""), Reason::Malformed, None),
        (with("") + "x", Reason::Malformed, None),
        (with(r#","properties":{"a":}"#), Reason::Malformed, None),
        (with(r#","properties":{"a":01}"#), Reason::Malformed, None),
        (with(r#","value":.5"#), Reason::Malformed, None),
    ];
    for (json, reason, field) in cases {
        let refusal = judge(&json).expect_err(&json);
        assert_eq!((refusal.reason, refusal.field.as_deref()), (reason, field), "{json}: {refusal}");
    }
}

#[test]
fn limits_are_inclusive() {
    let id = "x".repeat(128);
    judge(&with("").replace("\"e\"", &format!("\"{id}\""))).unwrap();
    judge(&with("").replace("21:29:00Z", "21:39:00Z")).unwrap();
}

#[test]
fn a_refusal_names_the_limit() {
    let long = "x".repeat(129);
    let refusal = judge(&with("").replace("\"e\"", &format!("\"{long}\""))).unwrap_err();
    assert_eq!(refusal.message, "event_id has 129 bytes, the limit is 128");
}

#[test]
fn bytes_that_are_not_utf8_are_malformed() {
    let mut json = with("").into_bytes();
    json[14] = 0xff;
    assert_eq!(parse(&json).unwrap_err().reason, Reason::Malformed);
}

#[test]
fn texts_that_no_reader_could_take_are_malformed() {
    for properties in [
        r#"{"a":"\uZZZZ"}"#.to_owned(),
        r#"{"a":"\ud800"}"#.to_owned(),
        "{\"a\":\"\t\"}".to_owned(),
        format!(r#"{{"a":{}{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20)),
    ] {
        let json = with(&format!(r#","properties":{properties}"#));
        assert_eq!(judge(&json).unwrap_err().reason, Reason::Malformed);
    }
}

#[test]
fn properties_nest_as_deep_in_either_form() {
    let nested = |depth: u32| {
        let inner = depth as usize - 1;
        with(&format!(r#","properties":{{"a":{}{}}}"#, "[".repeat(inner), "]".repeat(inner)))
    };
    let (deepest, deeper) = (nested(json::DEPTH_MAX - 1), nested(json::DEPTH_MAX));
    assert!(plain::read(&deepest).is_some());
    assert!(wire::any_form(&deepest).is_ok());
    judge(&deepest).unwrap();
    assert!(plain::read(&deeper).is_none());
    assert!(wire::any_form(&deeper).is_err());
    assert!(judge(&deeper).unwrap_err().message.ends_with("nested too deep"));
}

#[test]
fn times_and_values_are_read_from_texts_and_numbers() {
    let base = r#"{"event_id":"e","event_type":"view","entity_id":"v","event_time":1360358940000,"value":"-2.5"}"#;
    let spaced = " { \"event_time\" :\t1360358940000 , \"value\" : -25e-1 ,\r\n\"event_id\":\"e\" } ";
    for json in [base, spaced] {
        let draft_of = parse(json.as_bytes()).unwrap();
        let draft = draft_of.draft().unwrap();
        assert_eq!((draft.event_id, draft.event_time, draft.value), (Some("e"), Some(NOW), Some(-2_500_000)));
    }
}

mod forms {
    use proptest::prelude::*;

    use super::super::{plain, wire};

    /// A field that is right, or nearly so.
    fn field() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec![
            "event_id",
            "event_type",
            "entity_id",
            "event_time",
            "user_id",
            "ip",
            "country",
            "value",
            "properties",
            "other",
        ]);
        let value = prop_oneof![
            "[a-z\u{e9}]{0,12}".prop_map(|text| format!("\"{text}\"")),
            Just(r#""\u0041\n""#.to_owned()),
            Just("null".to_owned()),
            Just("\"2013-02-08T21:29:00Z\"".to_owned()),
            (-10_000_i64..2_000_000_000_000).prop_map(|n| n.to_string()),
            Just("1.25".to_owned()),
            Just(r#"{"a":[1,{"b":null}],"c":"\u00e9"}"#.to_owned()),
            Just("[]".to_owned()),
            Just("true".to_owned()),
        ];
        (name, value).prop_map(|(name, value)| format!("\"{name}\": {value}"))
    }

    proptest! {
        /// Both ways of reading an event agree, wherever the short one answers.
        #[test]
        fn the_usual_form_reads_like_any_other(fields in prop::collection::vec(field(), 0..7), cut in 0..400_usize) {
            let whole = format!("{{{}}}", fields.join(" ,"));
            let cut_short: String = whole.chars().take(cut).collect();
            for json in [whole.as_str(), cut_short.as_str()] {
                if let Some(draft) = plain::read(json) {
                    let any = wire::any_form(json).unwrap();
                    prop_assert_eq!(any.draft().unwrap(), draft);
                }
            }
        }
    }
}
