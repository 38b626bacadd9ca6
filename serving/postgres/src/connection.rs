//! One connection, from its first byte to its last: pgwire reads and writes the messages, here they are bounded.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use futures::SinkExt;
use pgwire::api::{ClientInfo, DefaultClient, NoopHandler, PgWireConnectionState};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::response::{GssEncResponse, SslResponse};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage, SslNegotiationMetaMessage};
use pgwire::tokio::server::{PgWireMessageServerCodec, process_error, process_message};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_io_timeout::TimeoutStream;
use tokio_util::codec::{Decoder, Framed};

use crate::errors::{fatal, state};
use crate::extended::Prepared;
use crate::handler::Handler;
use crate::startup::Entrance;

/// How long a client may take until it has started.
const START_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a connection may be idle.
const IDLE_TIME_MAX: Duration = Duration::from_secs(3_600);
/// How long a client may read nothing of its answer.
const WRITE_TIME_MAX: Duration = Duration::from_secs(60);
/// Longest message of a client that has started, bytes; a query has at most 1 MiB.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Longest message before.
const START_BYTES_MAX: usize = 10_000;
/// So many bytes are read at once.
const READ_BYTES: usize = 8 << 10;

type Socket = Framed<Pin<Box<TimeoutStream<TcpStream>>>, PgWireMessageServerCodec<Prepared>>;

/// What all connections share.
pub struct Shared {
    /// Lets them in, and cancels.
    pub entrance: Arc<Entrance>,
    /// Answers.
    pub handler: Arc<Handler>,
}

/// Serves one connection to its end.
///
/// # Errors
/// When it is lost.
pub async fn connection(stream: TcpStream, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    stream.set_nodelay(true)?;
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIME_MAX));
    let codec = PgWireMessageServerCodec::new(DefaultClient::new(peer, false));
    let mut socket: Socket = Framed::new(Box::pin(stream), codec);
    let began = tokio::time::Instant::now();
    loop {
        let starting = is_starting(&socket);
        let limit = if starting { START_TIME_MAX.saturating_sub(began.elapsed()) } else { IDLE_TIME_MAX };
        let message = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Err(fatal(state::STOPPING, "the server is stopping")),
            message = next_message(&mut socket) => message,
            () = tokio::time::sleep(limit) => Err(too_slow(starting)),
        };
        let is_extended = matches!(&message, Ok(Some(message)) if message.is_extended_query());
        let done = match message {
            Ok(None | Some(PgWireFrontendMessage::Terminate(_))) => return Ok(()),
            Ok(Some(PgWireFrontendMessage::CancelRequest(request))) => {
                return cancel(socket, &shared, request).await;
            }
            Ok(Some(PgWireFrontendMessage::SslNegotiation(asked))) => negotiate(&mut socket, &asked).await,
            Ok(Some(message)) => process(&mut socket, &shared, message).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done
            && !go_on_after(&mut socket, &shared, error, is_extended).await?
        {
            return Ok(());
        }
    }
}

/// Tells the client what went wrong; whether the connection goes on.
async fn go_on_after(socket: &mut Socket, shared: &Shared, error: PgWireError, is_extended: bool) -> io::Result<bool> {
    if let PgWireError::IoError(error) = error {
        return Err(error);
    }
    shared.handler.counters.errors.fetch_add(1, Ordering::Relaxed);
    let info = ErrorInfo::from(error);
    let is_fatal = info.is_fatal();
    tracing::debug!(error = %info, "a PostgreSQL client is told of an error");
    process_error(socket, PgWireError::UserError(Box::new(info)), is_extended).await?;
    Ok(!is_fatal)
}

async fn process(socket: &mut Socket, shared: &Shared, message: PgWireFrontendMessage) -> PgWireResult<()> {
    process_message(
        message,
        socket,
        Arc::clone(&shared.entrance),
        Arc::clone(&shared.handler),
        Arc::clone(&shared.handler),
        Arc::new(NoopHandler),
        Arc::clone(&shared.entrance),
    )
    .await
}

/// A connection that cancels ends with that.
async fn cancel(mut socket: Socket, shared: &Shared, request: CancelRequest) -> io::Result<()> {
    let message = PgWireFrontendMessage::CancelRequest(request);
    process(&mut socket, shared, message).await.map_err(io::Error::from)
}

/// There is no encryption here: clients that can do without go on.
async fn negotiate(socket: &mut Socket, asked: &SslNegotiationMetaMessage) -> PgWireResult<()> {
    match asked {
        SslNegotiationMetaMessage::PostgresSsl(_) => {
            socket.send(PgWireBackendMessage::SslResponse(SslResponse::Refuse)).await?;
        }
        SslNegotiationMetaMessage::PostgresGss(_) => {
            socket.send(PgWireBackendMessage::GssEncResponse(GssEncResponse::Refuse)).await?;
        }
        SslNegotiationMetaMessage::None => socket.set_state(PgWireConnectionState::AwaitingStartup),
    }
    Ok(())
}

fn is_starting(socket: &Socket) -> bool {
    matches!(
        socket.state(),
        PgWireConnectionState::AwaitingSslRequest
            | PgWireConnectionState::AwaitingStartup
            | PgWireConnectionState::AuthenticationInProgress
    )
}

fn too_slow(starting: bool) -> PgWireError {
    if starting {
        return fatal(state::PROTOCOL, format!("a connection starts within {} s", START_TIME_MAX.as_secs()));
    }
    fatal(state::IDLE, format!("a connection is idle for {} s at most", IDLE_TIME_MAX.as_secs()))
}

/// The next message; none at the end.
async fn next_message(socket: &mut Socket) -> PgWireResult<Option<PgWireFrontendMessage>> {
    loop {
        within_bounds(socket.read_buffer(), is_starting(socket))?;
        let mut buffer = std::mem::take(socket.read_buffer_mut());
        let decoded = socket.codec_mut().decode(&mut buffer);
        *socket.read_buffer_mut() = buffer;
        if let Some(message) = decoded? {
            return Ok(Some(message));
        }
        let mut buffer = std::mem::take(socket.read_buffer_mut());
        buffer.reserve(READ_BYTES);
        let read = socket.get_mut().read_buf(&mut buffer).await;
        *socket.read_buffer_mut() = buffer;
        if read? == 0 {
            return Ok(None);
        }
    }
}

/// Looks at the length that a message says it has, before anything of it is kept.
fn within_bounds(buffer: &BytesMut, starting: bool) -> PgWireResult<()> {
    let (at, most) = if starting { (0, START_BYTES_MAX) } else { (1, MESSAGE_BYTES_MAX) };
    let Some(length) = buffer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()) else { return Ok(()) };
    let length = i32::from_be_bytes(length);
    if usize::try_from(length).is_ok_and(|length| (4..=most).contains(&length)) {
        return Ok(());
    }
    Err(fatal(state::PROTOCOL, format!("a message says it has {length} bytes: 4 to {most} are possible")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_bounded_before_they_are_there() {
        let message = |length: i32| {
            let mut bytes = BytesMut::from(&b"Q"[..]);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes
        };
        assert!(within_bounds(&message(1 << 20), false).is_ok());
        for length in [-1, 0, 3, 5 << 20, i32::MAX] {
            assert!(within_bounds(&message(length), false).is_err(), "{length}");
        }
        assert!(within_bounds(&BytesMut::from(&b"Q\xff"[..]), false).is_ok(), "not there yet");
        assert!(within_bounds(&BytesMut::from(&b"GET / HTTP/1.1"[..]), true).is_err());
    }
}
