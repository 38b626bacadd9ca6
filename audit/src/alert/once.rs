//! Rules and receivers tried a single time, for the command line.

use std::sync::Arc;

use super::receiver::{Receiver, SendError};
use super::rules::AlertSettings;
use super::{Answer, Ask, Message};

/// What a rule's query said.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The rule.
    pub name: String,
    /// Its rows, or why there is no answer.
    pub seen: Result<Answer, String>,
}

/// Asks every rule once; how long it must return rows before it fires is left aside.
pub async fn check(settings: &AlertSettings, ask: &dyn Ask) -> Vec<Checked> {
    let mut checked = Vec::new();
    for (name, rule) in &settings.rules {
        checked.push(Checked { name: name.clone(), seen: ask.rows(&rule.sql).await });
    }
    checked
}

/// Sends a message to every receiver, once, and says what became of it.
pub async fn test(receivers: &[Arc<dyn Receiver>], message: &Message) -> Vec<(String, Result<(), SendError>)> {
    let sent =
        receivers.iter().map(|receiver| async move { (receiver.name().to_owned(), receiver.send(message).await) });
    futures::future::join_all(sent).await
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::alert::testing::{Inbox, Oracle};

    #[tokio::test]
    async fn every_rule_is_asked_once() {
        let settings = AlertSettings::from_toml("[rules.a]\nsql = 'x'\nfor = '1h'\n[rules.b]\nsql = 'y'").unwrap();
        let oracle = Oracle::default();
        oracle.set(2);
        let checked = check(&settings, &oracle).await;
        assert_eq!(checked.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(checked.iter().all(|rule| rule.seen.as_ref().unwrap().total == 2));
        oracle.set(Oracle::FAILS);
        assert_eq!(check(&settings, &oracle).await[1].seen, Err("y: no answer".to_owned()));
    }

    #[tokio::test]
    async fn every_receiver_is_tried_once() {
        let (good, bad) = (Arc::new(Inbox::failing(0)), Arc::new(Inbox::failing(1)));
        let receivers: Vec<Arc<dyn Receiver>> = vec![Arc::clone(&good) as _, Arc::clone(&bad) as _];
        let sent = test(&receivers, &Message::test(Uuid::from_u128(1), 0)).await;
        assert!(sent[0].1.is_ok() && sent[1].1.is_err(), "{sent:?}");
        assert_eq!((good.keys_tried().len(), bad.keys_tried().len()), (1, 1));
    }
}
