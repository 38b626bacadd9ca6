//! What comes of a statement, without sending it.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::scalar::ScalarValue;
use futures::stream;
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Tag};
use pgwire::error::PgWireResult;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::TransactionStatus;
use pgwire::messages::startup::ParameterStatus;
use reckon_serving::Serving;
use reckon_serving::sql::{Samples, SqlOptions, SqlPrepared, SqlStream};

use crate::command::{Command, CopyFormat};
use crate::compat::rewritten;
use crate::errors::{error, of_serving, state, warning, warnings};
use crate::rows::{self, Rows, SharedRows};
use crate::session::{Cursor, Session};
use crate::settings::{Changed, Settings};

/// Where answers come from.
#[derive(Clone)]
pub struct Source {
    /// The serving layer.
    pub serving: Arc<Serving>,
    /// What the table `metrics` shows.
    pub samples: Arc<dyn Samples>,
}

/// What is sent of a statement.
pub struct Reply {
    /// Warnings and changed settings, first.
    pub before: Vec<PgWireBackendMessage>,
    /// The answer.
    pub answer: Answer,
}

/// An answer.
pub enum Answer {
    /// It is done.
    Done(Tag),
    /// A transaction has begun.
    Begun(Tag),
    /// It has ended.
    Ended { tag: Tag, committed: bool },
    /// After a failure the transaction goes on.
    GoesOn(Tag),
    /// Prepared statements to forget.
    Forget(Vec<String>, Tag),
    /// Rows.
    Rows(QueryResponse),
    /// Copied rows.
    Copy { rows: SharedRows, schema: SchemaRef, format: CopyFormat, header: bool },
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { before: Vec::new(), answer }
    }
}

fn done(tag: &str) -> Reply {
    Answer::Done(Tag::new(tag)).into()
}

impl Source {
    /// What a query would answer, and which parameters it takes.
    ///
    /// # Errors
    /// Those of the query.
    pub async fn prepare(&self, session: &Session, query: &str) -> PgWireResult<SqlPrepared> {
        let as_of = session.with_settings(|settings| settings.as_of());
        self.serving.sql_prepare(&rewritten(query), as_of).await.map_err(|cause| of_serving(&cause))
    }

    /// Starts a query, and notes where its answer comes from.
    async fn stream(
        &self,
        session: &Session,
        query: &str,
        parameters: Vec<ScalarValue>,
    ) -> PgWireResult<(SqlStream, Vec<PgWireBackendMessage>)> {
        let as_of = session.with_settings(|settings| settings.as_of());
        let options = SqlOptions { as_of, samples: Some(&*self.samples) };
        let stream = self.serving.sql_stream(&rewritten(query), parameters, options).await;
        let stream = stream.map_err(|cause| of_serving(&cause))?;
        session.note(serde_json::to_string(&stream.provenance).unwrap_or_default());
        let warnings = warnings(&stream.provenance);
        Ok((stream, warnings))
    }

    /// Does what a statement says; `format` is that of its rows.
    ///
    /// # Errors
    /// Whatever the client is to be told.
    pub async fn run(
        &self,
        session: &Session,
        command: &Command,
        parameters: Vec<ScalarValue>,
        format: &Format,
        status: TransactionStatus,
    ) -> PgWireResult<Reply> {
        match command {
            Command::Query(query) => {
                let (stream, before) = self.stream(session, query, parameters).await?;
                let schema = Arc::clone(&stream.schema);
                let rows = rows::response(Rows::new(stream), &schema, format, None)?;
                Ok(Reply { before, answer: Answer::Rows(rows) })
            }
            Command::Copy { query, format, header } => {
                let (stream, before) = self.stream(session, query, parameters).await?;
                let schema = Arc::clone(&stream.schema);
                let (rows, format, header) = (Rows::new(stream), *format, *header);
                Ok(Reply { before, answer: Answer::Copy { rows, schema, format, header } })
            }
            Command::Declare { name, hold, query } => {
                if !hold && status == TransactionStatus::Idle {
                    let message = "a cursor without HOLD lives in a transaction: BEGIN first";
                    return Err(error(state::NO_TRANSACTION, message));
                }
                let (stream, before) = self.stream(session, query, parameters).await?;
                let schema = Arc::clone(&stream.schema);
                session.declare(name, Cursor { schema, rows: Rows::new(stream), hold: *hold })?;
                Ok(Reply { before, answer: Answer::Done(Tag::new("DECLARE CURSOR")) })
            }
            Command::Fetch { name, count, skip } => fetch(session, name, *count, *skip, format).await,
            other => at_once(session, other, format, status),
        }
    }
}

async fn fetch(
    session: &Session,
    name: &str,
    count: Option<usize>,
    skip: bool,
    format: &Format,
) -> PgWireResult<Reply> {
    let cursor = session.cursor(name)?;
    if skip {
        let skipped = rows::skip(&cursor.rows, count).await?;
        return Ok(Answer::Done(Tag::new("MOVE").with_rows(skipped)).into());
    }
    let mut response = rows::response(cursor.rows, &cursor.schema, format, count)?;
    response.set_command_tag("FETCH");
    Ok(Answer::Rows(response).into())
}

fn ended(tag: &str) -> Reply {
    Answer::Ended { tag: Tag::new(tag), committed: tag == "COMMIT" }.into()
}

/// Statements that need no query.
fn at_once(session: &Session, command: &Command, format: &Format, status: TransactionStatus) -> PgWireResult<Reply> {
    let reply = match command {
        Command::Begin => Answer::Begun(Tag::new("BEGIN")).into(),
        Command::Commit if status != TransactionStatus::Error => ended("COMMIT"),
        Command::Commit | Command::Rollback => ended("ROLLBACK"),
        Command::RollbackTo => Answer::GoesOn(Tag::new("ROLLBACK")).into(),
        Command::Nothing(tag) => done(tag),
        Command::Set { local: true, .. } if status == TransactionStatus::Idle => {
            let message = "SET LOCAL lasts until the end of the transaction, and there is none: nothing was set";
            Reply { before: vec![warning(message, None)], answer: Answer::Done(Tag::new("SET")) }
        }
        Command::Set { name, value, local } => {
            let changed = session.change(*local, |settings| settings.set(name, value.as_deref()))?;
            let tag = if value.is_some() { "SET" } else { "RESET" };
            Reply { before: told(changed), answer: Answer::Done(Tag::new(tag)) }
        }
        Command::ResetAll => {
            session.change(false, Settings::reset);
            done("RESET")
        }
        Command::Show(name) => Answer::Rows(show(session, name, format)?).into(),
        Command::ShowAll => Answer::Rows(show_all(session, format)?).into(),
        Command::Discard(what) if what == "all" => {
            if status != TransactionStatus::Idle {
                return Err(error("25001", "DISCARD ALL cannot run in a transaction"));
            }
            let statements = session.unprepare(None);
            session.discard();
            Answer::Forget(statements, Tag::new("DISCARD ALL")).into()
        }
        Command::Discard(what) => done(&format!("DISCARD {}", what.to_uppercase())),
        Command::Deallocate(name) => {
            let found = session.unprepare(name.as_deref());
            if let (Some(name), true) = (name, found.is_empty()) {
                return Err(error(state::NO_STATEMENT, format!("there is no prepared statement {name:?}")));
            }
            let tag = if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" };
            Answer::Forget(found, Tag::new(tag)).into()
        }
        Command::Close(name) => {
            session.close(name.as_deref())?;
            done(if name.is_some() { "CLOSE CURSOR" } else { "CLOSE CURSOR ALL" })
        }
        Command::Query(_) | Command::Copy { .. } | Command::Declare { .. } | Command::Fetch { .. } => {
            return Err(error("XX000", "a query was taken for a command"));
        }
    };
    Ok(reply)
}

fn told(changed: Changed) -> Vec<PgWireBackendMessage> {
    let warning = changed.warning.map(|message| warning(message, None));
    let report =
        changed.report.map(|(name, value)| PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name, value)));
    warning.into_iter().chain(report).collect()
}

/// The columns of `SHOW`.
pub fn show_schema(command: &Command) -> Option<SchemaRef> {
    let column = |name: &str| Field::new(name, DataType::Utf8, true);
    match command {
        Command::Show(name) => Some(Arc::new(Schema::new(vec![column(name)]))),
        Command::ShowAll => Some(Arc::new(Schema::new(vec![column("name"), column("setting"), column("description")]))),
        _ => None,
    }
}

fn show(session: &Session, name: &str, format: &Format) -> PgWireResult<QueryResponse> {
    let value = if name == "reckon.provenance" {
        session.provenance()
    } else {
        let value = session.with_settings(|settings| settings.get(name));
        value.ok_or_else(|| {
            error(
                state::NO_SETTING,
                format!("there is no setting {name:?}; SHOW ALL names them, and SHOW TABLES tables"),
            )
        })?
    };
    texts(&[name], vec![vec![value]], format)
}

fn show_all(session: &Session, format: &Format) -> PgWireResult<QueryResponse> {
    let all = session.with_settings(|settings| settings.all());
    let rows = all.into_iter().map(|(name, value)| vec![name, value, String::new()]).collect();
    texts(&["name", "setting", "description"], rows, format)
}

/// Rows of texts.
fn texts(names: &[&str], rows: Vec<Vec<String>>, format: &Format) -> PgWireResult<QueryResponse> {
    let field = |(index, name): (usize, &&str)| {
        let wire = if format.is_binary(index) { FieldFormat::Binary } else { FieldFormat::Text };
        FieldInfo::new((*name).to_owned(), None, None, Type::TEXT, wire)
    };
    let fields: Arc<Vec<FieldInfo>> = Arc::new(names.iter().enumerate().map(field).collect());
    let mut encoder = DataRowEncoder::new(Arc::clone(&fields));
    let mut encoded = VecDeque::with_capacity(rows.len());
    for row in rows {
        for value in row {
            encoder.encode_field(&Some(value))?;
        }
        encoded.push_back(Ok(encoder.take_row()));
    }
    let mut response = QueryResponse::new(fields, stream::iter(encoded));
    response.set_command_tag("SHOW");
    Ok(response)
}
