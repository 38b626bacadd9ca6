//! The event columns that can be kept as keys of the counts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A dimension: an event column kept as a key of the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// ISO country code.
    Country,
    /// Who did it.
    UserId,
    /// From where.
    Ip,
}

impl Dimension {
    /// Every dimension there is, in the order of the tables' columns.
    pub const ALL: [Self; 3] = [Self::Country, Self::UserId, Self::Ip];

    /// Its column's name.
    #[must_use]
    pub const fn column(self) -> &'static str {
        match self {
            Self::Country => "country",
            Self::UserId => "user_id",
            Self::Ip => "ip",
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.column())
    }
}

/// A name that is no dimension's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown dimension {name:?}: one of country, user_id, ip")]
pub struct UnknownDimension {
    /// The name.
    pub name: String,
}

impl FromStr for Dimension {
    type Err = UnknownDimension;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|d| d.column() == name).ok_or_else(|| UnknownDimension { name: name.to_owned() })
    }
}
