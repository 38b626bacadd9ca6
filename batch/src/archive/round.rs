//! A round: from one commit to the next. All partitions gather, until one of the reasons to commit applies.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::open::Extent;
use super::shared::Shared;

/// Files open at once, of all partitions. One that has only a few rows costs no more than they do.
pub(super) const FILES_MAX: usize = 256;
/// Bytes of memory that open files may take, of all partitions.
const MEMORY_MAX: usize = 96 << 20;

/// From a cut to the commit that a batch run waits for.
const CUT_WAIT: Duration = Duration::from_millis(200);

/// How far a partition has come in this round.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// The next offset to be read.
    pub(super) next: u64,
    /// Whether something has been read.
    pub(super) moved: bool,
    /// Whether a cut was read.
    pub(super) cut: bool,
    /// How large its open files are.
    pub(super) extent: Extent,
}

/// What the partitions of a round know of each other.
#[derive(Debug)]
pub(super) struct Round {
    progress: watch::Sender<Vec<Progress>>,
    closing: watch::Sender<bool>,
}

impl Round {
    /// A round that begins at these offsets.
    pub(super) fn new(offsets: impl Iterator<Item = u64>) -> Self {
        let progress = offsets.map(|next| Progress { next, ..Progress::default() }).collect();
        Self { progress: watch::Sender::new(progress), closing: watch::Sender::new(false) }
    }

    /// Whether partitions should stop gathering.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Says how far a partition has come.
    pub(super) fn report(&self, partition: usize, progress: Progress) {
        self.progress.send_modify(|all| {
            if let Some(slot) = all.get_mut(partition) {
                *slot = progress;
            }
        });
    }

    /// Lets the partitions gather until it is time to commit, then tells them to stop.
    pub(super) async fn close_when_due(&self, shared: &Shared) {
        self.due(shared).await;
        self.closing.send_replace(true);
    }

    async fn due(&self, shared: &Shared) {
        let mut progress = self.progress.subscribe();
        let mut wanted = shared.wanted.subscribe();
        let mut stop = shared.stop.subscribe();
        let mut deadline: Option<Instant> = None;
        let mut hurried = false;
        loop {
            let (moved, cut) = {
                let all = progress.borrow_and_update();
                let demanded = is_demanded(&all, &wanted.borrow_and_update(), &shared.committed());
                if *stop.borrow_and_update() || demanded || is_full(&all, shared.file_bytes) {
                    return;
                }
                (all.iter().any(|lane| lane.moved), all.iter().any(|lane| lane.cut))
            };
            if moved && deadline.is_none() {
                deadline = Some(Instant::now() + shared.commit_every);
            }
            if cut && !hurried {
                // A batch run waits, perhaps in another process; the other partitions have their cuts in a moment.
                hurried = true;
                deadline = deadline.map(|due| due.min(Instant::now() + CUT_WAIT));
            }
            let late = pin!(sleep_until(deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600))));
            tokio::select! {
                biased;
                () = late, if deadline.is_some() => return,
                _ = progress.changed() => {}
                _ = wanted.changed() => {}
                _ = stop.changed() => {}
            }
        }
    }
}

/// Whether somebody waits for offsets that have all been read, and not all been committed.
fn is_demanded(all: &[Progress], wanted: &[u64], committed: &[u64]) -> bool {
    all.iter().zip(wanted).all(|(lane, wanted)| lane.next >= *wanted)
        && committed.iter().zip(wanted).any(|(committed, wanted)| committed < wanted)
}

/// Whether files have become large or many enough.
fn is_full(all: &[Progress], file_bytes: usize) -> bool {
    let files: usize = all.iter().map(|lane| lane.extent.files).sum();
    let memory: usize = all.iter().map(|lane| lane.extent.memory).sum();
    files > FILES_MAX || memory > MEMORY_MAX || all.iter().any(|lane| lane.extent.largest >= file_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: u64) -> Progress {
        Progress { next, ..Progress::default() }
    }

    #[test]
    fn a_demand_waits_until_all_of_it_has_been_read() {
        assert!(!is_demanded(&[at(5), at(3)], &[5, 4], &[0, 0]));
        assert!(is_demanded(&[at(5), at(4)], &[5, 4], &[5, 0]));
        assert!(!is_demanded(&[at(5), at(4)], &[5, 4], &[5, 4]), "there is nothing left to commit");
        assert!(!is_demanded(&[at(5), at(4)], &[0, 0], &[0, 0]), "nobody has asked");
    }

    #[test]
    fn size_memory_and_number_close_a_round() {
        let with = |files, memory, largest| Progress { extent: Extent { files, memory, largest }, ..at(0) };
        assert!(!is_full(&[with(FILES_MAX, MEMORY_MAX, 9)], 10));
        assert!(is_full(&[with(FILES_MAX, 0, 0), with(1, 0, 0)], 10));
        assert!(is_full(&[with(1, MEMORY_MAX, 0), with(1, 1, 0)], 10));
        assert!(is_full(&[with(1, 0, 10)], 10));
    }
}
