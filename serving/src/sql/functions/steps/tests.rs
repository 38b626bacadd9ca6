//! Steps held to the calendar.

use arrow::datatypes::IntervalMonthDayNano;
use reckon_data::event::time::parse_rfc3339;
use reckon_data::minute::format_time;

use super::*;

fn at(text: &str) -> i64 {
    parse_rfc3339(text).unwrap()
}

fn interval(months: i32, days: i32, nanoseconds: i64) -> ScalarValue {
    ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds }))
}

const MINUTE: i64 = 60_000_000_000;

#[test]
fn steps_start_where_the_calendar_says() {
    let epoch = "1970-01-01T00:00:00Z";
    for (step, origin, time, start) in [
        (interval(0, 0, 5 * MINUTE), epoch, "2013-02-08T21:29:59.999999Z", "2013-02-08T21:25:00Z"),
        (interval(0, 0, 5 * MINUTE), epoch, "2013-02-08T21:30:00Z", "2013-02-08T21:30:00Z"),
        (interval(0, 0, 5 * MINUTE), epoch, "1969-12-31T23:59:59Z", "1969-12-31T23:55:00Z"),
        (interval(0, 0, 5 * MINUTE), "2013-01-01T00:02:00Z", "2013-02-08T21:29:59Z", "2013-02-08T21:27:00Z"),
        (interval(0, 0, 5 * MINUTE), "2030-01-01T00:02:00Z", "2013-02-08T21:29:59Z", "2013-02-08T21:27:00Z"),
        (interval(0, 1, 0), epoch, "2013-02-08T21:29:59Z", "2013-02-08T00:00:00Z"),
        (interval(0, 7, 0), epoch, "2013-02-08T21:29:59Z", "2013-02-07T00:00:00Z"),
        (interval(0, 7, 0), "1970-01-05T00:00:00Z", "2013-02-08T21:29:59Z", "2013-02-04T00:00:00Z"),
        (interval(1, 0, 0), epoch, "2012-02-29T23:59:59Z", "2012-02-01T00:00:00Z"),
        (interval(3, 0, 0), epoch, "2013-12-31T23:59:59Z", "2013-10-01T00:00:00Z"),
        (interval(12, 0, 0), epoch, "1969-12-31T23:59:59Z", "1969-01-01T00:00:00Z"),
        (interval(12, 0, 0), "2000-07-01T00:00:00Z", "2013-06-30T00:00:00Z", "2012-07-01T00:00:00Z"),
    ] {
        let bucket = bucket(&step, &scalar(Some(at(origin)))).unwrap().unwrap();
        let found = bucket.start(at(time)).unwrap();
        assert_eq!(format_time(found), start, "{time} by {step}");
        // Whatever starts there, from the first to the last, has that start, and nothing else has.
        let (ScalarValue::TimestampMicrosecond(Some(low), _), ScalarValue::TimestampMicrosecond(Some(high), _)) =
            bucket.times_of(found).unwrap()
        else {
            unreachable!()
        };
        assert_eq!((low, bucket.start(high - 1)), (found, Some(found)), "{time} by {step}");
        assert_ne!(bucket.start(low - 1), Some(found), "{time} by {step}");
        assert_eq!(bucket.start(high), Some(high), "{time} by {step}");
        assert_eq!(bucket.times_of(found + 1), None, "{time} by {step}");
    }
}

/// Files are left out by these: too long a step would take in rows of the next one.
#[test]
fn units_of_date_trunc_start_and_end_where_the_calendar_says() {
    for (unit, time, start, next) in [
        ("second", "2013-02-08T21:29:59.999Z", "2013-02-08T21:29:59Z", "2013-02-08T21:30:00Z"),
        ("minute", "2013-02-08T21:59:59Z", "2013-02-08T21:59:00Z", "2013-02-08T22:00:00Z"),
        ("hour", "2013-02-08T23:59:59Z", "2013-02-08T23:00:00Z", "2013-02-09T00:00:00Z"),
        ("day", "2013-02-28T23:59:59Z", "2013-02-28T00:00:00Z", "2013-03-01T00:00:00Z"),
        ("WEEK", "2013-02-10T23:59:59Z", "2013-02-04T00:00:00Z", "2013-02-11T00:00:00Z"),
        ("month", "2012-02-29T23:59:59Z", "2012-02-01T00:00:00Z", "2012-03-01T00:00:00Z"),
        ("quarter", "2013-12-31T23:59:59Z", "2013-10-01T00:00:00Z", "2014-01-01T00:00:00Z"),
        ("year", "1969-12-31T23:59:59Z", "1969-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
    ] {
        let step = DateTrunc::step(&ScalarValue::from(unit)).unwrap();
        let found = step.start(at(time)).unwrap();
        assert_eq!(
            (format_time(found).as_str(), format_time(step.next(found).unwrap()).as_str()),
            (start, next),
            "{unit}"
        );
    }
    assert_eq!(DateTrunc::step(&ScalarValue::from("millennium")), None, "then nothing is left out");
}

#[test]
fn intervals_that_make_no_steps_are_refused() {
    let epoch = scalar(Some(0));
    for refused in [
        interval(0, 0, 0),
        interval(0, -1, 0),
        interval(-1, 0, 0),
        interval(1, 1, 0),
        interval(1, 0, MINUTE),
        interval(0, 0, 1_500),
    ] {
        assert!(bucket(&refused, &epoch).is_err(), "{refused}");
    }
    assert!(bucket(&interval(1, 0, 0), &scalar(Some(1))).is_err(), "no month starts there");
    assert_eq!(bucket(&interval(0, 1, 0), &scalar(None)).unwrap(), None);
    assert_eq!(bucket(&ScalarValue::IntervalMonthDayNano(None), &epoch).unwrap(), None);
}

#[test]
fn times_of_every_unit_are_rounded_towards_the_past() {
    let minute = |time: ScalarValue| match starts(&ColumnarValue::Scalar(time), Step::MINUTE).unwrap() {
        ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(start, _)) => start,
        other => unreachable!("{other:?}"),
    };
    assert_eq!(minute(ScalarValue::TimestampSecond(Some(-1), None)), Some(-60_000_000));
    assert_eq!(minute(ScalarValue::TimestampMillisecond(Some(59_999), None)), Some(0));
    assert_eq!(minute(ScalarValue::TimestampMicrosecond(Some(60_000_000), None)), Some(60_000_000));
    assert_eq!(minute(ScalarValue::TimestampNanosecond(Some(-1), None)), Some(-60_000_000));
    assert_eq!(minute(ScalarValue::TimestampNanosecond(None, None)), None);
    let far = ColumnarValue::Scalar(ScalarValue::TimestampSecond(Some(i64::MAX), None));
    assert!(starts(&far, Step::MINUTE).is_err());
}
