//! The dashboard: the files of a page that is built with npm (`page/`, see `build.rs`) and lies in the binary.
//!
//! Where there was no npm when the binary was built there is one file, which says how to get the others.

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// A file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Where it is served: `/`, `/docs` (the page to try the REST API), or `/assets/NAME`.
    pub path: &'static str,
    /// Its media type.
    pub kind: &'static str,
    /// A hash of what is in it, in quotes, as `ETag` has it.
    pub etag: &'static str,
    /// What is in it.
    pub body: &'static [u8],
}

impl File {
    /// Whether its name changes when what is in it does.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        self.path.starts_with("/assets/")
    }
}

/// The file at a path.
#[must_use]
pub fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

/// Whether the page was built; otherwise `/` says how to get it.
#[must_use]
pub const fn is_whole() -> bool {
    IS_WHOLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_the_page_names_is_there() {
        let pages = ["/", "/docs"].into_iter().filter_map(file);
        let pages: Vec<&str> = pages.map(|page| std::str::from_utf8(page.body).unwrap()).collect();
        assert_eq!(pages.len(), 1 + usize::from(is_whole()));
        let texts = pages.iter().flat_map(|page| page.split('"'));
        let named: Vec<&str> = texts.filter(|text| text.starts_with("/assets/")).collect();
        assert_eq!(named.is_empty(), !is_whole(), "{named:?}");
        for path in named {
            assert!(file(path).is_some_and(|file| file.is_immutable() && !file.body.is_empty()), "{path}");
        }
        assert!(file("/assets/nothing.js").is_none());
    }

    #[test]
    fn the_page_asks_nobody_else() {
        for file in FILES.iter().filter(|file| file.kind.starts_with("text/html")) {
            let text = std::str::from_utf8(file.body).unwrap();
            assert!(!text.contains("src=\"http") && !text.contains("href=\"http"), "{}", file.path);
            assert!(!text.contains("<style") && !text.contains("style="), "the policy forbids styles in {}", file.path);
        }
    }
}
