//! The same rows from other machines, also when they fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use datafusion::common::{Result, exec_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt as _;
use parking_lot::Mutex;
use reckon_data::jobs::{EngineName, RunRequest};
use uuid::Uuid;

use super::laws::many;
use super::oracle::{Kept, Placed, Row};
use super::world::{DAY, MINUTE, World};
use crate::recompute::{
    BatchError, Cluster, Query, RunReport, distinct_users, query_functions, read_function, repeated, write_function,
};

const KEPT: Kept = Kept::COUNTRY_AND_VALUES;

/// Machines that are this one, and know of a query what would be sent to others.
#[derive(Debug, Default)]
struct Machines {
    /// So many answers break off.
    failing: AtomicU32,
    /// The answer of the query of this number, from 1 on, lacks its last batch and says nothing.
    short: u32,
    asked: Mutex<Vec<Query>>,
}

fn one_less(number: &AtomicU32) -> bool {
    number.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[async_trait]
impl Cluster for Machines {
    async fn query(&self, query: Query) -> Result<SendableRecordBatchStream> {
        let number = {
            let mut asked = self.asked.lock();
            asked.push(query.clone());
            asked.len() as u32
        };
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(query.parts));
        session.register_table("events", Arc::new(query.events.without_views()))?;
        query_functions().into_iter().for_each(|function| session.register_udf(function));
        session.register_udaf(distinct_users());
        if let Some(hashes) = query.repeated {
            let mut sent = Vec::new();
            write_function(&repeated(hashes), &mut sent);
            session.register_udf((*read_function("repeated", &sent)?).clone());
        }
        let mut answer: Vec<_> = session.sql(&query.sql).await?.execute_stream().await?.collect().await;
        let schema = session.sql(&query.sql).await?.schema().inner().clone();
        if number == self.short {
            answer.pop();
        }
        if one_less(&self.failing) {
            answer.pop();
            answer.push(exec_err!("the machine is gone"));
        }
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(answer))))
    }

    fn queries_at_once(&self) -> usize {
        3
    }

    fn part_rows(&self) -> usize {
        50_000
    }
}

async fn run(world: &World, machines: &Arc<Machines>) -> Result<RunReport, BatchError> {
    let request = RunRequest { full: true, engine: Some(EngineName::Ballista), ..RunRequest::default() };
    world.recompute_on(2, Some(Arc::clone(machines) as _)).run(&request, Uuid::nil(), &|_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_date_is_counted_in_parts_and_only_repeats_are_compared() {
    let (world, all) = large().await;
    let machines = Arc::new(Machines::default());
    let report = run(&world, &machines).await.unwrap();
    assert_eq!((report.events, report.duplicates), (300_000, 10_000));
    assert!(world.counts().await == KEPT.count(&all));
    let asked = std::mem::take(&mut *machines.asked.lock());
    let with = |text: &str| asked.iter().filter(|query| query.sql.contains(text)).count();
    let chunks = with("WHERE NOT repeated(key_hash)");
    assert!(chunks > 4, "{chunks}");
    assert_eq!((asked.len() - chunks, with("WHERE repeated(key_hash)"), with("row_number")), (3, 1, 1));
    assert!(asked.iter().filter(|query| query.sql.contains("NOT repeated")).all(|query| query.parts == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_date_with_repeats_and_equal_hashes_takes_two_queries() {
    let world = World::new(2);
    let row = |id: &str, hash| Row { hash, ..Row::view(id, "v", DAY + MINUTE) };
    let mut all = world.add(1, vec![row("a", None), row("b", Some(7)), row("c", Some(7))]).await;
    all.extend(world.add(0, vec![row("c", Some(7)), row("a", None)]).await);
    let machines = Arc::new(Machines::default());
    let report = run(&world, &machines).await.unwrap();
    assert_eq!((report.events, report.duplicates), (5, 2));
    assert_eq!(world.counts().await, KEPT.count(&all));
    assert_eq!(machines.asked.lock().len(), 2);
}

/// 300,000 events, of which 10,000 are repeats.
async fn large() -> (World, Vec<Placed>) {
    let world = World::with(2, Default::default(), 70_000);
    let mut rows = many();
    rows.truncate(290_000);
    rows.extend_from_within(..10_000);
    let mut all = world.add(0, rows[..200_000].to_vec()).await;
    all.extend(world.add(1, rows[200_000..].to_vec()).await);
    (world, all)
}

async fn hundred() -> (World, Vec<Placed>) {
    let world = World::new(1);
    let all = world.add(0, (0..100).map(|n| Row::view(&format!("e{n}"), "v", DAY + n * MINUTE)).collect()).await;
    (world, all)
}

/// Whatever answer it is, of a date that is small and one that is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_short_is_noticed() {
    let (world, _) = hundred().await;
    let short = Arc::new(Machines { short: 2, ..Machines::default() });
    let error = run(&world, &short).await.unwrap_err();
    assert!(error.to_string().contains("the cluster has counted 0 of 100 events"), "{error}");
    let (world, _) = large().await;
    let all = Arc::new(Machines::default());
    run(&world, &all).await.unwrap();
    let queries = all.asked.lock().len() as u32;
    for short in 1..=queries {
        let machines = Arc::new(Machines { short, ..Machines::default() });
        let error = run(&world, &machines).await.unwrap_err().to_string();
        let what = if short <= 2 { "looked at" } else { "counted" };
        assert!(error.contains(&format!("2024-01-10: the cluster has {what}")), "query {short} of {queries}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_is_asked_again_twice() {
    let (world, all) = hundred().await;
    let failing = Arc::new(Machines { failing: AtomicU32::new(2), ..Machines::default() });
    run(&world, &failing).await.unwrap();
    assert_eq!(world.counts().await, KEPT.count(&all));
    assert_eq!(failing.asked.lock().len(), 4, "one query three times, the other once");
    let gone = Arc::new(Machines { failing: AtomicU32::new(3), ..Machines::default() });
    assert!(run(&world, &gone).await.unwrap_err().in_full().contains("the machine is gone"));
}
