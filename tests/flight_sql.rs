//! Arrow Flight SQL: the real binary, asked by the client of the `arrow-flight` crate.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo,
    SqlInfo,
};
use arrow_flight::{CancelFlightInfoRequest, CancelStatus, FlightClient, FlightInfo, IpcMessage, Ticket};
use futures::TryStreamExt as _;
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::harness::{RUNTIME, Server};

type Client = FlightSqlServiceClient<Channel>;

/// Rows that nobody reads to their end.
const MANY: &str = "select value from generate_series(1, 100000000000)";

async fn channel(server: &Server) -> Channel {
    let ready = server.get_in("/readyz").await;
    let address = ready["listens"]["flight_sql"].as_str().unwrap_or_else(|| panic!("no Flight SQL in {ready}"));
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

async fn client(server: &Server) -> Client {
    Client::new(channel(server).await)
}

fn ticket(info: &FlightInfo) -> Ticket {
    info.endpoint[0].ticket.clone().unwrap()
}

async fn rows(client: &mut Client, info: &FlightInfo) -> Result<Vec<RecordBatch>, FlightError> {
    client.do_get(ticket(info)).await?.try_collect().await
}

async fn ask(client: &mut Client, query: &str) -> Result<Vec<RecordBatch>, FlightError> {
    let info = client.execute(query.to_owned(), None).await?;
    rows(client, &info).await
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn texts(batches: &[RecordBatch], column: usize) -> Vec<String> {
    let text = |batch: &RecordBatch| -> Vec<String> {
        let column = batch.column(column).as_string::<i32>();
        (0..column.len()).map(|row| column.value(row).to_owned()).collect()
    };
    batches.iter().flat_map(text).collect()
}

fn code(error: &FlightError) -> Code {
    match error {
        FlightError::Tonic(status) => status.code(),
        other => panic!("{other} has no status"),
    }
}

fn loaded() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let event = |id: u32, entity: &str| json!({"event_id": id.to_string(), "event_type": "view", "entity_id": entity, "event_time": "2013-02-08T21:29:10Z"});
    let events = json!([event(1, "a"), event(2, "a"), event(3, "b")]);
    let (status, receipt) = server.post("/v1/events", &events);
    assert_eq!(status, 200, "{receipt}");
    server.wait_counted();
    (dir, server)
}

#[test]
fn rows_come_with_their_provenance() {
    let (_dir, server) = loaded();
    RUNTIME.block_on(async {
        let mut client = client(&server).await;
        let query = "select entity_id, cast(sum(count) as bigint) as n from stats group by 1 order by 1";
        let info = client.execute(query.to_owned(), None).await.unwrap();
        let mut stream = client.do_get(ticket(&info)).await.unwrap();
        assert_eq!(stream.headers().get("reckon-complete").unwrap(), "true");
        let mut batches = Vec::new();
        while let Some(batch) = stream.try_next().await.unwrap() {
            batches.push(batch);
        }
        assert_eq!(texts(&batches, 0), ["a", "b"]);
        let counts: Vec<i64> =
            batches.iter().flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(counts, [2, 1]);
        let schema = stream.schema().unwrap();
        assert_eq!(schema.field(0).data_type(), &DataType::Utf8, "every client knows that");
        assert_eq!(schema.metadata()["reckon-complete"], "true");
        let provenance: Value = serde_json::from_str(&schema.metadata()["reckon-provenance"]).unwrap();
        assert_eq!((&provenance["complete"], &provenance["source"]), (&json!(true), &json!("counts")), "{provenance}");
        let described = client.inner_mut().get_schema(info.flight_descriptor.clone().unwrap()).await.unwrap();
        let described = Schema::try_from(described.into_inner()).unwrap();
        let columns = |schema: &Schema| -> Vec<(String, DataType)> {
            schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
        };
        assert_eq!(columns(&described), columns(schema));
    });
}

/// Of a server that lacks minutes of `stats`.
pub fn tells_what_is_missing(server: &Server) {
    RUNTIME.block_on(async {
        let mut client = client(server).await;
        let query = "select cast(sum(count) as bigint) from stats";
        let info = client.execute(query.to_owned(), None).await.unwrap();
        let mut stream = client.do_get(ticket(&info)).await.unwrap();
        assert_eq!(stream.headers().get("reckon-complete").unwrap(), "false");
        while stream.try_next().await.unwrap().is_some() {}
        assert_eq!(stream.schema().unwrap().metadata()["reckon-complete"], "false");
        client.set_header("reckon-complete-only", "true");
        let refused = client.do_get(ticket(&info)).await.err().unwrap();
        assert_eq!(code(&refused), Code::Unavailable, "{refused}");
        let whole = ask(&mut client, "select cast(sum(count) as bigint) from stats_hour").await.unwrap();
        assert_eq!(numbers(&whole).len(), 1);
    });
}

/// Over REST `serving.rows_max` cuts an answer and says so; here nothing would say it.
#[test]
fn all_rows_come_however_many() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--serving-rows-max", "10"]);
    RUNTIME.block_on(async {
        let mut client = client(&server).await;
        let batches = ask(&mut client, "select value from generate_series(1, 50000) order by value").await.unwrap();
        assert_eq!(numbers(&batches), (1..=50_000).collect::<Vec<i64>>());
    });
}

#[test]
fn parameters_are_bound_and_checked() {
    let (_dir, server) = loaded();
    RUNTIME.block_on(async {
        let mut client = client(&server).await;
        let query = "select cast(coalesce(sum(count), 0) as bigint) from stats where entity_id = $1 and count >= $2";
        let mut prepared = client.prepare(query.to_owned(), None).await.unwrap();
        assert_eq!(prepared.parameter_schema().unwrap().fields().len(), 2);
        assert_eq!(prepared.dataset_schema().unwrap().fields().len(), 1);
        let unbound = prepared.execute().await.unwrap_err();
        assert_eq!(code(&unbound), Code::InvalidArgument);
        for (entity, least, expected) in [("a", 1, 2), ("b", 1, 1), ("b", 2, 0), ("nobody", 0, 0)] {
            let entity: ArrayRef = Arc::new(StringArray::from(vec![entity]));
            let least: ArrayRef = Arc::new(Int64Array::from(vec![least]));
            let values = RecordBatch::try_from_iter([("$1", entity), ("$2", least)]).unwrap();
            prepared.set_parameters(values).unwrap();
            let info = prepared.execute().await.unwrap();
            assert_eq!(numbers(&rows(&mut client, &info).await.unwrap()), [expected]);
        }
        let one: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        prepared.set_parameters(RecordBatch::try_from_iter([("$1", one)]).unwrap()).unwrap();
        let few = prepared.execute().await.unwrap_err();
        assert_eq!(code(&few), Code::InvalidArgument);
        assert!(few.to_string().contains("the query has 2"), "{few}");
        let (two, least): (ArrayRef, ArrayRef) =
            (Arc::new(StringArray::from(vec!["a", "b"])), Arc::new(Int64Array::from(vec![1, 1])));
        prepared.set_parameters(RecordBatch::try_from_iter([("$1", two), ("$2", least)]).unwrap()).unwrap();
        assert!(prepared.execute().await.unwrap_err().to_string().contains("once for each"));
        prepared.close().await.unwrap();
    });
}

#[test]
fn tables_and_columns_are_described() {
    let (_dir, server) = loaded();
    RUNTIME.block_on(async {
        let mut client = client(&server).await;
        let wanted = |pattern: &str, kinds: &[&str], include_schema| CommandGetTables {
            catalog: None,
            db_schema_filter_pattern: Some("public".to_owned()),
            table_name_filter_pattern: Some(pattern.to_owned()),
            table_types: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            include_schema,
        };
        let info = client.get_tables(wanted("stats%", &[], false)).await.unwrap();
        let tables = rows(&mut client, &info).await.unwrap();
        for name in ["stats", "stats_hour", "stats_day", "stats_batch", "stats_stream"] {
            assert!(texts(&tables, 2).iter().any(|table| table == name), "{name} in {tables:?}");
        }
        let info = client.get_tables(wanted("stats", &[], true)).await.unwrap();
        let tables = rows(&mut client, &info).await.unwrap();
        assert_eq!(texts(&tables, 2), ["stats"]);
        let columns = tables[0].column(4).as_binary::<i32>().value(0).to_vec();
        let columns = Schema::try_from(IpcMessage(columns.into())).unwrap();
        assert_eq!(columns.field_with_name("entity_id").unwrap().data_type(), &DataType::Utf8);
        assert!(columns.field_with_name("count").is_ok());
        let info = client.get_tables(wanted("%", &["NO SUCH TYPE"], false)).await.unwrap();
        assert_eq!(texts(&rows(&mut client, &info).await.unwrap(), 2), Vec::<String>::new());

        let info = client.get_catalogs().await.unwrap();
        assert_eq!(texts(&rows(&mut client, &info).await.unwrap(), 0).len(), 1);
        let all = CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: None };
        let info = client.get_db_schemas(all).await.unwrap();
        let schemas = texts(&rows(&mut client, &info).await.unwrap(), 1);
        assert!(schemas.iter().any(|schema| schema == "public"), "{schemas:?}");
        let info = client.get_table_types().await.unwrap();
        assert!(texts(&rows(&mut client, &info).await.unwrap(), 0).iter().any(|kind| kind == "VIEW"));
    });
}

#[test]
fn the_server_is_described() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    RUNTIME.block_on(async {
        let mut client = client(&server).await;
        let info = client.get_sql_info(vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerReadOnly]).await;
        let told = rows(&mut client, &info.unwrap()).await.unwrap();
        assert_eq!(told[0].num_rows(), 2);
        let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
        let types = texts(&rows(&mut client, &info).await.unwrap(), 0);
        assert!(types.iter().any(|name| name == "VARCHAR"), "{types:?}");
        let keys = CommandGetPrimaryKeys { catalog: None, db_schema: None, table: "stats".to_owned() };
        let info = client.get_primary_keys(keys).await.unwrap();
        let keys = rows(&mut client, &info).await.unwrap();
        assert_eq!(keys.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
        let info = client.get_cross_reference(CommandGetCrossReference::default()).await.unwrap();
        let keys = rows(&mut client, &info).await.unwrap();
        assert_eq!(keys.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    });
}

#[test]
fn an_older_version_is_asked_for_by_a_header() {
    let (_dir, server) = loaded();
    server.batch();
    let version = server.sql("select 1 from stats")["provenance"]["batch_version"].clone();
    let late = json!({"event_id": "4", "event_type": "view", "entity_id": "b", "event_time": "2013-02-08T21:29:30Z"});
    assert_eq!(server.post("/v1/events", &late).0, 200);
    server.batch();
    RUNTIME.block_on(async {
        let mut client = client(&server).await;
        let query = "select cast(sum(count) as bigint) from stats";
        assert_eq!(numbers(&ask(&mut client, query).await.unwrap()), [4]);
        client.set_header("reckon-as-of", format!("version:{version}"));
        let info = client.execute(query.to_owned(), None).await.unwrap();
        assert_eq!(numbers(&rows(&mut client, &info).await.unwrap()), [3]);
        client.set_header("reckon-as-of", "yesterday");
        let error = ask(&mut client, query).await.unwrap_err();
        assert_eq!(code(&error), Code::InvalidArgument);
        assert!(error.to_string().contains("as_of: "), "{error}");
        // What GetFlightInfo was asked with stands in the ticket.
        let mut plain = self::client(&server).await;
        assert_eq!(numbers(&rows(&mut plain, &info).await.unwrap()), [3]);
    });
}

#[test]
fn refusals_have_their_status() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--serving-query-time", "300ms"]);
    RUNTIME.block_on(async {
        let mut client = client(&server).await;
        for query in ["select", "select * from nothing", "drop table stats", "insert into stats values (1)"] {
            let error = ask(&mut client, query).await.unwrap_err();
            assert_eq!(code(&error), Code::InvalidArgument, "{query}: {error}");
            let FlightError::Tonic(status) = &error else { panic!("{error}") };
            assert_eq!(status.metadata().get("reckon-field").unwrap(), "query", "{query}");
        }
        let slow = "select count(*) from generate_series(1, 300000) a, generate_series(1, 300000) b where a.value + b.value = 7";
        assert_eq!(code(&ask(&mut client, slow).await.unwrap_err()), Code::DeadlineExceeded);
        let update = client.execute_update("delete from stats".to_owned(), None).await.unwrap_err();
        assert_eq!(code(&update), Code::Unimplemented);
        assert_eq!(code(&client.begin_transaction().await.unwrap_err()), Code::Unimplemented);
        let forged = client.do_get(Ticket::new("select 1")).await.err().unwrap();
        assert_eq!(code(&forged), Code::InvalidArgument);
        client.set_header("reckon-complete-only", "perhaps");
        assert_eq!(code(&ask(&mut client, "select 1").await.unwrap_err()), Code::InvalidArgument);
        client.set_header("reckon-complete-only", "true");
        assert_eq!(numbers(&ask(&mut client, "select 1").await.unwrap()), [1]);
    });
    let metrics = server.get("/metrics");
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("reckon_flight_sql_errors_total{code=\"DeadlineExceeded\"} 1\n"), "{metrics}");
}

#[test]
fn a_ticket_is_answered_by_any_node() {
    let (_dir, server) = loaded();
    let other_dir = tempfile::tempdir().unwrap();
    let other = Server::start(other_dir.path());
    RUNTIME.block_on(async {
        let mut one = client(&server).await;
        let query = "select cast(coalesce(sum(count), 0) as bigint) + $1 from stats".to_owned();
        let mut prepared = one.prepare(query, None).await.unwrap();
        let value: ArrayRef = Arc::new(Int64Array::from(vec![10]));
        prepared.set_parameters(RecordBatch::try_from_iter([("$1", value)]).unwrap()).unwrap();
        let info = prepared.execute().await.unwrap();
        assert_eq!(numbers(&rows(&mut one, &info).await.unwrap()), [13]);
        let mut two = client(&other).await;
        assert_eq!(numbers(&rows(&mut two, &info).await.unwrap()), [10], "it has no events");
    });
}

#[test]
fn what_runs_is_cancelled_by_word_and_by_leaving() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let streams = |number: u32| {
        let line = format!("reckon_flight_sql_streams {number}\n");
        server.wait_until(&line, || server.get("/metrics").as_str().unwrap().contains(&line));
    };
    RUNTIME.block_on(async {
        let mut client = client(&server).await;
        let info = client.execute(MANY.to_owned(), None).await.unwrap();
        let mut stream = client.do_get(ticket(&info)).await.unwrap();
        assert!(stream.try_next().await.unwrap().is_some());
        let mut words = FlightClient::new(channel(&server).await);
        let cancelled = words.cancel_flight_info(CancelFlightInfoRequest::new(info.clone())).await.unwrap();
        assert_eq!(cancelled.status, CancelStatus::Cancelled as i32);
        let error = loop {
            match stream.try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a part of the rows looks like all of them"),
                Err(error) => break error,
            }
        };
        assert_eq!(code(&error), Code::Cancelled);
    });
    streams(0);
    RUNTIME.block_on(async {
        let mut client = client(&server).await;
        let info = client.execute(MANY.to_owned(), None).await.unwrap();
        let mut stream = client.do_get(ticket(&info)).await.unwrap();
        assert!(stream.try_next().await.unwrap().is_some());
        let mut words = FlightClient::new(channel(&server).await);
        drop((stream, client));
        let request = CancelFlightInfoRequest::new(info);
        loop {
            let status = words.cancel_flight_info(request.clone()).await.unwrap().status;
            if status == CancelStatus::NotCancellable as i32 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    streams(0);
}

#[test]
fn a_server_with_an_open_stream_stops_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let stream = RUNTIME.block_on(async {
        let mut client = client(&server).await;
        let info = client.execute(MANY.to_owned(), None).await.unwrap();
        let mut stream = client.do_get(ticket(&info)).await.unwrap();
        assert!(stream.try_next().await.unwrap().is_some());
        stream
    });
    let took = server.terminate();
    assert!(took.as_secs() < 15, "{took:?}");
    drop(stream);
}

#[test]
fn an_address_that_somebody_chose_must_be_had() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut up = crate::harness::command();
    up.args(["up", "--listen", "127.0.0.1:0", "--serving-flight-sql", &address, "--data-dir"]).arg(dir.path());
    let output = up.output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("--serving-flight-sql") && error.contains(&address), "{error}");
}
