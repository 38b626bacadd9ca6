//! Answering for the tails of a process.

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use reckon_data::definition::Definition;
use reckon_data::offload::offload;
use reckon_data::run::count_fields;
use reckon_data::tail::{Tail, TailError, TailSum, Tails};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, Streaming};

use crate::wire::{Ask, Asked, Head, Stand, Sums, Whom};

/// Rows of a batch that is sent.
const BATCH_ROWS: usize = 16 * 1024;
/// Longest ticket.
const ASK_BYTES_MAX: usize = 1 << 20;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

/// Answers for the tails of this process until `stop` ends.
///
/// # Errors
/// What the network says.
pub async fn serve(
    listener: TcpListener,
    tails: Arc<dyn Tails>,
    definition: Arc<Definition>,
    me: Whom,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = FlightServiceServer::new(Service { tails, definition, me }).max_decoding_message_size(ASK_BYTES_MAX);
    tonic::transport::Server::builder().add_service(service).serve_with_incoming_shutdown(incoming, stop).await
}

/// The tails of this process.
#[derive(Debug)]
struct Service {
    tails: Arc<dyn Tails>,
    definition: Arc<Definition>,
    me: Whom,
}

impl Service {
    fn head(&self, positions: Vec<Stand>) -> Head {
        Head { definition: self.definition.version(), positions, ..Head::default() }
    }

    async fn answer(&self, ask: Ask) -> Result<(Head, Vec<RecordBatch>), Status> {
        match ask {
            Ask::Tail { partition, from } => {
                let Tail { position, runs, on_disk, .. } = self.tails.tail(partition, from).await.map_err(status)?;
                let definition = Arc::clone(&self.definition);
                let batches = offload(move || {
                    let batches = |run: &Arc<reckon_data::run::Run>| {
                        run.to_batches(&definition.dimensions, definition.version(), BATCH_ROWS)
                    };
                    Ok::<_, reckon_data::run::RunError>(
                        runs.iter().map(batches).collect::<Result<Vec<_>, _>>()?.concat(),
                    )
                });
                let internal = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
                let batches = batches.await.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
                Ok((Head { on_disk, ..self.head(vec![Stand::of(partition, &position)]) }, batches))
            }
            Ask::Sum { partition, from, selection } => {
                let sum = self.tails.sum(partition, from, &selection.selection()).await.map_err(status)?;
                let TailSum { position, cells, on_disk } = sum;
                let cells = cells.iter().map(|(step, cell)| (*step, Sums::of(cell))).collect();
                let head = self.head(vec![Stand::of(partition, &position)]);
                Ok((Head { on_disk, cells, ..head }, Vec::new()))
            }
            Ask::Positions { partitions } => {
                let stand = |partition: u32| Some(Stand::of(partition, &self.tails.position(partition).ok()?));
                Ok((self.head(partitions.into_iter().filter_map(stand).collect()), Vec::new()))
            }
        }
    }
}

/// An error on its way: whoever asked has to tell the two apart.
fn status(error: TailError) -> Status {
    match error {
        // Not "out of range": that is what a message that is too long is called.
        TailError::Gone { .. } => Status::failed_precondition(error.to_string()),
        TailError::Unavailable { reason, .. } => Status::unavailable(reason),
        other => Status::internal(other.to_string()),
    }
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let asked = serde_json::from_slice(&request.into_inner().ticket);
        let Asked { whom, ask } =
            asked.map_err(|error| Status::invalid_argument(format!("the ticket cannot be read: {error}")))?;
        if whom != self.me {
            return Err(Status::not_found("another process listens there, or another log is counted"));
        }
        let (head, batches) = self.answer(ask).await?;
        let head = serde_json::to_vec(&head).map_err(|error| Status::internal(error.to_string()))?;
        let batches = stream::iter(batches.into_iter().map(Ok::<_, FlightError>));
        let encoded = FlightDataEncoderBuilder::new()
            .with_schema(Arc::new(Schema::new(count_fields())))
            .with_metadata(head.into())
            .build(batches)
            .map_err(Status::from);
        Ok(Response::new(encoded.boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(none())
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(none())
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        Err(none())
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(none())
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        Err(none())
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        Err(none())
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        Err(none())
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        Err(none())
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(none())
    }
}

fn none() -> Status {
    Status::unimplemented("tails are asked for with DoGet")
}
