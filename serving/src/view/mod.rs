//! The view: the immutable pieces that one answer is made of, and what can be said of it.
//!
//! ```text
//! partition 0   batch ───────────────▶│coverage  tail ─────▶│position
//! partition 1   batch ─────────▶│coverage  on disk │ tail ──▶│position
//! ```
//!
//! [`batch`] pins the batch side, [`current`] keeps the newest one at hand, [`meet`] decides whether the
//! pieces meet, [`watermark`] what is settled, and [`provenance`] writes it all down.

pub mod batch;
pub mod current;
pub mod meet;
pub mod provenance;
pub mod watermark;

pub use batch::{BatchView, FileSet};
pub use current::{Current, Snapshots};
pub use meet::{Given, Missing, MissingWhat, Part};
pub use provenance::{AsOfVersion, Facts, PartitionProvenance, Provenance, Source, State};
pub use watermark::Patience;
