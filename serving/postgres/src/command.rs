//! What a client may ask for besides queries: transactions, settings, cursors, copies.

use crate::errors::{error, state};
use crate::lexer::{Kind, Token, tokens};
use pgwire::error::PgWireResult;

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A query, or what DataFusion will refuse.
    Query(String),
    /// `BEGIN`.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `SAVEPOINT`, `RELEASE`: there is nothing to save. What is answered.
    Nothing(&'static str),
    /// `ROLLBACK TO`: goes on after a failure.
    RollbackTo,
    /// `SET name = value`, in this transaction when it is `local`; none is the default.
    Set { name: String, value: Option<String>, local: bool },
    /// `RESET ALL`.
    ResetAll,
    /// `SHOW name`.
    Show(String),
    /// `SHOW ALL`.
    ShowAll,
    /// `DISCARD ALL` and its like.
    Discard(String),
    /// `DEALLOCATE name`; none is all.
    Deallocate(Option<String>),
    /// `DECLARE name CURSOR FOR query`.
    Declare { name: String, hold: bool, query: String },
    /// `FETCH n FROM name`; with `skip` it is `MOVE`; none is all that is left.
    Fetch { name: String, count: Option<usize>, skip: bool },
    /// `CLOSE name`; none is all.
    Close(Option<String>),
    /// `COPY (query) TO STDOUT`.
    Copy { query: String, format: CopyFormat, header: bool },
}

/// How rows are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    /// Tabs between values.
    Text,
    /// Commas between values.
    Csv,
    /// As PostgreSQL's own.
    Binary,
}

impl Command {
    /// Whether it is answered in a transaction that has failed.
    pub const fn ends_transaction(&self) -> bool {
        matches!(self, Self::Commit | Self::Rollback | Self::RollbackTo)
    }

    /// The query that is planned.
    pub fn query(&self) -> Option<&str> {
        match self {
            Self::Query(query) | Self::Declare { query, .. } | Self::Copy { query, .. } => Some(query),
            _ => None,
        }
    }
}

/// Reads one statement.
///
/// # Errors
/// Of a command that is known and not understood, or not supported.
pub fn parse(text: &str) -> PgWireResult<Command> {
    let tokens = tokens(text);
    let mut words = Words { text, tokens: &tokens, at: 0 };
    let Some(first) = words.next().and_then(Token::word) else { return Ok(Command::Query(text.to_owned())) };
    match first {
        "begin" | "start" => Ok(Command::Begin),
        "commit" | "end" => Ok(Command::Commit),
        "abort" => Ok(Command::Rollback),
        "rollback" => Ok(if words.skip_to("to") { Command::RollbackTo } else { Command::Rollback }),
        "savepoint" => Ok(Command::Nothing("SAVEPOINT")),
        "release" => Ok(Command::Nothing("RELEASE")),
        "set" => set(&mut words),
        "reset" => Ok(match words.setting()? {
            name if name == "all" => Command::ResetAll,
            name => Command::Set { name, value: None, local: false },
        }),
        "show" => Ok(show(&mut words, text)),
        "discard" => Ok(Command::Discard(words.any_name()?.to_lowercase())),
        "deallocate" => {
            words.take("prepare");
            Ok(Command::Deallocate(words.all_or_name()?))
        }
        "declare" => declare(&mut words),
        "fetch" => fetch(&mut words, false),
        "move" => fetch(&mut words, true),
        "close" => Ok(Command::Close(words.all_or_name()?)),
        "copy" => copy(&mut words),
        refused @ ("listen" | "notify" | "unlisten" | "prepare" | "execute" | "lock" | "call" | "do" | "load") => {
            let hint = match refused {
                "prepare" | "execute" => "; prepare statements in your driver, which uses the protocol for it",
                _ => "",
            };
            Err(error(state::NOT_SUPPORTED, format!("{} is not supported{hint}", refused.to_uppercase())))
        }
        _ => Ok(Command::Query(text.to_owned())),
    }
}

/// `SET [SESSION | LOCAL] name {= | TO} value, …`.
fn set(words: &mut Words<'_>) -> PgWireResult<Command> {
    let local = words.take("local");
    let _ = local || words.take("session");
    let set = |name: String, value| Ok(Command::Set { name, value, local });
    if words.take("time") {
        words.take("zone");
        return set("timezone".to_owned(), words.value());
    }
    if words.take("names") {
        return set("client_encoding".to_owned(), words.value());
    }
    if words.take("transaction") || words.take("characteristics") {
        // Nothing is written, whatever the isolation.
        return Ok(Command::Nothing("SET"));
    }
    let name = words.setting()?;
    if !words.symbol('=') && !words.take("to") {
        return Err(error(state::SYNTAX, format!("SET {name}: = or TO is expected, and a value")));
    }
    set(name, words.value())
}

/// `SHOW name`; tables, columns and functions are shown by DataFusion.
fn show(words: &mut Words<'_>, text: &str) -> Command {
    if words.take("all") {
        return Command::ShowAll;
    }
    if words.take("time") {
        return Command::Show("timezone".to_owned());
    }
    if words.take("transaction") {
        return Command::Show("transaction_isolation".to_owned());
    }
    match words.setting() {
        Ok(name) if words.is_end() && !matches!(name.as_str(), "tables" | "columns" | "functions") => {
            Command::Show(name)
        }
        _ => Command::Query(text.to_owned()),
    }
}

/// `DECLARE name [BINARY] [[NO] SCROLL] CURSOR [WITH | WITHOUT HOLD] FOR query`.
fn declare(words: &mut Words<'_>) -> PgWireResult<Command> {
    let name = words.any_name()?;
    let mut scroll = false;
    while !words.take("cursor") {
        if words.take("no") {
            words.take("scroll");
        } else if words.take("scroll") {
            scroll = true;
        } else if !["binary", "insensitive", "asensitive"].iter().any(|word| words.take(word)) {
            return Err(error(state::SYNTAX, format!("DECLARE {name}: CURSOR FOR is expected, and a query")));
        }
    }
    if scroll {
        return Err(error(state::NOT_SUPPORTED, "cursors go forward only: leave SCROLL out"));
    }
    let hold = words.take("with");
    if hold || words.take("without") {
        words.take("hold");
    }
    if !words.take("for") {
        return Err(error(state::SYNTAX, format!("DECLARE {name}: FOR is expected, and a query")));
    }
    Ok(Command::Declare { name, hold, query: words.rest().to_owned() })
}

/// `FETCH [NEXT | ALL | FORWARD [n | ALL] | n] [FROM | IN] name`.
fn fetch(words: &mut Words<'_>, skip: bool) -> PgWireResult<Command> {
    let backward = ["prior", "first", "last", "absolute", "relative", "backward"];
    if let Some(word) = backward.iter().find(|word| words.peek_word() == Some(**word) && !words.is_last()) {
        let message = format!("cursors go forward only: FETCH {} is not supported", word.to_uppercase());
        return Err(error(state::NOT_SUPPORTED, message));
    }
    let mut count = Some(1);
    if !words.is_last() {
        let _ = words.take("next") || words.take("forward");
        if words.symbol('-') {
            return Err(error(state::NOT_SUPPORTED, "cursors go forward only: FETCH takes no negative number"));
        }
        if words.take("all") {
            count = None;
        } else if let Some(number) = words.peek_word().and_then(|word| word.parse().ok())
            && !words.is_last()
        {
            words.next();
            count = Some(number);
        }
        let _ = words.take("from") || words.take("in");
    }
    Ok(Command::Fetch { name: words.any_name()?, count, skip })
}

/// `COPY {(query) | table [(columns)]} TO STDOUT [[WITH] (FORMAT csv, HEADER) | [WITH] CSV HEADER | BINARY]`.
fn copy(words: &mut Words<'_>) -> PgWireResult<Command> {
    let query = if words.symbol('(') { words.inside()?.to_owned() } else { words.table()? };
    if words.take("from") {
        return Err(error(state::READ_ONLY, "only reading is allowed: COPY … TO STDOUT; events are sent over HTTP"));
    }
    if !words.take("to") || !words.take("stdout") {
        return Err(error(state::NOT_SUPPORTED, "COPY goes to STDOUT; \\copy of psql writes a file"));
    }
    let (mut format, mut header) = (CopyFormat::Text, false);
    while let Some(token) = words.next() {
        let word = match &token.kind {
            Kind::Word(word) | Kind::Text(word) | Kind::Name(word) => Some(word.to_lowercase()),
            Kind::Symbol(_) => None,
        };
        match word.as_deref() {
            None | Some("with" | "format" | "true" | "on") => {}
            Some("csv") => format = CopyFormat::Csv,
            Some("binary") => format = CopyFormat::Binary,
            Some("text") => format = CopyFormat::Text,
            Some("header") => header = !(words.take("false") || words.take("off")),
            Some(other) => {
                let message = format!("COPY: {other} is not supported; FORMAT text, csv or binary, and HEADER are");
                return Err(error(state::NOT_SUPPORTED, message));
            }
        }
    }
    if header && format == CopyFormat::Binary {
        return Err(error(state::NOT_SUPPORTED, "COPY: FORMAT binary has no HEADER"));
    }
    Ok(Command::Copy { query, format, header })
}

/// A statement, read from left to right.
struct Words<'a> {
    text: &'a str,
    tokens: &'a [Token],
    at: usize,
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn peek_word(&self) -> Option<&'a str> {
        self.peek().and_then(Token::word)
    }

    fn next(&mut self) -> Option<&'a Token> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn is_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    fn is_last(&self) -> bool {
        self.at + 1 >= self.tokens.len()
    }

    fn take(&mut self, word: &str) -> bool {
        let is = self.peek_word() == Some(word);
        self.at += usize::from(is);
        is
    }

    fn symbol(&mut self, symbol: char) -> bool {
        let is = self.peek().is_some_and(|token| token.is(symbol));
        self.at += usize::from(is);
        is
    }

    /// Whether the word comes; what is before it is skipped.
    fn skip_to(&mut self, word: &str) -> bool {
        while !self.is_end() {
            if self.take(word) {
                return true;
            }
            self.at += 1;
        }
        false
    }

    fn any_name(&mut self) -> PgWireResult<String> {
        let name = self.next().and_then(Token::name);
        name.map(str::to_owned).ok_or_else(|| error(state::SYNTAX, format!("a name is expected in {:?}", self.text)))
    }

    fn all_or_name(&mut self) -> PgWireResult<Option<String>> {
        if self.peek_word() == Some("all") { Ok(None) } else { self.any_name().map(Some) }
    }

    /// The name of a setting, `reckon.as_of`, lower case.
    fn setting(&mut self) -> PgWireResult<String> {
        let mut name = self.any_name()?.to_lowercase();
        while self.symbol('.') {
            name = format!("{name}.{}", self.any_name()?.to_lowercase());
        }
        Ok(name)
    }

    /// The value of a setting: a text, a word, a number, or several with commas between; none is the default.
    fn value(&mut self) -> Option<String> {
        let start = self.peek()?.at.start;
        let value = match (&self.peek()?.kind, self.is_last()) {
            (Kind::Text(text) | Kind::Name(text), true) => text.clone(),
            _ => self.text.get(start..)?.trim().to_owned(),
        };
        self.at = self.tokens.len();
        (!value.eq_ignore_ascii_case("default")).then_some(value)
    }

    /// What is left of the text.
    fn rest(&self) -> &'a str {
        let end = self.tokens.last().map_or(0, |token| token.at.end);
        self.peek().and_then(|token| self.text.get(token.at.start..end)).unwrap_or_default()
    }

    /// What stands in the brackets just opened.
    fn inside(&mut self) -> PgWireResult<&'a str> {
        let (start, mut depth) = (self.peek().map_or(0, |token| token.at.start), 1_u32);
        while let Some(token) = self.next() {
            if token.is('(') {
                depth += 1;
            } else if token.is(')') {
                depth -= 1;
                if depth == 0 {
                    return Ok(self.text.get(start..token.at.start).unwrap_or_default());
                }
            }
        }
        Err(error(state::SYNTAX, "a bracket is not closed"))
    }

    /// `table` or `table (columns)`, as a query.
    fn table(&mut self) -> PgWireResult<String> {
        let start = self.peek().map_or(0, |token| token.at.start);
        self.any_name()?;
        while self.symbol('.') {
            self.any_name()?;
        }
        let end = self.tokens.get(self.at - 1).map_or(start, |token| token.at.end);
        let table = self.text.get(start..end).unwrap_or_default();
        let columns = if self.symbol('(') { self.inside()? } else { "*" };
        Ok(format!("SELECT {columns} FROM {table}"))
    }
}

#[cfg(test)]
mod tests {
    use pgwire::error::ErrorInfo;

    use super::*;

    fn read(text: &str) -> Command {
        parse(text).unwrap()
    }

    fn code(text: &str) -> String {
        ErrorInfo::from(parse(text).unwrap_err()).code
    }

    #[test]
    fn commands_are_told_from_queries() {
        for text in ["select 1", "SHOW TABLES", "show columns from stats", "(select 1)", "with a as (select 1) table a"]
        {
            assert_eq!(read(text), Command::Query(text.to_owned()));
        }
        assert_eq!(read("START TRANSACTION READ ONLY"), Command::Begin);
        assert_eq!(read("rollback to savepoint a"), Command::RollbackTo);
        assert_eq!(read("DEALLOCATE ALL"), Command::Deallocate(None));
        assert_eq!(read("deallocate prepare \"A b\""), Command::Deallocate(Some("A b".to_owned())));
        for text in ["LISTEN a", "prepare a as select 1", "copy stats to '/tmp/file'"] {
            assert_eq!(code(text), "0A000", "{text}");
        }
        assert_eq!(code("copy stats from stdin"), "25006");
    }

    #[test]
    fn settings_are_read() {
        let set = |name: &str, value: Option<&str>| {
            let (name, value) = (name.to_owned(), value.map(str::to_owned));
            Command::Set { name, value, local: false }
        };
        let local = Command::Set { name: "reckon.as_of".to_owned(), value: Some("version:7".to_owned()), local: true };
        assert_eq!(read("SET LOCAL reckon.as_of = 'version:7'"), local);
        let as_of = "2026-11-19T06:00:00Z";
        assert_eq!(read(&format!("SET reckon.as_of = '{as_of}'")), set("reckon.as_of", Some(as_of)));
        assert_eq!(read("reset Reckon.as_of"), set("reckon.as_of", None));
        assert_eq!(read("set session datestyle to ISO, MDY"), set("datestyle", Some("ISO, MDY")));
        assert_eq!(read("SET statement_timeout TO DEFAULT"), set("statement_timeout", None));
        assert_eq!(read("SET TIME ZONE 'UTC'"), set("timezone", Some("UTC")));
        assert_eq!(read("show reckon.provenance"), Command::Show("reckon.provenance".to_owned()));
        assert_eq!(read("SHOW TRANSACTION ISOLATION LEVEL"), Command::Show("transaction_isolation".to_owned()));
        assert_eq!(code("set statement_timeout"), "42601");
    }

    #[test]
    fn cursors_are_read() {
        let query = "select ';' from stats for all".replace(" for all", "");
        let declared = read(&format!("DECLARE \"C 1\" NO SCROLL CURSOR WITHOUT HOLD FOR {query}"));
        assert_eq!(declared, Command::Declare { name: "C 1".to_owned(), hold: false, query });
        let fetched = |count, skip| Command::Fetch { name: "c".to_owned(), count, skip };
        for (text, count) in [
            ("fetch c", Some(1)),
            ("FETCH NEXT FROM c", Some(1)),
            ("fetch forward 100 from \"c\"", Some(100)),
            ("fetch 7 in c", Some(7)),
            ("fetch all c", None),
            ("FETCH FORWARD ALL FROM c", None),
        ] {
            assert_eq!(read(text), fetched(count, false), "{text}");
        }
        assert_eq!(read("move 3 from c"), fetched(Some(3), true));
        for text in ["fetch prior from c", "fetch -1 from c", "declare c scroll cursor for select 1"] {
            assert_eq!(code(text), "0A000", "{text}");
        }
    }

    #[test]
    fn copies_are_read() {
        let copied = |query: &str, format, header| Command::Copy { query: query.to_owned(), format, header };
        assert_eq!(
            read("COPY  ( select ')', (1) from stats ) TO STDOUT "),
            copied("select ')', (1) from stats ", CopyFormat::Text, false)
        );
        assert_eq!(
            read("copy stats (a, b) to stdout with (format csv, header)"),
            copied("SELECT a, b FROM stats", CopyFormat::Csv, true)
        );
        assert_eq!(read("copy stats to stdout csv header"), copied("SELECT * FROM stats", CopyFormat::Csv, true));
        assert_eq!(read("copy stats to stdout (format 'CSV')"), copied("SELECT * FROM stats", CopyFormat::Csv, false));
        assert_eq!(code("copy stats to stdout (delimiter '|')"), "0A000");
    }
}
