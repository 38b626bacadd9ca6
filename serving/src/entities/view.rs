//! All records as they were at one moment, and what is looked for in them.

use std::ops::Bound;

use fjall::{Keyspace, Readable as _, Snapshot};

use super::error::EntityError;
use super::model::{ENTITY_ID_BYTES_MAX, Entity, NAME_BYTES_MAX, Record};
use super::replica::{channel_key, read_record};

/// Records that one page looks at, at the most.
const SCAN_MAX: usize = 50_000;

/// All records after a change. What is changed later does not show. Reading blocks.
#[derive(Clone)]
pub struct View {
    snapshot: Snapshot,
    records: Keyspace,
    channels: Keyspace,
    position: u64,
}

/// Which records are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Ids that begin so, and then titles that have it in them, whatever the case.
    pub search: Option<String>,
    /// Of a channel.
    pub channel: Option<String>,
    /// Of an owner.
    pub owner: Option<String>,
    /// At most so many.
    pub limit: usize,
    /// What an earlier page said is next.
    pub after: Option<String>,
}

/// Some records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// They, by id; with a search those first whose ids begin so.
    pub records: Vec<Record>,
    /// Where there may be more. A page may be short, or empty, and yet have one behind it: it looks at 50,000 records.
    pub next: Option<String>,
}

/// A name that no channel has.
const NO_CHANNEL: &str = "\u{1}";

/// The next records, at least one if there is one: at most `rows`, and not many more bytes than `bytes`.
pub(crate) fn next_of(
    records: &mut impl Iterator<Item = Result<Record, EntityError>>,
    rows: usize,
    bytes: usize,
) -> Result<Vec<Record>, EntityError> {
    let (mut found, mut held) = (Vec::new(), 0);
    while found.len() < rows && held < bytes {
        let Some(record) = records.next() else { break };
        let record = record?;
        held += record.entity.bytes();
        found.push(record);
    }
    Ok(found)
}

/// The part of a search that a page is in; what a cursor begins with.
const BY_ID: char = 'i';
const BY_TITLE: char = 't';

impl View {
    pub(super) const fn new(snapshot: Snapshot, records: Keyspace, channels: Keyspace, position: u64) -> Self {
        Self { snapshot, records, channels, position }
    }

    /// The number of the last change.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The record of an entity.
    ///
    /// # Errors
    /// [`EntityError::Unavailable`] when the store fails.
    pub fn get(&self, entity_id: &str) -> Result<Option<Record>, EntityError> {
        if entity_id.is_empty() || entity_id.len() > ENTITY_ID_BYTES_MAX {
            // There is none, and the store takes no such key.
            return Ok(None);
        }
        self.snapshot.get(&self.records, entity_id)?.map(|value| read_record(&value)).transpose()
    }

    /// The records whose ids come after one, by id.
    pub fn after(&self, entity_id: Option<&str>) -> impl Iterator<Item = Result<Record, EntityError>> + Send + use<> {
        let from = entity_id.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_bytes().to_vec()));
        let rows = self.snapshot.range(&self.records, (from, Bound::<Vec<u8>>::Unbounded));
        rows.map(|row| read_record(&row.value()?))
    }

    /// The ids of a channel that come after one, in order.
    pub fn of_channel(
        &self,
        channel: &str,
        after: Option<&str>,
    ) -> impl Iterator<Item = Result<String, EntityError>> + Send + use<> {
        self.of_channel_from(channel, Bound::Excluded(after.unwrap_or_default()))
    }

    /// The ids of a channel from one on, in order.
    fn of_channel_from(
        &self,
        channel: &str,
        from: Bound<&str>,
    ) -> impl Iterator<Item = Result<String, EntityError>> + Send + use<> {
        let channel = if channel.len() > NAME_BYTES_MAX { NO_CHANNEL } else { channel };
        let from = from.map(|id| channel_key(channel, id));
        let to = Bound::Excluded([channel.as_bytes(), &[1]].concat());
        let rows = self.snapshot.range(&self.channels, (from, to));
        rows.map(|row| split(&row.key()?).map(|(_, id)| id))
    }

    /// Every channel with every id in it, by channel and id.
    pub fn channels_and_ids(&self) -> impl Iterator<Item = Result<(String, String), EntityError>> + Send + use<> {
        self.snapshot.iter(&self.channels).map(|row| split(&row.key()?))
    }

    /// Names of channels that begin with `prefix` and come after `after`, at most `limit`.
    ///
    /// # Errors
    /// [`EntityError::Unavailable`] when the store fails.
    pub fn channels(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, EntityError> {
        // The key after all of a channel's: names have no control characters in them.
        let behind = |channel: &str| [channel.as_bytes(), &[1]].concat();
        let mut from = after.map_or_else(|| prefix.as_bytes().to_vec(), behind).max(prefix.as_bytes().to_vec());
        let mut found = Vec::new();
        while found.len() < limit {
            let rows = (Bound::Included(from), Bound::<Vec<u8>>::Unbounded);
            let Some(row) = self.snapshot.range(&self.channels, rows).next() else { break };
            let (channel, _) = split(&row.key()?)?;
            if !channel.starts_with(prefix) {
                break;
            }
            from = behind(&channel);
            found.push(channel);
        }
        Ok(found)
    }

    /// A page of records.
    ///
    /// # Errors
    /// [`EntityError::Invalid`] of `after` when no page said that.
    pub fn list(&self, query: &ListQuery) -> Result<Page, EntityError> {
        let search = query.search.as_deref().unwrap_or_default();
        let first = if search.is_empty() { BY_TITLE } else { BY_ID };
        let (mut part, mut after) = match &query.after {
            None => (first, None),
            Some(cursor) => read_cursor(cursor)?,
        };
        let wanted = Wanted { query, title: search.to_lowercase(), prefix: search };
        let (mut page, mut left) = (Page::default(), SCAN_MAX);
        if part == BY_ID {
            if !self.fill(&wanted, part, after.as_deref(), &mut left, &mut page)? {
                return Ok(page);
            }
            (part, after) = (BY_TITLE, None);
        }
        self.fill(&wanted, part, after.as_deref(), &mut left, &mut page)?;
        Ok(page)
    }

    /// Adds records to a page; whether that was all of them.
    fn fill(
        &self,
        wanted: &Wanted<'_>,
        part: char,
        after: Option<&str>,
        left: &mut usize,
        page: &mut Page,
    ) -> Result<bool, EntityError> {
        let mut last: Option<String> = after.map(str::to_owned);
        for record in self.candidates(wanted, part, after) {
            if *left == 0 || page.records.len() >= wanted.query.limit {
                page.next = Some(format!("{part}{}", last.unwrap_or_default()));
                return Ok(false);
            }
            let record = record?;
            if part == BY_ID && !record.entity.entity_id.starts_with(wanted.prefix) {
                return Ok(true);
            }
            *left -= 1;
            last = Some(record.entity.entity_id.clone());
            if wanted.has(&record.entity, part) {
                page.records.push(record);
            }
        }
        Ok(true)
    }

    fn candidates<'a>(
        &'a self,
        wanted: &Wanted<'a>,
        part: char,
        after: Option<&str>,
    ) -> Box<dyn Iterator<Item = Result<Record, EntityError>> + 'a> {
        let by_id = part == BY_ID;
        if let Some(channel) = &wanted.query.channel {
            let from = match after {
                Some(after) => Bound::Excluded(after),
                // Those before it would be read in vain, and a channel may have all entities.
                None if by_id => Bound::Included(wanted.prefix),
                None => Bound::Excluded(""),
            };
            let ids = self.of_channel_from(channel, from);
            return Box::new(ids.filter_map(|id| id.and_then(|id| self.get(&id)).transpose()));
        }
        if by_id && after.is_none() {
            let from = Bound::Included(wanted.prefix.as_bytes().to_vec());
            let rows = self.snapshot.range(&self.records, (from, Bound::<Vec<u8>>::Unbounded));
            return Box::new(rows.map(|row| read_record(&row.value()?)));
        }
        Box::new(self.after(after))
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("position", &self.position).finish_non_exhaustive()
    }
}

/// What a list is to hold.
struct Wanted<'a> {
    query: &'a ListQuery,
    /// In small letters.
    title: String,
    prefix: &'a str,
}

impl Wanted<'_> {
    fn has(&self, entity: &Entity, part: char) -> bool {
        let same = |asked: &Option<String>, own: &Option<String>| asked.is_none() || asked == own;
        if !same(&self.query.channel, &entity.channel) || !same(&self.query.owner, &entity.owner) {
            return false;
        }
        if part == BY_ID || self.prefix.is_empty() {
            return true;
        }
        // Those whose ids begin so have been listed before.
        !entity.entity_id.starts_with(self.prefix)
            && entity.title.as_ref().is_some_and(|title| title.to_lowercase().contains(&self.title))
    }
}

fn read_cursor(cursor: &str) -> Result<(char, Option<String>), EntityError> {
    let mut chars = cursor.chars();
    let part = chars.next().filter(|part| [BY_ID, BY_TITLE].contains(part));
    let part = part.ok_or_else(|| EntityError::invalid("after", "is not what an earlier page said is next"))?;
    let id = chars.as_str();
    Ok((part, (!id.is_empty()).then(|| id.to_owned())))
}

/// Channel and entity id of a key.
fn split(key: &[u8]) -> Result<(String, String), EntityError> {
    let damaged =
        || EntityError::unavailable("the store of this machine is damaged: remove its folder, replica/entities");
    let at = key.iter().position(|byte| *byte == 0).ok_or_else(damaged)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| damaged());
    Ok((text(&key[..at])?, text(&key[at + 1..])?))
}
