//! The servers that a client knows, and whose turn it is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::error::ClientError;
use crate::options::Options;
use crate::server::Server;

/// The servers that a client knows: one at least.
#[derive(Debug)]
pub(crate) struct Servers {
    all: Vec<Server>,
    next: AtomicUsize,
    home: AtomicUsize,
}

/// With which server a request begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The next.
    Next,
    /// The one that answered last.
    Home,
}

impl Servers {
    /// The servers of a list, separated by commas; each once.
    ///
    /// # Errors
    /// [`ClientError::BadUrl`] with the address that is none.
    pub(crate) fn parse(urls: &str, options: &Options) -> Result<Self, ClientError> {
        let mut all: Vec<Server> = Vec::new();
        for url in urls.split(',').map(str::trim) {
            if url.is_empty() && urls.contains(',') {
                let reason = "an address is missing beside a comma".to_owned();
                return Err(ClientError::BadUrl { url: urls.to_owned(), reason });
            }
            let server = Server::new(url, options)?;
            if !all.iter().any(|known| known.is_same(&server)) {
                all.push(server);
            }
        }
        Ok(Self { all, next: AtomicUsize::new(0), home: AtomicUsize::new(0) })
    }

    /// All of them, as they were given.
    pub(crate) fn all(&self) -> &[Server] {
        &self.all
    }

    /// All of them, in the order in which a request tries them, each with its place in the list: those that asked to be
    /// left in peace come last.
    pub(crate) fn in_turn(&self, turn: Turn, now: Instant) -> Vec<(usize, &Server)> {
        let first = match turn {
            Turn::Next => self.next.fetch_add(1, Ordering::Relaxed),
            Turn::Home => self.home.load(Ordering::Relaxed),
        };
        let count = self.all.len();
        let from_first = self.all.iter().enumerate().cycle().skip(first % count.max(1));
        let mut order: Vec<_> = from_first.take(count).collect();
        order.sort_by_key(|(_, server)| server.is_busy(now));
        order
    }

    /// Notes which one answered: requests that stay do so there.
    pub(crate) fn stay(&self, place: usize) {
        self.home.store(place, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn servers(urls: &str) -> Servers {
        Servers::parse(urls, &Options::default()).unwrap()
    }

    fn order(servers: &Servers, turn: Turn) -> Vec<usize> {
        servers.in_turn(turn, Instant::now()).into_iter().map(|(place, _)| place).collect()
    }

    #[test]
    fn a_list_holds_every_server_once() {
        let servers = servers("http://a:1/, http://b:2,http://A:1,http://b:3");
        let bases: Vec<_> = servers.all().iter().map(Server::base).collect();
        assert_eq!(bases, ["http://a:1", "http://b:2", "http://b:3"]);
    }

    #[test]
    fn the_address_that_is_wrong_is_named() {
        let wrong = |urls| match Servers::parse(urls, &Options::default()) {
            Err(ClientError::BadUrl { url, .. }) => url,
            other => panic!("{other:?}"),
        };
        assert_eq!(wrong("http://a:1,b:2"), "b:2");
        assert_eq!(wrong("http://a:1,ftp://b,c"), "ftp://b");
        assert_eq!(wrong("http://a?x=1,http://b"), "http://a?x=1");
        assert_eq!(wrong("http://a:1,"), "http://a:1,");
        assert_eq!(wrong(""), "");
    }

    #[test]
    fn each_has_its_turn_or_one_keeps_it() {
        let servers = servers("http://a,http://b,http://c");
        let turns: Vec<_> = (0..4).map(|_| order(&servers, Turn::Next)).collect();
        assert_eq!(turns, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
        servers.stay(2);
        assert_eq!(order(&servers, Turn::Home), [2, 0, 1]);
        assert_eq!(order(&servers, Turn::Home), [2, 0, 1]);
    }

    #[test]
    fn who_is_busy_comes_last() {
        let servers = servers("http://a,http://b,http://c");
        servers.all()[0].answered(Instant::now(), Some(Duration::from_secs(60)));
        assert_eq!(order(&servers, Turn::Next), [1, 2, 0]);
    }
}
