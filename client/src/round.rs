//! One round over the servers that did not succeed: what became of each, and what that means for the request.

use std::time::Duration;

use crate::error::ClientError;
use crate::exchange::Failure;

/// What became of the servers of a round.
#[derive(Debug, Default)]
pub(crate) struct Round {
    failed: Option<Failure>,
    /// The shortest wait that one of them asked for.
    asked: Option<Duration>,
    /// The one that rests for the shortest time still.
    rest: Option<(String, Duration)>,
}

impl Round {
    /// Notes that the server at `url` was not asked, because it rests.
    pub(crate) fn rests(&mut self, url: &str, left: Duration) {
        if self.rest.as_ref().is_none_or(|(_, least)| left < *least) {
            self.rest = Some((url.to_owned(), left));
        }
    }

    /// Notes that a server was asked in vain.
    pub(crate) fn failed(&mut self, failure: Failure) {
        self.asked = match (self.asked, failure.asked) {
            (Some(least), Some(asked)) => Some(least.min(asked)),
            (least, asked) => least.or(asked),
        };
        // What may pass is worth another round; then, what a server said tells more than that another one said nothing.
        let weight = |failure: &Failure| (failure.is_passing(), !failure.is_silence());
        if self.failed.as_ref().is_none_or(|known| weight(&failure) > weight(known)) {
            self.failed = Some(failure);
        }
    }

    /// What the round comes to: asked to wait as long as the first of those that asked for it, or rest.
    pub(crate) fn failure(self) -> Failure {
        let Self { failed, asked, rest } = self;
        match (failed, rest) {
            (Some(failed), rest) => {
                let left = rest.map(|(_, left)| left);
                Failure { asked: asked.map(|asked| left.map_or(asked, |left| left.min(asked))), ..failed }
            }
            (None, Some((url, left))) => Failure::resting(url, left),
            (None, None) => {
                let error = ClientError::Unreachable { url: String::new(), reason: "no server is known".to_owned() };
                Failure { error, asked: None, is_unsent: true }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use reckon_data::problem::Problem;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn silent() -> Failure {
        let error = ClientError::Unreachable { url: "http://silent".to_owned(), reason: "refused".to_owned() };
        Failure { error, asked: None, is_unsent: true }
    }

    fn busy(asked: Duration) -> Failure {
        let problem = Problem::new(429, "busy", "Too many events are waiting", "later");
        Failure { error: ClientError::Refused(Box::new(problem)), asked: Some(asked), is_unsent: false }
    }

    #[test]
    fn the_shortest_wait_counts() {
        let mut round = Round::default();
        round.failed(busy(3 * SECOND));
        round.failed(busy(2 * SECOND));
        round.failed(silent());
        let failure = round.failure();
        assert_eq!(failure.asked, Some(2 * SECOND));
        assert!(matches!(failure.error, ClientError::Refused(_)), "what one said: {:?}", failure.error);
    }

    #[test]
    fn what_may_pass_is_worth_another_round() {
        let lost = || {
            let problem = Problem::new(404, "not-found", "There is no such thing", "lost");
            Failure { error: ClientError::Refused(Box::new(problem)), asked: None, is_unsent: false }
        };
        for failures in [[busy(SECOND), lost()], [lost(), busy(SECOND)], [lost(), silent()], [silent(), lost()]] {
            let mut round = Round::default();
            failures.into_iter().for_each(|failure| round.failed(failure));
            assert!(round.failure().is_passing());
        }
    }

    #[test]
    fn who_rests_may_be_back_before_who_is_busy() {
        let mut round = Round::default();
        round.rests("http://a", SECOND);
        round.failed(busy(2 * SECOND));
        assert_eq!(round.failure().asked, Some(SECOND));
    }

    #[test]
    fn who_rests_is_not_waited_for_when_another_can_be_asked() {
        let mut round = Round::default();
        round.rests("http://a", SECOND);
        round.failed(silent());
        assert_eq!(round.failure().asked, None);
    }

    #[test]
    fn when_all_rest_the_first_that_is_back_is_named() {
        let mut round = Round::default();
        round.rests("http://a", 2 * SECOND);
        round.rests("http://b", SECOND);
        round.rests("http://c", 3 * SECOND);
        let failure = round.failure();
        assert_eq!(failure.asked, Some(SECOND));
        assert!(matches!(failure.error, ClientError::Resting { url, seconds: 1 } if url == "http://b"));
    }
}
