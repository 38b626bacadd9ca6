//! One server: its address, and how it is.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Url;

use crate::backoff::{ASKED_MAX, after};
use crate::breaker::Breaker;
use crate::error::ClientError;
use crate::options::Options;

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    base: String,
    address: Url,
    health: Mutex<Health>,
}

#[derive(Debug)]
struct Health {
    breaker: Breaker,
    /// Until when it asked not to be asked again.
    busy_until: Option<Instant>,
}

impl Server {
    /// The server at `url`: `http://127.0.0.1:7700`.
    ///
    /// # Errors
    /// [`ClientError::BadUrl`].
    pub(crate) fn new(url: &str, options: &Options) -> Result<Self, ClientError> {
        let bad = |reason: String| ClientError::BadUrl { url: url.to_owned(), reason };
        let address = Url::parse(url).map_err(|e| bad(e.to_string()))?;
        if !matches!(address.scheme(), "http" | "https") || !address.has_host() {
            return Err(bad("it should look like http://127.0.0.1:7700".to_owned()));
        }
        if address.query().is_some() || address.fragment().is_some() {
            return Err(bad("nothing may follow its path".to_owned()));
        }
        let breaker = Breaker::new(options.failures_max, options.rest, options.timeout);
        let health = Mutex::new(Health { breaker, busy_until: None });
        Ok(Self { base: url.trim_end_matches('/').to_owned(), address, health })
    }

    /// The address as it was given, without a slash at its end.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Whether both are one server.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let trimmed = |server: &Self| server.address.as_str().trim_end_matches('/').to_owned();
        trimmed(self) == trimmed(other)
    }

    /// Whether it is on this machine, by its address.
    pub(crate) fn is_local(&self) -> bool {
        self.address.host_str().is_some_and(is_loopback)
    }

    /// Takes leave to ask it.
    ///
    /// # Errors
    /// How long it should be left alone still.
    pub(crate) fn admit(&self, now: Instant) -> Result<(), Duration> {
        self.health.lock().breaker.admit(now)
    }

    /// Whether it asked not to be asked again before a time to come.
    pub(crate) fn is_busy(&self, now: Instant) -> bool {
        self.health.lock().busy_until.is_some_and(|until| until > now)
    }

    /// Notes that it answered, and how long it asked not to be asked again. Being told to come later is a sign of life.
    pub(crate) fn answered(&self, now: Instant, asked: Option<Duration>) {
        let mut health = self.health.lock();
        health.breaker.succeeded();
        health.busy_until = asked.map(|wait| after(now, wait.min(ASKED_MAX)));
    }

    /// Notes that it did not answer.
    pub(crate) fn failed(&self, now: Instant) {
        self.health.lock().breaker.failed(now);
    }
}

/// Whether a host, as it stands in a URL, is this machine.
fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(address) => address.is_loopback() || address.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Server {
        Server::new(url, &Options::default()).unwrap()
    }

    #[test]
    fn what_is_on_this_machine_is_known_by_its_address() {
        for host in ["127.0.0.1:7700", "127.9.9.9", "[::1]:1", "LOCALHOST", "a.localhost"] {
            assert!(server(&format!("http://{host}/")).is_local(), "{host}");
        }
        for host in ["10.0.0.1:7700", "[2001:db8::1]:1", "localhost.example.org", "gateway"] {
            assert!(!server(&format!("http://{host}/")).is_local(), "{host}");
        }
    }

    #[test]
    fn one_server_has_more_than_one_name() {
        assert!(server("http://a:80/").is_same(&server("http://A")));
        assert!(!server("http://a:80/").is_same(&server("http://a:81")));
        assert!(!server("http://a/one").is_same(&server("http://a/two")));
    }

    #[test]
    fn who_is_busy_is_left_in_peace_for_as_long_as_it_asked() {
        let (server, now) = (server("http://a"), Instant::now());
        server.answered(now, Some(Duration::from_secs(2)));
        assert!(server.is_busy(now) && !server.is_busy(now + Duration::from_secs(2)));
        server.answered(now, Some(Duration::MAX));
        assert!(!server.is_busy(now + ASKED_MAX), "nobody waits for ever");
        server.answered(now, Some(Duration::from_secs(2)));
        server.answered(now, None);
        assert!(!server.is_busy(now));
    }
}
