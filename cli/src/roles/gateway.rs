//! `reckon gateway`: takes events and appends them to the log.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use reckon_data::config::Settings;
use reckon_serving::rest::{Health, MetricsText, PartReadiness, Readiness, RestParts};

use super::process::Process;
use crate::node::{Base, metrics};

/// Take events.
#[derive(Debug, Args)]
pub struct Gateway {}

impl Gateway {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When it cannot start.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let process = Process::open(settings, "gateway").await?;
        let base = Arc::clone(&process.base);
        let gateway = base.gateway()?;
        let parts = RestParts {
            ingest: Some(Arc::clone(&gateway) as _),
            imports: Some(base.imports() as _),
            ..base.rest_parts(Arc::new(Status { base: Arc::clone(&base), gateway: Arc::clone(&gateway) }))
        };
        process.run("gateway", parts, async move { gateway.stop().await }).await
    }
}

struct Status {
    base: Arc<Base>,
    gateway: Arc<reckon_stream::gateway::Gateway>,
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Status").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

impl Health for Status {
    fn ready(&self) -> Readiness {
        // Whether an append succeeds, the next one shows: clients are told then, and come again.
        Readiness { ready: true, parts: vec![PartReadiness::new("gateway", None)], ..Readiness::default() }
    }

    fn metrics(&self, into: &mut MetricsText) {
        metrics::gateway(&self.gateway, into);
        metrics::common(&self.base.delta, &*self.base.mended, into);
    }
}
