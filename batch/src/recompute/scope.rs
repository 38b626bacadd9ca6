//! Which raw events of a date a query reads, and the queries.

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use hashbrown::HashSet;
use object_store::ObjectStore;
use reckon_data::definition::Definition;
use reckon_data::table::{DataFile, Table};
use reckon_tables::provider::{Piece, PinnedTable};
use reckon_tables::schema::file_schema;

use super::error::BatchError;
use super::functions;
use super::repeats::Repeated;
use super::span::Span;

/// So many entities are named in a filter, for DataFusion to skip pages by.
const NAMED_MAX: usize = 20;

/// Entities by id.
pub type EntitySet = HashSet<Box<str>>;

/// Which events below the cut.
#[derive(Debug, Clone)]
pub enum Scope {
    /// All.
    All,
    /// Those that no earlier run has counted.
    New,
    /// Those of some entities.
    Entities(Arc<EntitySet>),
}

/// The raw events of a date that are to be counted.
#[derive(Debug, Clone)]
pub struct Source {
    /// The store, rooted at the tables' folder.
    pub store: Arc<dyn ObjectStore>,
    /// Old coverage and cuts.
    pub span: Arc<Span>,
    /// Which events.
    pub scope: Scope,
    /// The files of the date, pinned.
    pub files: Vec<DataFile>,
}

impl Source {
    /// The files that may hold events of the scope.
    #[must_use]
    pub fn relevant(&self) -> Vec<DataFile> {
        let relevant = |file: &&DataFile| {
            let rows = self.span.of(file);
            !rows.none_below_cut && (!matches!(self.scope, Scope::New) || rows.maybe_new())
        };
        self.files.iter().filter(relevant).cloned().collect()
    }

    /// The relevant files in chunks of about `rows` rows: small files together, large ones in ranges of row
    /// groups. Files on which the cut lies come last and apart, for they need a filter more.
    #[must_use]
    pub fn chunks(&self, rows: usize) -> Vec<Vec<Piece>> {
        let rows = rows.max(1) as u64;
        let (clean, mixed): (Vec<_>, Vec<_>) =
            self.relevant().into_iter().partition(|file| self.span.of(file).all_below_cut);
        let mut chunks = chunks_of(clean, rows);
        chunks.extend(chunks_of(mixed, rows));
        chunks
    }

    /// The pieces as a table.
    ///
    /// # Errors
    /// When a file has no valid date.
    pub fn table(&self, pieces: Vec<Piece>) -> Result<PinnedTable, BatchError> {
        let schema = file_schema(Table::Events);
        Ok(PinnedTable::of_pieces(Arc::clone(&self.store), Table::Events, pieces, &schema)?)
    }

    /// Makes the pieces the table `events` of the session, with the functions that [`Source::filters`] uses.
    ///
    /// # Errors
    /// When a file has no valid date.
    pub fn register(
        &self,
        session: &SessionContext,
        pieces: Vec<Piece>,
        repeated: Option<&Arc<Repeated>>,
    ) -> Result<(), BatchError> {
        session.register_table("events", Arc::new(self.table(pieces)?))?;
        functions::all().into_iter().for_each(|function| session.register_udf(function));
        session.register_udaf(functions::distinct_users());
        if let Some(repeated) = repeated {
            session.register_udf(functions::repeated(Arc::clone(repeated)));
        }
        if let Scope::Entities(entities) = &self.scope {
            session.register_udf(functions::touched(Arc::clone(entities)));
        }
        Ok(())
    }

    /// The filters that leave of `pieces` exactly the events of the scope.
    #[must_use]
    pub fn filters(&self, pieces: &[Piece]) -> Vec<String> {
        let mut filters = Vec::new();
        let any = |test: fn(super::span::Rows) -> bool| pieces.iter().any(|piece| test(self.span.of(&piece.file)));
        if any(|rows| !rows.all_below_cut) {
            filters.push(self.span.below_cut_sql());
        }
        match &self.scope {
            Scope::All => {}
            Scope::New if any(|rows| !rows.none_old) => {
                filters.push(format!("NOT {}", self.span.is_old_sql()));
            }
            Scope::New => {}
            Scope::Entities(entities) => {
                filters.push("touched(entity_id)".to_owned());
                filters.extend(bounds(entities));
            }
        }
        filters
    }
}

/// What of [`Scope::Entities`] DataFusion can hold against statistics.
fn bounds(entities: &EntitySet) -> Option<String> {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    if entities.len() <= NAMED_MAX {
        let mut names: Vec<String> = entities.iter().map(|entity| quoted(entity)).collect();
        names.sort_unstable();
        return (!names.is_empty()).then(|| format!("entity_id IN ({})", names.join(", ")));
    }
    let (first, last) = (entities.iter().min()?, entities.iter().max()?);
    Some(format!("entity_id BETWEEN {} AND {}", quoted(first), quoted(last)))
}

fn chunks_of(files: Vec<DataFile>, rows: u64) -> Vec<Vec<Piece>> {
    let mut chunks: Vec<(u64, Vec<Piece>)> = Vec::new();
    for file in files {
        let parts = file.rows.div_ceil(rows).clamp(1, file.bytes.max(1));
        if parts > 1 {
            let edge = |part: u64| (u128::from(file.bytes) * u128::from(part) / u128::from(parts)) as u64;
            for part in 0..parts {
                let bytes = Some(edge(part)..edge(part + 1));
                chunks.push((rows, vec![Piece { file: file.clone(), bytes }]));
            }
            continue;
        }
        match chunks.last_mut() {
            Some((held, pieces)) if *held + file.rows <= rows => {
                *held += file.rows;
                pieces.push(file.into());
            }
            _ => chunks.push((file.rows, vec![file.into()])),
        }
    }
    chunks.into_iter().map(|(_, pieces)| pieces).collect()
}

/// `WHERE …`, or nothing.
fn filtered(filters: &[String]) -> String {
    if filters.is_empty() { String::new() } else { format!(" WHERE {}", filters.join(" AND ")) }
}

/// The key hashes of the events.
#[must_use]
pub fn hashes_sql(filters: &[String]) -> String {
    format!("SELECT key_hash FROM events{}", filtered(filters))
}

/// How many events were read, how many of them have hashes that more than one has, and which hashes those are; in some
/// thousand rows, so that whoever has the hashes also knows how many events were looked at for them.
#[must_use]
pub fn repeats_sql(filters: &[String]) -> String {
    let events = filtered(filters);
    format!(
        "SELECT sum(copies) AS read, sum(copies) FILTER (WHERE copies > 1) AS rows, \
         array_agg(key_hash) FILTER (WHERE copies > 1) AS hashes \
         FROM (SELECT key_hash, count(*) AS copies FROM events{events} GROUP BY key_hash) AS keys \
         GROUP BY key_hash % 4096"
    )
}

/// How many events there are. Each is read: statistics would only say how many there should be.
#[must_use]
pub fn rows_sql(span: &Span, filters: &[String]) -> String {
    let mut filters = filters.to_vec();
    filters.push(span.below_cut_sql());
    format!("SELECT count(*) FROM events{}", filtered(&filters))
}

/// The counts of the events; there are no two with the same key among them.
#[must_use]
pub fn counts_sql(definition: &Definition, filters: &[String]) -> String {
    counts_from(definition, &format!("events{}", filtered(filters)), "")
}

/// The counts of those events that come first of all with their key, in the order of the log; otherwise as
/// [`counts_sql`].
#[must_use]
pub fn firsts_sql(definition: &Definition, filters: &[String]) -> String {
    counts_from(definition, &firsts(filters, ""), "")
}

/// As [`firsts_sql`], with a column [`READ`]: how many events have the keys that were counted.
#[must_use]
pub fn read_firsts_sql(definition: &Definition, filters: &[String]) -> String {
    let copies = format!(", count(*) OVER ({KEY}) AS copies");
    counts_from(definition, &firsts(filters, &copies), &format!(", sum(copies) AS {READ}"))
}

/// Events with the keys of a row.
pub const READ: &str = "read";
/// Events with the same key.
const KEY: &str = "PARTITION BY key_hash, event_id, entity_id, event_type";

fn firsts(filters: &[String], more: &str) -> String {
    format!(
        "(SELECT entity_id, event_type, event_time, received_at, country, user_id, ip, value, key_hash, \
         row_number() OVER ({KEY} ORDER BY log_partition, log_offset, log_index) AS place{more} \
         FROM events{}) AS placed WHERE place = 1",
        filtered(filters)
    )
}

fn counts_from(definition: &Definition, events: &str, more: &str) -> String {
    let dims: String = definition.dimensions.iter().map(|dimension| format!(", {}", dimension.column())).collect();
    let values = if definition.has_values() {
        ", count(value) AS value_count, sum(value) AS value_sum, min(value) AS value_min, max(value) AS value_max"
    } else {
        ""
    };
    let lateness = definition.lateness_micros();
    let users = if definition.has_distinct() { ", distinct_users(user_id) AS distinct_users" } else { "" };
    format!(
        "SELECT entity_id, event_type, minute_of(event_time) AS minute{dims}, count(*) AS count, \
         sum(key_hash) AS fingerprint{values}{users}, \
         nullif(count(*) FILTER (WHERE is_late(event_time, received_at, {lateness})), 0) AS late{more} FROM {events} \
         GROUP BY entity_id, event_type, minute_of(event_time){dims}"
    )
}

/// Rows that are counted already, of the table `counts`.
#[must_use]
pub fn existing_sql(scope: &Scope) -> String {
    let filter = if matches!(scope, Scope::Entities(_)) { " WHERE NOT touched(entity_id)" } else { "" };
    format!(
        "SELECT entity_id, event_type, minute_of(minute) AS minute, country, user_id, ip, count, fingerprint, \
         value_count, value_sum, value_min, value_max, distinct_users, definition, late FROM counts{filter}"
    )
}
