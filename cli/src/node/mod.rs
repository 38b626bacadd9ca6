//! A node: every role in one process.
//!
//! ```text
//! Node::open ─▶ lock ─▶ log ─▶ tables ─▶ gateway, counter, archiver ─▶ serving ─▶ batch runs
//! Node::stop ◀─ in the reverse order: nothing new is taken, what was taken is sealed and archived
//! ```

mod audits;
mod background;
mod base;
mod call;
mod canary;
mod dashboard;
mod home;
pub mod metrics;
mod open;
mod repairs;
mod status;

pub use audits::{Audited, batch_then_audit, start_audit};
pub use background::{MAINTAIN_EVERY, maintain};
pub use base::Base;
pub use call::{call, call_matched, call_routes};
pub use canary::{Nest, record};
pub use dashboard::dashboard;
pub use home::{is_embedded, local_dir, log_folder, log_options, open_log};
pub use open::{Node, STOP_ARCHIVER_MAX};
