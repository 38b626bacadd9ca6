//! Leases: which process does the work of which partition.
//!
//! ```text
//! <role>/members/<id>          written anew every now and then: who lives, and where it can be reached
//! <role>/<partition>/<epoch>   can only be created: who has the partition from this epoch on
//! <role>/<partition>/<epoch>.released   its holder has let go of it
//! ```
//!
//! The holder of the newest epoch has the partition. Another process takes it, with the next epoch, when the holder has
//! let go of it or has not said for a while that it lives. Time is the store's own: when it says that an object was
//! written, compared with when ours was. Which of those who live should have a partition is a matter of hashing
//! ([`plan`]), so that few partitions move when one comes or goes.
//!
//! Leases only make it quick: a holder that was asleep and does not know that its partition is another's is kept from
//! committing by the compare-and-set of its commits (DESIGN 3.4).

mod keeper;
mod plan;
mod store;

pub use keeper::{Keeper, Pulse, Turn};
pub use store::{Holder, LeaseError, Lookout};

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How often a process says that it lives.
pub const TURN_EVERY: Duration = Duration::from_secs(2);
/// One that has not said so for this long is taken for dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(8);

/// A process that does a role's work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name, a new one every time it starts.
    pub id: Uuid,
    /// Where others reach it, as `host:port`; empty when nobody has to.
    pub address: String,
}
