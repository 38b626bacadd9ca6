//! What the parser's tree does not show any more.

use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::ServingError;

/// Refuses a text that is read in other words than it is written in: what follows a value directly becomes the name of
/// its column, `1_000` is 1 under the name of `_000`, and `5 #3` is 5.
///
/// # Errors
/// [`ServingError::BadRequest`] of `query`.
pub fn check_text(query: &str, dialect: &dyn Dialect) -> Result<(), ServingError> {
    // What is no text of tokens is refused, with a reason, by who parses it.
    let Ok(tokens) = Tokenizer::new(dialect, query).tokenize() else { return Ok(()) };
    for token in &tokens {
        if matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.starts_with('#')) {
            return Err(ServingError::bad(
                "query",
                format!("{token} would be a name: write (a | b) - (a & b) for XOR"),
            ));
        }
    }
    for pair in tokens.windows(2) {
        if let [number @ (Token::Number(..) | Token::HexStringLiteral(_)), Token::Word(word)] = pair
            && word.quote_style.is_none()
        {
            let what = format!("{number}{word} is no number: write it without _ and letters, a name behind AS");
            return Err(ServingError::bad("query", what));
        }
    }
    let mut words = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).peekable();
    while let Some(word) = words.next() {
        if is_text(word) && words.peek().is_some_and(|next| is_text(next)) {
            return Err(ServingError::bad("query", format!("put || between {word} and the text behind it")));
        }
    }
    Ok(())
}

const fn is_text(token: &Token) -> bool {
    matches!(token, Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::NationalStringLiteral(_))
}
