//! Accepting connections at a listener, so many at once, until it is told to stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How long connections may still take after the stop.
const GRACE: Duration = Duration::from_secs(3);
/// How long to wait when no connection can be had.
const PAUSE: Duration = Duration::from_millis(200);

/// Accepts connections until `stop` turns true, and does with each what `connection` says; those under way may end,
/// within three seconds. There are at most `most` at once: more wait to be accepted.
///
/// A connection that cannot be accepted is logged, and so is, now and then, that none of `whose` can.
pub async fn accept<C>(
    listener: TcpListener,
    most: usize,
    mut stop: watch::Receiver<bool>,
    whose: &'static str,
    connection: impl Fn(TcpStream, watch::Receiver<bool>) -> C,
) where
    C: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    let mut failures = 0_u64;
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            // An error means that whoever could say stop is gone.
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                failures = 0;
                let served = connection(stream, stop.clone());
                connections.spawn(async move {
                    let _place = place;
                    served.await;
                });
            }
            // The client has gone again.
            Err(error) if is_of_client(&error) => tracing::debug!(%error, whose, "a connection was lost"),
            // There is no descriptor left, until others have gone.
            Err(error) => {
                failures += 1;
                if failures.is_power_of_two() {
                    tracing::warn!(%error, whose, failures, "connections cannot be accepted");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // What takes longer is cut off.
    let _ = tokio::time::timeout(GRACE, ended).await;
}

fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Tells a client that it is let in, and stays until that has gone.
    async fn welcome(mut stream: TcpStream, _: watch::Receiver<bool>) {
        let _ = stream.write_all(b"1").await;
        let _ = stream.read_u8().await;
    }

    #[tokio::test]
    async fn connections_past_the_limit_wait_and_none_is_accepted_after_the_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let door = tokio::spawn(accept(listener, 1, stopped, "a test", welcome));
        let mut first = TcpStream::connect(address).await.unwrap();
        assert_eq!(first.read_u8().await.unwrap(), b'1');
        let mut second = TcpStream::connect(address).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(100), second.read_u8()).await;
        assert!(waiting.is_err(), "there is no place for it");
        drop(first);
        assert_eq!(second.read_u8().await.unwrap(), b'1');
        stop.send(true).unwrap();
        drop(second);
        door.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
