//! The functions that can be asked for, and their answers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

use crate::decimal::format_micro;

/// What can be asked of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// How many events.
    Count,
    /// Sum of `value`.
    Sum,
    /// Smallest `value`.
    Min,
    /// Largest `value`.
    Max,
    /// Average `value`, rounded half to even at six places.
    Avg,
    /// About how many distinct users.
    ApproxDistinct,
}

impl Function {
    /// Every function there is.
    pub const ALL: [Self; 6] = [Self::Count, Self::Sum, Self::Min, Self::Max, Self::Avg, Self::ApproxDistinct];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
            Self::ApproxDistinct => "approx_distinct",
        }
    }

    /// Whether it is made of `value`.
    #[must_use]
    pub const fn is_of_value(self) -> bool {
        matches!(self, Self::Sum | Self::Min | Self::Max | Self::Avg)
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no function's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown function {name:?}: one of count, sum, min, max, avg, approx_distinct")]
pub struct UnknownFunction {
    /// The name.
    pub name: String,
}

impl FromStr for Function {
    type Err = UnknownFunction;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| UnknownFunction { name: name.to_owned() })
    }
}

/// What a function made of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A number of events.
    Count(u64),
    /// A decimal, in millionths.
    Decimal(i128),
    /// There was nothing to make it of.
    Null,
    /// An estimate of a number of users.
    ApproxDistinct(u64),
    /// More than could be counted; never a number.
    Overflow,
}

impl Answer {
    /// As JSON: counts are numbers, decimals are strings (a float would not be exact), an overflow is the
    /// string `overflow`.
    #[must_use]
    pub fn to_json(self) -> serde_json::Value {
        match self {
            Self::Count(number) | Self::ApproxDistinct(number) => number.into(),
            Self::Decimal(micros) => format_micro(micros).into(),
            Self::Null => serde_json::Value::Null,
            Self::Overflow => "overflow".into(),
        }
    }
}

impl Serialize for Answer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl utoipa::PartialSchema for Answer {
    fn schema() -> RefOr<Schema> {
        let types = SchemaType::from_iter([Type::Integer, Type::String, Type::Null]);
        let meaning = "A count is a number, a decimal a string (a float would not be exact), and null is of nothing at all. \
                       The string `overflow` stands for more than could be counted.";
        ObjectBuilder::new().schema_type(types).description(Some(meaning)).into()
    }
}

impl ToSchema for Answer {}
