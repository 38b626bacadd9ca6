//! Appending a round: all partitions at once, then the answers of the requests in it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use futures::future::join_all;
use reckon_data::invariant::DURABILITY;
use reckon_data::log::{APPEND_BYTES_MAX, Log, LogError};
use reckon_data::receipt::Places;

use super::gather::{Load, Part, Records};
use super::stats::{GatewayStats, add, add_since};
use super::ticket::{Failure, Ticket};

/// What became of a partition's records: the offset of each, once they are durable.
type Outcome = Result<Vec<u64>, Failure>;

/// Appends the records of a round and answers the requests that were waiting for them.
pub(super) async fn append(log: &dyn Log, stats: &GatewayStats, mut load: Load) {
    let start = Instant::now();
    let records = std::mem::take(&mut load.records);
    let mut outcomes = vec![None; log.partitions() as usize];
    if load.broken.is_none() {
        for (partition, outcome) in join_all(records.into_iter().map(|records| append_to(log, stats, records))).await {
            if let Some(slot) = outcomes.get_mut(partition as usize) {
                *slot = Some(outcome);
            }
        }
    }
    add(&stats.rounds, 1);
    add(&stats.rounds_failed, u64::from(load.broken.is_some() || outcomes.iter().flatten().any(Result::is_err)));
    add_since(&stats.append_nanos, start);
    settle(load, &outcomes);
}

async fn append_to(log: &dyn Log, stats: &GatewayStats, records: Records) -> (u32, Outcome) {
    let Records { partition, mut events, dead } = records;
    events.extend(dead);
    let (count, bytes) = (events.len() as u64, events.iter().map(Bytes::len).sum::<usize>());
    let appends = join_all(in_appends(events).into_iter().map(|records| append_some(log, partition, records))).await;
    let outcome = match appends.into_iter().collect::<Result<Vec<_>, _>>() {
        Ok(offsets) => {
            stats.failing.store(0, Ordering::Relaxed);
            add(&stats.records, count);
            add(&stats.record_bytes, bytes as u64);
            Ok(offsets.concat())
        }
        Err(error) => {
            // A disk that is full stays so for a while: what is said of it must not fill another one.
            let failed = stats.failing.fetch_add(1, Ordering::Relaxed) + 1;
            if failed.is_power_of_two() {
                tracing::warn!(partition, %error, failed, "records could not be appended");
            }
            Err(error.into())
        }
    };
    (partition, outcome)
}

async fn append_some(log: &dyn Log, partition: u32, records: Vec<Bytes>) -> Result<Vec<u64>, LogError> {
    let count = records.len() as u64;
    let offsets = log.append(partition, records).await?;
    if DURABILITY.holds(offsets.end.checked_sub(offsets.start) == Some(count)) {
        Ok(offsets.collect())
    } else {
        Err(LogError::Storage(format!("the log put {count} records at offsets {offsets:?}")))
    }
}

/// The records in as few appends as may be, each as large as one may be at the most.
fn in_appends(records: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    let (mut appends, mut room) = (Vec::new(), 0);
    for record in records {
        match appends.last_mut() {
            Some(last) if record.len() <= room => Vec::push(last, record),
            _ => {
                room = APPEND_BYTES_MAX;
                appends.push(vec![record]);
            }
        }
        room -= appends.last().and_then(|last| last.last()).map_or(0, Bytes::len).min(room);
    }
    appends
}

/// Tells every request of the round what became of its events.
fn settle(load: Load, outcomes: &[Option<Outcome>]) {
    let Load { places, dead_places, parts, broken, .. } = load;
    let offsets_of = |partition: u32| match outcomes.get(partition as usize) {
        Some(Some(Ok(offsets))) => Ok(offsets),
        Some(Some(Err(failure))) => Err(failure.clone()),
        _ => Err(Failure::Unavailable(format!("the log has no partition {partition}"))),
    };
    for Part { ticket, places: of_events, dead } in parts {
        let of_events = places.get(of_events).unwrap_or_default();
        let dead = dead_places.get(dead).unwrap_or_default();
        let touched = of_events.iter().map(|place| place.partition).chain(dead.iter().copied());
        let failures = touched.filter_map(|partition| offsets_of(partition).err());
        broken.iter().cloned().chain(failures).for_each(|failure| ticket.failed(failure));
        ticket.placed(of_events.iter().filter_map(|place| {
            let offset = *offsets_of(place.partition).ok()?.get(place.record)?;
            Some(Places { partition: place.partition, offset, first_index: place.first, last_index: place.last })
        }));
        Ticket::release(ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_are_full_and_in_order() {
        let sizes = [APPEND_BYTES_MAX / 2, APPEND_BYTES_MAX / 2, 0, 1, APPEND_BYTES_MAX, 1];
        let records: Vec<Bytes> = sizes.iter().map(|size| Bytes::from(vec![0; *size])).collect();
        let appends = in_appends(records);
        let found: Vec<Vec<usize>> = appends.iter().map(|append| append.iter().map(Bytes::len).collect()).collect();
        assert_eq!(found, [&sizes[..3], &sizes[3..4], &sizes[4..5], &sizes[5..]]);
        assert!(in_appends(Vec::new()).is_empty());
    }
}
