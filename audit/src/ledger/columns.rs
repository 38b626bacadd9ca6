//! Columns of a Polars frame, by name and type.

use polars::prelude::{DataFrame, Int32Chunked, Int64Chunked, StringChunked};

use super::load::Unreadable;

/// Columns of a frame. A column that is missing or of another type is a corrupt file.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a>(pub &'a DataFrame);

impl<'a> Columns<'a> {
    fn wrong(name: &str, error: impl std::fmt::Display) -> Unreadable {
        Unreadable::Corrupt(format!("column {name}: {error}"))
    }

    /// Texts.
    ///
    /// # Errors
    /// When there is no such column, as of all others.
    pub fn text(&self, name: &str) -> Result<&'a StringChunked, Unreadable> {
        let column = self.0.column(name).map_err(|error| Self::wrong(name, error))?;
        column.str().map_err(|error| Self::wrong(name, error))
    }

    /// Texts, where the file has such a column.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn maybe_text(&self, name: &str) -> Result<Option<&'a StringChunked>, Unreadable> {
        if self.0.column(name).is_err() { Ok(None) } else { self.text(name).map(Some) }
    }

    /// Whole numbers; times as microseconds.
    ///
    /// # Errors
    /// See [`Columns::text`].
    pub fn whole(&self, name: &str) -> Result<Int64Chunked, Unreadable> {
        let column = self.0.column(name).map_err(|error| Self::wrong(name, error))?.to_physical_repr();
        column.i64().cloned().map_err(|error| Self::wrong(name, error))
    }

    /// Whole numbers, where the file has such a column.
    ///
    /// # Errors
    /// When they are of another type.
    pub fn maybe_whole(&self, name: &str) -> Result<Option<Int64Chunked>, Unreadable> {
        if self.0.column(name).is_err() { Ok(None) } else { self.whole(name).map(Some) }
    }

    /// Small whole numbers.
    ///
    /// # Errors
    /// See [`Columns::text`].
    pub fn small(&self, name: &str) -> Result<&'a Int32Chunked, Unreadable> {
        let column = self.0.column(name).map_err(|error| Self::wrong(name, error))?;
        column.i32().map_err(|error| Self::wrong(name, error))
    }

    /// Decimals in units of their scale, where the file has such a column.
    ///
    /// # Errors
    /// When they are of another type.
    pub fn maybe_decimal(&self, name: &str) -> Result<Option<Vec<Option<i128>>>, Unreadable> {
        let Ok(column) = self.0.column(name) else { return Ok(None) };
        let decimals = column.decimal().map_err(|error| Self::wrong(name, error))?;
        if decimals.physical().null_count() == self.0.height() {
            return Ok(None);
        }
        Ok(Some(decimals.physical().iter().collect()))
    }
}
