//! What is known of an entity, and what it may be.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use axum::http::Uri;
use serde::{Deserialize, Serialize};

use super::error::EntityError;

/// Longest id whatever the limits of events say, bytes: the embedded store takes keys of 64 KiB.
pub const ENTITY_ID_BYTES_MAX: usize = 32 << 10;
/// Longest title, in bytes of UTF-8.
pub const TITLE_BYTES_MAX: usize = 1_024;
/// Longest channel and owner, bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest address, bytes.
pub const URL_BYTES_MAX: usize = 2_048;
/// Most attributes of an entity.
pub const ATTRIBUTES_MAX: usize = 32;
/// Longest name of an attribute, bytes.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 64;
/// Longest value of an attribute, bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 1_024;

/// What is known of an entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// Its id, that of its events.
    pub entity_id: String,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it belongs to; top lists can be grouped by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Where it can be seen: http or https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Anything else, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// When it was last written, microseconds.
    pub updated_at: i64,
}

impl Entity {
    /// About how much memory it takes, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let texts = [&self.title, &self.channel, &self.owner, &self.url].into_iter().flatten().map(String::len);
        let attributes = self.attributes.iter().map(|(name, value)| name.len() + value.len());
        size_of::<Self>() + self.entity_id.len() + texts.chain(attributes).sum::<usize>()
    }
}

/// What a client says of an entity. What it leaves out is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EntityInput {
    /// What people call it, at most 1,024 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it belongs to, at most 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Whose it is, at most 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Where it can be seen: http or https, at most 2,048 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Anything else: at most 32 names of 64 bytes with texts of 1,024.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// Which change a record is of: the number of its object, and its place in there. It is its ETag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u64, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('-').and_then(|(number, place)| Some((number.parse().ok()?, place.parse().ok()?)));
        let (number, place) = parts.ok_or_else(|| format!("{text} is no version: they are written 17-0"))?;
        Ok(Self(number, place))
    }
}

/// A record as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What is known.
    pub entity: Entity,
    /// Since which change.
    pub version: Version,
}

/// A change to one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// The record is this one from now on.
    Put(Box<Entity>),
    /// There is none from now on.
    Delete(String),
}

impl Change {
    /// The entity that it is about.
    #[must_use]
    pub fn entity_id(&self) -> &str {
        match self {
            Self::Put(entity) => &entity.entity_id,
            Self::Delete(entity_id) => entity_id,
        }
    }

    /// About how much memory it takes, bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put(entity) => entity.bytes(),
            Self::Delete(entity_id) => size_of::<Self>() + entity_id.len(),
        }
    }
}

/// What a record must be for a change to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Condition {
    /// Anything, or nothing.
    #[default]
    Any,
    /// There is one.
    Exists,
    /// There is none.
    Absent,
    /// It is one of these versions.
    One(Vec<Version>),
}

impl Condition {
    /// Holds it against a record's version; what is wrong.
    ///
    /// # Errors
    /// A sentence's end.
    pub fn check(&self, version: Option<Version>) -> Result<(), String> {
        match (self, version) {
            (Self::Any, _) | (Self::Exists, Some(_)) | (Self::Absent, None) => Ok(()),
            (Self::Exists, None) => Err("does not exist".to_owned()),
            (Self::Absent, Some(version)) => Err(format!("exists already, with ETag \"{version}\"")),
            (Self::One(wanted), Some(version)) if wanted.contains(&version) => Ok(()),
            (Self::One(_), Some(version)) => {
                Err(format!("has been changed since: its ETag is \"{version}\" now; read it, and change it again"))
            }
            (Self::One(_), None) => Err("does not exist any more".to_owned()),
        }
    }
}

/// What is asked of all records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Longest id, bytes: that of events.
    pub entity_id_bytes: usize,
    /// Beginnings of ids that are Reckon's own.
    pub reserved_prefixes: Vec<String>,
}

impl Rules {
    /// Makes a record, written at `now` microseconds.
    ///
    /// # Errors
    /// [`EntityError::Invalid`] with the first field that is wrong.
    pub fn entity(&self, entity_id: String, input: EntityInput, now: i64) -> Result<Entity, EntityError> {
        self.check_id(&entity_id)?;
        let EntityInput { title, channel, owner, url, attributes } = input;
        let texts = [("title", &title, TITLE_BYTES_MAX), ("channel", &channel, NAME_BYTES_MAX)];
        let more = [("owner", &owner, NAME_BYTES_MAX), ("url", &url, URL_BYTES_MAX)];
        for (field, text, most) in texts.into_iter().chain(more) {
            text.as_deref().map_or(Ok(()), |text| check_text(field, text, most))?;
        }
        url.as_deref().map_or(Ok(()), check_url)?;
        check_attributes(&attributes)?;
        Ok(Entity { entity_id, title, channel, owner, url, attributes, updated_at: now })
    }

    /// Refuses what can be no entity's id.
    ///
    /// # Errors
    /// [`EntityError::Invalid`] of `entity_id`.
    pub fn check_id(&self, entity_id: &str) -> Result<(), EntityError> {
        let (bytes, most) = (entity_id.len(), self.entity_id_bytes.min(ENTITY_ID_BYTES_MAX));
        if entity_id.is_empty() {
            return Err(EntityError::invalid("entity_id", "is empty"));
        }
        if bytes > most {
            return Err(EntityError::invalid("entity_id", format!("has {bytes} bytes, {most} are the most")));
        }
        match self.reserved_prefixes.iter().find(|prefix| entity_id.starts_with(prefix.as_str())) {
            Some(prefix) => {
                Err(EntityError::invalid("entity_id", format!("ids that begin with {prefix} are Reckon's own")))
            }
            None => Ok(()),
        }
    }
}

fn check_text(field: &str, text: &str, most: usize) -> Result<(), EntityError> {
    let bytes = text.len();
    if text.trim().is_empty() {
        return Err(EntityError::invalid(field, "is empty: leave it out, or make it null"));
    }
    if bytes > most {
        return Err(EntityError::invalid(field, format!("has {bytes} bytes, {most} are the most")));
    }
    if text.chars().any(char::is_control) {
        return Err(EntityError::invalid(field, "has a control character in it: a line break or a tab, say"));
    }
    Ok(())
}

/// Links are shown to people: one that runs a script must not be among them.
fn check_url(url: &str) -> Result<(), EntityError> {
    let invalid = |what: &str| Err(EntityError::invalid("url", format!("{url:?} {what}")));
    let Ok(uri) = url.parse::<Uri>() else { return invalid("is no address: https://example.com/watch?v=1 is one") };
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(()),
        _ => invalid("does not begin with http:// or https:// and a host"),
    }
}

fn check_attributes(attributes: &BTreeMap<String, String>) -> Result<(), EntityError> {
    let many = attributes.len();
    if many > ATTRIBUTES_MAX {
        return Err(EntityError::invalid("attributes", format!("are {many}, {ATTRIBUTES_MAX} are the most")));
    }
    for (name, value) in attributes {
        check_text("attributes", name, ATTRIBUTE_NAME_BYTES_MAX)?;
        check_text(&format!("attributes.{name}"), value, ATTRIBUTE_BYTES_MAX)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules { entity_id_bytes: 16, reserved_prefixes: vec!["_reckon/".to_owned()] }
    }

    fn refused(entity_id: &str, input: EntityInput) -> String {
        match rules().entity(entity_id.to_owned(), input, 7).unwrap_err() {
            EntityError::Invalid { field, .. } => field,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(refused("", EntityInput::default()), "entity_id");
        assert_eq!(refused(&"x".repeat(17), EntityInput::default()), "entity_id");
        assert_eq!(refused("_reckon/x", EntityInput::default()), "entity_id");
        assert_eq!(refused("a", EntityInput { title: some(" "), ..EntityInput::default() }), "title");
        assert_eq!(refused("a", EntityInput { title: some(&"x".repeat(1_025)), ..EntityInput::default() }), "title");
        assert_eq!(refused("a", EntityInput { channel: some("a\0b"), ..EntityInput::default() }), "channel");
        assert_eq!(refused("a", EntityInput { owner: some("a\nb"), ..EntityInput::default() }), "owner");
        for url in ["javascript:alert(1)", "ftp://a/b", "/a", "https://", "http s://x", "a"] {
            assert_eq!(refused("a", EntityInput { url: some(url), ..EntityInput::default() }), "url", "{url}");
        }
        let attributes = BTreeMap::from([("colour".to_owned(), String::new())]);
        assert_eq!(refused("a", EntityInput { attributes, ..EntityInput::default() }), "attributes.colour");
        let attributes = (0..33).map(|at| (at.to_string(), "x".to_owned())).collect();
        assert_eq!(refused("a", EntityInput { attributes, ..EntityInput::default() }), "attributes");
        let url = Some("https://example.com/watch?v=1".to_owned());
        assert!(rules().entity("a".to_owned(), EntityInput { url, ..EntityInput::default() }, 7).is_ok());
    }

    #[test]
    fn conditions() {
        let (old, new) = (Version(1, 0), Version(2, 3));
        assert_eq!(new.to_string().parse(), Ok(new));
        assert!("2".parse::<Version>().is_err() && "a-b".parse::<Version>().is_err());
        assert!(Condition::Any.check(None).is_ok() && Condition::Any.check(Some(old)).is_ok());
        assert!(Condition::Exists.check(None).is_err() && Condition::Exists.check(Some(old)).is_ok());
        assert!(Condition::Absent.check(None).is_ok() && Condition::Absent.check(Some(old)).is_err());
        let one = Condition::One(vec![old]);
        assert!(one.check(Some(old)).is_ok() && one.check(None).is_err());
        assert!(one.check(Some(new)).unwrap_err().contains("2-3"));
    }
}
