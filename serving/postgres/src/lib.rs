//! The PostgreSQL protocol over the serving layer.
//!
//! ```text
//! socket ─▶ connection ─▶ startup │ handler, extended ─▶ run ─▶ Serving::sql_stream ─▶ rows ─▶ socket
//! ```
//!
//! `pgwire` reads and writes the messages; [`Door`] listens. Inside, `connection` bounds what a client may take,
//! `startup` lets it in and cancels, `handler` and `extended` are the two ways of asking, `lexer` and `command` read
//! what is no query, `compat` rewrites questions of the catalogue, for which `oids`, `vectors` and `scalar` have the
//! words, `settings` and `session` are what a connection has, `parameters`, `numeric` and `rows` are values on the wire,
//! and `errors` is what clients are told.
//! Why so: docs/adr/0016.

mod command;
mod compat;
mod connection;
mod counters;
mod errors;
mod extended;
mod handler;
mod lexer;
mod numeric;
mod oids;
mod parameters;
mod rows;
mod run;
mod scalar;
mod send;
mod session;
mod settings;
mod startup;
mod vectors;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use reckon_serving::Serving;
use reckon_serving::accept::accept;
use reckon_serving::sql::Samples;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub use counters::Counters;

use connection::{Shared, connection};
use handler::Handler;
use run::Source;
use startup::Entrance;

/// Connections that come to cancel, or that are told there are too many, have these places besides the others.
const SPARE: usize = 32;

/// Where PostgreSQL clients come in.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    counters: Arc<Counters>,
}

impl Door {
    /// A door at a listener.
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, counters: Arc::default() }
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
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Serves until `stop` turns true, then ends what is under way. The table `metrics` shows `samples`; how many
    /// connections there may be is `serving.postgres_connections`.
    pub async fn serve(self, serving: Arc<Serving>, samples: Arc<dyn Samples>, stop: watch::Receiver<bool>) {
        let most = serving.settings().postgres_connections;
        let Self { listener, counters } = self;
        let source = Source { serving, samples };
        let handler = Arc::new(Handler { source, counters: Arc::clone(&counters) });
        let shared = Arc::new(Shared { entrance: Arc::new(Entrance::new(most, counters)), handler });
        let one = move |stream: TcpStream, stop: watch::Receiver<bool>| {
            let shared = Arc::clone(&shared);
            async move {
                if let Err(error) = Box::pin(connection(stream, shared, stop)).await {
                    tracing::debug!(%error, "a connection of a PostgreSQL client was lost");
                }
            }
        };
        accept(listener, most.saturating_add(SPARE), stop, "PostgreSQL", one).await;
    }
}
