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

    /// All of them, each time beginning with the next; those that asked to be left in peace come last.
    pub(crate) fn in_turn(&self, now: Instant) -> Vec<&Server> {
        let order = self.beginning_with(self.next.fetch_add(1, Ordering::Relaxed));
        let mut order: Vec<_> = order.into_iter().map(|(_, server)| server).collect();
        order.sort_by_key(|server| server.is_busy(now));
        order
    }

    /// All of them, beginning at home, each with its place.
    pub(crate) fn home_first(&self) -> Vec<(usize, &Server)> {
        self.beginning_with(self.home.load(Ordering::Relaxed))
    }

    fn beginning_with(&self, first: usize) -> Vec<(usize, &Server)> {
        let count = self.all.len();
        self.all.iter().enumerate().cycle().skip(first % count.max(1)).take(count).collect()
    }

    /// Moves home from one place to another; not when somebody else has moved it meanwhile.
    pub(crate) fn move_home(&self, from: usize, to: usize) {
        // Moved by somebody else, it is where it should be.
        let _ = self.home.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn servers(urls: &str) -> Servers {
        Servers::parse(urls, &Options::default()).unwrap()
    }

    fn turn(servers: &Servers) -> Vec<&str> {
        servers.in_turn(Instant::now()).into_iter().map(Server::base).collect()
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
    fn each_has_its_turn_and_one_is_home() {
        let servers = servers("http://a,http://b,http://c");
        let (a, b, c) = ("http://a", "http://b", "http://c");
        let turns: Vec<_> = (0..4).map(|_| turn(&servers)).collect();
        assert_eq!(turns, [[a, b, c], [b, c, a], [c, a, b], [a, b, c]]);
        servers.move_home(0, 2);
        servers.move_home(0, 1);
        for _ in 0..2 {
            let places: Vec<_> = servers.home_first().into_iter().map(|(place, _)| place).collect();
            assert_eq!(places, [2, 0, 1]);
        }
    }

    #[test]
    fn who_is_busy_comes_last() {
        let servers = servers("http://a,http://b,http://c");
        servers.all()[0].answered(Instant::now(), Some(Duration::from_secs(60)));
        assert_eq!(turn(&servers), ["http://b", "http://c", "http://a"]);
    }
}
