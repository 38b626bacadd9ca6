//! Serving on a listener, within limits, until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use futures::{Stream, StreamExt as _, stream};
use reckon_data::clock::RandomNames;
use reckon_serving::Serving;
use reckon_serving::rest::Counted;
use reckon_serving::sql::Samples;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpIncoming};

use crate::gate::Gate;
use crate::metrics::FlightMetrics;
use crate::service::FlightSql;

/// Longest message of a client: a query and its parameters.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Connections at the same time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// Requests of one connection that may be under way at once.
const REQUESTS_MAX: u32 = 128;
/// Longest head of a request.
const HEAD_BYTES_MAX: u32 = 16 << 10;
/// How often a client that is silent is asked whether it is there, and how long it may take to say so.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
const ALIVE_MAX: Duration = Duration::from_secs(20);
/// How long answers under way may still take after the stop.
const GRACE: Duration = Duration::from_secs(3);

/// Where clients of Flight SQL come in.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    metrics: Arc<FlightMetrics>,
}

impl Door {
    /// A door at what listens already.
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, metrics: Arc::default() }
    }

    /// Where it is.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What it counts.
    #[must_use]
    pub fn counters(&self) -> Arc<dyn Counted> {
        Arc::clone(&self.metrics) as _
    }

    /// Serves until `stop` turns true; answers under way may end, within three seconds. `samples` are the rows of the table
    /// `metrics`.
    pub async fn serve(self, serving: Arc<Serving>, samples: Arc<dyn Samples>, stop: watch::Receiver<bool>) {
        let service = match FlightSql::new(serving, Some(samples), Arc::new(RandomNames), self.metrics) {
            Ok(service) => service,
            Err(error) => {
                tracing::error!(%error, "there is no Flight SQL");
                return;
            }
        };
        let running = Arc::clone(&service.running);
        let service = FlightServiceServer::new(Gate::new(service)).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut server = Server::builder()
            .max_concurrent_streams(REQUESTS_MAX)
            .http2_max_header_list_size(HEAD_BYTES_MAX)
            .http2_keepalive_interval(Some(ALIVE_EVERY))
            .http2_keepalive_timeout(Some(ALIVE_MAX));
        let incoming = bounded(TcpIncoming::from(self.listener).with_nodelay(Some(true)));
        let served = server.add_service(service).serve_with_incoming_shutdown(incoming, stopped(stop.clone()));
        let over = async {
            stopped(stop).await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            served = served => if let Err(error) = served {
                tracing::error!(%error, "there is no Flight SQL any more");
            },
            () = over => running.cancel_all(),
        }
    }
}

/// Waits for the stop; an error means that whoever could say it is gone.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Connections, each once there is room for it.
fn bounded(incoming: TcpIncoming) -> impl Stream<Item = io::Result<Connection>> + Send {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    stream::unfold((incoming, room), |(mut incoming, room)| async move {
        let permit = Arc::clone(&room).acquire_owned().await.ok()?;
        let stream = incoming.next().await?;
        Some((stream.map(|stream| Connection { stream, _permit: permit }), (incoming, room)))
    })
}

/// A connection, and its place among those that there may be.
struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = <TcpStream as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
