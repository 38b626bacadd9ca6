//! Functions that make long texts of short ones, held to a length. What a function makes no limit of memory counts before
//! it is there: `concat(s, s, s, s)` of itself, ten times over, was as long as all memory.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, plan_err};
use datafusion::error::DataFusionError;
use datafusion::functions::{regex, string};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExprSchemable as _, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// DataFusion's functions, each for at most so many bytes of texts at once.
#[must_use]
pub fn functions(most: usize) -> Vec<ScalarUDF> {
    [
        (string::concat(), Grows::Together),
        (string::concat_ws(), Grows::Joined),
        (string::replace(), Grows::Replaced),
        (regex::regexp_replace(), Grows::Replaced),
    ]
    .map(|(inner, grows)| ScalarUDF::from(Bounded { inner, grows, most }))
    .to_vec()
}

/// How long a result may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Grows {
    /// As long as all arguments.
    Together,
    /// The same, with the first one between all others.
    Joined,
    /// As long as the third one in the place of every part of the first, which may stand in it several times.
    Replaced,
}

impl Grows {
    fn most(self, arguments: &[ColumnarValue], rows: usize) -> Result<usize> {
        let of = |argument: &ColumnarValue| bytes(argument, rows);
        let all = arguments.iter().map(of).fold(0, usize::saturating_add);
        Ok(match (self, arguments) {
            (Self::Joined, [between, ..]) => all.saturating_add(of(between).saturating_mul(arguments.len())),
            (Self::Replaced, [text, _, by, ..]) => {
                all.saturating_add(of(text).saturating_add(rows).saturating_mul(longest(by)?))
            }
            _ => all,
        })
    }
}

/// Bytes of the texts of an argument; of what are no texts, what they take.
fn bytes(argument: &ColumnarValue, rows: usize) -> usize {
    match argument {
        ColumnarValue::Scalar(value) => {
            value.try_as_str().flatten().map_or_else(|| value.size(), str::len).saturating_mul(rows)
        }
        ColumnarValue::Array(array) if *array.data_type() == DataType::Utf8View => {
            // The length of a text is the lower half of its view.
            array.as_string_view().views().iter().map(|view| *view as u32 as usize).sum()
        }
        ColumnarValue::Array(array) => array.get_array_memory_size(),
    }
}

/// Bytes of the longest text of an argument.
fn longest(argument: &ColumnarValue) -> Result<usize> {
    let of = |array: &ArrayRef| -> Result<usize> {
        let texts = cast(array, &DataType::Utf8View)?;
        Ok(texts.as_string_view().iter().flatten().map(str::len).max().unwrap_or(0))
    };
    match argument {
        ColumnarValue::Scalar(value) => of(&value.to_array()?),
        ColumnarValue::Array(array) => of(array),
    }
}

fn within(name: &str, needed: usize, most: usize) -> Result<()> {
    if needed <= most {
        return Ok(());
    }
    let message = format!("{name} may make {needed} bytes of text at once, and {most} is the most");
    Err(DataFusionError::ResourcesExhausted(message))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    grows: Grows,
    most: usize,
}

/// Nothing is simplified: literals would be put together without being measured.
impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        within(self.name(), self.grows.most(&arguments.args, arguments.number_rows)?, self.most)?;
        self.inner.invoke_with_args(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// Plans `a || b` of texts as a function that is held to a length, too.
#[derive(Debug)]
pub struct Pipes(ScalarUDF);

impl Pipes {
    /// For at most so many bytes at once.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(ScalarUDF::from(PipedTexts { signature: Signature::user_defined(Volatility::Immutable), most }))
    }
}

impl ExprPlanner for Pipes {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        // What has no type yet, as a parameter, and what is no text is put together by DataFusion.
        let kind = |expr: &Expr| expr.get_type(schema).ok();
        let (left, right) = (kind(&expr.left), kind(&expr.right));
        let piped = match (&left, &right) {
            (Some(left), Some(right)) => (is_text(left) || is_text(right)) && is_plain(left) && is_plain(right),
            _ => false,
        };
        if expr.op == BinaryOperator::StringConcat && piped {
            return Ok(PlannerResult::Planned(self.0.call(vec![expr.left, expr.right])));
        }
        Ok(PlannerResult::Original(expr))
    }
}

const fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_plain(of: &DataType) -> bool {
    is_text(of) || of.is_numeric() || matches!(of, DataType::Null | DataType::Boolean)
}

/// `a || b`: null when one of them is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PipedTexts {
    signature: Signature,
    most: usize,
}

impl ScalarUDFImpl for PipedTexts {
    fn name(&self) -> &'static str {
        "||"
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        let [left, right] = arguments else { return plan_err!("|| stands between two texts") };
        Ok(format!("{} || {}", left.schema_name(), right.schema_name()))
    }

    fn display_name(&self, arguments: &[Expr]) -> Result<String> {
        let [left, right] = arguments else { return plan_err!("|| stands between two texts") };
        Ok(format!("{left} || {right}"))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![DataType::Utf8View; types.len()])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        within(self.name(), Grows::Together.most(&arguments.args, arguments.number_rows)?, self.most)?;
        let is_scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [left, right] = arrays.as_slice() else { return exec_err!("|| stands between two texts") };
        let (mut texts, mut text) = (StringViewBuilder::with_capacity(left.len()), String::new());
        for pair in left.as_string_view().iter().zip(right.as_string_view().iter()) {
            let (Some(left), Some(right)) = pair else {
                texts.append_null();
                continue;
            };
            text.clear();
            text.push_str(left);
            text.push_str(right);
            texts.append_value(&text);
        }
        let texts: ArrayRef = Arc::new(texts.finish());
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&texts, 0)?));
        }
        Ok(ColumnarValue::Array(texts))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytesize::ByteSize;
    use serde_json::json;

    use crate::ServingError;
    use crate::testing::{Log, World};

    #[tokio::test(flavor = "multi_thread")]
    async fn texts_do_not_grow_without_end() {
        let mut world = World::new(Log(vec![vec![]]));
        world.settings.query_memory = ByteSize::mib(8);
        let serving = world.serve().await;
        let grown = |step: &str, times: usize| {
            let steps = (0..times).map(|at| format!(", t{} AS (SELECT {step} AS s FROM t{at})", at + 1));
            let steps: String = steps.collect();
            format!(
                "WITH t0 AS (SELECT 'abcdefgh' || value AS s FROM generate_series(1, 1)){steps} SELECT length(s) FROM t{times}"
            )
        };
        for (step, longer) in [
            ("concat(s, s, s, s)", 4),
            ("s || s || s || s", 4),
            ("concat_ws('', s, s, s, s)", 4),
            ("replace(s, 'a', 'aaaa') || s || s || s", 4),
        ] {
            let few = serving.sql(&grown(step, 2)).await.unwrap().json_rows().unwrap();
            assert!(few[0][0].as_u64().unwrap() >= 9 * longer * longer, "{step}: {few:?}");
            let error = serving.sql(&grown(step, 30)).await.unwrap_err();
            assert!(matches!(error, ServingError::MemoryLimit { .. }), "{step}: {error}");
        }
        let all = "SELECT regexp_replace(repeated, '.', repeated, 'g') FROM (SELECT concat(a, a, a, a, a, a, a, a) AS repeated \
                   FROM (SELECT concat(b, b, b, b, b, b, b, b) AS a FROM (SELECT concat(c, c, c, c, c, c, c, c) AS b \
                   FROM (SELECT 'abcdefgh' || value AS c FROM generate_series(1, 1)))))";
        let error = serving.sql(all).await.unwrap_err();
        assert!(matches!(error, ServingError::MemoryLimit { .. }), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn texts_are_put_together_as_ever() {
        let serving = World::new(Log(vec![vec![]])).serve().await;
        for (call, expected) in [
            ("'a' || 'b'", json!("ab")),
            ("'a' || 1 || 'b'", json!("a1b")),
            ("'a' || NULL", json!(null)),
            ("concat('a', NULL, 'b')", json!("ab")),
            ("concat_ws('-', 'a', 'b')", json!("a-b")),
            ("replace('aba', 'a', 'xy')", json!("xybxy")),
            ("regexp_replace('aba', '(a)', '<\\1>', 'g')", json!("<a>b<a>")),
            ("array_length([1, 2] || [3])", json!(3)),
        ] {
            let answer = serving.sql(&format!("SELECT {call}")).await.unwrap();
            assert_eq!(answer.json_rows().unwrap(), [[expected]], "{call}");
        }
    }
}
