//! The commands of Flight SQL.

use std::sync::Arc;

use arrow::datatypes::Schema;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::metadata::{SqlInfoData, XdbcTypeInfoData};
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
    ActionBeginTransactionResult, ActionCancelQueryRequest, ActionCancelQueryResult,
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    ActionCreatePreparedSubstraitPlanRequest, ActionEndSavepointRequest, ActionEndTransactionRequest, Any, Command,
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery,
    CommandStatementSubstraitPlan, CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor, FlightEndpoint,
    FlightInfo, IpcMessage, SchemaAsIpc, Ticket,
};
use futures::{StreamExt as _, stream};
use prost::Message as _;
use reckon_data::clock::Names;
use reckon_serving::query::AsOf;
use reckon_serving::sql::{Samples, SqlOptions};
use reckon_serving::{Serving, ServingError};
use tokio::sync::Semaphore;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::catalogue::{self, Listed};
use crate::handle::Asked;
use crate::metrics::FlightMetrics;
use crate::rows::{Answer, plain_schema, whole};
use crate::running::Running;
use crate::status::{internal, invalid, status, unavailable};
use crate::{AS_OF_HEADER, COMPLETE_HEADER, COMPLETE_ONLY_HEADER, info, parameters};

/// Answers that may be on their way at once; most of them wait for their turn to be computed.
const STREAMS_MAX: usize = 256;
/// The action that cancels a query; [`ActionCancelQueryRequest`] is what it was called before.
pub const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";

type Got = Response<<FlightSql as FlightService>::DoGetStream>;

/// The serving layer, as Flight SQL sees it.
pub struct FlightSql {
    serving: Arc<Serving>,
    samples: Option<Arc<dyn Samples>>,
    names: Arc<dyn Names>,
    pub(crate) running: Arc<Running>,
    streams: Arc<Semaphore>,
    pub(crate) metrics: Arc<FlightMetrics>,
    info: SqlInfoData,
    types: XdbcTypeInfoData,
}

impl FlightSql {
    /// Flight SQL over a serving layer; `samples` are the rows of the table `metrics`.
    ///
    /// # Errors
    /// None that can be caused from outside.
    pub fn new(
        serving: Arc<Serving>,
        samples: Option<Arc<dyn Samples>>,
        names: Arc<dyn Names>,
        metrics: Arc<FlightMetrics>,
    ) -> Result<Self, ServingError> {
        let broken = |error: arrow_flight::error::FlightError| ServingError::Internal { message: error.to_string() };
        Ok(Self {
            serving,
            samples,
            names,
            running: Arc::default(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            metrics,
            info: info::sql_info().map_err(broken)?,
            types: info::types().map_err(broken)?,
        })
    }

    /// Plans what a ticket will ask, and makes the ticket.
    async fn flight_info(
        &self,
        mut asked: Asked,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let as_of = as_of(&mut asked, request.metadata())?;
        let prepared = self.serving.sql_prepare(&asked.query, as_of).await.map_err(|error| status(&error))?;
        let values = parameters::values(asked.parameters.clone()).await?;
        parameters::check(values.len(), &prepared.parameters)?;
        asked.id = self.names.fresh().as_bytes().to_vec();
        let ticket = TicketStatementQuery { statement_handle: asked.to_bytes().into() };
        flight_info(&ticket, &plain_schema(&prepared.schema), request)
    }

    /// Answers a ticket.
    async fn answer(&self, handle: &[u8], headers: &MetadataMap) -> Result<Got, Status> {
        let mut asked = Asked::read(handle)?;
        let as_of = as_of(&mut asked, headers)?;
        let whole_only = wants_complete(headers)?;
        let turn = Arc::clone(&self.streams).try_acquire_owned();
        let turn = turn.map_err(|_| Status::resource_exhausted("too many answers are on their way"))?;
        let id = asked.id();
        let values = parameters::values(asked.parameters).await?;
        let mut run = self.running.begin(id);
        let options = SqlOptions { as_of, samples: self.samples.as_deref() };
        let stream = tokio::select! {
            biased;
            () = run.cancelled() => return Err(Status::cancelled("the query was cancelled")),
            stream = self.serving.sql_stream(&asked.query, values, options) => stream.map_err(|error| status(&error))?,
        };
        let complete = stream.provenance.complete;
        if !complete && whole_only {
            let missing = serde_json::to_string(&stream.provenance.missing).map_err(internal)?;
            return Err(unavailable(format!("the answer would not be complete, it misses: {missing}")));
        }
        let answer = Answer { stream, run, _turn: turn, metrics: Arc::clone(&self.metrics) };
        let mut response = Response::new(answer.messages()?);
        let told = MetadataValue::from_static(if complete { "true" } else { "false" });
        response.metadata_mut().insert(COMPLETE_HEADER, told);
        Ok(response)
    }

    /// All tables.
    async fn tables(&self) -> Result<Vec<Listed>, Status> {
        let stream = self.serving.sql_stream(catalogue::TABLES, Vec::new(), SqlOptions::default()).await;
        let mut stream = stream.map_err(|error| status(&error))?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            batches.push(batch.map_err(|error| status(&error))?);
        }
        catalogue::read(&batches)
    }

    /// The columns of a table.
    async fn columns(&self, table: &Listed) -> Result<Schema, Status> {
        let prepared = self.serving.sql_prepare(&table.query(), None).await.map_err(|error| status(&error))?;
        Ok(plain_schema(&prepared.schema))
    }

    /// Ends what a ticket has begun; whether anything was.
    fn cancel(&self, info: &FlightInfo) -> Result<CancelStatus, Status> {
        let mut status = CancelStatus::NotCancellable;
        for ticket in info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref()) {
            let id = ticket_id(&ticket.ticket)?;
            if id.is_some_and(|id| self.running.cancel(id)) {
                status = CancelStatus::Cancelled;
            }
        }
        Ok(status)
    }
}

/// What the answer to a ticket is cancelled by.
fn ticket_id(ticket: &[u8]) -> Result<Option<Uuid>, Status> {
    let unreadable = |error: String| invalid("info", format!("its ticket cannot be read: {error}"));
    let message = Any::decode(ticket).map_err(|error| unreadable(error.to_string()))?;
    match Command::try_from(message).map_err(|error| unreadable(error.to_string()))? {
        Command::TicketStatementQuery(ticket) => Ok(Asked::read(&ticket.statement_handle)?.id()),
        _ => Ok(None),
    }
}

/// The version of batch that a request is about. Its own header goes before what stands in its ticket.
fn as_of(asked: &mut Asked, headers: &MetadataMap) -> Result<Option<AsOf>, Status> {
    if let Some(value) = headers.get(AS_OF_HEADER) {
        let text = value.to_str().map_err(|_| invalid("as_of", format!("the header {AS_OF_HEADER} is no text")))?;
        asked.as_of = (!text.is_empty()).then(|| text.to_owned());
    }
    asked.as_of.as_deref().map(str::parse::<AsOf>).transpose().map_err(|error| status(&error))
}

fn wants_complete(headers: &MetadataMap) -> Result<bool, Status> {
    match headers.get(COMPLETE_ONLY_HEADER).map(|value| value.as_encoded_bytes()) {
        None | Some(b"false") => Ok(false),
        Some(b"true") => Ok(true),
        Some(_) => Err(invalid(COMPLETE_ONLY_HEADER, "the header is true or false")),
    }
}

/// What is answered to GetFlightInfo: DoGet with `ticket` has the rows.
fn flight_info(
    ticket: &impl ProstMessageExt,
    schema: &Schema,
    request: Request<FlightDescriptor>,
) -> Result<Response<FlightInfo>, Status> {
    let ticket = Ticket::new(ticket.as_any().encode_to_vec());
    let info = FlightInfo::new().try_with_schema(schema).map_err(internal)?;
    let info = info.with_endpoint(FlightEndpoint::new().with_ticket(ticket));
    Ok(Response::new(info.with_descriptor(request.into_inner())))
}

fn schema_bytes(schema: &Schema) -> Result<bytes::Bytes, Status> {
    let options = IpcWriteOptions::default();
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &options)).map_err(internal)?;
    Ok(message.0)
}

fn read_only(what: &str) -> Status {
    Status::unimplemented(format!("{what}: only reading is allowed, events come in over POST /v1/events"))
}

fn no_transactions() -> Status {
    Status::unimplemented("there are no transactions: each query reads one immutable view by itself")
}

fn no_plans() -> Status {
    Status::unimplemented("plans of Substrait are not taken: send SQL")
}

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = Self;

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        if query.transaction_id.is_some_and(|id| !id.is_empty()) {
            return Err(no_transactions());
        }
        self.flight_info(Asked { query: query.query, ..Asked::default() }, request).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.flight_info(Asked::read(&query.prepared_statement_handle)?, request).await
    }

    async fn get_flight_info_substrait_plan(
        &self,
        _: CommandStatementSubstraitPlan,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Err(no_plans())
    }

    async fn get_flight_info_catalogs(
        &self,
        command: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        flight_info(&command, &command.into_builder().schema(), request)
    }

    async fn get_flight_info_schemas(
        &self,
        command: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        flight_info(&command, &command.clone().into_builder().schema(), request)
    }

    async fn get_flight_info_tables(
        &self,
        command: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        flight_info(&command, &command.clone().into_builder().schema(), request)
    }

    async fn get_flight_info_table_types(
        &self,
        command: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        flight_info(&command, &command.into_builder().schema(), request)
    }

    async fn get_flight_info_sql_info(
        &self,
        command: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        flight_info(&command, &self.info.schema(), request)
    }

    async fn get_flight_info_primary_keys(
        &self,
        command: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        flight_info(&command, &info::primary_keys().schema(), request)
    }

    async fn get_flight_info_exported_keys(
        &self,
        command: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        flight_info(&command, &info::foreign_keys().schema(), request)
    }

    async fn get_flight_info_imported_keys(
        &self,
        command: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        flight_info(&command, &info::foreign_keys().schema(), request)
    }

    async fn get_flight_info_cross_reference(
        &self,
        command: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        flight_info(&command, &info::foreign_keys().schema(), request)
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        command: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        flight_info(&command, &self.types.schema(), request)
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Result<Got, Status> {
        self.answer(&ticket.statement_handle, request.metadata()).await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Got, Status> {
        self.answer(&query.prepared_statement_handle, request.metadata()).await
    }

    async fn do_get_catalogs(&self, command: CommandGetCatalogs, _: Request<Ticket>) -> Result<Got, Status> {
        let mut catalogs = command.into_builder();
        let mut names: Vec<String> = self.tables().await?.into_iter().map(|table| table.catalog).collect();
        names.dedup();
        names.into_iter().for_each(|name| catalogs.append(name));
        Ok(Response::new(whole(catalogs.build()?)))
    }

    async fn do_get_schemas(&self, command: CommandGetDbSchemas, _: Request<Ticket>) -> Result<Got, Status> {
        let mut schemas = command.into_builder();
        let mut names: Vec<(String, String)> =
            self.tables().await?.into_iter().map(|table| (table.catalog, table.schema)).collect();
        names.dedup();
        names.iter().for_each(|(catalog, schema)| schemas.append(catalog, schema));
        Ok(Response::new(whole(schemas.build()?)))
    }

    async fn do_get_tables(&self, command: CommandGetTables, _: Request<Ticket>) -> Result<Got, Status> {
        let with_columns = command.include_schema;
        let mut tables = CommandGetTables { include_schema: false, ..command.clone() }.into_builder();
        for table in self.tables().await? {
            tables.append(&table.catalog, &table.schema, &table.name, table.kind, &Schema::empty())?;
        }
        let wanted = tables.build()?;
        if !with_columns {
            return Ok(Response::new(whole(wanted)));
        }
        // Only what passes the filters is planned for its columns.
        let mut tables = command.into_builder();
        for table in catalogue::read(&[wanted])? {
            let columns = self.columns(&table).await?;
            tables.append(&table.catalog, &table.schema, &table.name, table.kind, &columns)?;
        }
        Ok(Response::new(whole(tables.build()?)))
    }

    async fn do_get_table_types(&self, command: CommandGetTableTypes, _: Request<Ticket>) -> Result<Got, Status> {
        let mut types = command.into_builder();
        catalogue::TABLE_TYPES.iter().for_each(|kind| types.append(kind));
        Ok(Response::new(whole(types.build()?)))
    }

    async fn do_get_sql_info(&self, command: CommandGetSqlInfo, _: Request<Ticket>) -> Result<Got, Status> {
        Ok(Response::new(whole(command.into_builder(&self.info).build()?)))
    }

    async fn do_get_primary_keys(&self, _: CommandGetPrimaryKeys, _: Request<Ticket>) -> Result<Got, Status> {
        Ok(Response::new(whole(info::primary_keys())))
    }

    async fn do_get_exported_keys(&self, _: CommandGetExportedKeys, _: Request<Ticket>) -> Result<Got, Status> {
        Ok(Response::new(whole(info::foreign_keys())))
    }

    async fn do_get_imported_keys(&self, _: CommandGetImportedKeys, _: Request<Ticket>) -> Result<Got, Status> {
        Ok(Response::new(whole(info::foreign_keys())))
    }

    async fn do_get_cross_reference(&self, _: CommandGetCrossReference, _: Request<Ticket>) -> Result<Got, Status> {
        Ok(Response::new(whole(info::foreign_keys())))
    }

    async fn do_get_xdbc_type_info(&self, command: CommandGetXdbcTypeInfo, _: Request<Ticket>) -> Result<Got, Status> {
        Ok(Response::new(whole(command.into_builder(&self.types).build()?)))
    }

    async fn do_put_statement_update(
        &self,
        _: CommandStatementUpdate,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(read_only("an update"))
    }

    async fn do_put_statement_ingest(
        &self,
        _: CommandStatementIngest,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(read_only("ingestion"))
    }

    /// Binds parameters: the new handle holds them.
    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let mut asked = Asked::read(&query.prepared_statement_handle)?;
        let as_of = as_of(&mut asked, request.metadata())?;
        let values = parameters::values(parameters::receive(request.into_inner()).await?).await?;
        let prepared = self.serving.sql_prepare(&asked.query, as_of).await.map_err(|error| status(&error))?;
        asked.parameters = parameters::bind(values, &prepared.parameters)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(asked.to_bytes().into()) })
    }

    async fn do_put_prepared_statement_update(
        &self,
        _: CommandPreparedStatementUpdate,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(read_only("an update"))
    }

    async fn do_put_substrait_plan(
        &self,
        _: CommandStatementSubstraitPlan,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(no_plans())
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        if query.transaction_id.is_some_and(|id| !id.is_empty()) {
            return Err(no_transactions());
        }
        let mut asked = Asked { query: query.query, ..Asked::default() };
        let as_of = as_of(&mut asked, request.metadata())?;
        let prepared = self.serving.sql_prepare(&asked.query, as_of).await.map_err(|error| status(&error))?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: asked.to_bytes().into(),
            dataset_schema: schema_bytes(&plain_schema(&prepared.schema))?,
            parameter_schema: schema_bytes(&parameters::schema(&prepared.parameters))?,
        })
    }

    /// Nothing is kept of a prepared statement that would have to be given back.
    async fn do_action_close_prepared_statement(
        &self,
        _: ActionClosePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn do_action_create_prepared_substrait_plan(
        &self,
        _: ActionCreatePreparedSubstraitPlanRequest,
        _: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        Err(no_plans())
    }

    async fn do_action_begin_transaction(
        &self,
        _: ActionBeginTransactionRequest,
        _: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        Err(no_transactions())
    }

    async fn do_action_end_transaction(
        &self,
        _: ActionEndTransactionRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        Err(no_transactions())
    }

    async fn do_action_begin_savepoint(
        &self,
        _: ActionBeginSavepointRequest,
        _: Request<Action>,
    ) -> Result<ActionBeginSavepointResult, Status> {
        Err(no_transactions())
    }

    async fn do_action_end_savepoint(&self, _: ActionEndSavepointRequest, _: Request<Action>) -> Result<(), Status> {
        Err(no_transactions())
    }

    /// Cancels, as clients did it before [`CANCEL_FLIGHT_INFO`]; both count their results alike.
    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        _: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let info = FlightInfo::decode(query.info).map_err(|error| invalid("info", error))?;
        Ok(ActionCancelQueryResult { result: self.cancel(&info)? as i32 })
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        let Action { r#type, body } = request.into_inner();
        if r#type != CANCEL_FLIGHT_INFO {
            return Err(invalid("action", format!("{:?} is none of those that ListActions names", r#type)));
        }
        let asked = CancelFlightInfoRequest::decode(body).map_err(|error| invalid("action", error))?;
        let info =
            asked.info.ok_or_else(|| invalid("action", "it has no info: send what GetFlightInfo has answered"))?;
        let result = CancelFlightInfoResult::new(self.cancel(&info)?);
        let result = arrow_flight::Result::new(result.encode_to_vec());
        Ok(Response::new(stream::iter([Ok(result)]).boxed()))
    }

    /// What the server can is fixed.
    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}
