//! Prepared statements and portals.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::{Sink, SinkExt};
use pgwire::api::portal::{Format, Portal, PortalExecutionState};
use pgwire::api::query::{
    ExtendedQueryHandler, send_execution_response, send_partial_query_response, send_ready_for_query,
};
use pgwire::api::results::{FieldFormat, FieldInfo, Response, Tag};
use pgwire::api::stmt::{QueryParser, StoredStatement};
use pgwire::api::store::{Entry, PortalStore};
use pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::ParameterDescription;
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete, Sync as PgSync,
    TARGET_TYPE_BYTE_PORTAL, TARGET_TYPE_BYTE_STATEMENT,
};
use pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};

use crate::command::{self, Command};
use crate::errors::{error, state};
use crate::handler::{Handler, OurPortal, allowed, bounded, fits, fitting, most_of};
use crate::lexer::statements;
use crate::parameters;
use crate::rows;
use crate::run::{Answer, Source, show_schema};
use crate::send::{feed_all, send_answer, send_columns};
use crate::session::Session;

/// A statement that was read, and planned where it is a query.
#[derive(Debug, Clone)]
pub struct Prepared(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    command: Command,
    /// The columns of its rows, if it has any.
    schema: Option<SchemaRef>,
    /// What its parameters are, as far as the query says.
    parameters: Vec<Option<DataType>>,
}

impl Prepared {
    fn fields(&self, format: &Format) -> PgWireResult<Vec<FieldInfo>> {
        self.0.schema.as_ref().map_or_else(|| Ok(Vec::new()), |schema| rows::fields(schema, format))
    }

    fn columns(&self) -> usize {
        self.0.schema.as_ref().map_or(0, |schema| schema.fields().len())
    }
}

/// Reads and plans statements.
pub struct Planner(Source);

#[async_trait]
impl QueryParser for Planner {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, client: &C, sql: &str, types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let session = Session::of(client)?;
        let status = client.transaction_status();
        fits(sql)?;
        let mut statements = statements(sql).into_iter();
        let Some(statement) = statements.next() else { return Ok(None) };
        if statements.next().is_some() {
            return Err(error(state::SYNTAX, "a prepared statement is one statement, not several"));
        }
        let mut command = command::parse(statement)?;
        allowed(&command, status)?;
        let (mut schema, mut parameters) = (show_schema(&command), Vec::new());
        if let Command::Query(query) = &mut command
            && types.iter().flatten().any(parameters::is_list)
            && let Some(cast) = parameters::cast(query, types)
        {
            // Whether something is in a list is planned only when the list is known to be one.
            *query = cast;
        }
        if let Some(query) = command.query() {
            let mut planned = bounded(&session, self.0.prepare(&session, query)).await?;
            if let Command::Query(query) = &mut command {
                // A column that is a parameter is what the client says that the parameter is.
                if let Some(cast) = has_unknown(&planned.schema).then(|| parameters::cast(query, types)).flatten() {
                    planned = bounded(&session, self.0.prepare(&session, &cast)).await?;
                    *query = cast;
                }
                schema = Some(told(&planned.schema));
            }
            parameters = planned.parameters;
        } else if let Command::Fetch { name, skip: false, .. } = &command {
            schema = Some(session.cursor(name)?.schema);
        }
        Ok(Some(Prepared(Arc::new(Parts { command, schema, parameters }))))
    }

    fn get_parameter_types(&self, statement: &Prepared) -> PgWireResult<Vec<Type>> {
        Ok(statement.0.parameters.iter().map(|expected| parameters::type_of(expected.as_ref())).collect())
    }

    fn get_result_schema(&self, statement: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        statement.fields(format.unwrap_or(&Format::UnifiedText))
    }
}

impl Handler {
    /// Executes a portal, or goes on with it.
    async fn execute<C>(&self, client: &mut C, session: &Session, portal: &OurPortal, most: usize) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let shared = portal.state();
        let mut rows_left = shared.lock().await;
        if matches!(*rows_left, PortalExecutionState::Initial) {
            self.counters.queries.fetch_add(1, Ordering::Relaxed);
            let prepared = &portal.statement.statement.0;
            let status = client.transaction_status();
            allowed(&prepared.command, status)?;
            let values = parameters::values(portal, &prepared.parameters)?;
            let format = &portal.result_column_format;
            let reply = self.source.run(session, &prepared.command, values, format, status).await?;
            feed_all(client, reply.before).await?;
            match send_answer(client, session, reply.answer).await? {
                Some(Answer::Rows(rows)) => {
                    as_described(&rows.row_schema(), &portal.statement.statement.fields(format)?)?;
                    *rows_left = PortalExecutionState::Suspended(rows);
                }
                _ => {
                    *rows_left = PortalExecutionState::Finished;
                    return Ok(());
                }
            }
        }
        match &mut *rows_left {
            PortalExecutionState::Suspended(rows) => {
                if !send_partial_query_response(client, rows, most).await? {
                    *rows_left = PortalExecutionState::Finished;
                }
                Ok(())
            }
            _ => send_execution_response(client, Tag::new("SELECT").with_rows(0)).await,
        }
    }
}

#[async_trait]
impl ExtendedQueryHandler for Handler {
    type Statement = Prepared;
    type QueryParser = Planner;

    fn query_parser(&self) -> Arc<Planner> {
        Arc::new(Planner(self.source.clone()))
    }

    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let session = Session::of(client)?;
        session.prepare(message.name.as_deref(), message.query.len())?;
        let parsed = StoredStatement::parse(client, &message, self.query_parser()).await;
        if let (Some(name), Err(_)) = (message.name.as_deref(), &parsed) {
            session.unprepare(Some(name));
        }
        match parsed? {
            Some(statement) => client.portal_store().put_statement(Arc::new(statement)),
            None => client.portal_store().put_empty_statement(message.name.as_deref().unwrap_or(DEFAULT_NAME)),
        }
        client.feed(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?;
        Ok(())
    }

    async fn on_bind<C>(&self, client: &mut C, message: Bind) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let session = Session::of(client)?;
        let name = message.statement_name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal_name = message.portal_name.as_deref().unwrap_or(DEFAULT_NAME);
        let given = message.parameters.len();
        let expected = match client.portal_store().get_statement(name) {
            Some(Entry::Value(statement)) => {
                let parts = &statement.statement;
                fitting(message.parameter_format_codes.len(), given, "parameter")?;
                fitting(message.result_column_format_codes.len(), parts.columns(), "result")?;
                let expected = parts.0.parameters.len();
                if given == expected {
                    session.bind(portal_name)?;
                    let portal = Portal::try_new(&message, statement)?;
                    client.portal_store().put_portal(Arc::new(portal));
                }
                expected
            }
            Some(Entry::Empty) => {
                session.bind(portal_name)?;
                client.portal_store().put_empty_portal(portal_name);
                0
            }
            None => return Err(PgWireError::StatementNotFound(name.to_owned())),
        };
        if given != expected {
            let message = format!("bind message supplies {given} parameters, but the statement requires {expected}");
            return Err(error(state::PROTOCOL, message));
        }
        client.feed(PgWireBackendMessage::BindComplete(BindComplete::new())).await?;
        Ok(())
    }

    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal = match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) => portal,
            Some(Entry::Empty) => {
                client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
                return Ok(());
            }
            None => return Err(error(state::NO_CURSOR, format!("there is no portal {name:?}"))),
        };
        let session = Session::of(client)?;
        client.set_state(PgWireConnectionState::QueryInProgress);
        let executed = bounded(&session, self.execute(client, &session, &portal, most_of(message.max_rows))).await;
        if executed.is_err() {
            client.portal_store().rm_portal(name);
            session.unbind(name);
        }
        executed?;
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }

    async fn on_describe<C>(&self, client: &mut C, message: Describe) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        if message.target_type == TARGET_TYPE_BYTE_STATEMENT {
            let statement = client.portal_store().get_statement(name);
            let statement = statement.ok_or_else(|| PgWireError::StatementNotFound(name.to_owned()))?;
            let (mut types, mut fields) = (Vec::new(), Vec::new());
            if let Some(stored) = statement.value() {
                types = parameter_types(stored);
                fields = stored.statement.fields(&Format::UnifiedText)?;
            }
            let types = ParameterDescription::new(types.iter().map(Type::oid).collect());
            client.feed(PgWireBackendMessage::ParameterDescription(types)).await?;
            return send_columns(client, &fields).await;
        }
        let fields = match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) => portal.statement.statement.fields(&portal.result_column_format)?,
            Some(Entry::Empty) => Vec::new(),
            // A cursor of DECLARE is a portal, too.
            None => rows::fields(&Session::of(client)?.cursor(name)?.schema, &Format::UnifiedText)?,
        };
        send_columns(client, &fields).await
    }

    async fn on_sync<C>(&self, client: &mut C, _message: PgSync) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let status = client.transaction_status();
        if status == TransactionStatus::Idle {
            // What is outside a transaction ends with the message that closes it, and so do its portals.
            client.portal_store().clear_portals();
            Session::of(client)?.end_transaction(true);
        }
        send_ready_for_query(client, status).await
    }

    async fn on_close<C>(&self, client: &mut C, message: Close) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let session = Session::of(client)?;
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        match message.target_type {
            TARGET_TYPE_BYTE_STATEMENT => {
                client.portal_store().rm_statement(name);
                session.unprepare(Some(name));
            }
            TARGET_TYPE_BYTE_PORTAL => {
                client.portal_store().rm_portal(name);
                session.unbind(name);
            }
            other => return Err(PgWireError::InvalidTargetType(other)),
        }
        client.feed(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await?;
        Ok(())
    }

    async fn do_query<C>(&self, _client: &mut C, _portal: &Portal<Prepared>, _most: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        // `on_execute` above executes all of them.
        Err(error("XX000", "a portal came where none comes"))
    }
}

/// Whether the query does not say what some column is.
fn has_unknown(schema: &SchemaRef) -> bool {
    schema.fields().iter().any(|field| field.data_type().is_null())
}

/// What a client is told of the columns: those of no type are texts, as in PostgreSQL.
fn told(schema: &SchemaRef) -> SchemaRef {
    if !has_unknown(schema) {
        return Arc::clone(schema);
    }
    let as_text = |field: &Arc<Field>| {
        if field.data_type().is_null() { Field::new(field.name(), DataType::Utf8, true) } else { Field::clone(field) }
    };
    Arc::new(Schema::new(schema.fields().iter().map(as_text).collect::<Vec<_>>()))
}

/// Whether rows come as the client was told: it would read their bytes as something else.
fn as_described(are: &[FieldInfo], were: &[FieldInfo]) -> PgWireResult<()> {
    let differs = |(are, were): &(&FieldInfo, &FieldInfo)| {
        // Of no type are nulls only; and a text is a text.
        let is_plain = *are.datatype() == Type::UNKNOWN || are.format() == FieldFormat::Text;
        are.datatype() != were.datatype() && !is_plain
    };
    if are.len() == were.len() && !are.iter().zip(were).any(|pair| differs(&pair)) {
        return Ok(());
    }
    Err(error(state::NOT_SUPPORTED, "the columns are not those that were described: cast parameters, or prepare again"))
}

/// What a client is told of the parameters: its own types first.
fn parameter_types(stored: &StoredStatement<Prepared>) -> Vec<Type> {
    let known = |(index, expected): (usize, &Option<DataType>)| {
        let told = stored.parameter_types.get(index).cloned().flatten();
        told.unwrap_or_else(|| parameters::type_of(expected.as_ref()))
    };
    stored.statement.0.parameters.iter().enumerate().map(known).collect()
}
