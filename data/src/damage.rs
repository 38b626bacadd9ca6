//! Data files that are not what was written.

use std::error::Error as StdError;
use std::fmt;

/// A file that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("file {path} is damaged: its checksum does not hold from byte {offset} on")]
pub struct Damaged {
    /// The file, below the folder of all tables.
    pub path: String,
    /// Where the block begins that has changed.
    pub offset: u64,
}

impl Damaged {
    /// The damage that an error comes from, if it comes from one.
    #[must_use]
    pub fn cause(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(damaged) = error.downcast_ref::<Self>() {
                return Some(damaged.clone());
            }
            // DataFusion makes texts of some causes.
            if error.source().is_none() {
                return Self::find(&error.to_string());
            }
            next = error.source();
        }
        None
    }

    /// What a text says that was made of one.
    fn find(text: &str) -> Option<Self> {
        let (before, after) = text.split_once(" is damaged: its checksum does not hold from byte ")?;
        let (_, path) = before.rsplit_once("file ")?;
        let digits = after.split(|digit: char| !digit.is_ascii_digit()).next()?;
        Some(Self { path: path.to_owned(), offset: digits.parse().ok()? })
    }
}

/// A record of the log that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record at partition {partition}, offset {offset} of the log is damaged ({reason}): {}", outcome.text())]
pub struct DamagedRecord {
    /// The log partition.
    pub partition: u32,
    /// The record's offset.
    pub offset: u64,
    /// What does not fit.
    pub reason: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a damaged record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was made anew from what is archived of it, and is used.
    Mended,
    /// Whether it can be is not known yet, for this reason. It is tried again.
    Unknown(String),
    /// It cannot be, for this reason: neither it nor what comes after it in its partition is counted or archived.
    Lost(String),
}

impl Outcome {
    fn text(&self) -> String {
        match self {
            Self::Mended => "made anew from the tables".to_owned(),
            Self::Unknown(why) => format!("whether the tables have it cannot be told yet: {why}"),
            Self::Lost(why) => format!(
                "its partition is neither counted nor archived from there on, for {why}; with the server stopped, \
                 `reckon log set-aside` gives it up"
            ),
        }
    }
}

/// Who knows which files were found damaged.
pub trait Damage: fmt::Debug + Send + Sync {
    /// They, by path.
    fn damaged(&self) -> Vec<Damaged>;
}

/// Nobody looks for damage.
#[derive(Debug, Clone, Copy)]
pub struct NoDamage;

impl Damage for NoDamage {
    fn damaged(&self) -> Vec<Damaged> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found_behind_other_errors_and_in_their_texts() {
        let damaged = Damaged { path: "events/event_date=2026-01-01/a b.parquet".to_owned(), offset: 65_536 };
        let io = |source: Box<dyn StdError + Send + Sync>| std::io::Error::other(source);
        assert_eq!(Damaged::cause(&io(Box::new(damaged.clone()))), Some(damaged.clone()));
        let text = format!("reading file b: Object Store error: {damaged}, says somebody");
        assert_eq!(Damaged::cause(&io(text.into())), Some(damaged));
        assert_eq!(Damaged::cause(&io("file a is gone".into())), None);
    }
}
