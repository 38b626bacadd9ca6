//! Asking whoever has the lease of a partition.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use arrow_flight::Ticket;
use arrow_flight::decode::{DecodedPayload, FlightRecordBatchStream};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use async_trait::async_trait;
use futures::TryStreamExt as _;
use object_store::ObjectStore;
use parking_lot::Mutex;
use reckon_data::definition::Definition;
use reckon_data::lease::{Holder, Lookout, Member};
use reckon_data::offload::offload;
use reckon_data::run::{RunBuilder, Selection};
use reckon_data::tail::{Position, Tail, TailError, TailSum, Tails};
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::wire::{Ask, Asked, Head, Selected, Stand, Whom};

/// Longest time to connect, and for an answer.
const CONNECT_MAX: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(10);
const POSITIONS_ANSWER_MAX: Duration = Duration::from_secs(1);
/// How often positions and leases are asked for.
const POSITIONS_EVERY: Duration = Duration::from_millis(200);
const LEASES_EVERY: Duration = Duration::from_secs(1);
/// A position that is older than this is none.
const POSITION_MAX: Duration = Duration::from_secs(3);
/// Longest message: a batch of counts.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// The role of those who count, in the leases.
pub const ROLE: &str = "stream";

/// The tails of all processes that count a log.
#[derive(Debug)]
pub struct Remote {
    log: Uuid,
    definition: Arc<Definition>,
    holders: ArcSwap<Vec<Option<Holder>>>,
    channels: Mutex<HashMap<String, Channel>>,
    positions: Mutex<Vec<Option<(Position, Instant)>>>,
}

impl Remote {
    /// Looks for who counts the partitions of a log, now and from now on.
    #[must_use]
    pub async fn start(
        leases: Arc<dyn ObjectStore>,
        log: Uuid,
        definition: Arc<Definition>,
        partitions: u32,
    ) -> Arc<Self> {
        let remote = Arc::new(Self {
            log,
            definition,
            holders: ArcSwap::from_pointee(vec![None; partitions as usize]),
            channels: Mutex::default(),
            positions: Mutex::new(vec![None; partitions as usize]),
        });
        let mut leases = Lookout::new(leases, ROLE, partitions);
        remote.look(&mut leases).await;
        remote.ask_positions().await;
        tokio::spawn(follow_leases(Arc::downgrade(&remote), leases));
        tokio::spawn(follow_positions(Arc::downgrade(&remote)));
        remote
    }

    /// Looks for who has which partition now. While that cannot be told, those of before are asked.
    async fn look(&self, leases: &mut Lookout) {
        match leases.look().await {
            Ok(holders) => {
                self.channels
                    .lock()
                    .retain(|address, _| holders.iter().flatten().any(|holder| holder.member.address == *address));
                self.holders.store(Arc::new(holders));
            }
            Err(error) => tracing::warn!(%error, "who counts which partition is asked again"),
        }
    }

    async fn ask_positions(&self) {
        let mut by_member: HashMap<Uuid, (Member, Vec<u32>)> = HashMap::new();
        for (partition, holder) in (0..).zip(self.holders.load().iter()) {
            if let Some(Holder { member, .. }) = holder {
                by_member.entry(member.id).or_insert_with(|| (member.clone(), Vec::new())).1.push(partition);
            }
        }
        let asks = by_member.into_values().map(|(member, partitions)| async move {
            let address = &member.address;
            match timeout(POSITIONS_ANSWER_MAX, self.ask(&member, Ask::Positions { partitions })).await {
                Ok(Ok((head, _))) => self.know(&head.positions),
                Ok(Err(error)) => tracing::debug!(address, %error, "a worker does not say where it stands"),
                Err(_) => tracing::debug!(address, "a worker does not say where it stands"),
            }
        });
        futures::future::join_all(asks).await;
    }

    fn know(&self, stands: &[Stand]) {
        let now = Instant::now();
        let mut positions = self.positions.lock();
        for stand in stands {
            if let Some(slot) = positions.get_mut(stand.partition as usize) {
                *slot = Some((stand.position(), now));
            }
        }
    }

    fn member(&self, partition: u32) -> Result<Member, TailError> {
        let unavailable = |reason: &str| TailError::Unavailable { partition, reason: reason.to_owned() };
        let holders = self.holders.load();
        let holder = holders.get(partition as usize).ok_or_else(|| unavailable("there is no such partition"))?;
        let holder = holder.as_ref().ok_or_else(|| unavailable("no process counts it now"))?;
        Ok(holder.member.clone())
    }

    fn channel(&self, address: &str) -> Result<Channel, FlightError> {
        if let Some(channel) = self.channels.lock().get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| FlightError::ExternalError(Box::new(error)))?;
        let channel = endpoint.connect_timeout(CONNECT_MAX).tcp_nodelay(true).connect_lazy();
        self.channels.lock().insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    async fn ask(&self, member: &Member, ask: Ask) -> Result<(Head, Vec<arrow::array::RecordBatch>), FlightError> {
        let asked = Asked { whom: Whom { log: self.log, member: member.id }, ask };
        let ticket = serde_json::to_vec(&asked).map_err(|error| FlightError::ExternalError(Box::new(error)))?;
        let client = FlightServiceClient::new(self.channel(&member.address)?);
        let mut client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answer = client.do_get(Ticket { ticket: ticket.into() }).await?.into_inner();
        let messages = answer.map_err(FlightError::from);
        let mut messages = FlightRecordBatchStream::new_from_flight_data(messages).into_inner();
        let (mut head, mut batches) = (None, Vec::new());
        while let Some(message) = messages.try_next().await? {
            if head.is_none() && !message.inner.app_metadata.is_empty() {
                let read = serde_json::from_slice::<Head>(&message.inner.app_metadata);
                head = Some(read.map_err(|error| FlightError::ExternalError(Box::new(error)))?);
            }
            if let DecodedPayload::RecordBatch(batch) = message.payload {
                batches.push(batch);
            }
        }
        let head: Head = head.ok_or_else(|| FlightError::ProtocolError("the answer has no head".to_owned()))?;
        if head.definition != self.definition.version() {
            let text = "it counts by another definition: its settings are not those of this process";
            return Err(FlightError::ProtocolError(text.to_owned()));
        }
        self.know(&head.positions);
        Ok((head, batches))
    }

    /// Asks for something of one partition; its position, and what else came.
    async fn ask_for(
        &self,
        partition: u32,
        from: u64,
        ask: Ask,
    ) -> Result<(Position, Head, Vec<arrow::array::RecordBatch>), TailError> {
        let unavailable = |reason: String| TailError::Unavailable { partition, reason };
        let member = self.member(partition)?;
        let address = &member.address;
        let answer = timeout(ANSWER_MAX, self.ask(&member, ask)).await;
        let answer = answer.map_err(|_| unavailable(format!("{address}, which counts it, does not answer")))?;
        let (head, batches) = answer.map_err(|error| match error {
            FlightError::Tonic(status) if status.code() == Code::FailedPrecondition => {
                TailError::Gone { partition, from }
            }
            FlightError::Tonic(status) if status.code() == Code::Unavailable => {
                unavailable(status.message().to_owned())
            }
            other => unavailable(format!("{address}, which counts it: {other}")),
        })?;
        let stand = head.positions.iter().find(|stand| stand.partition == partition);
        let stand = stand.ok_or_else(|| unavailable(format!("{address} does not say where it stands")))?;
        Ok((stand.position(), head.clone(), batches))
    }
}

async fn follow_leases(remote: Weak<Remote>, mut leases: Lookout) {
    loop {
        tokio::time::sleep(LEASES_EVERY).await;
        let Some(remote) = remote.upgrade() else { return };
        remote.look(&mut leases).await;
    }
}

async fn follow_positions(remote: Weak<Remote>) {
    loop {
        tokio::time::sleep(POSITIONS_EVERY).await;
        let Some(remote) = remote.upgrade() else { return };
        remote.ask_positions().await;
    }
}

#[async_trait]
impl Tails for Remote {
    fn partitions(&self) -> u32 {
        u32::try_from(self.holders.load().len()).unwrap_or(u32::MAX)
    }

    async fn tail(&self, partition: u32, from: u64) -> Result<Tail, TailError> {
        let (position, head, batches) = self.ask_for(partition, from, Ask::Tail { partition, from }).await?;
        let unavailable = |reason: String| TailError::Unavailable { partition, reason };
        let definition = Arc::clone(&self.definition);
        let built = offload(move || {
            let mut builder = RunBuilder::new();
            batches.iter().try_for_each(|batch| builder.add_batch(batch, &definition.dimensions))?;
            builder.finish()
        });
        let run = built.await.map_err(|error| unavailable(error.to_string()))?;
        let run = run.map_err(|error| unavailable(format!("its counts cannot be read: {error}")))?;
        Ok(Tail { partition, from, position, runs: vec![Arc::new(run)], on_disk: head.on_disk })
    }

    async fn sum(&self, partition: u32, from: u64, selection: &Selection<'_>) -> Result<TailSum, TailError> {
        let ask = Ask::Sum { partition, from, selection: Selected::of(selection) };
        let (position, head, _) = self.ask_for(partition, from, ask).await?;
        let cells = head.cells.iter().map(|(step, sums)| Some((*step, sums.cell()?))).collect::<Option<Vec<_>>>();
        let reason = || TailError::Unavailable { partition, reason: "its sums cannot be read".to_owned() };
        Ok(TailSum { position, cells: cells.ok_or_else(reason)?, on_disk: head.on_disk })
    }

    fn position(&self, partition: u32) -> Result<Position, TailError> {
        // Who has it may have changed since.
        self.member(partition)?;
        let known = self.positions.lock().get(partition as usize).copied().flatten();
        match known {
            Some((position, at)) if at.elapsed() < POSITION_MAX => Ok(position),
            _ => Err(TailError::Unavailable {
                partition,
                reason: "who counts it does not say where it stands".to_owned(),
            }),
        }
    }

    /// Those who count look for themselves.
    fn covered(&self, _: u32, _: u64) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use object_store::memory::InMemory;
    use reckon_data::key::entity_hash;
    use reckon_data::lease::{Keeper, Member};
    use reckon_data::logtime::LogTime;
    use reckon_data::metric::Cell;
    use reckon_data::run::{Run, StepSums};
    use tokio::net::TcpListener;

    use super::*;
    use crate::server::serve;

    const POSITION: Position =
        Position { offset: 9, log_time: LogTime::at(5), event_time_max: 4, sealed: 3, durable_end: 11 };

    /// Counts of partition 0 from offset 3 on; no other offset is a boundary.
    #[derive(Debug)]
    struct Known(Arc<Run>);

    impl Known {
        fn check(partition: u32, from: u64) -> Result<(), TailError> {
            match (partition, from) {
                (0, 3) => Ok(()),
                (0, _) => Err(TailError::Gone { partition, from }),
                _ => Err(TailError::Unavailable { partition, reason: "it stands still".to_owned() }),
            }
        }
    }

    #[async_trait]
    impl Tails for Known {
        fn partitions(&self) -> u32 {
            2
        }

        async fn tail(&self, partition: u32, from: u64) -> Result<Tail, TailError> {
            Self::check(partition, from)?;
            Ok(Tail { partition, from, position: POSITION, runs: vec![Arc::clone(&self.0); 2], on_disk: vec![3..5] })
        }

        async fn sum(&self, partition: u32, from: u64, selection: &Selection<'_>) -> Result<TailSum, TailError> {
            Self::check(partition, from)?;
            let mut sums = StepSums::new();
            self.0.sum(selection, &mut sums);
            Ok(TailSum { position: POSITION, cells: sums.into_cells(), on_disk: Vec::new() })
        }

        fn position(&self, partition: u32) -> Result<Position, TailError> {
            Self::check(partition, 3).map(|()| POSITION)
        }

        fn covered(&self, _: u32, _: u64) {}
    }

    fn run() -> Arc<Run> {
        let mut builder = RunBuilder::new();
        for (entity, minute) in [("a", 1), ("a", 2), ("b", 2)] {
            builder
                .add(entity_hash(entity), entity, "view", minute, &[Some("US")], &Cell::one(7, Some(2), None))
                .unwrap();
        }
        Arc::new(builder.finish().unwrap())
    }

    #[tokio::test]
    async fn what_another_process_has_counted_is_had_from_it() {
        let (leases, definition) = (Arc::new(InMemory::new()) as Arc<dyn ObjectStore>, Arc::<Definition>::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let me = Member { id: uuid_of(1), address: listener.local_addr().unwrap().to_string() };
        let known = Arc::new(Known(run()));
        let whom = Whom { log: uuid_of(9), member: me.id };
        tokio::spawn(serve(listener, Arc::clone(&known) as _, Arc::clone(&definition), whom, std::future::pending()));
        let remote = Remote::start(Arc::clone(&leases), whom.log, Arc::clone(&definition), 2).await;
        assert!(matches!(remote.tail(0, 3).await, Err(TailError::Unavailable { partition: 0, .. })), "nobody has it");
        let mut keeper = Keeper::fixed(Arc::clone(&leases), ROLE, me, BTreeSet::from([0, 1]));
        keeper.turn().await.unwrap();
        remote.look(&mut Lookout::new(Arc::clone(&leases), ROLE, 2)).await;
        remote.ask_positions().await;

        let tail = remote.tail(0, 3).await.unwrap();
        assert_eq!((tail.position, tail.on_disk), (POSITION, vec![3..5]));
        let counted: u64 = tail.runs.iter().map(|run| run.total_count()).sum();
        assert_eq!(counted, 2 * known.0.total_count());
        let selection = Selection { event_type: Some("view"), minutes: 2..3, ..Selection::all_of("a") };
        let (there, here) = (remote.sum(0, 3, &selection).await.unwrap(), known.sum(0, 3, &selection).await.unwrap());
        assert_eq!((there.position, there.cells), (here.position, here.cells));
        assert_eq!(remote.position(0).unwrap(), POSITION);

        assert!(matches!(remote.tail(0, 4).await, Err(TailError::Gone { partition: 0, from: 4 })));
        let error = remote.sum(1, 3, &selection).await.unwrap_err();
        assert!(matches!(&error, TailError::Unavailable { reason, .. } if reason.contains("stands still")), "{error}");
        assert!(remote.position(1).is_err(), "it does not say where it stands");

        let other = Definition { lateness: Duration::from_secs(7), ..Definition::default() };
        let remote = Remote::start(Arc::clone(&leases), whom.log, Arc::new(other), 2).await;
        let error = remote.tail(0, 3).await.unwrap_err().to_string();
        assert!(error.contains("another definition"), "{error}");

        // Addresses are used again: by a process that counts another log, say.
        let remote = Remote::start(leases, uuid_of(8), definition, 2).await;
        let error = remote.tail(0, 3).await.unwrap_err().to_string();
        assert!(error.contains("another log"), "{error}");
    }

    fn uuid_of(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }
}
