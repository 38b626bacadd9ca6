//! What one connection has: its settings, its cursors, and how it is interrupted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use pgwire::api::{ClientInfo, METADATA_USER};
use pgwire::error::PgWireResult;
use tokio::sync::watch;

use crate::errors::{error, fatal, state};
use crate::rows::SharedRows;
use crate::settings::Settings;

/// Cursors and portals at once in one session: each may hold the turn of a query.
const OPEN_MAX: usize = 16;
/// Prepared statements at once in one session.
const STATEMENTS_MAX: usize = 512;
/// Bytes of their texts, all together.
const STATEMENT_BYTES_MAX: usize = 8 << 20;

/// What one connection has.
#[derive(Default)]
pub struct Session {
    state: Mutex<State>,
    /// Counts the interrupts.
    interrupts: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    settings: Settings,
    transaction: Option<Kept>,
    /// Where the last answer came from, as JSON.
    provenance: String,
    cursors: BTreeMap<String, Cursor>,
    /// Prepared statements, and the bytes of their texts.
    statements: BTreeMap<String, usize>,
    portals: BTreeSet<String>,
}

/// The settings that there are when a transaction has ended.
struct Kept {
    /// After `ROLLBACK`: those that there were before it.
    before: Settings,
    /// After `COMMIT`: without those that are `LOCAL`.
    after: Settings,
}

/// A cursor of `DECLARE`.
#[derive(Clone)]
pub struct Cursor {
    /// Its columns.
    pub schema: SchemaRef,
    /// The rows that are left.
    pub rows: SharedRows,
    /// Whether it outlives its transaction.
    pub hold: bool,
}

impl Session {
    /// The session of a connection.
    ///
    /// # Errors
    /// When it has not begun, which is a defect.
    pub fn of<C: ClientInfo>(client: &C) -> PgWireResult<Arc<Self>> {
        client.session_extensions().get().ok_or_else(|| fatal(state::PROTOCOL, "the session has not begun"))
    }

    /// A session with the settings that a client begins with.
    ///
    /// # Errors
    /// Of a setting that cannot be.
    pub fn begin<C: ClientInfo>(client: &C) -> PgWireResult<Self> {
        let session = Self::default();
        let parameters = client.metadata();
        let options = parameters.get("options").map_or("", String::as_str);
        for (name, value) in options_of(options) {
            session.with_settings(|settings| settings.set(&name, Some(&value)))?;
        }
        let known = |name: &str| !matches!(name, "database" | "options" | "replication" | METADATA_USER);
        for (name, value) in parameters.iter().filter(|(name, _)| known(name) && !name.starts_with("_pq_.")) {
            session.with_settings(|settings| settings.set(&name.to_lowercase(), Some(value)))?;
        }
        session.with_settings(Settings::begin);
        Ok(session)
    }

    /// Changes the settings, as long as the transaction lasts when that is `local`.
    pub fn change<T>(&self, local: bool, change: impl Fn(&mut Settings) -> T) -> T {
        let mut state = self.state.lock();
        if let (Some(kept), false) = (&mut state.transaction, local) {
            change(&mut kept.after);
        }
        change(&mut state.settings)
    }

    /// Reads the settings, or changes them for good.
    pub fn with_settings<T>(&self, change: impl FnOnce(&mut Settings) -> T) -> T {
        change(&mut self.state.lock().settings)
    }

    /// Notes where an answer came from.
    pub fn note(&self, provenance: String) {
        self.state.lock().provenance = provenance;
    }

    /// Where the last answer came from, as JSON; empty before the first.
    pub fn provenance(&self) -> String {
        self.state.lock().provenance.clone()
    }

    /// Interrupts what is under way; what comes later goes on.
    pub fn interrupt(&self) {
        self.interrupts.send_modify(|count| *count += 1);
    }

    /// Returns when what is under way from now on is interrupted.
    pub fn interrupted(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut interrupts = self.interrupts.subscribe();
        async move {
            // Where the sender is gone, the session is, too.
            if interrupts.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Keeps a cursor.
    ///
    /// # Errors
    /// When there is one of that name, or there are too many.
    pub fn declare(&self, name: &str, cursor: Cursor) -> PgWireResult<()> {
        let mut state = self.state.lock();
        if state.cursors.contains_key(name) {
            return Err(error(state::DUPLICATE_CURSOR, format!("cursor {name:?} exists already; CLOSE it first")));
        }
        state.has_room()?;
        state.cursors.insert(name.to_owned(), cursor);
        Ok(())
    }

    /// A cursor.
    ///
    /// # Errors
    /// When there is none.
    pub fn cursor(&self, name: &str) -> PgWireResult<Cursor> {
        let cursor = self.state.lock().cursors.get(name).cloned();
        cursor.ok_or_else(|| error(state::NO_CURSOR, format!("there is no cursor {name:?}")))
    }

    /// Closes a cursor, or all of them.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn close(&self, name: Option<&str>) -> PgWireResult<()> {
        let Some(name) = name else {
            self.state.lock().cursors.clear();
            return Ok(());
        };
        self.cursor(name)?;
        self.state.lock().cursors.remove(name);
        Ok(())
    }

    /// A transaction has begun.
    pub fn begin_transaction(&self) {
        let mut state = self.state.lock();
        let (before, after) = (state.settings.clone(), state.settings.clone());
        state.transaction = Some(Kept { before, after });
    }

    /// A transaction has ended: cursors that do not outlive it are closed, and settings are what they are without it. The
    /// client is to be told of those that are returned.
    pub fn end_transaction(&self, committed: bool) -> Vec<(String, String)> {
        let mut state = self.state.lock();
        state.cursors.retain(|_, cursor| cursor.hold);
        state.portals.clear();
        let Some(Kept { before, after }) = state.transaction.take() else { return Vec::new() };
        let told = state.settings.reported();
        state.settings = if committed { after } else { before };
        state.settings.reported().into_iter().filter(|setting| !told.contains(setting)).collect()
    }

    /// Everything as at the start.
    pub fn discard(&self) {
        let mut state = self.state.lock();
        let mut settings = std::mem::take(&mut state.settings);
        settings.reset();
        *state = State { settings, ..State::default() };
    }

    /// Notes a prepared statement; the one without a name is always replaced.
    ///
    /// # Errors
    /// When there is one of that name, or there are too many.
    pub fn prepare(&self, name: Option<&str>, bytes: usize) -> PgWireResult<()> {
        let Some(name) = name else { return Ok(()) };
        let mut state = self.state.lock();
        if state.statements.contains_key(name) {
            return Err(error(state::DUPLICATE_STATEMENT, format!("prepared statement {name:?} exists already")));
        }
        let held = state.statements.values().sum::<usize>();
        if state.statements.len() >= STATEMENTS_MAX || held.saturating_add(bytes) > STATEMENT_BYTES_MAX {
            let message = format!(
                "a session has at most {STATEMENTS_MAX} prepared statements, of {STATEMENT_BYTES_MAX} bytes in all; DEALLOCATE some"
            );
            return Err(error(state::TOO_MANY, message));
        }
        state.statements.insert(name.to_owned(), bytes);
        Ok(())
    }

    /// Forgets a prepared statement, or all of them; their names.
    pub fn unprepare(&self, name: Option<&str>) -> Vec<String> {
        let mut state = self.state.lock();
        match name {
            Some(name) => state.statements.remove_entry(name).into_iter().map(|(name, _)| name).collect(),
            None => std::mem::take(&mut state.statements).into_keys().collect(),
        }
    }

    /// Notes a portal.
    ///
    /// # Errors
    /// When there are too many.
    pub fn bind(&self, name: &str) -> PgWireResult<()> {
        let mut state = self.state.lock();
        if !state.portals.contains(name) {
            state.has_room()?;
            state.portals.insert(name.to_owned());
        }
        Ok(())
    }

    /// Forgets a portal.
    pub fn unbind(&self, name: &str) {
        self.state.lock().portals.remove(name);
    }
}

impl State {
    fn has_room(&self) -> PgWireResult<()> {
        if self.cursors.len() + self.portals.len() < OPEN_MAX {
            return Ok(());
        }
        Err(error(state::TOO_MANY, format!("a session has at most {OPEN_MAX} cursors and portals open; close some")))
    }
}

/// `-c name=value --name=value`, as libpq sends them; a backslash keeps a blank.
fn options_of(text: &str) -> Vec<(String, String)> {
    let (mut words, mut word, mut chars) = (Vec::new(), String::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.extend(chars.next()),
            c if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    let option = |word: &String| {
        let word = word.strip_prefix("-c").or_else(|| word.strip_prefix("--")).unwrap_or(word);
        let (name, value) = word.split_once('=')?;
        Some((name.trim().to_lowercase().replace('-', "_"), value.to_owned()))
    };
    words.iter().filter_map(option).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_libpq_writes_them() {
        let expected = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(
            options_of("-c statement_timeout=5s -creckon.as_of=version:7 --search-path=public"),
            expected(&[("statement_timeout", "5s"), ("reckon.as_of", "version:7"), ("search_path", "public")])
        );
        assert_eq!(options_of(r"-c DateStyle=ISO,\ MDY"), expected(&[("datestyle", "ISO, MDY")]));
        assert!(options_of("  nothing ").is_empty());
    }

    #[tokio::test]
    async fn an_interrupt_is_for_what_is_under_way() {
        let session = Session::default();
        session.interrupt();
        let later = session.interrupted();
        let mut later = std::pin::pin!(later);
        assert!(futures::poll!(later.as_mut()).is_pending(), "it came before");
        session.interrupt();
        later.await;
    }

    #[test]
    fn settings_last_as_long_as_they_are_said_to() {
        let session = Session::default();
        let set = |local: bool, value: &str| {
            session.change(local, |settings| settings.set("reckon.as_of", Some(value)).map(drop)).unwrap();
        };
        let version = || session.with_settings(|settings| settings.get("reckon.as_of")).unwrap();
        set(false, "version:1");
        for (committed, expected) in [(true, "version:2"), (false, "version:2"), (true, "version:2")] {
            session.begin_transaction();
            if expected != version() {
                set(false, expected);
            }
            set(true, "version:3");
            assert_eq!(version(), "version:3");
            session.end_transaction(committed);
            assert_eq!(version(), expected, "what is local ends, whatever becomes of the transaction");
        }
        session.begin_transaction();
        set(false, "version:4");
        session.change(false, |settings| settings.set("application_name", Some("a")).map(drop)).unwrap();
        let told = session.end_transaction(false);
        assert_eq!(version(), "version:2", "rolled back");
        assert_eq!(told, [("application_name".to_owned(), String::new())]);
    }

    #[test]
    fn what_is_open_is_bounded() {
        let session = Session::default();
        for n in 0..OPEN_MAX {
            session.bind(&n.to_string()).unwrap();
            session.bind(&n.to_string()).unwrap();
        }
        assert!(session.bind("more").is_err());
        session.unbind("0");
        session.bind("more").unwrap();
        session.prepare(Some("a"), 1).unwrap();
        assert!(session.prepare(Some("a"), 1).is_err());
        assert!(session.prepare(Some("b"), STATEMENT_BYTES_MAX).is_err());
        assert_eq!(session.unprepare(None), ["a"]);
        assert!((0..=STATEMENTS_MAX).any(|n| session.prepare(Some(&n.to_string()), 1).is_err()));
    }
}
