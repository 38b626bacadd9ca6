//! Times in answers: RFC 3339.

use reckon_data::minute::format_time;
use serde::{Serialize as _, Serializer};

/// A time, microseconds.
pub(crate) fn as_time<S: Serializer>(micros: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_time(*micros))
}

/// A time that may be none.
pub(crate) fn as_time_or_null<S: Serializer>(micros: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    micros.map(format_time).serialize(serializer)
}
