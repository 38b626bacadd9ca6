//! Reads a page strictly: every tag is closed where it should be, every attribute has its quotes.

/// A tag that opens, with its attributes.
#[derive(Debug)]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// Its attributes, as they are read by a browser.
    pub attributes: Vec<(String, String)>,
    /// The tags that it is in.
    pub inside: Vec<String>,
}

impl Tag {
    /// An attribute's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A page: its tags in order, and its text without them.
#[derive(Debug, Default)]
pub struct Document {
    /// Tags that open.
    pub tags: Vec<Tag>,
    /// All text, style sheets left out, with single spaces.
    pub text: String,
}

impl Document {
    /// Tags of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Tag> {
        self.tags.iter().filter(move |tag| tag.name == name)
    }
}

/// Reads a page; panics, naming the place, where it is not well formed.
pub fn parse(html: &str) -> Document {
    let mut document = Document::default();
    let mut open: Vec<String> = Vec::new();
    let mut rest = html.strip_prefix("<!DOCTYPE html>").expect("it says that it is HTML");
    while let Some(begin) = rest.find('<') {
        document.text += &unescaped(&rest[..begin]);
        rest = &rest[begin + 1..];
        let end = end_of_tag(rest);
        let inner = &rest[..end];
        rest = &rest[end + 1..];
        if let Some(name) = inner.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed before {}", beginning(rest));
            document.text.push(' ');
            continue;
        }
        let closed = inner.ends_with('/') || inner.starts_with("meta ") || inner.starts_with("link ");
        let (name, attributes) =
            inner.trim_end_matches('/').split_once(' ').unwrap_or((inner.trim_end_matches('/'), ""));
        let inside = open.clone();
        document.tags.push(Tag { name: name.to_owned(), attributes: attributes_of(attributes), inside });
        if name == "style" {
            let (_, after) = rest.split_once("</style>").expect("a style sheet ends");
            rest = after;
        } else if !closed {
            open.push(name.to_owned());
        }
    }
    document.text += &unescaped(rest);
    assert!(open.is_empty(), "left open: {open:?}");
    document.text = document.text.split_whitespace().collect::<Vec<_>>().join(" ");
    document
}

/// Where a tag ends: at the first `>` outside of quotes.
fn end_of_tag(text: &str) -> usize {
    let mut quoted = false;
    for (index, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '>' if !quoted => return index,
            '<' => panic!("a tag within a tag: {}", beginning(text)),
            _ => {}
        }
    }
    panic!("a tag does not end: {}", beginning(text));
}

fn attributes_of(text: &str) -> Vec<(String, String)> {
    let mut attributes = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no value: {rest}"));
        let (value, after) = after.split_once('"').unwrap_or_else(|| panic!("no end of a value: {rest}"));
        attributes.push((name.to_owned(), unescaped(value)));
        rest = after.trim_start();
    }
    attributes
}

/// A text as a browser reads it. Every `&` must be one that means a character.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find('&') {
        plain += &rest[..begin];
        let (code, after) =
            rest[begin + 1..].split_once(';').unwrap_or_else(|| panic!("a bare &: {}", beginning(rest)));
        let code = match code {
            "lt" => 60,
            "gt" => 62,
            "amp" => 38,
            "quot" => 34,
            number => {
                number.trim_start_matches('#').parse().unwrap_or_else(|_| panic!("a bare &: {}", beginning(rest)))
            }
        };
        plain.push(char::from_u32(code).expect("a character"));
        rest = after;
    }
    plain + rest
}

fn beginning(text: &str) -> String {
    text.chars().take(80).collect()
}
