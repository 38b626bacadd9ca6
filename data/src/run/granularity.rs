//! How long a step of counts is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::minute::{MINUTES_PER_DAY, MINUTES_PER_HOUR};

/// The length of the steps that rows count: `minute` of a row is the minute in which its step starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A UTC day.
    Day,
}

impl Granularity {
    /// Every granularity there is, from fine to coarse.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Its name, as in the tables' partitions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Minutes in a step.
    #[must_use]
    pub const fn steps(self) -> i64 {
        match self {
            Self::Minute => 1,
            Self::Hour => MINUTES_PER_HOUR,
            Self::Day => MINUTES_PER_DAY,
        }
    }

    /// The minute in which the step of `minute` starts; towards the past, before 1970 as well.
    #[must_use]
    pub const fn start_of(self, minute: i64) -> i64 {
        minute.div_euclid(self.steps()) * self.steps()
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no granularity's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown granularity {name:?}: one of minute, hour, day")]
pub struct UnknownGranularity {
    /// The name.
    pub name: String,
}

impl FromStr for Granularity {
    type Err = UnknownGranularity;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|g| g.name() == name).ok_or_else(|| UnknownGranularity { name: name.to_owned() })
    }
}
