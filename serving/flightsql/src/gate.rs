//! The Flight protocol around the commands, and serving it on a listener.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::{Any, CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt as _};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::{StreamExt as _, stream};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::metrics::FlightMetrics;
use crate::rows::Messages;
use crate::service::{CANCEL_FLIGHT_INFO, FlightSql};

/// Longest message of a client: a query and its parameters.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Requests of one connection that may be under way at once.
const REQUESTS_MAX: u32 = 128;
/// Longest head of a request.
const HEAD_BYTES_MAX: u32 = 16 << 10;
/// How often a client that is silent is asked whether it is there, and how long it may take to say so.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
const ALIVE_MAX: Duration = Duration::from_secs(20);
/// How long answers under way may still take after the stop.
const GRACE: Duration = Duration::from_secs(3);

/// Serves Flight SQL until `stop` turns true; answers under way may end, within three seconds.
///
/// # Errors
/// What the network says.
pub async fn serve(
    listener: TcpListener,
    service: FlightSql,
    stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let running = Arc::clone(&service.running);
    let service = FlightServiceServer::new(Gate::new(service)).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut server = Server::builder()
        .max_concurrent_streams(REQUESTS_MAX)
        .http2_max_header_list_size(HEAD_BYTES_MAX)
        .http2_keepalive_interval(Some(ALIVE_EVERY))
        .http2_keepalive_timeout(Some(ALIVE_MAX));
    let served = server.add_service(service).serve_with_incoming_shutdown(incoming, stopped(stop.clone()));
    let over = async {
        stopped(stop).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = served => served,
        () = over => {
            running.cancel_all();
            Ok(())
        }
    }
}

/// Waits for the stop; an error means that whoever could say it is gone.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn is_query(command: &[u8]) -> bool {
    let queries = [CommandStatementQuery::type_url(), CommandPreparedStatementQuery::type_url()];
    Any::decode(command).is_ok_and(|command| queries.contains(&command.type_url.as_str()))
}

/// Counts errors, and answers what [`FlightSql`] cannot.
struct Gate {
    inner: FlightSql,
    metrics: Arc<FlightMetrics>,
}

impl Gate {
    fn new(inner: FlightSql) -> Self {
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
