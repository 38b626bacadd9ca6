//! How large a query may be to be planned. Planning is work that no clock stops, and whose memory no limit counts: what would
//! take too much of either, or more stack than there is, is refused before it begins.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::ServingError;

/// Most words, numbers, strings and signs of a query. A list of 80,000 texts took 17 s to plan.
pub const TOKENS_MAX: usize = 50_000;
/// Most operators around one another: `1 + 1 + 1` has two. Planning and running a level take stack.
pub const OPERATORS_MAX: usize = 500;
/// Most columns of any step of a plan; 20,000 took 18 s.
pub const COLUMNS_MAX: usize = 2_000;
/// Most steps of a plan: names of one query that stand for others twice each double it with every name.
pub const STEPS_MAX: usize = 5_000;
/// Most steps of a plan below one another.
pub const LEVELS_MAX: usize = 300;

/// Refuses a text that is too large to be parsed and planned.
///
/// # Errors
/// [`ServingError::BadRequest`] of `query`.
pub fn check_text(query: &str, dialect: &dyn Dialect) -> Result<(), ServingError> {
    // What is no text of tokens is refused, with a reason, by who parses it.
    let Ok(tokens) = Tokenizer::new(dialect, query).tokenize() else { return Ok(()) };
    let tokens: Vec<Token> = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    if tokens.len() > TOKENS_MAX {
        return Err(too_many(tokens.len(), "words and signs", TOKENS_MAX));
    }
    let operators = operators(&tokens);
    if operators > OPERATORS_MAX {
        return Err(ServingError::bad(
            "query",
            format!(
                "it has {operators} operators around one another, the limit is {OPERATORS_MAX}; write many ORs as IN (…)"
            ),
        ));
    }
    Ok(())
}

/// Refuses a plan that is too large to be optimised.
///
/// # Errors
/// As [`check_text`].
pub fn check_plan(plan: &LogicalPlan) -> Result<(), ServingError> {
    let (mut steps, mut columns) = (0, 0);
    let walk = plan.apply_with_subqueries(|step| {
        steps += 1;
        columns = columns.max(step.schema().fields().len());
        Ok(if steps > STEPS_MAX { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walk.map_err(ServingError::internal)?;
    if steps > STEPS_MAX {
        return Err(ServingError::bad(
            "query",
            format!("its plan has more than {STEPS_MAX} steps, which is the limit"),
        ));
    }
    if columns > COLUMNS_MAX {
        return Err(too_many(columns, "columns", COLUMNS_MAX));
    }
    let mut open = vec![(plan, 1)];
    while let Some((step, level)) = open.pop() {
        if level > LEVELS_MAX {
            let message = format!("its plan has more than {LEVELS_MAX} steps below one another, which is the limit");
            return Err(ServingError::bad("query", message));
        }
        open.extend(step.inputs().into_iter().map(|below| (below, level + 1)));
    }
    Ok(())
}

fn too_many(found: usize, what: &str, most: usize) -> ServingError {
    ServingError::bad("query", format!("it has {found} {what}, the limit is {most}"))
}

/// What stands between two parentheses, up to now.
#[derive(Debug, Default)]
struct Between {
    /// Operators since the last comma.
    chain: usize,
    /// Most operators around one another in parentheses since the last comma.
    below: usize,
    /// The most before that.
    most: usize,
}

impl Between {
    fn most(&self) -> usize {
        self.most.max(self.chain + self.below)
    }

    fn comma(&mut self) {
        *self = Self { most: self.most(), ..Self::default() };
    }

    fn holds(&mut self, inner: &Self) {
        self.below = self.below.max(inner.most());
    }
}

/// Operators around one another, at most: a chain of them is as deep as it is long, and lies around what stands in
/// parentheses in it.
fn operators(tokens: &[Token]) -> usize {
    let mut open: Vec<Between> = Vec::new();
    let mut here = Between::default();
    for token in tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                // An index stands behind its array as an operator does.
                here.chain += usize::from(*token == Token::LBracket);
                open.push(std::mem::take(&mut here));
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                let mut outer = open.pop().unwrap_or_default();
                outer.holds(&here);
                here = outer;
            }
            Token::Comma | Token::SemiColon => here.comma(),
            other => here.chain += usize::from(is_operator(other)),
        }
    }
    while let Some(mut outer) = open.pop() {
        outer.holds(&here);
        here = outer;
    }
    here.most()
}

/// Whether something may stand around what comes before it.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::XOR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::IN
                | Keyword::BETWEEN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::RLIKE
                | Keyword::REGEXP
                | Keyword::SIMILAR
                | Keyword::DIV
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::OVERLAPS
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
                | Keyword::MINUS
                | Keyword::JOIN
        ),
        Token::EOF
        | Token::Period
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Placeholder(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;

    use super::*;

    fn of(query: &str) -> usize {
        let tokens = Tokenizer::new(&GenericDialect {}, query).tokenize().unwrap();
        operators(&tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect::<Vec<_>>())
    }

    #[test]
    fn chains_are_as_deep_as_they_are_long() {
        for (query, expected) in [
            ("select 1", 0),
            ("select a, b.c, 'x' from t", 0),
            ("select 1 + 1 + 1", 2),
            ("select 1 + 1, 1 + 1 + 1, 2", 2),
            ("select (1 + 1) + (1 + 1 + 1)", 3),
            ("select ((1 + 1) + 1) + 1", 3),
            ("select f(1 + 1, 1 + 1) + 1", 2),
            ("select 1 in (1, 2, 3, 4, 5, 6, 7)", 1),
            ("select x[1][1]", 2),
            ("select 1::int::int", 2),
            ("select 1 union select 1 union select 1", 2),
            ("select 1 from a join b on a.x = b.x", 2),
            ("select 1 + (1 + 1", 2),
            ("select 1 + 1) + 1", 2),
        ] {
            assert_eq!(of(query), expected, "{query}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let check = |query: &str| check_text(query, &GenericDialect {});
        let sum = |numbers: usize| format!("select {}", vec!["1"; numbers].join("+"));
        assert!(check(&sum(OPERATORS_MAX + 1)).is_ok());
        let refused = check(&sum(OPERATORS_MAX + 2)).unwrap_err();
        assert!(refused.to_string().contains("501 operators"), "{refused}");
        let list = |numbers: usize| format!("select 1 in ({})", vec!["1"; numbers].join(","));
        assert!(check(&list(TOKENS_MAX / 2 - 3)).is_ok());
        assert!(check(&list(TOKENS_MAX / 2)).is_err());
        assert!(check("select 'not closed").is_ok(), "the parser says what is wrong");
    }
}
