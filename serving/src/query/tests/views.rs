//! The view that an answer is made of: which batch version it has, what is settled in it, and what of it is in memory.

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use reckon_data::minute::MICROS_PER_DAY;
use tokio::sync::Notify;

use super::*;
use crate::view::State;

#[tokio::test]
async fn a_new_batch_version_is_swapped_in_and_told() {
    let world = World::new(small());
    world.batch(&[1, 0]).await;
    let serving = world.serve().await;
    let before = serving.count(&question("v1", None, 0, MICROS_PER_DAY)).await.unwrap();
    assert_eq!((before.batch, before.stream), (1, 2));
    world.batch(&[3, 0]).await;
    serving.refresh().await.unwrap();
    let after = serving.count(&question("v1", None, 0, MICROS_PER_DAY)).await.unwrap();
    assert_eq!(
        (after.batch, after.stream, after.provenance.batch_version),
        (2, 1, before.provenance.batch_version + 1)
    );
    assert_eq!(world.tails.state.lock().covered, BTreeMap::from([(0, 3), (1, 0)]));
}

#[tokio::test]
async fn a_tail_that_is_gone_is_asked_for_again_with_a_newer_view() {
    let world = World::new(small());
    world.batch(&[1, 0]).await;
    let serving = world.serve().await;
    serving.stop();
    world.batch(&[3, 0]).await;
    world.tails.state.lock().gone_below.insert(0, 3);
    let answer = serving.count(&question("v1", None, 0, MICROS_PER_DAY)).await.unwrap();
    assert_eq!((answer.batch, answer.stream, answer.provenance.complete), (2, 1, true));
    let listed =
        serving.top(&TopQuery { event_type: None, n: 5, from: 0, to: MICROS_PER_DAY, filter: None }).await.unwrap();
    assert_eq!(listed.entities[0].count, 3);
}

#[tokio::test]
async fn minutes_before_the_watermark_are_settled() {
    let world = World::new(Log(vec![vec![one("a", 10)], vec![]]));
    // Ten seconds later: until then records may be on their way.
    let now = start_of_minute(10) + 10_000_000;
    world.clock.set(now);
    world.tails.state.lock().log_time = now;
    let serving = world.serve().await;
    let settled = serving.count(&question("v1", None, 0, start_of_minute(9))).await.unwrap();
    assert_eq!((settled.provenance.state, settled.provenance.watermark), (State::Settled, Some(start_of_minute(9))));
    let corrected = World::new(Log(vec![vec![one("a", 5), one("b", 6)], vec![]]));
    corrected.clock.set(now);
    let corrected = corrected.serve().await.count(&question("v1", None, 0, start_of_minute(9))).await.unwrap();
    assert_eq!((corrected.provenance.state, corrected.provenance.late), (State::Corrected, Some(1)));
    let provisional = serving.count(&question("v1", None, 0, start_of_minute(9) + 1)).await.unwrap();
    assert_eq!((provisional.provenance.state, provisional.window.to), (State::Provisional, start_of_minute(10)));
}

#[tokio::test]
async fn a_definition_that_has_changed_is_told() {
    let mut world = World::new(small());
    world.batch(&[1, 0]).await;
    world.definition.metrics = vec![Function::Count];
    let serving = world.serve().await;
    assert!(serving.count(&question("v1", None, 0, MICROS_PER_DAY)).await.unwrap().provenance.definitions_mixed);
    assert!(
        !serving
            .count(&question("v1", None, 2 * MICROS_PER_DAY, 3 * MICROS_PER_DAY))
            .await
            .unwrap()
            .provenance
            .definitions_mixed
    );
    let query = StatsQuery {
        entity: "v1".to_owned(),
        event_type: None,
        function: Function::Sum,
        from: 0,
        to: 1,
        step: Step::HOUR,
        filter: None,
    };
    assert!(matches!(serving.stats(&query).await, Err(ServingError::BadRequest { field: "function", .. })));
}

/// Windows that end now must not wait for files, even when not everything fits memory.
#[tokio::test]
async fn what_windows_up_to_now_are_made_of_is_held_in_memory() {
    use futures::TryStreamExt as _;
    use object_store::ObjectStoreExt as _;
    let event = |n: i64| Ev {
        id: format!("e{n}"),
        entity: format!("v{}", n % 5),
        event_type: "view",
        minute: n * 7 % 2_880,
        country: None,
        ip: None,
        value: None,
    };
    let log = Log(vec![(0..500).map(event).collect()]);
    let mut world = World::new(log.clone());
    // Room for the roll-ups and some hours of minutes, not for a date's minutes: runs as small as these take more than is
    // reckoned with, so that more room would be overdrawn.
    world.settings.index_memory = ByteSize::b(20_000);
    let now = 36 * 60 + 30;
    world.clock.set(start_of_minute(now));
    world.batch(&[500]).await;
    let serving = world.serve().await;
    serving.stop();
    serving.index.warm(&serving.current.get(), None, start_of_minute(now)).await;
    for file in world.store.list(None).try_collect::<Vec<_>>().await.unwrap() {
        world.store.delete(&file.location).await.unwrap();
    }
    for length in [60, 1_440] {
        let minutes = now - length..now + 1;
        let query = question("v1", None, start_of_minute(minutes.start), start_of_minute(minutes.end));
        let counted = log.all().into_iter().filter(|event| event.entity == "v1" && minutes.contains(&event.minute));
        assert_eq!(serving.count(&query).await.unwrap().batch, counted.count() as u64, "{length} minutes");
    }
}

/// A store that never gives the files of one date, and says that it was asked for one.
#[derive(Debug)]
struct Stuck {
    inner: Arc<dyn ObjectStore>,
    date: &'static str,
    asked: Notify,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stuck")
    }
}

#[async_trait]
impl ObjectStore for Stuck {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult, Error> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>, Error> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult, Error> {
        if location.as_ref().contains(self.date) {
            self.asked.notify_one();
            return std::future::pending().await;
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path, Error>>,
    ) -> BoxStream<'static, Result<Path, Error>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta, Error>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult, Error> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<(), Error> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_version_does_not_wait_for_older_dates() {
    // An event on each of four dates, and another on the last.
    let event = |n: i64| one(&format!("e{n}"), 1_440 * n.min(3));
    let mut world = World::new(Log(vec![(0..5).map(event).collect()]));
    world.batch(&[4]).await;
    let stuck =
        Arc::new(Stuck { inner: Arc::clone(&world.store), date: "event_date=1970-01-01", asked: Notify::new() });
    world.store = Arc::<Stuck>::clone(&stuck);
    let serving = world.serve().await;
    let minute = Duration::from_secs(60);
    tokio::time::timeout(minute, stuck.asked.notified()).await.expect("the oldest date is loaded, too");
    world.batch(&[5]).await;
    let newer = async {
        while serving.current.get().coverage != [5] {
            tokio::time::sleep(REFRESH_EVERY).await;
        }
    };
    tokio::time::timeout(minute, newer).await.expect("the new version is there");
}
