//! What alerts count, in `/metrics`.

use std::sync::Arc;

use reckon_audit::alert::AlertStats;
use reckon_serving::rest::{Health, MetricsText, Readiness};

/// How a process is, with what its alerts count.
#[derive(Debug)]
pub struct WithAlerts {
    pub health: Arc<dyn Health>,
    pub stats: Arc<AlertStats>,
}

impl Health for WithAlerts {
    fn ready(&self) -> Readiness {
        self.health.ready()
    }

    fn metrics(&self, into: &mut MetricsText) {
        self.health.metrics(into);
        let stats = &self.stats;
        into.begin("reckon_alerts_firing", "gauge", "Whether an alert fires.");
        for (alert, fires) in stats.firing() {
            into.value("reckon_alerts_firing", &[("alert", &alert)], u8::from(fires));
        }
        let asked = "Times that alert rules were asked.";
        into.single("reckon_alert_evaluations_total", "counter", asked, stats.evaluations());
        let failed = "Times that alert rules were not answered.";
        into.single("reckon_alert_failures_total", "counter", failed, stats.failures());
        let messages = stats.messages();
        into.begin("reckon_alert_messages_sent_total", "counter", "Messages delivered, by receiver.");
        for (receiver, counts) in &messages {
            into.value("reckon_alert_messages_sent_total", &[("receiver", receiver)], counts.sent);
        }
        into.begin("reckon_alert_messages_failed_total", "counter", "Messages given up, by receiver.");
        for (receiver, counts) in &messages {
            into.value("reckon_alert_messages_failed_total", &[("receiver", receiver)], counts.failed);
        }
    }
}
