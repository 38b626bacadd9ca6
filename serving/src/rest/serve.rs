//! Serving the routes on a listener, until it is told to stop.
//!
//! Clients that are slow, or do nothing at all, cost a connection each: those are bounded in number, in what they
//! buffer, and in how long they may take for the head of a request (for bodies see `body`) and leave an answer unread.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_io_timeout::TimeoutStream;

use crate::accept::accept;

/// Connections at the same time, if there are twice as many descriptors; more wait to be accepted.
const CONNECTIONS_MAX: u64 = 4_096;
/// How long a connection may take until the head of its next request is there. Most clients close what they do not use
/// after 90 s: were it shorter, they would now and then send into a connection that is just being closed.
const HEAD_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a client may read nothing of its answer.
const WRITE_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes that a connection buffers of what it reads; only those whose client is fast get there.
const BUFFER_BYTES_MAX: usize = 256 << 10;

/// Turns true when the server stops; every request carries it, so that an answer without an end can end then.
#[derive(Debug, Clone)]
pub struct Stopping(pub watch::Receiver<bool>);

/// Serves `router` until `stop` turns true; requests under way may end, as [`accept`] lets them.
pub async fn serve(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) {
    let most = usize::try_from(connections_max()).unwrap_or(usize::MAX);
    let router = router.layer(axum::Extension(Stopping(stop.clone())));
    accept(listener, most, stop, "REST", move |stream, stop| connection(stream, router.clone(), stop)).await;
}

/// How many connections there may be: files need descriptors too.
fn connections_max() -> u64 {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        limit.map_or(CONNECTIONS_MAX, |limit| (limit / 2).clamp(1, CONNECTIONS_MAX))
    }
    #[cfg(not(unix))]
    CONNECTIONS_MAX
}

/// Serves one connection to its end; after the stop the request under way is its last.
async fn connection(stream: TcpStream, router: Router, mut stop: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps gathering small packets");
    }
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX).max_buf_size(BUFFER_BYTES_MAX);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIME_MAX));
    let stream = TokioIo::new(Box::pin(stream));
    let mut served = pin!(builder.serve_connection(stream, TowerToHyperService::new(router)));
    let stopped = async {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stopped => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection was lost");
    }
}
