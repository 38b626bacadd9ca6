//! Whom rules ask: SQL over the REST interface, in the process or over HTTP.

use async_trait::async_trait;
use axum::Router;
use reckon_audit::alert::{Answer, Ask, ROWS_MAX};
use serde_json::{Map, Value, json};

use crate::commands::Target;
use crate::node::call_routes;

const SQL: &str = "/v1/sql";
/// Longest text of a value that anybody is told.
const CELL_CHARS_MAX: usize = 1_000;

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
/// When it has no rows and does not say that it is complete: that there are none would mean nothing (R-7).
fn of_rest(answer: &Value) -> Result<Answer, String> {
    let (Some(columns), Some(rows)) = (answer["columns"].as_array(), answer["rows"].as_array()) else {
        return Err("the answer has no rows".to_owned());
    };
    let provenance = &answer["provenance"];
    let missing = (provenance["complete"] != true).then(|| provenance["missing"].to_string());
    if let Some(missing) = missing.as_ref().filter(|_| rows.is_empty()) {
        return Err(format!("the answer is not complete, it misses: {missing}"));
    }
    let columns: Vec<String> =
        columns.iter().map(|column| column["name"].as_str().unwrap_or_default().to_owned()).collect();
    let object = |row: &Value| {
        let values = row.as_array().into_iter().flatten().map(cell);
        Value::Object(columns.iter().cloned().zip(values).collect::<Map<String, Value>>())
    };
    let total = rows.len() as u64;
    let is_cut = answer["truncated"] == true;
    Ok(Answer { rows: rows.iter().take(ROWS_MAX).map(object).collect(), total, is_cut, missing })
}

/// A value as it is told: a long one is cut.
fn cell(value: &Value) -> Value {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(CELL_CHARS_MAX).and_then(|(end, _)| text.get(..end)) {
        Some(beginning) => Value::String(format!("{beginning}…")),
        None => value.clone(),
    }
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
        assert_eq!((answer.total, answer.is_cut, answer.missing), (30, false, None));
        assert_eq!((answer.rows.len(), &answer.rows[1]), (ROWS_MAX, &json!({"a": 1, "b": "x"})));
    }

    #[test]
    fn long_values_are_cut() {
        let (long, list) = ("ä".repeat(CELL_CHARS_MAX + 1), vec![1; CELL_CHARS_MAX]);
        assert_eq!(cell(&json!(long)).as_str().unwrap().chars().count(), CELL_CHARS_MAX + 1);
        assert!(cell(&json!(list)).as_str().unwrap().starts_with("[1,1"));
        for short in [json!("ä".repeat(CELL_CHARS_MAX)), json!(7), json!([1]), Value::Null] {
            assert_eq!(cell(&short), short);
        }
    }

    #[test]
    fn an_answer_that_is_not_complete_and_has_no_rows_is_none() {
        let columns = json!([{"name": "a", "type": "bigint"}]);
        let answer = |rows: Value| {
            let provenance = json!({"complete": false, "missing": [{"partition": 3}]});
            json!({"columns": columns, "rows": rows, "truncated": true, "provenance": provenance})
        };
        assert!(of_rest(&answer(json!([]))).unwrap_err().contains(r#"{"partition":3}"#));
        let some = of_rest(&answer(json!([[1]]))).unwrap();
        assert_eq!((some.total, some.is_cut, some.missing.as_deref()), (1, true, Some(r#"[{"partition":3}]"#)));
        assert!(of_rest(&json!({"columns": columns, "rows": []})).is_err(), "it does not say that it is complete");
        assert!(of_rest(&json!({})).is_err());
    }
}
