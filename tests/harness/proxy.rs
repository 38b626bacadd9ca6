//! A proxy that treats some connections badly: it drops, delays or cuts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Of twenty connections one is treated badly.
const ONE_IN: u64 = 20;
/// Every connection ends after so many bytes at the latest, so that there are many of them.
const BYTES_MAX: u64 = 32 << 10;

/// What has been done.
#[derive(Debug, Default)]
pub struct Done {
    pub connections: AtomicU64,
    pub dropped: AtomicU64,
    pub delayed: AtomicU64,
    pub cut: AtomicU64,
    pub lost: AtomicU64,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Nobody answers.
    Drop,
    /// It is answered late.
    Delay(Duration),
    /// It ends after so many bytes, both ways taken together; in the middle of whatever goes on.
    Cut(u64),
    /// The first answer after so many bytes is lost with the connection: the server has done what it was asked for.
    Lose(u64),
}

/// Starts one before the server at `to`, on the runtime that it is called on; its address. Another seed is another
/// network.
pub async fn start(to: &str, seed: u64) -> (String, Arc<Done>) {
    let (to, listener) = (to.to_owned(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (url, done) = (format!("http://{}", listener.local_addr().unwrap()), Arc::new(Done::default()));
    let told = Arc::clone(&done);
    tokio::spawn(async move {
        let mut state = seed;
        while let Ok((client, _)) = listener.accept().await {
            let fate = fate(&mut state, &done);
            let to = to.clone();
            tokio::spawn(async move {
                // However it ends, the client is to find out.
                let _ = pass(client, &to, fate).await;
            });
        }
    });
    (url, told)
}

/// Numbers that look random, the same in every run (Knuth's constants).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn fate(state: &mut u64, done: &Done) -> Fate {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    count(&done.connections);
    if !next(state).is_multiple_of(ONE_IN) {
        // The end of a connection that has carried enough is a cut as well, but between two requests as often as not.
        let most = BYTES_MAX / 2 + next(state) % (BYTES_MAX / 2);
        if next(state).is_multiple_of(2) {
            return Fate::Cut(most);
        }
        count(&done.lost);
        return Fate::Lose(most);
    }
    match next(state) % 3 {
        0 => {
            count(&done.dropped);
            Fate::Drop
        }
        1 => {
            count(&done.delayed);
            Fate::Delay(Duration::from_millis(500 + next(state) % 1_500))
        }
        _ => {
            count(&done.cut);
            Fate::Cut(next(state) % 300_000)
        }
    }
}

async fn pass(mut client: TcpStream, to: &str, fate: Fate) -> std::io::Result<()> {
    let most = match fate {
        Fate::Drop => return Ok(()),
        Fate::Delay(time) => {
            tokio::time::sleep(time).await;
            BYTES_MAX
        }
        Fate::Cut(bytes) | Fate::Lose(bytes) => bytes,
    };
    let mut server = TcpStream::connect(to).await?;
    let (mut passed, mut up, mut down) = (0, vec![0; 16 << 10], vec![0; 16 << 10]);
    while passed < most {
        passed += tokio::select! {
            read = client.read(&mut up) => forward(&mut server, &up, read?).await?,
            read = server.read(&mut down) => forward(&mut client, &down, read?).await?,
        };
    }
    if matches!(fate, Fate::Lose(_)) {
        lose_answer(&mut client, &mut server).await?;
    }
    Ok(())
}

/// Passes on what the client sends, until the server answers.
async fn lose_answer(client: &mut TcpStream, server: &mut TcpStream) -> std::io::Result<()> {
    let (mut up, mut down) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => forward(server, &up, read?).await?,
            read = server.read(&mut down) => return read.map(|_| ()),
        };
    }
}

async fn forward(to: &mut TcpStream, buffer: &[u8], read: usize) -> std::io::Result<u64> {
    if read == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    to.write_all(&buffer[..read]).await?;
    Ok(read as u64)
}
