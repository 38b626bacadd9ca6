//! Splits a text into statements, and a statement into words: as much of SQL's grammar as commands need that are no
//! queries. Queries themselves are read by DataFusion.

use std::ops::Range;

/// A piece of a statement; blanks and comments are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Where it stands in the text, bytes.
    pub at: Range<usize>,
}

/// What a piece is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A bare word or number, lower case.
    Word(String),
    /// `"quoted"`: a name as it is.
    Name(String),
    /// `'quoted'`: a text, without its quotes.
    Text(String),
    /// Anything else, a character at a time.
    Symbol(char),
}

impl Token {
    /// The bare word, lower case.
    pub fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    /// A name, bare or quoted.
    pub fn name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(name) | Kind::Name(name) => Some(name),
            _ => None,
        }
    }

    /// Whether it is this symbol.
    pub fn is(&self, symbol: char) -> bool {
        self.kind == Kind::Symbol(symbol)
    }
}

/// The statements of a text, without the semicolons between them; empty ones are none.
pub fn statements(text: &str) -> Vec<&str> {
    let tokens = tokens(text);
    let statement = |tokens: &[Token]| {
        let (first, last) = (tokens.first()?, tokens.last()?);
        text.get(first.at.start..last.at.end)
    };
    tokens.split(|token| token.is(';')).filter_map(statement).collect()
}

/// The pieces of a text. What is not closed ends with the text: whoever reads it says what is wrong.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(next) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = &text[at..];
        if next.is_whitespace() {
            at += next.len_utf8();
        } else if rest.starts_with("--") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += comment(rest);
        } else {
            let (kind, length) = token(rest, next);
            tokens.push(Token { kind, at: at..at + length });
            at += length;
        }
    }
    tokens
}

fn token(rest: &str, next: char) -> (Kind, usize) {
    match next {
        '\'' => quoted(rest, '\'', false, Kind::Text),
        '"' => quoted(rest, '"', false, Kind::Name),
        'e' | 'E' if rest[1..].starts_with('\'') => {
            let (kind, length) = quoted(&rest[1..], '\'', true, Kind::Text);
            (kind, length + 1)
        }
        '$' => dollar(rest).unwrap_or((Kind::Symbol('$'), 1)),
        next if is_of_word(next) => {
            let length = rest.find(|c: char| !is_of_word(c) && c != '$').unwrap_or(rest.len());
            (Kind::Word(rest[..length].to_lowercase()), length)
        }
        next => (Kind::Symbol(next), next.len_utf8()),
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of a comment; they nest.
fn comment(rest: &str) -> usize {
    let (mut depth, mut at, bytes) = (0_u32, 0, rest.as_bytes());
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// A text in quotes, where two of them stand for one; with `escapes` also a backslash before one.
fn quoted(rest: &str, quote: char, escapes: bool, kind: fn(String) -> Kind) -> (Kind, usize) {
    let (mut text, mut chars) = (String::new(), rest.char_indices().skip(1).peekable());
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            if let Some((_, escaped)) = chars.next() {
                text.push(escaped);
            }
        } else if c != quote {
            text.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            text.push(quote);
        } else {
            return (kind(text), at + c.len_utf8());
        }
    }
    (kind(text), rest.len())
}

/// `$$text$$` or `$tag$text$tag$`; `$1` is none.
fn dollar(rest: &str) -> Option<(Kind, usize)> {
    let tag = &rest[..=rest[1..].find('$')? + 1];
    let name = &tag[1..tag.len() - 1];
    if !name.chars().all(is_of_word) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let inner = &rest[tag.len()..];
    let length = inner.find(tag).unwrap_or(inner.len());
    let end = (tag.len() + length + tag.len()).min(rest.len());
    Some((Kind::Text(inner[..length].to_owned()), end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statements_end_at_semicolons_that_are_no_text() {
        let text = "begin; select ';' -- not; here\n, \"a;b\", $$;$$, $t$;$t$, E'\\';' /* ; /* ; */ ; */ ;; select 2 ";
        let found = statements(text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0], "begin");
        assert!(found[1].starts_with("select ';'") && found[1].ends_with("E'\\';'"), "{found:?}");
        assert_eq!(found[2], "select 2");
        assert!(statements(" ; -- nothing\n;").is_empty());
    }

    #[test]
    fn words_names_and_texts_are_told_apart() {
        let kinds: Vec<Kind> = tokens("SET Reckon.as_of = 'it''s' \"A\"\"b\" $1").into_iter().map(|t| t.kind).collect();
        let word = |text: &str| Kind::Word(text.to_owned());
        assert_eq!(kinds[..4], [word("set"), word("reckon"), Kind::Symbol('.'), word("as_of")]);
        assert_eq!(kinds[4..7], [Kind::Symbol('='), Kind::Text("it's".to_owned()), Kind::Name("A\"b".to_owned())]);
        assert_eq!(kinds[7..], [Kind::Symbol('$'), word("1")]);
    }

    proptest! {
        /// Whatever is sent, pieces lie within the text, in order, and nothing panics.
        #[test]
        fn any_text_is_read(text in "[ -~äß;'\"$/*\n-]{0,60}") {
            let mut end = 0;
            for token in tokens(&text) {
                prop_assert!(token.at.start >= end && token.at.end > token.at.start);
                prop_assert!(text.get(token.at.clone()).is_some());
                end = token.at.end;
            }
            let _ = statements(&text);
        }
    }
}
