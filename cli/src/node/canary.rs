//! The canary of a process.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use reckon_audit::canary::{Canary, CanaryParts, HttpDoor, Record};
use reckon_data::clock::{Clock, Names};
use reckon_data::config::{Canary as CanarySettings, Settings};

/// What lets the canary's events in: that of the settings, or one that nobody else knows.
pub fn token(settings: &Settings, names: &dyn Names) -> Arc<str> {
    if settings.canary.token.is_empty() {
        // Two, for a part of each is the time.
        return format!("{}{}", names.fresh().simple(), names.fresh().simple()).into();
    }
    settings.canary.token.as_str().into()
}

/// Where it is noted what the canary sees; none when there is no canary.
#[must_use]
pub fn record(settings: &Settings) -> Option<Arc<Record>> {
    (!settings.canary.every.is_zero()).then(Arc::default)
}

/// What a process gives its canary.
pub struct Nest<'a> {
    pub settings: &'a CanarySettings,
    pub commit_every: Duration,
    pub partitions: u32,
    pub token: &'a str,
    pub clock: &'a Arc<dyn Clock>,
    pub names: &'a Arc<dyn Names>,
    pub record: &'a Arc<Record>,
}

impl Nest<'_> {
    /// A canary that asks the process itself, at `url`, and sends to it, too, unless the settings name a front door.
    ///
    /// # Errors
    /// When they name something else.
    pub fn canary(&self, url: &str) -> Result<Canary> {
        let target = if self.settings.target.is_empty() { url } else { &self.settings.target };
        Ok(Canary::new(CanaryParts {
            door: Arc::new(HttpDoor::new(target, url, self.token)?.of_itself()),
            settings: self.settings.clone(),
            commit_every: self.commit_every,
            partitions: self.partitions,
            clock: Arc::clone(self.clock),
            names: Arc::clone(self.names),
            record: Arc::clone(self.record),
        }))
    }
}

#[cfg(test)]
mod tests {
    use reckon_data::clock::RandomNames;

    use super::*;

    #[test]
    fn a_token_that_nobody_has_set_is_nobody_elses() {
        let mut settings = Settings::default();
        let made: Arc<str> = token(&settings, &RandomNames);
        assert!(made.len() == 64 && made != token(&settings, &RandomNames), "{made}");
        settings.canary.token = "ours".to_owned();
        assert_eq!(&*token(&settings, &RandomNames), "ours");
    }

    #[test]
    fn a_canary_that_never_flies_has_no_record() {
        let mut settings = Settings::default();
        assert!(record(&settings).is_some());
        settings.canary.every = Duration::ZERO;
        assert!(record(&settings).is_none());
    }
}
