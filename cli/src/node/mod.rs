//! A node: every role in one process, over the embedded log and a local folder.
//!
//! ```text
//! Node::open ─▶ lock ─▶ log ─▶ tables ─▶ gateway, counter, archiver ─▶ serving ─▶ batch runs
//! Node::stop ◀─ in the reverse order: nothing new is taken, what was taken is sealed and archived
//! ```

mod background;
mod call;
mod open;
mod status;

pub use call::call;
pub use open::{Node, log_options};
