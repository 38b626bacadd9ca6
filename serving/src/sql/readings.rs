//! How often a parser reads what it is given. Some words it takes for one thing first and, when that fails, for another:
//! `CAST(…)` without AS is a function of that name, and all that stands in its brackets is read once more. Within one
//! another they double each time: forty of them were never read to the end, on a thread that answers everything else.

use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;

/// How many tokens are read in all, each as often as it is at most.
pub(super) fn readings(tokens: &[Token], dialect: &dyn Dialect) -> usize {
    // How often a token is read here, and how often one that follows a comma.
    let (mut times, mut begin, mut all) = (1_usize, 1_usize, 0_usize);
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                open.push((times, begin));
                times = times.saturating_mul(tries(&tokens[..at], dialect));
                begin = times;
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                (times, begin) = open.pop().unwrap_or((times, begin));
            }
            Token::Comma | Token::SemiColon => times = begin,
            _ if is_open_interval(token, tokens.get(at + 1)) => times = times.saturating_mul(2),
            _ => {}
        }
        all = all.saturating_add(times);
    }
    all
}

/// Whether it is INTERVAL, and no text follows that ends it.
pub(super) fn is_open_interval(token: &Token, next: Option<&Token>) -> bool {
    let has_text = matches!(next, Some(Token::SingleQuotedString(_) | Token::Number(..) | Token::Placeholder(_)));
    matches!(token, Token::Word(word) if word.keyword == Keyword::INTERVAL) && !has_text
}

/// How often brackets are read, by what stands before them.
fn tries(before: &[Token], dialect: &dyn Dialect) -> usize {
    let Some((Token::Word(word), before)) = before.split_last() else { return 1 };
    // An argument may have a name, which is any expression in some dialects.
    let arguments = if dialect.supports_named_fn_args_with_expr_name() { 2 } else { 1 };
    let own = match word.keyword {
        Keyword::POSITION => 1 + 2 * arguments,
        Keyword::ARRAY
        | Keyword::CAST
        | Keyword::CEIL
        | Keyword::CONVERT
        | Keyword::EXTRACT
        | Keyword::FLOOR
        | Keyword::NOT
        | Keyword::OVERLAY
        | Keyword::SAFE_CAST
        | Keyword::SUBSTR
        | Keyword::SUBSTRING
        | Keyword::TRY_CAST => 1 + arguments,
        _ => arguments,
    };
    // Behind a point it is an expression first, and then a name.
    if before.last() == Some(&Token::Period) { own + arguments } else { own }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::{GenericDialect, PostgreSqlDialect};
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn of(query: &str, dialect: &dyn Dialect) -> usize {
        let tokens = Tokenizer::new(dialect, query).tokenize().unwrap();
        let tokens: Vec<Token> = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
        readings(&tokens, dialect)
    }

    #[test]
    fn what_is_read_again_counts_again() {
        for (query, generic, postgres) in [
            ("select 1, (2)", 6, 6),
            // A bracket that closes is read as often as what is around it.
            ("f(1)", 4, 6),
            ("cast(1)", 6, 8),
            ("cast(cast(1))", 16, 29),
            ("position(1)", 8, 12),
            ("not (1), array[1]", 13, 17),
            ("a.f(1)", 8, 12),
            ("interval 1, 1", 4, 4),
            ("interval a, 1", 6, 6),
        ] {
            let found = (of(query, &GenericDialect {}), of(query, &PostgreSqlDialect {}));
            assert_eq!(found, (generic, postgres), "{query}");
        }
        let within = |word: &str, times: usize| format!("select {}1{}", word.repeat(times), ")".repeat(times));
        assert_eq!(of(&within("replace(", 45), &GenericDialect {}), 137, "a function is read once");
        assert!(of(&within("cast(", 500), &GenericDialect {}) > 1 << 62, "and it does not overflow");
    }
}
