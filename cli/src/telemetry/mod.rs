//! What a process tells of itself while it works: log lines on standard error, as text or JSON, and traces of
//! requests, over OTLP, when somebody takes them.

mod process;
mod request;

use anyhow::{Context as _, Result, bail};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use reckon_data::config::{LogFormat, Telemetry as Settings};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

pub use process::metrics as process_metrics;
pub use request::traced;

/// Spans of traces begin so; log lines don't show them.
const SPANS: &str = "trace::";

/// Ends in order what tells.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts telling, once a process; within a Tokio runtime. `default` is the filter of log lines when RECKON_LOG says
    /// nothing.
    ///
    /// # Errors
    /// When traces cannot be sent where the settings say; not when nobody takes them there.
    pub fn start(settings: &Settings, default: &str) -> Result<Self> {
        let filter = EnvFilter::try_from_env("RECKON_LOG").unwrap_or_else(|_| EnvFilter::new(default));
        let traces = provider(settings)?;
        let lines: Box<dyn Layer<Registry> + Send + Sync> = match settings.logs {
            LogFormat::Text => tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).boxed(),
            LogFormat::Json => tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_writer(std::io::stderr)
                .boxed(),
        };
        let spans = traces.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("reckon"))
                .with_location(false)
                .with_threads(false)
                .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with(SPANS)))
        });
        tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).init();
        Ok(Self { traces })
    }

    /// Sends what is left.
    pub fn stop(self) {
        if let Some(Err(error)) = self.traces.map(|traces| traces.shutdown()) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

fn provider(settings: &Settings) -> Result<Option<SdkTracerProvider>> {
    if settings.traces.is_empty() {
        return Ok(None);
    }
    if !settings.traces.starts_with("http://") {
        bail!("telemetry.traces is {:?}; it is the address of an OTLP collector, http://host:4317", settings.traces);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(settings.traces.clone())
        .build()
        .with_context(|| format!("telemetry.traces: traces cannot be sent to {}", settings.traces))?;
    let resource = Resource::builder()
        .with_service_name("reckon")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    // Whoever asks with a traceparent decides; of the others a share is traced.
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.traces_share)));
    Ok(Some(
        SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(resource)
            .build(),
    ))
}
