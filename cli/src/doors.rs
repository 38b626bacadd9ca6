//! Where clients of SQL come in besides REST.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use reckon_data::config::{FLIGHT_SQL, POSTGRES, Serving as Settings};
use reckon_flight_sql::Door as FlightDoor;
use reckon_postgres::Door;
use reckon_serving::Serving;
use reckon_serving::rest::Listens;
use reckon_serving::sql::Samples;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The doors that the settings ask for, as far as they can be had.
#[derive(Debug, Default)]
pub struct Doors {
    postgres: Option<Door>,
    flight_sql: Option<FlightDoor>,
}

/// Doors at which clients are served.
#[derive(Debug, Default)]
pub struct Open {
    postgres: Option<(SocketAddr, JoinHandle<()>)>,
    flight_sql: Option<(SocketAddr, JoinHandle<()>)>,
}

impl Doors {
    /// Listens.
    ///
    /// # Errors
    /// When an address that was asked for cannot be had.
    pub async fn listen(settings: &Settings) -> Result<Self> {
        let postgres = bind("serving-postgres", &settings.postgres, POSTGRES).await?;
        let flight_sql = bind("serving-flight-sql", &settings.flight_sql, FLIGHT_SQL).await?;
        Ok(Self { postgres: postgres.map(Door::new), flight_sql: flight_sql.map(FlightDoor::new) })
    }

    /// Where they are, and what they count.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn listens(&self) -> Result<Listens> {
        let mut listens = Listens::default();
        if let Some(door) = &self.postgres {
            listens.add("postgres", door.address()?, door.counters());
        }
        if let Some(door) = &self.flight_sql {
            listens.add("flight_sql", door.address()?, door.counters());
        }
        Ok(listens)
    }

    /// Serves until `stop` turns true.
    ///
    /// # Errors
    /// When the system does not say where they are.
    pub fn open(
        self,
        serving: &Arc<Serving>,
        samples: &Arc<dyn Samples>,
        stop: &watch::Receiver<bool>,
    ) -> Result<Open> {
        let mut open = Open::default();
        if let Some(door) = self.postgres {
            let address = door.address()?;
            let task = tokio::spawn(door.serve(Arc::clone(serving), Arc::clone(samples), stop.clone()));
            open.postgres = Some((address, task));
        }
        if let Some(door) = self.flight_sql {
            let address = door.address()?;
            let task = tokio::spawn(door.serve(Arc::clone(serving), Arc::clone(samples), stop.clone()));
            open.flight_sql = Some((address, task));
        }
        Ok(open)
    }
}

impl Open {
    /// Lines that say how to come in.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let postgres = |(address, _): &(SocketAddr, _)| {
            let (host, port) = (address.ip(), address.port());
            format!("psql: psql 'host={host} port={port} user=reckon dbname=reckon'")
        };
        let flight_sql = |(address, _): &(SocketAddr, _)| format!("Flight SQL: ADBC, JDBC at grpc://{address}");
        self.postgres.iter().map(postgres).chain(self.flight_sql.iter().map(flight_sql)).collect()
    }

    /// Waits until nobody is served any more, after the stop.
    pub async fn end(self) {
        if let Some((_, task)) = self.postgres
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the door of PostgreSQL clients has failed");
        }
        if let Some((_, task)) = self.flight_sql
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the door of Flight SQL clients has failed");
        }
    }
}

/// Listens at `address`; where that is the default and is taken, goes on without. Empty is nowhere.
async fn bind(flag: &str, address: &str, default: &str) -> Result<Option<TcpListener>> {
    if address.is_empty() {
        return Ok(None);
    }
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if address == default => {
            tracing::warn!(%error, address, "somebody else listens here; --{flag} ADDR:PORT takes another address");
            Ok(None)
        }
        Err(error) => {
            let message = format!("{address} cannot be listened on; --{flag} ADDR:PORT takes another, '' none");
            Err(error).context(message)
        }
    }
}

/// Says where things are, in one piece: whoever has started the process may read one line and no more.
pub fn say(lines: &[String]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut out = std::io::stdout().lock();
    // That nobody reads it is no reason to end.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_default_that_is_taken_is_done_without_and_what_was_asked_for_is_not() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        assert!(bind("a", &address, &address).await.unwrap().is_none());
        let refused = bind("serving-postgres", &address, "127.0.0.1:1").await.unwrap_err();
        assert!(format!("{refused:#}").contains("--serving-postgres"), "{refused:#}");
        assert!(bind("a", "", "127.0.0.1:1").await.unwrap().is_none());
        assert!(bind("a", "127.0.0.1:0", "127.0.0.1:1").await.unwrap().is_some());
    }
}
