//! Setting the events of a body apart.

use reckon_data::event::json::{Fault, Scanner};
use reckon_data::ingest::Framing;

/// The events of a body, each its own JSON text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Events<'a> {
    /// The body is one event.
    One(&'a [u8]),
    /// The body is an array; these are its elements.
    Array(Vec<&'a [u8]>),
    /// One a line; blank lines are none.
    Lines(&'a [u8]),
}

/// Sets the events of a body apart.
///
/// # Errors
/// When the body as a whole is refused: it is an array that is truncated or malformed, or JSON without a single
/// line that is.
pub(super) fn split(body: &[u8], framing: Framing) -> Result<Events<'_>, Fault> {
    let mut scanner = Scanner::new(body);
    scanner.space();
    match (framing, scanner.peek()) {
        (Framing::Lines, _) | (_, None) => Ok(Events::Lines(body)),
        (Framing::Json, Some(b'[')) => array(body, scanner).map(Events::Array),
        (Framing::Json, Some(_)) => one_or_lines(body, scanner),
    }
}

fn array<'a>(body: &'a [u8], mut scanner: Scanner<'a>) -> Result<Vec<&'a [u8]>, Fault> {
    let mut elements = Vec::new();
    scanner.expect(b'[', "an array should begin here")?;
    scanner.space();
    if !scanner.eat(b']') {
        loop {
            let element = scanner.value()?;
            elements.push(body.get(element).unwrap_or_default());
            scanner.space();
            if scanner.eat(b']') {
                break;
            }
            scanner.expect(b',', "a comma or the end of the array should stand here")?;
            scanner.space();
        }
    }
    scanner.end()?;
    match str::from_utf8(body) {
        Ok(_) => Ok(elements),
        Err(error) => Err(Fault { at: error.valid_up_to(), what: "not UTF-8" }),
    }
}

fn one_or_lines<'a>(body: &'a [u8], mut scanner: Scanner<'a>) -> Result<Events<'a>, Fault> {
    match scanner.value() {
        Ok(_) if scanner.end().is_ok() => Ok(Events::One(body)),
        Ok(_) => Ok(Events::Lines(body)),
        // A broken first line costs the others nothing; an object broken over many lines is one refusal, not many.
        Err(_) if lines(body).any(|(_, line)| is_json(line)) => Ok(Events::Lines(body)),
        Err(fault) => Err(fault),
    }
}

fn is_json(line: &[u8]) -> bool {
    let mut scanner = Scanner::new(line);
    scanner.peek() == Some(b'{') && scanner.value().is_ok() && scanner.end().is_ok()
}

/// The lines that are not blank, without the white space around them, and how many lines come before each.
pub(super) fn lines(body: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let ends = memchr::memchr_iter(b'\n', body).chain(std::iter::once(body.len()));
    let mut start = 0;
    (0..).zip(ends).filter_map(move |(number, end)| {
        let line = body.get(start..end).unwrap_or_default().trim_ascii();
        start = end + 1;
        (!line.is_empty()).then_some((number, line))
    })
}
