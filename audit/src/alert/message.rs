//! What a receiver is told.

use std::fmt::Write as _;

use reckon_data::minute::format_time;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::Answer;
use super::rules::Rule;
use super::state::{State, Tell};

/// Version of the message's form.
pub const VERSION: u32 = 1;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// The rows of the query: the alert itself.
    Rows,
    /// Whether the query is answered at all.
    Query,
}

/// A message, as it is posted to a webhook.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// [`VERSION`].
    pub version: u32,
    /// The rule's name.
    pub alert: String,
    /// What it says.
    pub state: State,
    /// What it says that of.
    pub about: About,
    /// 0 at first; the how many-th time it is said again that the alert still fires.
    pub reminder: u32,
    /// Since when the query returns rows, or is not answered, RFC 3339.
    pub since: String,
    /// When this was found.
    pub at: String,
    /// What it means, in a sentence.
    pub summary: String,
    /// Rows of the query, at most [`super::ROWS_MAX`].
    pub rows: Vec<Value>,
    /// How many rows there are.
    pub rows_total: u64,
    /// Whether there are more than that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rows_cut: bool,
    /// What the answer lacks, which is not complete: there may be more rows, and they may say something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// Which node found it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Why the query is not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The same for all messages of one alert, from firing to resolved.
    pub id: Uuid,
    /// The same whenever this one message is sent again, and no other message's.
    #[serde(skip)]
    pub key: String,
    /// `at` in microseconds.
    #[serde(skip)]
    pub at_micros: i64,
}

impl Message {
    /// The message of something to be told of a rule, with what its query said.
    #[must_use]
    pub fn new(name: &str, rule: &Rule, tell: &Tell, now: i64, seen: &Result<Answer, String>) -> Self {
        let Answer { rows, total: rows_total, is_cut: rows_cut, missing } = match seen {
            Ok(answer) if tell.state == State::Firing => answer.clone(),
            _ => Answer::default(),
        };
        Self {
            version: VERSION,
            alert: name.to_owned(),
            state: tell.state,
            about: if tell.of_failure { About::Query } else { About::Rows },
            reminder: tell.reminder,
            since: format_time(tell.since),
            at: format_time(now),
            summary: summary(rule, tell),
            rows,
            rows_total,
            rows_cut,
            missing,
            node: String::new(),
            error: seen.as_ref().err().cloned(),
            id: tell.id,
            key: format!("{}-{}-{}", tell.id, tell.state.name(), tell.reminder),
            at_micros: now,
        }
    }

    /// The same from a node.
    #[must_use]
    pub fn from_node(self, node: &str) -> Self {
        Self { node: node.to_owned(), ..self }
    }

    /// A message that says that messages arrive.
    #[must_use]
    pub fn test(id: Uuid, now: i64) -> Self {
        let rule = Rule {
            sql: String::new(),
            every: std::time::Duration::ZERO,
            hold: std::time::Duration::ZERO,
            to: Vec::new(),
            summary: "a test of `reckon alerts test`: nothing is wrong".to_owned(),
        };
        let tell = Tell { state: State::Firing, id, since: now, reminder: 0, of_failure: false };
        Self::new("test", &rule, &tell, now, &Ok(Answer::default()))
    }

    /// The subject of an e-mail.
    #[must_use]
    pub fn subject(&self) -> String {
        // That its query is answered again does not mean that the alert is over.
        let of_query = if self.about == About::Query { " (its query)" } else { "" };
        format!("[reckon] {}: {}{of_query}", self.state.name(), self.alert)
    }

    /// The text of an e-mail.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}, since {}", self.subject(), self.since);
        if !self.summary.is_empty() {
            let _ = writeln!(text, "\n{}", self.summary);
        }
        if let Some(error) = &self.error {
            let _ = writeln!(text, "\n{error}");
        }
        if let Some(missing) = &self.missing {
            let _ = writeln!(text, "\nThe answer is incomplete, it lacks: {missing}");
        }
        if !self.rows.is_empty() {
            let least = if self.rows_cut { "at least " } else { "" };
            let _ = writeln!(text, "\n{} of {least}{} rows:", self.rows.len(), self.rows_total);
            self.rows.iter().for_each(|row| {
                let _ = writeln!(text, "{row}");
            });
        }
        if self.reminder > 0 {
            let _ = writeln!(text, "\nThis is reminder no. {}.", self.reminder);
        }
        let by = if self.node.is_empty() { String::new() } else { format!(" by {}", self.node) };
        let _ = writeln!(text, "\nfound at {}{by}, id {}", self.at, self.id);
        text
    }
}

fn summary(rule: &Rule, tell: &Tell) -> String {
    match (tell.of_failure, tell.state) {
        (true, State::Resolved) => "the query is answered again".to_owned(),
        (true, _) => "the query is not answered: whether the alert should fire is not known".to_owned(),
        (false, _) => rule.summary.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule() -> Rule {
        let settings = crate::alert::AlertSettings::from_toml("[rules.x]\nsql = 'select 1'\nsummary = 'too late'");
        settings.unwrap().rules["x"].clone()
    }

    fn tell(state: State, reminder: u32, of_failure: bool) -> Tell {
        Tell { state, id: Uuid::from_u128(7), since: 0, reminder, of_failure }
    }

    #[test]
    fn a_firing_message_has_the_rows() {
        let seen = Ok(Answer { rows: vec![json!({"lag": 61})], total: 30, ..Answer::default() });
        let message = Message::new("late", &rule(), &tell(State::Firing, 0, false), 1_500_000, &seen);
        let expected = json!({
            "version": 1, "alert": "late", "state": "firing", "about": "rows", "reminder": 0, "since": "1970-01-01T00:00:00Z",
            "at": "1970-01-01T00:00:01.500Z", "summary": "too late", "rows": [{"lag": 61}], "rows_total": 30,
            "id": "00000000-0000-0000-0000-000000000007",
        });
        assert_eq!(serde_json::to_value(&message).unwrap(), expected);
        assert_eq!(message.subject(), "[reckon] firing: late");
        let text = message.text();
        assert!(text.contains("firing: late, since 1970") && text.contains("1 of 30 rows:\n{\"lag\":61}"), "{text}");
    }

    #[test]
    fn an_answer_that_is_not_complete_is_called_so() {
        let rows = vec![json!({"lag": 61})];
        let seen = Ok(Answer { rows, total: 30, is_cut: true, missing: Some("partition 3".to_owned()) });
        let message = Message::new("late", &rule(), &tell(State::Firing, 0, false), 1, &seen).from_node("a http://a");
        let json = serde_json::to_value(&message).unwrap();
        assert_eq!((&json["missing"], &json["rows_cut"]), (&json!("partition 3"), &json!(true)));
        assert_eq!(json["node"], "a http://a");
        let text = message.text();
        assert!(text.contains("incomplete, it lacks: partition 3") && text.contains("1 of at least 30 rows"), "{text}");
        assert!(text.contains("by a http://a, id"), "{text}");
    }

    #[test]
    fn messages_of_one_alert_have_its_id_and_keys_of_their_own() {
        let nothing = Ok(Answer::default());
        let of = |state, reminder| Message::new("late", &rule(), &tell(state, reminder, false), 1, &nothing);
        let all = [of(State::Firing, 0), of(State::Firing, 1), of(State::Resolved, 0)];
        assert!(all.iter().all(|message| message.id == all[0].id));
        let keys: std::collections::BTreeSet<_> = all.iter().map(|message| &message.key).collect();
        assert_eq!(keys.len(), 3, "{keys:?}");
    }

    #[test]
    fn a_query_that_fails_says_why() {
        let seen = Err("no such table".to_owned());
        let message = Message::new("late", &rule(), &tell(State::Failing, 0, true), 1, &seen);
        assert_eq!(message.error.as_deref(), Some("no such table"));
        assert!(message.text().contains("no such table") && message.summary.contains("not answered"));
        let again = Message::new("late", &rule(), &tell(State::Resolved, 0, true), 1, &Ok(Answer::default()));
        assert_eq!((again.subject().as_str(), again.about), ("[reckon] resolved: late (its query)", About::Query));
    }
}
