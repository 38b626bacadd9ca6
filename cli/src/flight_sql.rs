//! Flight SQL of a process that answers questions: where it listens, what it counts, and its end.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use reckon_data::clock::Names;
use reckon_data::config::{Serving as ServingSettings, Settings};
use reckon_flight_sql::{FlightMetrics, FlightSql};
use reckon_serving::Serving;
use reckon_serving::rest::{Health, MetricsText, Readiness};
use reckon_serving::sql::Samples;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What it is called in `listens` of `/readyz`.
const NAME: &str = "flight_sql";

/// Flight SQL that listens, and does not answer yet.
#[derive(Debug)]
pub struct Opened {
    listener: TcpListener,
    address: SocketAddr,
    metrics: Arc<FlightMetrics>,
}

/// Listens where the settings say; none when that is nowhere, or when the usual port is somebody else's.
///
/// # Errors
/// When an address that somebody has chosen cannot be had.
pub async fn open(settings: &Settings) -> Result<Option<Opened>> {
    let address = &settings.serving.flight_sql;
    if address.is_empty() {
        return Ok(None);
    }
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) if *address == ServingSettings::default().flight_sql => {
            tracing::warn!(address, %error, "there is no Flight SQL: its usual port is taken; serving.flight_sql names another");
            return Ok(None);
        }
        Err(error) => {
            let what = "cannot be listened on for Flight SQL; --serving-flight-sql ADDR:PORT takes another, '' none";
            return Err(error).with_context(|| format!("{address} {what}"));
        }
    };
    let address = listener.local_addr()?;
    Ok(Some(Opened { listener, address, metrics: Arc::default() }))
}

impl Opened {
    /// What the start says of it.
    #[must_use]
    pub fn line(&self) -> String {
        format!("Flight SQL (ADBC, JDBC) at grpc://{}", self.address)
    }

    /// Answers until `stop` turns true, and some seconds longer what is under way.
    ///
    /// # Errors
    /// What the network says.
    pub async fn serve(
        self,
        serving: Arc<Serving>,
        health: Arc<dyn Health>,
        names: Arc<dyn Names>,
        stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let samples: Arc<dyn Samples> = Arc::new(OfProcess { health, serving: Arc::clone(&serving) });
        let service = FlightSql::new(serving, Some(samples), names, self.metrics)?;
        reckon_flight_sql::serve(self.listener, service, stop).await.context("Flight SQL has ended")
    }
}

/// How a process is, with where its Flight SQL listens and what it counts.
#[must_use]
pub fn health(health: Arc<dyn Health>, opened: Option<&Opened>) -> Arc<dyn Health> {
    match opened {
        Some(opened) => Arc::new(WithFlightSql {
            health,
            address: opened.address.to_string(),
            metrics: Arc::clone(&opened.metrics),
        }),
        None => health,
    }
}

#[derive(Debug)]
struct WithFlightSql {
    health: Arc<dyn Health>,
    address: String,
    metrics: Arc<FlightMetrics>,
}

impl Health for WithFlightSql {
    fn ready(&self) -> Readiness {
        let mut readiness = self.health.ready();
        readiness.listens.insert(NAME.to_owned(), self.address.clone());
        readiness
    }

    fn metrics(&self, into: &mut MetricsText) {
        self.health.metrics(into);
        self.metrics.write(into);
    }
}

/// The rows of the table `metrics`.
#[derive(Debug)]
struct OfProcess {
    health: Arc<dyn Health>,
    serving: Arc<Serving>,
}

impl Samples for OfProcess {
    fn text(&self) -> String {
        let mut text = MetricsText::default();
        self.health.metrics(&mut text);
        self.serving.metrics().write(text.raw());
        text.finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(address: &str) -> Settings {
        let mut settings = Settings::default();
        address.clone_into(&mut settings.serving.flight_sql);
        settings
    }

    #[tokio::test]
    async fn an_address_that_somebody_chose_must_be_had() {
        let opened = open(&at("127.0.0.1:0")).await.unwrap().unwrap();
        assert!(opened.line().ends_with(&opened.address.to_string()));
        assert!(open(&at("")).await.unwrap().is_none());
        let error = open(&at(&opened.address.to_string())).await.unwrap_err().to_string();
        assert!(error.contains("--serving-flight-sql"), "{error}");
    }

    #[tokio::test]
    async fn the_usual_port_may_be_taken() {
        let usual = ServingSettings::default().flight_sql;
        // Taken by this test, or by somebody else.
        let _taken = TcpListener::bind(&usual).await;
        assert!(open(&at(&usual)).await.unwrap().is_none());
    }
}
