//! The Delta tables: schemas, the store they lie in and the compare-and-set commit.
//!
//! [`schema`] says what the tables' files look like, [`store`] where they lie and that they are on
//! the disk when they are said to be, [`delta`] implements [`reckon_data::table::Tables`] on Delta
//! Lake, [`memory`] models the same contract in memory, and [`conformance`] holds both to it.
//! [`provider`] shows a pinned list of files to DataFusion, [`read`] reads single files, [`stats`]
//! turns file statistics into what Delta Lake stores and back.
//!
//! [`imports`] is the table of imports, which what is replayed of dead letters stands in too.
//!
//! Old files of raw events may lie in a colder store: [`tiered`] reads both as one, [`cold`] moves files.
//!
//! [`mended`] is a log whose damaged records are made anew from what is archived of them.
//!
//! A data file's checksums ([`checked`], `sums`) stand in its table's log: a bit that flips is found by whoever
//! reads it.
//!
//! Inside: `state` is one version of a table and how a commit changes it, `check` the verdict on a
//! commit, `actions` its text in the log, `format` what a table of ours must be; these four do no
//! I/O. `log` follows a table's log, `load` opens it, `past` reads older versions, `vacuum` sweeps what nothing
//! refers to.

mod actions;
mod check;
pub mod checked;
pub mod cold;
pub mod conformance;
pub mod delta;
mod format;
pub mod imports;
mod load;
mod log;
pub mod memory;
pub mod mended;
mod past;
pub mod provider;
pub mod read;
mod remote;
pub mod schema;
mod state;
pub mod stats;
pub mod store;
mod sums;
mod synced;
pub mod tiered;
pub mod vacuum;

pub use checked::CheckedStore;
pub use cold::{ColdError, ColdStore, TierSizes};
pub use delta::{DeltaTables, TableSize};
pub use imports::ImportTable;
pub use memory::MemoryTables;
pub use mended::{MendedLog, Unmendable};
pub use store::{Storage, is_local, local_folder};
pub use sums::Sums;
pub use synced::SyncedLocal;
pub use tiered::TieredStore;

#[cfg(test)]
mod tests;
