//! What the log's own retention removed before anybody had counted or archived it: it is said, and all else is counted.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use reckon_data::clock::{RandomNames, SystemClock};
use reckon_data::log::Log as _;
use reckon_data::record::{Body, decode};
use reckon_fluvio::{Address, FluvioLog, Options};
use serde_json::{Value, json};

use super::{EVENTS, SERVING, batch, start_import, wait_for, write_events};
use crate::harness::{RUNTIME, Roles, Server, command, number, rows, run_ok};

const TOPIC: &str = "events";
const PARTITIONS: u32 = 4;
/// The least that has room for whatever a gateway appends at once.
const FILE_BYTES: u32 = 2 << 20;

/// Something that an answer lacks: of what, of which partition, up to which offset.
type Lack = (String, u64, u64);

/// A count, and what the answer says it lacks; none when it was no answer, or lacks something that has no end.
fn told(server: &Server, query: &str) -> Option<(u64, Vec<Lack>)> {
    let (status, answer) = server.post("/v1/sql", &json!({ "query": query }));
    if status != 200 {
        return None;
    }
    let missing = answer["provenance"]["missing"].as_array()?;
    assert_eq!(answer["provenance"]["complete"], missing.is_empty(), "{answer}");
    let lack =
        |lack: &Value| Some((lack["what"].as_str()?.to_owned(), lack["partition"].as_u64()?, lack["to"].as_u64()?));
    Some((number(&rows(&answer)[0][0]), missing.iter().map(lack).collect::<Option<_>>()?))
}

/// Where the log's partitions begin, and how many events they hold, read record by record.
async fn read_log(roles: &Roles) -> (Vec<u64>, u64) {
    let address = Address::parse(&roles.log.url(TOPIC)).unwrap();
    let options = Options { address, partitions: PARTITIONS, replicas: 1, keep: Duration::ZERO, foreign: false };
    let log = FluvioLog::open(options, roles.store("logs"), Arc::new(SystemClock), &RandomNames).await.unwrap();
    let (mut starts, mut events) = (Vec::new(), 0);
    for partition in 0..PARTITIONS {
        let Range { start, end } = log.extent(partition).await.unwrap();
        let mut next = start;
        while next < end {
            for stored in log.read(partition, next, 1 << 20).await.unwrap() {
                assert_eq!(stored.offset, next);
                next += 1;
                if let Body::Events(found) = decode(&stored.bytes).unwrap().body {
                    events += found.len() as u64;
                }
            }
        }
        starts.push(start);
    }
    (starts, events)
}

/// What `reckon log accept` says.
fn accept(roles: &Roles, arguments: &[&str]) -> Value {
    let mut accept = command();
    roles.data_of(accept.args(["log", "accept", "--json"]).args(arguments));
    serde_json::from_slice(&run_ok(&mut accept).stdout).unwrap()
}

#[test]
fn what_had_gone_from_the_log_is_said_and_all_else_is_counted() {
    let Some(mut roles) = Roles::start_none("records that had gone from the log") else { return };
    let dir = tempfile::tempdir().unwrap();
    roles.log.make_topic(TOPIC, PARTITIONS, FILE_BYTES);
    ["gateway-1", "gateway-2"].into_iter().for_each(|name| roles.start_one(name));
    assert!(start_import(&roles, &write_events(dir.path(), 0)).wait().unwrap().success());
    roles.log.lose_oldest(TOPIC, 0..PARTITIONS);
    let (starts, left) = RUNTIME.block_on(read_log(&roles));
    assert!(starts.iter().all(|start| *start > 0), "nothing had gone: the log begins at {starts:?}");
    assert!((1..EVENTS).contains(&left), "{left} events are left");

    roles.start_rest();
    let is_told = |query: &str, what: &str| {
        let gone: Vec<Lack> = (0..).zip(&starts).map(|(partition, to)| (what.to_owned(), partition, *to)).collect();
        let expected = Some((left, gone));
        for name in SERVING {
            let server = roles.of(name);
            server.wait_until(&format!("{name}: {query}: {expected:?}"), || told(server, query) == expected);
        }
    };
    let counts = "select coalesce(sum(count), 0) from stats";
    is_told(counts, "stream_counts");
    let report = batch(roles.of("serve-1"), &["--engine", "local"]);
    assert_eq!((number(&report["events"]), number(&report["duplicates"])), (left, 0), "{report}");
    let all = [counts, "select coalesce(sum(count), 0) from stats_batch", "select count(*) from events"];
    all.iter().for_each(|query| is_told(query, "events"));

    let lost = |accepted: bool| {
        let of = |(at, to): (u32, &u64)| json!({ "partition": at, "records": to, "to": to, "accepted": accepted });
        json!({ "lost": (0..PARTITIONS).zip(&starts).map(of).collect::<Vec<Value>>() })
    };
    assert_eq!(accept(&roles, &[]), lost(false));
    all.iter().for_each(|query| is_told(query, "events"));
    assert_eq!(accept(&roles, &["--yes"]), lost(true));
    wait_for(&roles, left);

    assert!(start_import(&roles, &write_events(dir.path(), 1)).wait().unwrap().success());
    wait_for(&roles, left + EVENTS);
    let report = batch(roles.of("serve-1"), &[]);
    assert_eq!((number(&report["events"]), number(&report["duplicates"])), (left + EVENTS, 0), "{report}");
    wait_for(&roles, left + EVENTS);
    println!("the log began at {starts:?}: {left} of {EVENTS} events counted, and {EVENTS} more, exact");
}
