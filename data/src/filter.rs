//! Filters: which events a question is about.
//!
//! ```text
//! filter    = condition { "and" condition }
//! condition = column "=" text | column "in" "(" text { "," text } ")" | column "is" "null"
//! column    = "country" | "user_id" | "ip"
//! text      = "'" … "'"       a quote within is doubled
//! ```

use std::fmt;
use std::str::FromStr;

use crate::run::Dimension;

/// A conjunction of conditions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// All of them must hold.
    pub conditions: Vec<Condition>,
}

/// The values that a column may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The column.
    pub column: Dimension,
    /// The values that it may have; `None` is null.
    pub accepted: Vec<Option<String>>,
}

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the filter {text:?} is not valid at byte {offset}: expected {expected}")]
pub struct FilterError {
    /// The filter.
    pub text: String,
    /// Where it goes wrong.
    pub offset: usize,
    /// What should stand there.
    pub expected: &'static str,
}

impl Filter {
    /// The filter of a request: `column:value`.
    ///
    /// # Errors
    /// When there is no such column, or no colon.
    pub fn column_value(text: &str) -> Result<Self, FilterError> {
        let error = |offset, expected| FilterError { text: text.to_owned(), offset, expected };
        let (column, value) = text.split_once(':').ok_or_else(|| error(text.len(), "column:value"))?;
        let column = column.parse().map_err(|_| error(0, "one of the columns country, user_id and ip"))?;
        Ok(Self { conditions: vec![Condition { column, accepted: vec![Some(value.to_owned())] }] })
    }

    /// The filter as SQL.
    #[must_use]
    pub fn to_sql(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, condition) in self.conditions.iter().enumerate() {
            let and = if index == 0 { "" } else { " and " };
            write!(f, "{and}{condition}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self.column.column();
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let texts: Vec<String> = self.accepted.iter().flatten().map(|text| quoted(text)).collect();
        let null = self.accepted.contains(&None);
        match (texts.as_slice(), null) {
            ([], _) => write!(f, "{column} is null"),
            ([one], false) => write!(f, "{column} = {one}"),
            (many, false) => write!(f, "{column} in ({})", many.join(", ")),
            (many, true) => write!(f, "({column} in ({}) or {column} is null)", many.join(", ")),
        }
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut parser = Parser { text, at: 0 };
        let mut conditions = vec![parser.condition()?];
        while parser.word("and") {
            conditions.push(parser.condition()?);
        }
        parser.skip_space();
        if parser.at < text.len() {
            return Err(parser.error("\"and\" or the end"));
        }
        Ok(Self { conditions })
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn error(&self, expected: &'static str) -> FilterError {
        FilterError { text: self.text.to_owned(), offset: self.at, expected }
    }

    /// Passes over a word, which ends where no letter, digit or underscore follows.
    fn word(&mut self, word: &str) -> bool {
        self.skip_space();
        let (next, rest) = self.rest().split_at_checked(word.len()).unwrap_or_default();
        let found = next.eq_ignore_ascii_case(word) && !rest.starts_with(is_of_name);
        if found {
            self.at += word.len();
        }
        found
    }

    /// Passes over a sign, whatever follows it.
    fn sign(&mut self, sign: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    fn condition(&mut self) -> Result<Condition, FilterError> {
        self.skip_space();
        let name = self.rest().split(|c: char| !is_of_name(c)).next().unwrap_or_default();
        let column = name.parse().map_err(|_| self.error("one of the columns country, user_id and ip"))?;
        self.at += name.len();
        let accepted = if self.sign("=") {
            vec![Some(self.quoted()?)]
        } else if self.word("in") {
            self.list()?
        } else if self.word("is") && self.word("null") {
            vec![None]
        } else {
            return Err(self.error("=, in or is null"));
        };
        Ok(Condition { column, accepted })
    }

    fn list(&mut self) -> Result<Vec<Option<String>>, FilterError> {
        if !self.sign("(") {
            return Err(self.error("("));
        }
        let mut texts = vec![Some(self.quoted()?)];
        while self.sign(",") {
            texts.push(Some(self.quoted()?));
        }
        if self.sign(")") { Ok(texts) } else { Err(self.error(", or )")) }
    }

    fn quoted(&mut self) -> Result<String, FilterError> {
        if !self.sign("'") {
            return Err(self.error("a text in single quotes"));
        }
        let mut text = String::new();
        loop {
            let Some(end) = self.rest().find('\'') else { return Err(self.error("a closing quote")) };
            text.push_str(self.rest().get(..end).unwrap_or_default());
            self.at += end + 1;
            if !self.rest().starts_with('\'') {
                return Ok(text);
            }
            text.push('\'');
            self.at += 1;
        }
    }
}

const fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_and_written() {
        for text in [
            "country = 'US'",
            "country in ('US', 'GB')",
            "country is null",
            "country = 'O''Neill' and user_id = ''",
            "ip = '10.0.0.1' and country = 'US'",
        ] {
            let filter: Filter = text.parse().unwrap();
            assert_eq!(filter.to_string(), text);
        }
        let tight: Filter = "country in('US','GB')and ip='1'".parse().unwrap();
        assert_eq!(tight.to_string(), "country in ('US', 'GB') and ip = '1'");
    }

    #[test]
    fn a_bad_filter_says_where() {
        for (text, offset) in [
            ("", 0),
            ("colour = 'x'", 0),
            ("country ~ 'x'", 8),
            ("country = x", 10),
            ("country = 'x", 11),
            ("country = 'x' or", 14),
            ("country isnull", 8),
            ("country is nullip", 11),
            ("country inside ('x')", 8),
            ("country = 'a'andip = 'b'", 13),
        ] {
            assert_eq!(text.parse::<Filter>().unwrap_err().offset, offset, "{text}");
        }
        assert!(Filter::column_value("colour:red").is_err());
        assert!(Filter::column_value("US").is_err());
    }

    #[test]
    fn column_and_value() {
        let filter = Filter::column_value("country:US").unwrap();
        assert_eq!(filter.to_string(), "country = 'US'");
    }
}
