//! A broker that knows less of what was committed than it has stored.
//!
//! It writes down how far its records are committed a little later than it says so, and one that was killed believes what
//! it finds written. Where it has no followers, nothing but the next append tells it better: until then records that were
//! acknowledged cannot be read, and look as if they were gone.

use fluvio_spu_schema::Isolation;
use reckon_data::clock::Clock;
use reckon_data::log::LogError;
use reckon_data::record::encode_cut;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::ends::{Extent, extent};
use crate::requests::{append, fetch_as};

/// Enough for any record.
const LOOK_BYTES: usize = 2 << 20;

/// Appends a cut of no run, which harms nothing, where a leader has stored more than it says is committed.
pub(crate) async fn catch_up(cluster: &Cluster, partition: u32, clock: &dyn Clock) -> Result<(), LogError> {
    let Extent { end, .. } = extent(cluster, partition).await?;
    let more = fetch_as(cluster, partition, end, LOOK_BYTES, Isolation::ReadUncommitted).await?;
    if more.is_some_and(|more| !more.answer.records.is_empty()) {
        tracing::warn!(partition, end, "the leader has more than it says is committed: a cut is appended");
        let cut = encode_cut(Uuid::nil(), 0, clock.now());
        append(cluster, partition, None, std::slice::from_ref(&cut), clock.now()).await?;
    }
    Ok(())
}
