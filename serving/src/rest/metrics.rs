//! The text of `/metrics`, in the Prometheus format, and the requests' own counters.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use parking_lot::Mutex;

/// Upper bounds of the buckets of request times, seconds.
const BOUNDS: [f64; 12] = [0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0];

/// Metrics as text.
#[derive(Debug, Default)]
pub struct MetricsText {
    text: String,
}

impl MetricsText {
    /// Begins a metric: `kind` is counter, gauge or histogram.
    pub fn begin(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A value of the metric begun last, with its labels.
    pub fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.text, "{open}{label}=\"{text}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    /// A metric with one value.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.begin(name, kind, help);
        self.value(name, &[], value);
    }

    /// For whoever writes the format itself.
    pub fn raw(&mut self) -> &mut String {
        &mut self.text
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

/// Requests by route and status.
#[derive(Debug, Default)]
pub struct Requests {
    routes: Mutex<BTreeMap<(String, u16), Times>>,
}

/// All requests of some routes, since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestSums {
    /// How many.
    pub count: u64,
    /// Of them, those that the server could not answer (5xx).
    pub errors: u64,
    /// Upper bounds, seconds, and how many took no longer.
    pub buckets: Vec<(f64, u64)>,
}

#[derive(Debug, Default, Clone)]
struct Times {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

impl Requests {
    /// Notes a request; one that matched no route has none.
    pub fn note(&self, route: Option<String>, status: u16, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut routes = self.routes.lock();
        let times = routes.entry((route.unwrap_or_else(|| "none".to_owned()), status)).or_default();
        times.count += 1;
        times.seconds += seconds;
        for (bucket, bound) in times.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    /// Adds up all routes but some.
    pub fn sums(&self, but: &[&str]) -> RequestSums {
        let mut sums = RequestSums { buckets: BOUNDS.map(|bound| (bound, 0)).to_vec(), ..RequestSums::default() };
        for ((route, status), times) in self.routes.lock().iter() {
            if but.contains(&route.as_str()) {
                continue;
            }
            sums.count += times.count;
            sums.errors += if *status >= 500 { times.count } else { 0 };
            for ((_, sum), bucket) in sums.buckets.iter_mut().zip(times.buckets) {
                *sum += bucket;
            }
        }
        sums
    }

    /// Writes them.
    pub fn write(&self, into: &mut MetricsText) {
        let name = "reckon_http_request_seconds";
        into.begin(name, "histogram", "Time of HTTP requests by route and status.");
        for ((route, status), times) in self.routes.lock().iter() {
            let status = status.to_string();
            let labels = [("route", route.as_str()), ("status", status.as_str())];
            for (count, bound) in times.buckets.iter().zip(BOUNDS) {
                let bound = bound.to_string();
                into.value(&format!("{name}_bucket"), &[labels[0], labels[1], ("le", &bound)], count);
            }
            into.value(&format!("{name}_bucket"), &[labels[0], labels[1], ("le", "+Inf")], times.count);
            into.value(&format!("{name}_sum"), &labels, times.seconds);
            into.value(&format!("{name}_count"), &labels, times.count);
        }
    }
}
