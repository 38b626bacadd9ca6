//! The Flight protocol around the commands.

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt as _};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, SchemaResult, Ticket,
};
use futures::{StreamExt as _, stream};
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use crate::metrics::FlightMetrics;
use crate::rows::Messages;
use crate::service::{CANCEL_FLIGHT_INFO, FlightSql};

fn is_query(command: &[u8]) -> bool {
    let queries = [CommandStatementQuery::type_url(), CommandPreparedStatementQuery::type_url()];
    Any::decode(command).is_ok_and(|command| queries.contains(&command.type_url.as_str()))
}

/// Counts errors, and answers what [`FlightSql`] cannot.
pub struct Gate {
    inner: FlightSql,
    metrics: Arc<FlightMetrics>,
}

impl Gate {
    /// A gate in front of the commands.
    pub fn new(inner: FlightSql) -> Self {
        Self { metrics: Arc::clone(&inner.metrics), inner }
    }

    fn counted<T>(&self, answer: Result<T, Status>) -> Result<T, Status> {
        answer.inspect_err(|status| self.metrics.failed(status.code()))
    }

    fn refused<T>(&self, what: &str) -> Result<T, Status> {
        self.counted(Err(Status::unimplemented(format!("{what}: ask GetFlightInfo in Flight SQL"))))
    }
}

#[tonic::async_trait]
impl FlightService for Gate {
    type HandshakeStream = <FlightSql as FlightService>::HandshakeStream;
    type ListFlightsStream = <FlightSql as FlightService>::ListFlightsStream;
    type DoGetStream = Messages;
    type DoPutStream = <FlightSql as FlightService>::DoPutStream;
    type DoActionStream = <FlightSql as FlightService>::DoActionStream;
    type ListActionsStream = <FlightSql as FlightService>::ListActionsStream;
    type DoExchangeStream = <FlightSql as FlightService>::DoExchangeStream;

    /// Nobody is asked who he is, as over REST.
    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let answer = HandshakeResponse::default();
        Ok(Response::new(stream::iter([Ok(answer)]).boxed()))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.refused("there is no list of flights")
    }

    /// Of a query it has no schema: clients of ADBC would show that one instead of the one that comes with the rows, which
    /// says whether the answer is whole. GetSchema has it.
    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let is_query = is_query(&request.get_ref().cmd);
        let mut info = self.counted(self.inner.get_flight_info(request).await)?;
        if is_query {
            info.get_mut().schema.clear();
        }
        Ok(info)
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        self.refused("nothing is run in the background")
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let info = self.counted(self.inner.get_flight_info(request).await)?.into_inner();
        Ok(Response::new(SchemaResult { schema: info.schema }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        self.counted(self.inner.do_get(request).await)
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        self.counted(self.inner.do_put(request).await)
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        self.counted(self.inner.do_action(request).await)
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let actions = [
            ("CreatePreparedStatement", "Plans a query whose parameters come later; the handle holds the query."),
            ("ClosePreparedStatement", "Does nothing: nothing is kept of a prepared statement."),
            ("CancelQuery", "Ends the answer to a ticket that this process is sending."),
            (CANCEL_FLIGHT_INFO, "Ends the answer to a ticket that this process is sending."),
        ];
        let actions =
            actions.map(|(name, what)| Ok(ActionType { r#type: name.to_owned(), description: what.to_owned() }));
        Ok(Response::new(stream::iter(actions).boxed()))
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.refused("nothing is exchanged")
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::CommandGetCatalogs;

    use super::*;

    #[test]
    fn queries_are_told_from_questions_about_the_server() {
        let query = CommandStatementQuery { query: "select 1".to_owned(), transaction_id: None };
        assert!(is_query(&query.as_any().encode_to_vec()));
        assert!(is_query(&CommandPreparedStatementQuery::default().as_any().encode_to_vec()));
        assert!(!is_query(&CommandGetCatalogs {}.as_any().encode_to_vec()));
        assert!(!is_query(b"select 1"));
    }
}
