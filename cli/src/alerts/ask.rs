//! Whom rules ask: SQL over the REST interface, in the process or over HTTP.

use async_trait::async_trait;
use axum::Router;
use reckon_audit::alert::{Answer, Ask, ROWS_MAX};
use serde_json::{Map, Value, json};

use crate::commands::Target;
use crate::node::call_routes;

const SQL: &str = "/v1/sql";

/// The routes of this process.
#[derive(Debug)]
pub struct AskRoutes(pub Router);

#[async_trait]
impl Ask for AskRoutes {
    async fn rows(&self, sql: &str) -> Result<Answer, String> {
        let question = json!({ "query": sql });
        let answer = call_routes(self.0.clone(), "POST", SQL, &[], Some(&question)).await;
        answer.map_err(|error| format!("{error:#}")).and_then(|answer| of_rest(&answer))
    }
}

/// Whom a command asks.
pub struct AskTarget<'a>(pub &'a Target);

#[async_trait]
impl Ask for AskTarget<'_> {
    async fn rows(&self, sql: &str) -> Result<Answer, String> {
        let answer = self.0.post(SQL, &json!({ "query": sql })).await;
        answer.map_err(|error| format!("{error:#}")).and_then(|answer| of_rest(&answer))
    }
}

/// The answer of the REST interface, its first rows as objects.
///
/// # Errors
/// When it is not complete: that rows are there, or are not, would mean nothing (R-7).
fn of_rest(answer: &Value) -> Result<Answer, String> {
    let provenance = &answer["provenance"];
    if provenance["complete"] == false {
        return Err(format!("the answer is not complete, it misses: {}", provenance["missing"]));
    }
    let (Some(columns), Some(rows)) = (answer["columns"].as_array(), answer["rows"].as_array()) else {
        return Err("the answer has no rows".to_owned());
    };
    let columns: Vec<String> =
        columns.iter().map(|column| column["name"].as_str().unwrap_or_default().to_owned()).collect();
    let object = |row: &Value| {
        let values = row.as_array().into_iter().flatten().cloned();
        Value::Object(columns.iter().cloned().zip(values).collect::<Map<String, Value>>())
    };
    let total = rows.len() as u64;
    Ok(Answer { rows: rows.iter().take(ROWS_MAX).map(object).collect(), total, columns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_objects() {
        let columns = json!([{"name": "a", "type": "bigint"}, {"name": "b", "type": "text"}]);
        let rows: Vec<Value> = (0..30).map(|n| json!([n, "x"])).collect();
        let answer = json!({"columns": columns, "rows": rows, "provenance": {"complete": true}});
        let answer = of_rest(&answer).unwrap();
        assert_eq!((answer.total, answer.rows.len(), answer.columns), (30, ROWS_MAX, vec!["a".into(), "b".into()]));
        assert_eq!(answer.rows[1], json!({"a": 1, "b": "x"}));
    }

    #[test]
    fn an_answer_that_is_not_complete_is_none() {
        let missing =
            json!({"columns": [], "rows": [], "provenance": {"complete": false, "missing": [{"partition": 3}]}});
        assert!(of_rest(&missing).unwrap_err().contains(r#"{"partition":3}"#));
        assert!(of_rest(&json!({})).is_err());
    }
}
