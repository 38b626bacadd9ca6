//! What the process counts, as the table `metrics`: made anew for each query out of the text of `/metrics`.
//!
//! | column | is |
//! | --- | --- |
//! | `name` | the metric's name, `reckon_counting_lag_records` |
//! | `labels` | its labels as JSON, their names in order: `{"partition":"0"}`; `{}` when it has none |
//! | `value` | its value, a double |

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::{MemTable, TableProvider};

use crate::ServingError;

/// The table's name.
pub const METRICS: &str = "metrics";

/// Where the metrics of this process come from.
pub trait Samples: Send + Sync {
    /// The text of `/metrics`, in the Prometheus format.
    fn text(&self) -> String;
}

/// One line of the text.
#[derive(Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    labels: BTreeMap<&'a str, String>,
    value: f64,
}

/// The table of a text.
///
/// # Errors
/// None that can be caused from outside.
pub fn table(text: &str) -> Result<Arc<dyn TableProvider>, ServingError> {
    let samples: Vec<Sample<'_>> = text.lines().filter_map(sample).collect();
    let labels = samples.iter().map(|sample| serde_json::to_string(&sample.labels));
    let labels = labels.collect::<Result<Vec<_>, _>>().map_err(ServingError::internal)?;
    let schema = Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("labels", DataType::Utf8, false),
        Field::new("value", DataType::Float64, false),
    ]));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(samples.iter().map(|sample| sample.name)));
    let labels: ArrayRef = Arc::new(StringArray::from_iter_values(labels));
    let values: ArrayRef = Arc::new(Float64Array::from_iter_values(samples.iter().map(|sample| sample.value)));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![names, labels, values])?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
}

/// Reads `name value` or `name{label="text",…} value`; comments and what is neither are none.
fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => read_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    Some(Sample { name, labels, value: value.trim().parse().ok()? })
}

/// Reads labels up to the closing brace, and gives back what stands behind it.
fn read_labels(mut rest: &str) -> Option<(BTreeMap<&str, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, text) = rest.split_once("=\"")?;
        let (value, behind) = read_text(text)?;
        labels.insert(name, value);
        rest = behind.strip_prefix(',').unwrap_or(behind);
    }
}

/// Reads a text up to its closing quote, and gives back what stands behind it.
fn read_text(text: &str) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, char) in text.char_indices() {
        match (escaped, char) {
            (false, '"') => return Some((value, text.get(at + 1..)?)),
            (false, '\\') => escaped = true,
            (true, 'n') => {
                value.push('\n');
                escaped = false;
            }
            (_, char) => {
                value.push(char);
                escaped = false;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::MetricsText;

    #[test]
    fn what_metrics_text_writes_is_read_back() {
        let mut text = MetricsText::default();
        text.single("reckon_up", "gauge", "Whether it is up.", 1);
        text.begin("reckon_x", "counter", "With labels.");
        text.value("reckon_x", &[("route", "/v1/{id}, \"a\\b\"\nc"), ("status", "200")], 2.5);
        let text = text.finish();
        let samples: Vec<_> = text.lines().filter_map(sample).collect();
        assert_eq!(samples[0], Sample { name: "reckon_up", labels: BTreeMap::new(), value: 1.0 });
        let labels = BTreeMap::from([("route", "/v1/{id}, \"a\\b\"\nc".to_owned()), ("status", "200".to_owned())]);
        assert_eq!(samples[1], Sample { name: "reckon_x", labels, value: 2.5 });
        assert_eq!(samples.len(), 2);
    }

    #[test]
    fn what_is_no_sample_is_none() {
        for line in ["", "# TYPE x gauge", "x", "x{a=\"b\" 1", "x{a} 1", "x much"] {
            assert_eq!(sample(line), None, "{line}");
        }
    }
}
